# SPDX-License-Identifier: Apache-2.0
"""Catch-up: how a late answer's branch comes from its keyframe to live, and with which stride."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foreseg.config import CatchUpConfig
from foreseg.frames import FrameIndex
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackKey

BRANCH_MARK = "~"  # in the key of a branch; an object id has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Measured speeds, per second."""

    camera_hz: float
    live_hz: float  # full live steps (all live rows) that the tracker could do, if alone
    branch_hz: float  # single-row steps that the tracker could do, if alone

    def share_hz(self, live_share: float) -> float:
        """Branch steps per second that are left when live tracks keep `live_share` of their rate.

        With one speed r for both kinds of step this is r - live_share * min(camera_hz, r).
        """
        kept_hz = live_share * min(self.camera_hz, self.live_hz)
        return max(0.0, 1.0 - kept_hz / self.live_hz) * self.branch_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUpPlan:
    """A stride that arrives, and when."""

    stride: int
    arrival_s: float


def plan_catch_up(
    backlog_frames: int, rates: Rates, config: CatchUpConfig, num_branches: int = 1
) -> CatchUpPlan | None:
    """The smallest stride that arrives within the budget, or None if none does.

    Time to live = backlog / (share * stride - camera rate), all in frames and seconds: a branch
    gains `share * stride` frames a second while the camera adds `camera_hz`.

    Args:
        backlog_frames: newest index minus keyframe index, >= 0.
        rates: measured speeds.
        config: budget, share of live tracks, largest stride.
        num_branches: that take turns, this one included; each gets its part of the steps.
    """
    share_hz = rates.share_hz(config.live_share) / num_branches
    for stride in range(1, config.max_stride + 1):
        gain_hz = share_hz * stride - rates.camera_hz
        arrival_s = backlog_frames / gain_hz if gain_hz > 0 else math.inf
        if arrival_s <= config.budget_s:
            return CatchUpPlan(stride=stride, arrival_s=arrival_s)
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUp:
    """A branch on its way."""

    object_id: ObjectId
    branch: TrackKey
    position: FrameIndex  # where the branch is now
    stride: int
    started_ns: int
    began_index: FrameIndex

    def next_index(self, oldest: FrameIndex, newest: FrameIndex) -> FrameIndex:
        """The frame of its next step: a stride on, never one that has left the ring."""
        return FrameIndex(min(max(self.position + self.stride, oldest), newest))

    def joins_at(self, newest: FrameIndex) -> bool:
        """True if its next step reaches the newest frame."""
        return self.position + self.stride >= newest
