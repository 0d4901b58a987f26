# SPDX-License-Identifier: Apache-2.0
"""Masks and depth images by their stamps, in whatever order they come: no ROS is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreseg_ros.pairs import StampPairs


def pairs(*, tolerance_ns: int = 10, max_asking: int = 3, max_wanted: int = 3) -> StampPairs:
    return StampPairs(tolerance_ns=tolerance_ns, max_asking=max_asking, max_wanted=max_wanted)


def test_what_is_there_already_is_given_the_nearest_first() -> None:
    streams = pairs()
    for stamp in (100, 108, 140):
        assert streams.offer(stamp, f"depth {stamp}") == []
    assert streams.ask(106, "masks") == "depth 108"
    assert streams.ask(106, "masks again") == "depth 108"
    assert (streams.num_paired, streams.num_missed) == (2, 0)


def test_masks_that_come_first_wait() -> None:
    streams = pairs()
    assert streams.ask(100, "masks") is None
    assert streams.ask(130, "later masks") is None
    assert streams.offer(103, "depth") == ["masks"]
    assert streams.offer(130, "depth") == ["later masks"]
    assert streams.offer(130, "depth") == []


def test_what_a_later_stamp_has_passed_has_waited_in_vain() -> None:
    streams = pairs()
    streams.ask(100, "masks")
    assert streams.offer(111, "depth") == []
    assert streams.num_missed == 1


def test_the_one_that_waits_longest_makes_room() -> None:
    streams = pairs()
    for stamp in (100, 200, 300, 400):
        streams.ask(stamp, str(stamp))
    assert streams.num_missed == 1
    assert streams.offer(100, "depth") == []


def test_the_oldest_of_the_kept_makes_room() -> None:
    streams = pairs()
    for stamp in (100, 200, 300, 400):
        streams.offer(stamp, str(stamp))
    assert streams.ask(100, "masks") is None
    assert streams.ask(200, "masks") == "200"


def test_a_stream_that_begins_anew_is_paired_again() -> None:
    streams = pairs()
    for stamp in (1000, 2000, 3000):
        streams.offer(stamp, "old")
    assert streams.ask(5, "masks") is None
    assert streams.offer(5, "new") == ["masks"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 60)), max_size=60), st.integers(0, 5))
def test_no_pair_is_too_far_apart_and_nothing_is_lost_or_kept_for_ever(
    events: list[tuple[bool, int]], tolerance_ns: int
) -> None:
    streams = pairs(tolerance_ns=tolerance_ns)
    num_asked = num_given = 0
    for is_asking, stamp in events:
        if is_asking:
            num_asked += 1
            found = streams.ask(stamp, stamp)
            given_now = [] if found is None else [(stamp, found)]
        else:
            given_now = [(asked, stamp) for asked in streams.offer(stamp, stamp)]
        assert all(abs(a - b) <= tolerance_ns for a, b in given_now)
        num_given += len(given_now)
        waiting = num_asked - num_given - streams.num_missed
        assert 0 <= waiting <= 3
    assert streams.num_paired == num_given
