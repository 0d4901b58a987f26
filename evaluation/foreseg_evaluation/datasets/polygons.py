# SPDX-License-Identifier: Apache-2.0
"""Polygons to masks, as COCO's tools rasterise them, so that scores agree to the pixel.

The rule (pycocotools, `rleFrPoly`): corners are rounded on a grid five times finer, edges are
walked there along their longer axis, and wherever the walk passes the middle of a pixel column,
the mask toggles from the next row on, column by column. Tested against pycocotools.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from foreseg.masks import Mask

_FINER = 5  # grid lines per pixel

MAX_PX = 100_000.0  # of a coordinate; what comes from outside is bounded before it is walked

_Ints = NDArray[np.int64]


def are_corners(numbers: Iterable[float]) -> bool:
    """Whether numbers can be coordinates: finite and within bounds."""
    return all(-MAX_PX <= number <= MAX_PX for number in numbers)


def mask_from_polygons(polygons: Iterable[Sequence[float]], size_wh: tuple[int, int]) -> Mask:
    """Fill polygons, each x0, y0, x1, y1, ... in pixels; none give an empty mask (H, W)."""
    width, height = size_wh
    union: Mask = np.zeros((height, width), dtype=np.bool_)
    for polygon in polygons:
        union |= _filled(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), size_wh)
    return union


def _filled(corners_xy: NDArray[np.float64], size_wh: tuple[int, int]) -> Mask:
    width, height = size_wh
    grid = np.trunc(_FINER * corners_xy + 0.5).astype(np.int64)
    walk = np.concatenate([_edge(grid[i], grid[(i + 1) % len(grid)]) for i in range(len(grid))])
    before, after = walk[:-1], walk[1:]
    crossing = before[:, 0] != after[:, 0]
    before, after = before[crossing], after[crossing]
    # Where the walk steps sideways between two grid columns: is that a pixel's middle?
    x = (np.minimum(before[:, 0], after[:, 0]) + 0.5) / _FINER - 0.5
    y = (np.minimum(before[:, 1], after[:, 1]) + 0.5) / _FINER - 0.5
    inside = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    rows = np.ceil(np.clip(y[inside], 0, height)).astype(np.int64)
    places = x[inside].astype(np.int64) * height + rows
    toggles = np.bincount(places, minlength=width * height + 1)[: width * height]
    flat: Mask = np.cumsum(toggles) % 2 == 1
    return flat.reshape(width, height).T


def _edge(start: _Ints, end: _Ints) -> _Ints:
    """The grid points of an edge from start to end, both included."""
    dx, dy = abs(end - start)
    steps = int(max(dx, dy))
    if steps == 0:
        return start[None, :]
    axis = 0 if dx >= dy else 1
    if start[axis] > end[axis]:  # always walked upwards, so that rounding does not depend on it
        return _edge(end, start)[::-1]
    slope = (end[1 - axis] - start[1 - axis]) / steps
    t = np.arange(steps + 1)
    points = np.empty((steps + 1, 2), dtype=np.int64)
    points[:, axis] = start[axis] + t
    points[:, 1 - axis] = np.trunc(start[1 - axis] + slope * t + 0.5)
    return points
