# SPDX-License-Identifier: Apache-2.0
"""Measures of one pair of masks: J and F as davis2017-evaluation has them, A and R as ReVOS.

F works inside the box that holds both masks, so that the time goes with the objects' size and
not with the frame's. Does not know: clips, averages over frames, files.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MaskArray",
    "boundary_f",
    "intersection_and_union",
    "pixel_accuracy",
    "region_similarity",
    "robustness",
    "robustness_sane",
]

MaskArray: TypeAlias = NDArray[np.bool_] | NDArray[np.uint8]
_BoolArray: TypeAlias = NDArray[np.bool_]
_U8Array: TypeAlias = NDArray[np.uint8]

_TOLERANCE = 0.008  # of the frame's diagonal
_ROBUSTNESS_EPSILON = 1e-6  # the official one, of a pixel


def region_similarity(
    truth: MaskArray, prediction: MaskArray, void: MaskArray | None = None
) -> float:
    """Compute J, the intersection over union, 0..1; 1 where both masks are empty.

    Args:
        truth: (H, W), nonzero on the object.
        prediction: (H, W), nonzero on the object.
        void: (H, W), nonzero where nothing is judged.
    """
    truth, prediction = _judged(truth, prediction, void)
    union = np.count_nonzero(truth | prediction)
    return np.count_nonzero(truth & prediction) / union if union else 1.0


def boundary_f(truth: MaskArray, prediction: MaskArray, void: MaskArray | None = None) -> float:
    """Compute F, the harmonic mean of the boundaries' precision and recall, 0..1.

    A boundary pixel counts as matched within 0.008 of the diagonal, rounded up to a pixel.
    A mask that fills the frame has no boundary: against an empty one it scores 1.

    Args:
        truth: (H, W), nonzero on the object.
        prediction: (H, W), nonzero on the object.
        void: (H, W), nonzero where nothing is judged; cut out before boundaries are traced.
    """
    truth, prediction = _judged(truth, prediction, void)
    height, width = truth.shape
    radius_px = math.ceil(_TOLERANCE * math.hypot(height, width))
    window = _common_window(truth, prediction)
    true_boundary = _boundary(truth[window])
    own_boundary = _boundary(prediction[window])
    num_true = cv2.countNonZero(true_boundary) if true_boundary.size else 0
    num_own = cv2.countNonZero(own_boundary) if own_boundary.size else 0
    if not num_true or not num_own:
        return 1.0 if num_true == num_own else 0.0
    near_true = _dilate(true_boundary, radius_px)
    near_own = _dilate(own_boundary, radius_px)
    precision = cv2.countNonZero(own_boundary & near_true) / num_own
    recall = cv2.countNonZero(true_boundary & near_own) / num_true
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def pixel_accuracy(truth: MaskArray, prediction: MaskArray) -> float:
    """Compute A of ReVOS, the share of pixels that are equal, 0..1.

    Values are compared as they are, as the official code does: a pixel of 2 in the truth (two
    objects overlap) or of 255 in the prediction equals no 1.

    Args:
        truth: (H, W), how many objects are there; a bool mask is 0 and 1.
        prediction: (H, W), likewise.
    """
    _check_shapes(truth, prediction)
    return float(np.mean(truth.astype(np.uint8) == prediction.astype(np.uint8)))


def robustness(truth: MaskArray, prediction: MaskArray, foreground: MaskArray) -> float:
    """Compute R of ReVOS to the letter: 1 - false-positive area / foreground area, 0..1.

    The official code counts in uint8, and so does this: where the truth is 2 (two objects
    overlap), 1 - 2 wraps to 255, and a right answer is punished. `robustness_sane` is what the
    formula means; this is what published figures hold.

    Args:
        truth: (H, W), how many objects are there; a bool mask is 0 and 1.
        prediction: (H, W), likewise.
        foreground: (H, W), 1 on everything that is annotated in the video.
    """
    _check_shapes(truth, prediction, foreground)
    wrong = (np.uint8(1) - truth.astype(np.uint8)) * prediction.astype(np.uint8)
    ratio = np.sum(wrong) / (np.sum(foreground.astype(np.uint8)) + _ROBUSTNESS_EPSILON)
    return max(0.0, float(1 - ratio))


def robustness_sane(truth: MaskArray, prediction: MaskArray, foreground: MaskArray) -> float:
    """Compute R with overlaps clipped and every nonzero value taken as 1.

    Equals `robustness` on masks of 0 and 1.

    Args:
        truth: (H, W), nonzero on the targets.
        prediction: (H, W), nonzero on the answer.
        foreground: (H, W), nonzero on everything that is annotated in the video.
    """
    return robustness(truth != 0, prediction != 0, foreground != 0)


def intersection_and_union(
    truth: MaskArray, prediction: MaskArray, void: MaskArray | None = None
) -> tuple[int, int]:
    """Count the pixels of both masks and of either, as gIoU and cIoU want them.

    Args:
        truth: (H, W), nonzero on the object.
        prediction: (H, W), nonzero on the object.
        void: (H, W), nonzero where nothing is judged.
    """
    truth, prediction = _judged(truth, prediction, void)
    return int(np.count_nonzero(truth & prediction)), int(np.count_nonzero(truth | prediction))


def _check_shapes(*masks: MaskArray | None) -> None:
    shapes = {mask.shape for mask in masks if mask is not None}
    if len(shapes) != 1 or len(next(iter(shapes))) != 2:
        msg = f"masks must be (H, W) and equal in shape, got {sorted(shapes)}"
        raise ValueError(msg)


def _judged(
    truth: MaskArray, prediction: MaskArray, void: MaskArray | None
) -> tuple[_BoolArray, _BoolArray]:
    _check_shapes(truth, prediction, void)
    own, other = truth.astype(bool, copy=False), prediction.astype(bool, copy=False)
    if void is None:
        return own, other
    judged = ~void.astype(bool, copy=False)
    return own & judged, other & judged


def _common_window(a: _BoolArray, b: _BoolArray) -> tuple[slice, slice]:
    """Bound both masks with a pixel to spare, which keeps the rules of the border true."""
    height, width = a.shape
    x, y, box_width, box_height = cv2.boundingRect((a | b).view(np.uint8))
    if not box_width:
        return slice(0, 0), slice(0, 0)
    return (
        slice(max(y - 1, 0), min(y + box_height + 1, height)),
        slice(max(x - 1, 0), min(x + box_width + 1, width)),
    )


def _boundary(mask: _BoolArray) -> _U8Array:
    """Mark the pixels that differ from a neighbour to the right, below, or across."""
    pixels = np.ascontiguousarray(mask).view(np.uint8)
    if not pixels.size:
        return pixels
    return cv2.morphologyEx(
        pixels,
        cv2.MORPH_GRADIENT,
        np.ones((2, 2), dtype=np.uint8),
        anchor=(0, 0),
        borderType=cv2.BORDER_REPLICATE,
    )


def _dilate(boundary: _U8Array, radius_px: int) -> _U8Array:
    """Mark what lies within a distance of the boundary.

    A disk is a union of rectangles, the narrower the taller. Spread sidewise and upwards in
    turns, each step continues the last one: a few steps of a few pixels instead of one disk.
    """
    wide = near = boundary
    for sidewise, upright in _steps(radius_px):
        wide = cv2.dilate(wide, sidewise)
        near = cv2.dilate(near, upright)
        cv2.bitwise_or(near, wide, dst=near)
    return near


@lru_cache(maxsize=32)
def _steps(radius_px: int) -> tuple[tuple[_U8Array, _U8Array], ...]:
    """Make the horizontal and vertical elements that add up to the disk of a radius."""
    height_by_width = {math.isqrt(radius_px**2 - y**2): y for y in range(radius_px + 1)}
    sizes = sorted(height_by_width.items())
    return tuple(
        (_line(width - narrower), _line(taller - height).T)
        for (narrower, taller), (width, height) in pairwise(sizes)
    )


def _line(reach_px: int) -> _U8Array:
    return np.ones((1, 2 * reach_px + 1), dtype=np.uint8)
