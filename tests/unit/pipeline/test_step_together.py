# SPDX-License-Identifier: Apache-2.0
"""Many objects on one frame: they hop together, and the frame shows them all, first or last."""

from __future__ import annotations

from tests.support.bench import Bench, still

from foreseg.config import Config, TrackerConfig
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameRef
from foreseg.pipeline.events import ObjectsAdded, TrackerFailed
from foreseg.prompts import ObjectId, SpatialPrompt

NAMES = ("a", "b", "c", "d", "e", "f")


def many(**fields: Config) -> Bench:
    """Half a second of a camera that is silent from then on, with six objects in view."""
    bench = Bench({name: still(14 * i, 10) for i, name in enumerate(NAMES)}, **fields)
    bench.run(0.5)
    return bench


def newest(bench: Bench) -> FrameRef:
    return bench.refs[DEFAULT_CAMERA, bench.num_frames[DEFAULT_CAMERA] - 1]


def test_prompts_on_one_frame_hop_in_one_job_and_each_has_its_mask_on_that_frame() -> None:
    bench = many()
    bench.point("a")  # on the newest frame, which was published long ago: it hops at once,
    requests = [bench.point(name) for name in NAMES[1:]]  # and these behind it, together
    first_job = bench.state.next_job
    bench.work(1.0)
    assert bench.state.next_job == first_job + 1
    assert all(bench.replies[request].success for request in requests)
    shown = [(m.frame, len(m.tracks)) for m in bench.masks[-2:]]
    assert shown == [(newest(bench), 1), (newest(bench), 6)]


def test_prompts_that_come_before_their_frame_are_published_with_it_once() -> None:
    bench = many()
    index = FrameIndex(bench.num_frames[DEFAULT_CAMERA])
    for name in NAMES:
        box = bench.world[name](0)
        assert box is not None
        bench.send(
            ObjectsAdded(
                camera=DEFAULT_CAMERA,
                frame_index=index,
                object_ids=(ObjectId(name),),
                prompts=(SpatialPrompt(box=box),),
                request_id=bench._request(),
                at_ns=bench.now_ns,
            )
        )
    bench.frame()
    bench.work(1.0)
    assert [len(m.tracks) for m in bench.masks if m.frame.index == index] == [6]


def test_no_more_new_objects_hop_together_than_there_may_be_tracks() -> None:
    config = Config(tracker=TrackerConfig(max_tracks=2))
    bench = many(config=config)
    requests = [bench.point(name) for name in NAMES]
    bench.work(1.0)
    assert [bench.replies[r].success for r in requests] == [True, True, *[False] * 4]
    assert bench.replies[requests[-1]].message == "no track is free"
    assert bench.tracker[DEFAULT_CAMERA].max_rows_seen <= config.tracker.max_rows


def test_one_object_twice_does_not_hop_together_with_itself() -> None:
    bench = many()
    for name in ("a", "b", "c"):
        bench.point(name, "mug")
    bench.work(1.0)
    (track,) = bench.masks[-1].tracks
    assert (track.object_id, track.box) == ("mug", bench.world["c"](0))


def test_two_answers_on_one_keyframe_that_name_the_same_are_one_track() -> None:
    world = {"ball": still(30, 20), "cup": still(70, 40)}
    bench = Bench(world, reasoner_s=0.01, tracker_s=0.5)
    bench.run(1.1)
    bench.point("cup", "cup")  # the tracker is busy while both answers come
    for query_id in ("q", "r"):
        bench.ask(query_id=query_id)
        bench.work(0.1)
    assert len(bench.state.arrivals) == 2
    assert len({a.keyframe_index for a in bench.state.arrivals}) == 1
    bench.work(2.0)
    assert [t.query_ids for t in bench.masks[-1].tracks] == [(), ("q", "r")]


def test_a_job_that_fails_fails_only_the_prompt_whose_fault_it_was() -> None:
    bench = many()
    bench.point("a")
    bench.work(1.0)
    requests = {name: bench.point(name, name) for name in ("b", "c", "d")}
    while (running := bench.state.running) is not None:
        if any("c" in arrival.object_ids for arrival in running.arrivals):
            bench._queue.clear()
            failed = TrackerFailed(
                job_id=running.job.id, reason="a bad c", is_evicted=False, at_ns=bench.now_ns
            )
            bench.send(failed)
        else:
            bench.work(bench.tracker_s)
    assert {name: bench.replies[r].success for name, r in requests.items()} == {
        "b": True,
        "c": False,
        "d": True,
    }
    assert bench.replies[requests["c"]].message == "a bad c"
    assert [t.object_id for t in bench.masks[-1].tracks] == ["object-1", "b", "d"]
    assert set(bench.tracker[DEFAULT_CAMERA].rows) >= {"object-1", "b", "d"}


def test_a_query_removed_while_its_answer_hops_with_another_takes_only_its_own_along() -> None:
    bench = Bench({"ball": still(30, 20), "cup": still(70, 40)}, reasoner_s=0.01, tracker_s=0.5)
    bench.run(1.1)
    bench.point("cup", "cup")
    bench.ask()
    bench.work(0.1)
    request = bench.point("cup", "twin")
    bench.work(0.6)
    assert bench.state.running is not None
    assert len(bench.state.running.arrivals) == 2
    bench.forget()
    bench.work(2.0)
    assert bench.replies[request].success
    assert [t.object_id for t in bench.masks[-1].tracks] == ["cup", "twin"]
    bench.run(1.0)
    assert set(bench.tracker[DEFAULT_CAMERA].rows) == {"cup", "twin"}
    assert bench.held == set()


def test_an_answer_after_the_last_frame_is_published_on_that_frame() -> None:
    bench = Bench({"cup": still(10, 10)}, reasoner_s=1.0)
    bench.run(1.1)
    bench.ask()
    bench.work(3.0)  # the camera is silent from now on
    assert [m.frame for m in bench.masks[-2:]] == [newest(bench)] * 2
    assert [len(m.tracks) for m in bench.masks[-2:]] == [0, 1]
    num_masks = len(bench.masks)
    bench.ask(query_id="r")  # the same object, for another query
    bench.work(3.0)
    assert bench.masks[-1].tracks[0].query_ids == ("q", "r")
    assert len(bench.masks) == num_masks + 1
    bench.ask(query_id="r")  # nothing new
    bench.work(3.0)
    assert len(bench.answers) == 3
    assert len(bench.masks) == num_masks + 1
