# SPDX-License-Identifier: Apache-2.0
"""Boxes in source pixels, the sides of a picture, and how pixels of another size are weighed.

A box spans [x0, x1) x [y0, y1): one pixel has width 1.
"""

from __future__ import annotations

import functools
import math
from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Side(Enum):
    """An edge of the view."""

    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"


class BoxXyxy(NamedTuple):
    """Corners in pixels, x to the right, y down; x1 and y1 are exclusive edges."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Pixels; 0 for an empty box."""
        return max(0.0, self.x1 - self.x0)

    @property
    def height(self) -> float:
        """Pixels; 0 for an empty box."""
        return max(0.0, self.y1 - self.y0)

    @property
    def area(self) -> float:
        """Square pixels."""
        return self.width * self.height

    @property
    def centre_xy(self) -> tuple[float, float]:
        """Middle of the box."""
        return (self.x0 + self.x1) / 2, (self.y0 + self.y1) / 2

    def is_finite(self) -> bool:
        """True if no corner is NaN or infinite."""
        return all(math.isfinite(v) for v in self)

    def clipped(self, size_wh: tuple[int, int]) -> BoxXyxy:
        """The part inside an image of this size; of zero area if there is none."""
        w, h = size_wh
        return BoxXyxy(
            min(max(self.x0, 0.0), w),
            min(max(self.y0, 0.0), h),
            min(max(self.x1, 0.0), w),
            min(max(self.y1, 0.0), h),
        )

    def scaled(self, scale_xy: tuple[float, float]) -> BoxXyxy:
        """Multiplied per axis."""
        sx, sy = scale_xy
        return BoxXyxy(self.x0 * sx, self.y0 * sy, self.x1 * sx, self.y1 * sy)


def box_iou(a: BoxXyxy, b: BoxXyxy) -> float:
    """Intersection over union in [0, 1]; 0 where both are empty."""
    w = min(a.x1, b.x1) - max(a.x0, b.x0)
    h = min(a.y1, b.y1) - max(a.y0, b.y0)
    overlap = max(0.0, w) * max(0.0, h)
    union = a.area + b.area - overlap
    return overlap / union if union > 0 else 0.0


def box_from_mask(mask: NDArray[np.bool_]) -> BoxXyxy | None:
    """The tight box of an (H, W) mask, or None if it is empty."""
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return None
    rows = np.flatnonzero(mask.any(axis=1))
    return BoxXyxy(float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))


@functools.lru_cache(maxsize=8)
def resize_matrix(size_in: int, size_out: int) -> NDArray[np.float32]:
    """(size_out, size_in) weights of a triangle filter, as torch's antialiased bilinear resize.

    Pillow's bilinear filter has the same weights, and rounds them to whole values after each axis.
    """
    scale = size_in / size_out
    support = max(scale, 1.0)
    centres = (np.arange(size_out) + 0.5) * scale
    distance = np.abs(np.arange(size_in)[None, :] + 0.5 - centres[:, None])
    weights = np.maximum(0.0, 1.0 - distance / support)
    matrix: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    matrix.flags.writeable = False
    return matrix
