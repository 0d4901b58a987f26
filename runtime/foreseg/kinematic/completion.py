# SPDX-License-Identifier: Apache-2.0
"""Movers made whole: where change shows only a part of one, its salient region shows all of it.

Change misses the middle of what moves by less than its own size, and the centre of what crosses
the rim is in the wrong place. For a camera that stands still.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from foreseg.kinematic.motion import Mover
from foreseg.kinematic.regions import Region

MIN_TRAVEL_PX = 4.0  # of the whole, within the window
MIN_OVERLAP_SHARE = 0.4  # of the changed region
AREA_RATIOS = (0.8, 8.0)  # of the whole to the changed region
MAX_COLOUR_CHANGE = 40.0  # grey levels, of the whole between two frames
MAX_AREA_CHANGE = 0.4  # in natural logarithms, unless the rim cuts it


def completed(
    mover: Mover,
    oldest: Sequence[Region],
    newest: Sequence[Region],
    seconds: float,
    size_wh: tuple[int, int],
) -> Mover:
    """The mover as its salient regions show it, or itself where they do not.

    Args:
        mover: as change shows it.
        oldest: salient regions of the window's first frame.
        newest: salient regions of its last frame.
        seconds: between the two.
        size_wh: of the frames, pixels.
    """
    box = mover.region.box
    is_slow = mover.speed * seconds < max(box.width, box.height, 1.0) * 1.2
    if not is_slow and not mover.region.touches_border(size_wh):
        return mover
    whole = max(newest, key=lambda region: _overlap(region, mover.region), default=None)
    if whole is None or _overlap(whole, mover.region) < MIN_OVERLAP_SHARE:
        return mover
    if not AREA_RATIOS[0] <= whole.area / mover.region.area <= AREA_RATIOS[1]:
        return mover
    before = min(
        (region for region in oldest if _is_same(region, whole, size_wh)),
        key=lambda region: float(np.hypot(*_step(region, whole, size_wh))),
        default=None,
    )
    if before is None:
        return mover
    dx, dy = _step(before, whole, size_wh)
    agreement = dx * mover.velocity_xy[0] + dy * mover.velocity_xy[1]
    if np.hypot(dx, dy) < MIN_TRAVEL_PX or agreement < 0:  # it only shakes
        return mover
    footprint = mover.footprint.copy()
    for region in (before, whole):
        footprint[region.rows, region.columns] = True
    return replace(
        mover,
        region=whole,
        velocity_xy=(dx / seconds, dy / seconds),
        footprint=footprint,
        travel_px=float(np.hypot(dx, dy)),
    )


def _overlap(region: Region, other: Region) -> float:
    """The share of `other` that lies within the region."""
    width = int(max(region.columns.max(), other.columns.max())) + 1
    shared = np.isin(other.rows * width + other.columns, region.rows * width + region.columns)
    return float(shared.mean())


def _is_same(a: Region, b: Region, size_wh: tuple[int, int]) -> bool:
    if float(np.abs(a.colour - b.colour).max()) > MAX_COLOUR_CHANGE:
        return False
    is_cut = a.touches_border(size_wh) or b.touches_border(size_wh)
    return is_cut or abs(float(np.log(a.area / b.area))) <= MAX_AREA_CHANGE


def _step(before: Region, after: Region, size_wh: tuple[int, int]) -> tuple[float, float]:
    """How far a region went, by the edges that the rim does not cut."""
    old, new = before.box, after.box
    steps = []
    for low, high, end in ((0, 2, size_wh[0]), (1, 3, size_wh[1])):
        cut_low = min(old[low], new[low]) <= 0
        cut_high = max(old[high], new[high]) >= end
        step_low, step_high = new[low] - old[low], new[high] - old[high]
        middle = (step_low + step_high) / 2
        steps.append(middle if cut_low == cut_high else step_high if cut_low else step_low)
    return steps[0], steps[1]
