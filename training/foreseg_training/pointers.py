# SPDX-License-Identifier: Apache-2.0
"""Points that a mask gives: in its middle, and close beside it, as VideoSeg-R1 trains on them.

The paper says "one central point for each object" and how near a negative point is to be; that the
centre is the point farthest from the mask's border, and where the negative one is drawn, is ours.
Does not know: models, samples, words.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import distance_transform_cdt, distance_transform_edt

from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask

FRAME_PX = 840.0  # each side of the frame in which distances count, as in VisionReasoner
CELLS = 210  # of a side, 4 px each
NEAREST_PX, FARTHEST_PX = 16.0, 28.0  # rewarded are more than 0 to 40: room to round


def box_of(mask: Mask) -> BoxXyxy:
    """The box around a mask's outermost pixels, in its pixels; it wants one pixel at least."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    corners = (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
    return BoxXyxy(*(float(corner) for corner in corners))


def center_of(mask: Mask) -> tuple[float, float]:
    """The middle of the pixel that lies farthest from a mask's border, x and y in its pixels.

    Unlike the mean it lies on the mask, whatever its shape. The frame's edge is a border, too; of
    equals the first, row by row.
    """
    inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(int(np.argmax(inside)), mask.shape)
    return float(x) + 0.5, float(y) + 0.5


def beside(
    target: Mask, targets: Mask, others: Mask, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Draw a point beside one target and on none, x and y in the masks' pixels.

    It is about 12 to 32 px (L1) from the target, in a frame of 840 x 840 px, and on another object if one
    is so near: that is what a target is taken for.

    Args:
        target: (H, W), the one.
        targets: (H, W), all together.
        others: (H, W), what else is known to be an object.
        rng: source of the choice.

    Returns:
        None if there is no such place.
    """
    height, width = target.shape
    cell_px = FRAME_PX / CELLS
    ring = _between(_on_cells(target), NEAREST_PX / cell_px, FARTHEST_PX / cell_px)
    ring &= distance_transform_cdt(~_on_cells(targets), "taxicab") * cell_px >= NEAREST_PX
    near_others = ring & _on_cells(others)
    places = np.argwhere(near_others if near_others.any() else ring)
    if not len(places):
        return None
    row, column = places[int(rng.integers(len(places)))]
    return (float(column) + 0.5) * width / CELLS, (float(row) + 0.5) * height / CELLS


def on_frame(mask: Mask) -> Mask:
    """A mask on the frame of 840 x 840 px, (840, 840)."""
    side = int(FRAME_PX)
    ys, xs = (((np.arange(side) + 0.5) * size / side).astype(int) for size in mask.shape)
    enlarged: Mask = mask[np.ix_(ys, xs)]
    return enlarged


def _between(cells: Mask, nearest: float, farthest: float) -> Mask:
    if not cells.any():
        return np.zeros_like(cells)
    away = distance_transform_cdt(~cells, "taxicab")
    between: Mask = (away >= math.ceil(nearest)) & (away <= math.floor(farthest))
    return between


def _on_cells(mask: Mask) -> Mask:
    """Cells that a mask touches, (CELLS, CELLS)."""
    height, width = mask.shape
    ys, xs = (((np.arange(CELLS) + 0.5) * size / CELLS).astype(int) for size in (height, width))
    cells: Mask = mask[np.ix_(ys, xs)].copy()
    rows, columns = np.nonzero(mask)
    cells[rows * CELLS // height, columns * CELLS // width] = True
    return cells
