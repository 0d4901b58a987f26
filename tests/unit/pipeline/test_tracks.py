# SPDX-License-Identifier: Apache-2.0
"""What a track's state says, and how labels come and go."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreseg.config import TrackerConfig
from foreseg.dialogue import QueryId
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameRef
from foreseg.masks import MaskRle
from foreseg.pipeline.tracks import MAX_PAST_QUERIES, NS, LabelPool, LiveTrack, TrackState
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackedObject, TrackKey

CONFIG = TrackerConfig(uncertain_below=0.5, lost_after_s=3.0)
Q, R = QueryId("q"), QueryId("r")


def seen(logit: float, score: float = 0.9) -> TrackedObject:
    mask = MaskRle(height=4, width=4, counts="")
    return TrackedObject(
        key=TrackKey("a"), object_logit=logit, score=score, box=None, area_px=0, mask=mask
    )


def track(**changes: object) -> LiveTrack:
    start = LiveTrack(
        object_id=ObjectId("a"),
        key=TrackKey("a"),
        index=1,
        answered_stamp_ns=0,
        seen_stamp_ns=10 * NS,
        last=seen(1.0),
    )
    return replace(start, **changes)  # type: ignore[arg-type]


def ref(stamp_ns: int) -> FrameRef:
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(0),
        epoch=0,
        stamp_ns=stamp_ns,
        received_ns=0,
        size_wh=(4, 4),
    )


@pytest.mark.parametrize(
    ("changes", "stamp_s", "state"),
    [
        ({}, 10, TrackState.TRACKED),
        ({"last": seen(1.0, 0.49)}, 10, TrackState.UNCERTAIN),
        ({"last": seen(1.0, 0.5)}, 10, TrackState.TRACKED),
        ({"confirmed": False}, 10, TrackState.UNCERTAIN),
        ({"last": seen(0.0)}, 10, TrackState.OCCLUDED),
        ({"last": seen(-1.0)}, 12.99, TrackState.OCCLUDED),
        ({"last": seen(-1.0)}, 13, TrackState.LOST),
        ({"last": seen(-1.0), "confirmed": False}, 13, TrackState.LOST),
        ({"last": None}, 10, TrackState.OCCLUDED),
        ({"last": None}, 20, TrackState.LOST),
    ],
)
def test_the_state_says_how_far_to_trust_a_mask(
    changes: dict[str, object], stamp_s: float, state: TrackState
) -> None:
    assert track(**changes).state(round(stamp_s * NS), CONFIG) is state


def test_a_track_is_seen_only_where_it_is_visible() -> None:
    assert track().updated(seen(1.0), ref(11 * NS)).seen_stamp_ns == 11 * NS
    assert track().updated(seen(-1.0), ref(11 * NS)).seen_stamp_ns == 10 * NS


def test_the_published_age_is_never_negative() -> None:
    assert track(answered_stamp_ns=5 * NS).published(ref(7 * NS), CONFIG).answer_age_s == 2.0
    assert track(answered_stamp_ns=5 * NS).published(ref(0), CONFIG).answer_age_s == 0.0


def test_answers_that_leave_a_track_out_unlink_it_at_the_limit() -> None:
    once = track(query_ids=(Q, R)).left_out_by(Q, limit=2)
    assert once.query_ids == (Q, R)
    assert once.left_out_by(Q, limit=2).query_ids == (R,)
    assert once.left_out_by(R, limit=2).query_ids == (Q, R)
    named = once.named_by(Q, 11 * NS)
    assert (named.query_ids, named.misses, named.answered_stamp_ns) == ((Q, R), (), 11 * NS)
    assert named.left_out_by(Q, limit=2).query_ids == (Q, R)


def test_of_past_queries_that_named_a_track_the_newest_stay_and_those_that_stand() -> None:
    named = track(query_ids=(Q, R), misses=((R, 1), (Q, 1)))
    for i in range(100):
        named = named.named_by(QueryId(f"once-{i}"), NS, known={Q})
    past = [f"once-{i}" for i in range(99 - MAX_PAST_QUERIES, 100)]
    assert named.query_ids == (Q, *past)
    assert named.misses == ((Q, 1),)


def test_an_answer_of_another_query_changes_nothing() -> None:
    start = track(query_ids=(R,))
    assert start.left_out_by(Q, limit=1) is start


def test_an_unlinked_query_leaves_no_misses_behind() -> None:
    gone = track(query_ids=(Q,)).left_out_by(Q, limit=2).unlinked(Q)
    assert (gone.query_ids, gone.misses) == ((), ())


def test_the_lowest_label_that_has_rested_is_given() -> None:
    taken = LabelPool(size=4).taken(3, at_ns=0)
    assert taken is not None
    pool, labels = taken
    assert labels == (1, 2, 3)
    pool = pool.freed([2], until_ns=10)
    again = pool.taken(1, at_ns=9)
    assert again is not None
    assert again[1] == (4,)
    later = pool.taken(1, at_ns=10)
    assert later is not None
    assert later[1] == (2,)


def test_where_all_others_are_used_the_longest_resting_label_is_given() -> None:
    pool = LabelPool(size=3, used=frozenset({1, 2, 3})).freed([3], 20).freed([1], 30)
    taken = pool.taken(1, at_ns=5)
    assert taken is not None
    assert taken[1] == (3,)
    assert taken[0].resting == ((1, 30),)


def test_no_label_is_given_twice() -> None:
    pool = LabelPool(size=2, used=frozenset({1, 2}))
    assert pool.taken(1, at_ns=0) is None
    assert LabelPool(size=2).taken(3, at_ns=0) is None


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5), st.integers(0, 3)), max_size=60))
def test_labels_in_use_and_at_rest_never_meet(operations: list[tuple[bool, int, int]]) -> None:
    pool, now = LabelPool(size=5), 0
    for is_take, number, passes in operations:
        now += passes
        if is_take:
            taken = pool.taken(number, now)
            assert (taken is None) == (number > pool.size - len(pool.used))
            if taken is not None:
                assert not set(taken[1]) & pool.used
                pool = taken[0]
        else:
            pool = pool.freed([number], now + 2)
        resting = [label for label, _ in pool.resting]
        assert not pool.used & set(resting)
        assert len(resting) == len(set(resting))
        assert pool.used | set(resting) <= set(range(1, 6))
