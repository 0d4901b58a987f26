# SPDX-License-Identifier: Apache-2.0
"""The spatial prompt that a person would give for an object whose true mask is known.

Does not know: trackers, clips.
"""

from __future__ import annotations

from enum import Enum

import cv2
import numpy as np

from foreseg.geometry import BoxXyxy
from foreseg.masks import rle_from_mask
from foreseg.prompts import Point, PointLabel, SpatialPrompt

from .clips import BoolArray


class PromptForm(Enum):
    """How an object is shown to a tracker on its first frame."""

    BOX = "box"
    CLICK = "click"  # one, on the object, farthest from its border
    BOX_POINTS = "box-points"  # the box, that click, and one beside the object
    MASK = "mask"


def prompt_of(form: PromptForm, mask: BoolArray) -> SpatialPrompt:
    """Prompt a (H, W) bool mask with at least one pixel."""
    if form is PromptForm.MASK:
        return SpatialPrompt(mask=rle_from_mask(mask))
    box = BoxXyxy(*box_around(mask))
    if form is PromptForm.BOX:
        return SpatialPrompt(box=box)
    middle = Point(*middle_of(mask), PointLabel.FOREGROUND)
    if form is PromptForm.CLICK:
        return SpatialPrompt(points=(middle,))
    beside = Point(*_beside(mask, box), PointLabel.BACKGROUND)
    return SpatialPrompt(box=box, points=(middle, beside))


def box_around(mask: BoolArray) -> tuple[float, float, float, float]:
    """Bound a mask by its outer pixel edges: x0, y0, x1, y1."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))


def middle_of(mask: BoolArray) -> tuple[float, float]:
    """The pixel of a mask that is farthest from its border, x and y of its centre."""
    return _deepest(mask)


def ellipse_in_box(mask: BoolArray) -> BoolArray:
    """The ellipse that fills a mask's box: what a box alone says of a shape."""
    x0, y0, x1, y1 = box_around(mask)
    height, width = mask.shape
    across = (np.arange(width) + 0.5 - (x0 + x1) / 2) / max(0.5, (x1 - x0) / 2)
    down = (np.arange(height) + 0.5 - (y0 + y1) / 2) / max(0.5, (y1 - y0) / 2)
    inside: BoolArray = across[None] ** 2 + down[:, None] ** 2 <= 1
    return inside


def _beside(mask: BoolArray, box: BoxXyxy) -> tuple[float, float]:
    """A place that is not the object, deep in what the box holds beside it, else just outside."""
    x0, y0, x1, y1 = (int(c) for c in box)
    inside = np.zeros_like(mask)
    inside[y0:y1, x0:x1] = True
    rest = inside & ~mask
    if not rest.any():
        rest = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool) & ~mask
    if not rest.any():  # it fills the picture: there is no place beside it
        return (float(x0), float(y0))
    return _deepest(rest)


def _deepest(region: BoolArray) -> tuple[float, float]:
    padded = np.pad(region.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return (float(x) + 0.5, float(y) + 0.5)
