# SPDX-License-Identifier: Apache-2.0
"""Objects that users point at: refined, removed, refused, on past frames."""

from __future__ import annotations

from tests.support.bench import Bench, moving, still

from foreseg.geometry import BoxXyxy
from foreseg.pipeline.events import (
    RequestId,
)
from foreseg.pipeline.tracks import TrackState


def remove(bench: Bench, object_id: str) -> bool:
    from foreseg.pipeline.events import ObjectRemoved
    from foreseg.prompts import ObjectId

    request = RequestId(10_000 + len(bench.log))
    bench.send(
        ObjectRemoved(object_id=ObjectId(object_id), request_id=request, at_ns=bench.now_ns)
    )
    return bench.replies[request].success


def test_removing_what_is_not_there_is_refused_with_what_is() -> None:
    bench = Bench({"a": still(5, 5)})
    bench.run(0.2)
    assert remove(bench, "a") is False
    bench.point("a", "a")
    bench.run(0.2)
    assert remove(bench, "a") is True
    bench.run(0.2)
    assert bench.tracker["camera"].rows == {} or bench.masks[-1].tracks == ()


def test_a_refined_object_keeps_its_id_and_label() -> None:
    bench = Bench({"a": still(5, 5), "b": still(40, 5)})
    bench.run(0.2)
    bench.point("a", "it")
    bench.run(0.2)
    bench.point("b", "it")
    bench.run(0.2)
    tracks = bench.masks[-1].tracks
    assert [(t.object_id, t.index, t.box) for t in tracks] == [("it", 1, BoxXyxy(40, 5, 50, 15))]


def test_a_prompt_on_a_past_frame_hops_and_catches_up_like_an_answer() -> None:
    bench = Bench({"ball": moving})
    bench.run(2.0)
    bench.point("ball", "it", frame_index=10)
    bench.run(0.1)
    first = next(m for m in bench.masks if m.tracks)
    assert first.tracks[0].state is TrackState.UNCERTAIN
    bench.run(3.0)
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED


def test_more_objects_than_tracks_are_refused() -> None:
    bench = Bench({"a": still(5, 5)})
    bench.run(0.2)
    replies = [bench.point("a", f"id{i}") for i in range(9)]
    bench.run(1.0)
    assert [bench.replies[r].success for r in replies] == [True] * 8 + [False]


def test_labels_rest_before_they_are_used_again() -> None:
    bench = Bench({"a": still(5, 5), "b": still(40, 5), "c": still(70, 5)})
    bench.run(0.2)
    bench.point("a", "a")
    bench.point("b", "b")
    bench.run(0.2)
    remove(bench, "a")
    bench.run(0.2)
    bench.point("c", "c")
    bench.run(0.2)
    assert {t.object_id: t.index for t in bench.masks[-1].tracks} == {"b": 2, "c": 3}
    bench.run(3.0)
    bench.point("a", "a")
    bench.run(0.2)
    assert {t.object_id: t.index for t in bench.masks[-1].tracks} == {"a": 1, "b": 2, "c": 3}
