# SPDX-License-Identifier: Apache-2.0
"""The catch-up formula, and a branch that really gains on the camera."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreseg.config import CatchUpConfig
from foreseg.frames import FrameIndex
from foreseg.pipeline.catch_up import CatchUp, Rates, plan_catch_up
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackKey


def rates(camera_hz: float, tracker_hz: float) -> Rates:
    return Rates(camera_hz=camera_hz, live_hz=tracker_hz, branch_hz=tracker_hz)


@pytest.mark.parametrize(
    ("camera_hz", "tracker_hz", "live_share", "share_hz"),
    [
        (30, 100, 0.8, 76),  # tracker rate - 0.8 x camera rate
        (30, 30, 0.8, 6),
        (30, 10, 0.8, 2),  # a tracker slower than the camera keeps 0.8 of its own rate
        (30, 100, 1.0, 70),
        (30, 10, 1.0, 0),
        (30, 100, 0.0, 100),
    ],
)
def test_the_share_of_a_branch_is_what_live_tracks_leave(
    camera_hz: float, tracker_hz: float, live_share: float, share_hz: float
) -> None:
    assert rates(camera_hz, tracker_hz).share_hz(live_share) == pytest.approx(share_hz)


@pytest.mark.parametrize(
    ("backlog", "camera_hz", "tracker_hz", "budget_s", "stride", "arrival_s"),
    [
        (60, 30, 100, 5.0, 1, 60 / 46),
        (60, 30, 100, 1.0, 2, 60 / 122),
        (60, 30, 30, 5.5, 7, 60 / 12),
        (0, 30, 100, 5.0, 1, 0.0),
        (1, 30, 100, 0.0, None, None),
        (60, 30, 10, 5.0, None, None),  # 2 Hz x 8 never outruns 30 Hz
        (10_000, 30, 100, 5.0, None, None),
    ],
)
def test_the_smallest_stride_that_arrives_within_the_budget_is_planned(
    backlog: int,
    camera_hz: float,
    tracker_hz: float,
    budget_s: float,
    stride: int | None,
    arrival_s: float | None,
) -> None:
    config = CatchUpConfig(budget_s=budget_s, max_stride=8, live_share=0.8)
    plan = plan_catch_up(backlog, rates(camera_hz, tracker_hz), config)
    assert (None if plan is None else plan.stride) == stride
    if plan is not None:
        assert plan.arrival_s == pytest.approx(arrival_s)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(
    backlog=st.integers(1, 400),
    camera_hz=st.floats(1, 60),
    tracker_hz=st.floats(1, 300),
    live_share=st.floats(0, 1),
    budget_s=st.floats(0.1, 10),
)
def test_a_branch_arrives_whenever_the_formula_says_so_and_when(
    backlog: int, camera_hz: float, tracker_hz: float, live_share: float, budget_s: float
) -> None:
    config = CatchUpConfig(budget_s=budget_s, live_share=live_share)
    speeds = rates(camera_hz, tracker_hz)
    plan = plan_catch_up(backlog, speeds, config)
    share_hz = speeds.share_hz(live_share)
    if plan is None:
        if share_hz > 0:  # even the longest stride comes too late
            fastest = simulated_s(backlog, config.max_stride, camera_hz, share_hz, budget_s * 2)
            assert fastest >= budget_s - (1 + config.max_stride) / share_hz
        return
    took_s = simulated_s(backlog, plan.stride, camera_hz, share_hz, math.inf)
    assert took_s <= plan.arrival_s + 1 / share_hz + 1e-6


def simulated_s(
    backlog: int, stride: int, camera_hz: float, share_hz: float, limit_s: float
) -> float:
    """Steps of a branch, one every 1 / share, until one reaches the newest frame."""
    branch = branch_at(0, stride)
    time_s = 0.0
    while time_s <= limit_s:
        time_s += 1 / share_hz
        newest = FrameIndex(backlog + math.floor(time_s * camera_hz))
        if branch.joins_at(newest):
            break
        branch = branch_at(branch.next_index(FrameIndex(0), newest), stride)
    return time_s


def branch_at(position: int, stride: int) -> CatchUp:
    return CatchUp(
        object_id=ObjectId("a"),
        branch=TrackKey("a~1"),
        position=FrameIndex(position),
        stride=stride,
        started_ns=0,
        began_index=FrameIndex(0),
    )


@pytest.mark.parametrize(
    ("position", "oldest", "newest", "index", "joins"),
    [
        (10, 0, 100, 13, False),
        (10, 50, 100, 50, False),  # what lies between has left the ring
        (98, 0, 100, 100, True),
        (97, 0, 100, 100, True),
        (96, 0, 100, 99, False),
    ],
)
def test_a_step_never_leaves_the_ring(
    position: int, oldest: int, newest: int, index: int, *, joins: bool
) -> None:
    branch = branch_at(position, stride=3)
    assert branch.next_index(FrameIndex(oldest), FrameIndex(newest)) == index
    assert branch.joins_at(FrameIndex(newest)) is joins
