# SPDX-License-Identifier: Apache-2.0
"""Which query is asked when."""

from __future__ import annotations

import pytest

from foreseg.config import SchedulerConfig
from foreseg.dialogue import Query, QueryId
from foreseg.frames import CameraId, FrameIndex, FrameRef
from foreseg.pipeline import scheduler
from foreseg.pipeline.state import CameraState, StandingQuery
from foreseg.pipeline.tracks import NS, LabelPool

CONFIG = SchedulerConfig(max_queries=2, warm_up_s=1.0)


def query(name: str, period_s: float = 0.0, camera: str = "camera") -> Query:
    return Query(
        id=QueryId(name), text=f"which {name}?", period_s=period_s, camera=CameraId(camera)
    )


def standing(
    name: str, due_s: float = 0, asked_s: float = 0, period_s: float = 5.0, camera: str = "camera"
) -> StandingQuery:
    return StandingQuery(
        query=query(name, period_s, camera),
        due_ns=round(due_s * NS),
        last_asked_ns=round(asked_s * NS),
    )


def camera(name: str = "camera", first_s: float = 0, newest_s: float | None = 5) -> CameraState:
    newest = None
    if newest_s is not None:
        newest = FrameRef(
            camera=CameraId(name),
            index=FrameIndex(0),
            epoch=0,
            stamp_ns=round(newest_s * NS),
            received_ns=0,
            size_wh=(4, 4),
        )
    return CameraState(
        camera=CameraId(name),
        labels=LabelPool(size=1),
        newest=newest,
        first_stamp_ns=round(first_s * NS),
    )


@pytest.mark.parametrize(
    ("new", "reasoner_s", "words"),
    [
        (query("c"), 0.0, "2 queries stand already, at most 2 may"),
        (query("a"), 0.0, None),  # takes the place of the one with its id
        (query("a", period_s=1.0), 2.0, "a period of 1 s is shorter than an answer takes"),
        (query("a", period_s=2.0), 2.0, None),
        (query("a", period_s=1.0), 0.0, None),  # nothing is measured yet
        (query("a", period_s=0.0), 2.0, None),
    ],
)
def test_a_query_is_refused_with_the_reason(
    new: Query, reasoner_s: float, words: str | None
) -> None:
    queries = (standing("a"), standing("b"))
    said = scheduler.refusal(new, queries, CONFIG, reasoner_s)
    assert (said is None) if words is None else (said is not None and words in said)


def test_a_new_query_is_due_at_once_and_replaces_its_namesake() -> None:
    queries = scheduler.added(
        (standing("a", due_s=9),), query("a"), 4 * NS, request_id=None, timeout_s=2.0
    )
    assert [(e.query.id, e.due_ns, e.deadline_ns) for e in queries] == [("a", 4 * NS, 6 * NS)]
    (entry,) = scheduler.added((), query("b"), 0, request_id=None, timeout_s=0.0)
    assert entry.deadline_ns is None


@pytest.mark.parametrize(
    ("queries", "expected"),
    [
        ((), None),
        ((standing("a", due_s=11),), None),
        ((standing("a", due_s=10),), "a"),
        ((standing("a", asked_s=5), standing("b", asked_s=4)), "b"),
        ((standing("a", due_s=2), standing("b", due_s=1)), "b"),
        ((standing("a", due_s=2), standing("b", due_s=1, asked_s=9)), "b"),
        ((standing("b"), standing("a")), "a"),
        ((standing("a", camera="other"),), None),
        ((standing("a", camera="other"), standing("b", asked_s=9)), "b"),
    ],
)
def test_the_due_query_that_waited_longest_is_next(
    queries: tuple[StandingQuery, ...], expected: str | None
) -> None:
    entry = scheduler.next_due(queries, (camera(),), 10 * NS)
    assert (None if entry is None else entry.query.id) == expected


@pytest.mark.parametrize(
    ("state", "is_warm"),
    [
        (camera(newest_s=None), False),
        (camera(first_s=4.5), False),
        (camera(first_s=4.0), True),
    ],
)
def test_a_stream_is_warm_after_its_first_second(state: CameraState, *, is_warm: bool) -> None:
    assert scheduler.is_warm(state, CONFIG) is is_warm


def test_a_standing_query_is_due_a_period_after_it_was_asked_and_a_single_one_never() -> None:
    queries = (standing("a", period_s=5.0), standing("b", period_s=0.0), standing("c", due_s=3))
    queries = scheduler.asked(queries, QueryId("a"), 0, 2 * NS)
    queries = scheduler.asked(queries, QueryId("b"), 0, 2 * NS)
    assert [e.due_ns for e in queries] == [7 * NS, 2**63 - 1, 3 * NS]
    assert [e.num_asked for e in queries] == [1, 1, 0]


def test_a_query_is_not_asked_twice_about_one_newest_frame() -> None:
    queries = scheduler.asked((standing("a", period_s=1.0), standing("b")), QueryId("a"), 0, 0)
    queries = scheduler.asked(queries, QueryId("b"), -1, 0)
    entry = scheduler.next_due(queries, (camera(),), 20 * NS)  # frame 0 is still the newest
    assert entry is not None
    assert entry.query.id == "b"


def test_a_lost_target_or_a_new_scene_makes_a_standing_query_due_after_the_pause() -> None:
    queries = (
        standing("a", due_s=9),
        standing("b", due_s=9, period_s=0.0),
        standing("c", due_s=9),
        standing("d", due_s=9, asked_s=3.5),
    )
    early = [QueryId("a"), QueryId("b"), QueryId("d")]
    changed = scheduler.due_early(queries, early, 4 * NS, 2.0)
    assert [e.due_ns / NS for e in changed] == [4, 9, 9, 5.5]
    again = scheduler.due_early(changed, [QueryId("a"), QueryId("d")], 8 * NS, 2.0)
    assert [e.due_ns / NS for e in again] == [4, 9, 9, 5.5], "never later than it was"
