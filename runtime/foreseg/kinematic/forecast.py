# SPDX-License-Identifier: Apache-2.0
"""What happens if every mover keeps its velocity: contacts and exits, with their times.

Positions in pixels of the stack the movers were found in. Knows nothing of queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.geometry import Side
from foreseg.kinematic.motion import Mover
from foreseg.kinematic.regions import Region

MAX_HORIZON_S = 20.0
MAX_STEPS = 400
HEADING_SIGMAS = (-1.5, -0.75, 0.0, 0.75, 1.5)  # headings that a contact is tried with
MIN_OVERLAP_PX = 2
MAX_BOUNDARY_POINTS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Something that may be touched."""

    region: Region
    velocity_xy: tuple[float, float] = (0.0, 0.0)  # pixels per second


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact:
    """The first thing on a mover's path."""

    candidate: int  # its place in the sequence that was given
    time_s: float  # from the newest frame
    support: float  # 0 to 1: share of the headings within the fit's error that meet it too


def first_contact(
    mover: Mover, candidates: Sequence[Candidate], size_wh: tuple[int, int]
) -> Contact | None:
    """The candidate that the mover touches first, or None if it leaves the view before."""
    results = []
    for sigmas in HEADING_SIGMAS:
        angle = sigmas * mover.heading_error_rad
        turn = complex(np.cos(angle), np.sin(angle)) * complex(*mover.velocity_xy)
        results.append(_contact_along(mover, (turn.real, turn.imag), candidates, size_wh))
    straight = results[len(results) // 2]
    if straight is None:
        return None
    same = sum(result is not None and result[0] == straight[0] for result in results)
    return Contact(candidate=straight[0], time_s=straight[1], support=same / len(results))


def exit_from_view(mover: Mover, size_wh: tuple[int, int]) -> tuple[float, Side] | None:
    """When the mover is wholly outside, and over which edge; None beyond the horizon."""
    width, height = size_wh
    box, (vx, vy) = mover.region.box, mover.velocity_xy
    ways = [
        (box.x1 / -vx, Side.LEFT) if vx < 0 else None,
        ((width - box.x0) / vx, Side.RIGHT) if vx > 0 else None,
        (box.y1 / -vy, Side.TOP) if vy < 0 else None,
        ((height - box.y0) / vy, Side.BOTTOM) if vy > 0 else None,
    ]
    return _soonest(ways)


def arrival_at(mover: Mover, side: Side, size_wh: tuple[int, int]) -> float | None:
    """Seconds until the mover's front touches an edge; None if it does not head there."""
    width, height = size_wh
    box, (vx, vy) = mover.region.box, mover.velocity_xy
    distance, speed = {
        Side.LEFT: (box.x0, -vx),
        Side.RIGHT: (width - box.x1, vx),
        Side.TOP: (box.y0, -vy),
        Side.BOTTOM: (height - box.y1, vy),
    }[side]
    if speed <= 0 or distance > speed * MAX_HORIZON_S:
        return None
    return max(0.0, distance / speed)


def _soonest(ways: Sequence[tuple[float, Side] | None]) -> tuple[float, Side] | None:
    open_ways = [way for way in ways if way is not None and way[0] <= MAX_HORIZON_S]
    return min(open_ways, key=lambda way: way[0], default=None)


def _contact_along(
    mover: Mover,
    velocity_xy: tuple[float, float],
    candidates: Sequence[Candidate],
    size_wh: tuple[int, int],
) -> tuple[int, float] | None:
    """(candidate, seconds) of the first overlap of the moved region with a candidate's."""
    best: tuple[int, float] | None = None
    for number, candidate in enumerate(candidates):
        relative = (
            velocity_xy[0] - candidate.velocity_xy[0],
            velocity_xy[1] - candidate.velocity_xy[1],
        )
        seconds = _overlap_time(mover.region, relative, candidate.region, size_wh)
        if seconds is None or not _is_in_view(mover.region, velocity_xy, seconds, size_wh):
            continue
        if best is None or seconds < best[1]:
            best = (number, seconds)
    return best


def _is_in_view(
    region: Region, velocity_xy: tuple[float, float], seconds: float, size_wh: tuple[int, int]
) -> bool:
    box = region.box
    dx, dy = velocity_xy[0] * seconds, velocity_xy[1] * seconds
    in_x = box.x1 + dx > 0 and box.x0 + dx < size_wh[0]
    return in_x and box.y1 + dy > 0 and box.y0 + dy < size_wh[1]


def _overlap_time(
    region: Region,
    velocity_xy: tuple[float, float],
    other: Region,
    size_wh: tuple[int, int],
) -> float | None:
    """Seconds until a region moving past another, which stands still, overlaps it."""
    speed = float(np.hypot(*velocity_xy))
    if speed < 1e-6:
        return None
    reach = 2.0 * (size_wh[0] + size_wh[1])
    horizon_s = min(MAX_HORIZON_S, reach / speed)
    num_steps = min(MAX_STEPS, int(horizon_s * speed) + 1)  # about a pixel each
    times = np.linspace(0.0, horizon_s, num_steps + 1)
    stride = max(1, region.area // MAX_BOUNDARY_POINTS)
    columns = region.columns[::stride, None] + np.round(velocity_xy[0] * times).astype(np.intp)
    rows = region.rows[::stride, None] + np.round(velocity_xy[1] * times).astype(np.intp)
    width, height = size_wh
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    taken = np.zeros((height, width), dtype=np.bool_)
    taken[other.rows, other.columns] = True
    met = taken[np.where(inside, rows, 0), np.where(inside, columns, 0)] & inside
    enough = met.sum(axis=0) * stride >= MIN_OVERLAP_PX
    if not enough.any():
        return None
    return float(times[int(enough.argmax())])
