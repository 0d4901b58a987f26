# SPDX-License-Identifier: Apache-2.0
"""Spatial prompts: what tells a tracker which object is meant, in source pixels of a keyframe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple, NewType

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, mask_from_rle

ObjectId = NewType("ObjectId", str)


class PointLabel(IntEnum):
    """As SAM2's prompt encoder counts them."""

    BACKGROUND = 0
    FOREGROUND = 1


class Point(NamedTuple):
    """A point in source pixels with its label."""

    x: float
    y: float
    label: PointLabel = PointLabel.FOREGROUND


@dataclass(frozen=True, slots=True, kw_only=True)
class SpatialPrompt:
    """A box, points, a mask, or a box with points; for one object on one keyframe."""

    box: BoxXyxy | None = None
    points: tuple[Point, ...] = ()
    mask: MaskRle | None = None

    def __post_init__(self) -> None:
        if self.box is None and not self.points and self.mask is None:
            msg = "a spatial prompt wants a box, points or a mask, got none of them"
            raise InputError(msg)
        if self.mask is not None and (self.box is not None or self.points):
            msg = "a spatial prompt wants either a mask or a box with points, got both"
            raise InputError(msg)

    def checked(self, size_wh: tuple[int, int]) -> SpatialPrompt:
        """This prompt made fit for an image of `size_wh`: plain numbers, the box clipped to it.

        Raises:
            InputError: box or point outside the image or not finite, swapped corners, an unknown
                point label, or a mask that is empty, malformed or of another size; the message
                carries the values.
        """
        w, h = size_wh
        if self.mask is not None:
            if (self.mask.width, self.mask.height) != size_wh:
                msg = f"a mask prompt wants {w} x {h} pixels, got {self.mask.width} x {self.mask.height}"
                raise InputError(msg)
            if not mask_from_rle(self.mask).any():
                msg = "a mask prompt wants at least one pixel, got an empty mask"
                raise InputError(msg)
        for x, y, _ in self.points:
            if not (math.isfinite(x) and math.isfinite(y) and 0 <= x < w and 0 <= y < h):
                msg = f"point ({x:g}, {y:g}) lies outside the image of {w} x {h} pixels"
                raise InputError(msg)
        points = tuple(_plain_point(point) for point in self.points)
        mask = None if self.mask is None else MaskRle(height=h, width=w, counts=self.mask.counts)
        return SpatialPrompt(box=self._checked_box(size_wh), points=points, mask=mask)

    def _checked_box(self, size_wh: tuple[int, int]) -> BoxXyxy | None:
        if self.box is None:
            return None
        text = ", ".join(f"{v:g}" for v in self.box)
        if not self.box.is_finite() or self.box.x1 <= self.box.x0 or self.box.y1 <= self.box.y0:
            msg = f"a box wants finite x0 < x1 and y0 < y1, got ({text})"
            raise InputError(msg)
        clipped = self.box.clipped(size_wh)
        if clipped.width < 1 or clipped.height < 1:
            msg = f"box ({text}) lies outside the image of {size_wh[0]} x {size_wh[1]} pixels"
            raise InputError(msg)
        return BoxXyxy(*(float(v) for v in clipped))


def _plain_point(point: Point) -> Point:
    try:
        label = PointLabel(point.label)
    except ValueError as error:
        msg = f"a point's label wants 0 (background) or 1 (foreground), got {point.label!r}"
        raise InputError(msg) from error
    return Point(float(point.x), float(point.y), label)
