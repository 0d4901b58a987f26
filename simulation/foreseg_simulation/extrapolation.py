# SPDX-License-Identifier: Apache-2.0
"""What would happen if everything went on at its present velocity: the guess that is often wrong.

Takes true places and velocities. Does not know: scenes, plans, or what really happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from .textures import F32Array

_STEP_PX = 0.5
_STILL_PX_S = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Mover:
    """An object's outline and velocity at one moment."""

    instance_id: int
    corners: F32Array  # (P, 2) x, y, pixels
    velocity: np.ndarray  # (2,) pixels per second


def first_touched(
    place: np.ndarray,
    velocity: np.ndarray,
    radius_px: float,
    outlines: Mapping[int, F32Array],
    *,
    reach_px: float,
) -> int | None:
    """Find which outline at rest a disc would touch first on a straight way.

    An outline that it touches already, and leaves, does not count.

    Args:
        place: (2,) centre of the disc, pixels.
        velocity: (2,) of the disc, pixels per second.
        radius_px: of the disc.
        outlines: corners (P, 2) by instance id.
        reach_px: how far to look.
    """
    speed = float(np.linalg.norm(velocity))
    if speed < _STILL_PX_S:
        return None
    heading = velocity / speed
    near = {i: c for i, c in outlines.items() if _passes(place, heading, radius_px, c)}
    clear = {i: _gap_px(place, c) > radius_px for i, c in near.items()}
    for along in np.arange(_STEP_PX, reach_px, _STEP_PX):
        centre = place + along * heading
        for instance_id, corners in near.items():
            is_touching = _gap_px(centre, corners) <= radius_px
            if is_touching and clear[instance_id]:
                return instance_id
            clear[instance_id] = not is_touching
    return None


def first_gone(movers: Iterable[Mover], size_wh: tuple[int, int]) -> int | None:
    """Find what would leave the view first, with its last corner."""
    times = {mover.instance_id: _gone_s(mover, size_wh) for mover in movers}
    times = {instance_id: time_s for instance_id, time_s in times.items() if np.isfinite(time_s)}
    return min(times, key=lambda instance_id: times[instance_id]) if times else None


def _gone_s(mover: Mover, size_wh: tuple[int, int]) -> float:
    low, high = mover.corners.min(axis=0), mover.corners.max(axis=0)
    times = [
        float((size_wh[axis] - low[axis]) / v if v > 0 else -high[axis] / v)
        for axis, v in enumerate(mover.velocity)
        if abs(v) > _STILL_PX_S
    ]
    return min((time_s for time_s in times if time_s > 0), default=float("inf"))


def _passes(place: np.ndarray, heading: np.ndarray, radius_px: float, corners: F32Array) -> bool:
    """Whether a disc's straight way may touch an outline ahead: its circumscribed circle does."""
    middle = corners.mean(axis=0)
    reach = radius_px + float(np.linalg.norm(corners - middle, axis=1).max())
    offset = middle - place
    along = float(offset @ heading)
    across = abs(float(offset[0] * heading[1] - offset[1] * heading[0]))
    return across <= reach and along > -reach


def _gap_px(point: np.ndarray, corners: F32Array) -> float:
    """Distance from a point to an outline; negative inside."""
    return -float(
        cv2.pointPolygonTest(corners, (float(point[0]), float(point[1])), measureDist=True)
    )
