# SPDX-License-Identifier: Apache-2.0
"""Region similarity J and boundary measure F of two masks, as davis2017-evaluation has them.

Works inside the box that holds both masks, so that the time goes with the objects' size and
not with the frame's. Does not know: clips, averages over frames, files.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

MaskArray: TypeAlias = NDArray[np.bool_] | NDArray[np.uint8]
_BoolArray: TypeAlias = NDArray[np.bool_]
_U8Array: TypeAlias = NDArray[np.uint8]

_TOLERANCE = 0.008  # of the frame's diagonal


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
    disk = _disk(radius_px)
    near_true = cv2.dilate(true_boundary, disk)
    near_own = cv2.dilate(own_boundary, disk)
    precision = cv2.countNonZero(own_boundary & near_true) / num_own
    recall = cv2.countNonZero(true_boundary & near_own) / num_true
    if precision + recall == 0:
        return 0.0
    return 2 * precision * recall / (precision + recall)


def _judged(
    truth: MaskArray, prediction: MaskArray, void: MaskArray | None
) -> tuple[_BoolArray, _BoolArray]:
    shapes = {mask.shape for mask in (truth, prediction, void) if mask is not None}
    if len(shapes) != 1 or truth.ndim != 2:
        msg = f"masks must be (H, W) and equal in shape, got {sorted(shapes)}"
        raise ValueError(msg)
    own, other = truth.astype(bool), prediction.astype(bool)
    if void is None:
        return own, other
    judged = ~void.astype(bool)
    return own & judged, other & judged


def _common_window(a: _BoolArray, b: _BoolArray) -> tuple[slice, slice]:
    """Bound both masks with a pixel to spare, which keeps the rules of the border true."""
    height, width = a.shape
    box_a, box_b = cv2.boundingRect(a.view(np.uint8)), cv2.boundingRect(b.view(np.uint8))
    boxes = [box for box in (box_a, box_b) if box[2]]
    if not boxes:
        return slice(0, 0), slice(0, 0)
    x0, y0 = min(box[0] for box in boxes), min(box[1] for box in boxes)
    x1 = max(box[0] + box[2] for box in boxes)
    y1 = max(box[1] + box[3] for box in boxes)
    return (
        slice(max(y0 - 1, 0), min(y1 + 1, height)),
        slice(max(x0 - 1, 0), min(x1 + 1, width)),
    )


def _boundary(mask: _BoolArray) -> _U8Array:
    """Mark the pixels that differ from a neighbour to the right, below, or across."""
    mask = mask.view(np.uint8)
    edge = np.zeros(mask.shape, dtype=np.uint8)
    if not edge.size:
        return edge
    here, right = mask[:-1, :-1], mask[:-1, 1:]
    below, across = mask[1:, :-1], mask[1:, 1:]
    edge[:-1, :-1] = (here ^ right) | (here ^ below) | (here ^ across)
    edge[-1, :-1] = mask[-1, :-1] ^ mask[-1, 1:]
    edge[:-1, -1] = mask[:-1, -1] ^ mask[1:, -1]
    return edge


@lru_cache(maxsize=32)
def _disk(radius_px: int) -> _U8Array:
    """Make a structuring element of the pixels within a distance of its centre."""
    span = np.arange(-radius_px, radius_px + 1)
    return (span[:, None] ** 2 + span**2 <= radius_px**2).astype(np.uint8)
