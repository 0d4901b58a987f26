# SPDX-License-Identifier: Apache-2.0
"""Boxes matched to true boxes one to one, and Veason-R1's R_s of them: metric and reward alike.

Does not know: frames, masks, where boxes come from. Imports neither torch nor OpenCV.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

F64 = NDArray[np.float64]


def spatial_score(predicted_xyxy: ArrayLike, truth_xyxy: ArrayLike) -> float:
    """Summed IoU of matched boxes over the larger number of boxes, 0..1: R_s of Veason-R1.

    The matching is Hungarian on 1 - IoU. Repeated and broken boxes stay in the count: give NaN
    rows for what was no box. Without predicted and true boxes it is 1.

    Args:
        predicted_xyxy: (N, 4).
        truth_xyxy: (M, 4), the targets *in the answered keyframe*.

    Raises:
        ValueError: another shape, or a true box that is not finite.
    """
    predicted, truth = rows_of(predicted_xyxy, 4, "boxes"), rows_of(truth_xyxy, 4, "boxes")
    check_finite(truth, "true boxes")
    if not len(predicted) and not len(truth):
        return 1.0
    return matched_sum(box_ious(predicted, truth)) / max(len(predicted), len(truth))


def matched_boxes(predicted_xyxy: ArrayLike, truth_xyxy: ArrayLike) -> tuple[tuple[int, int], ...]:
    """The pairs (predicted, true) of the same matching that overlap at all, by predicted box.

    Args:
        predicted_xyxy: (N, 4); NaN rows for what was no box.
        truth_xyxy: (M, 4).

    Raises:
        ValueError: another shape, or a true box that is not finite.
    """
    predicted, truth = rows_of(predicted_xyxy, 4, "boxes"), rows_of(truth_xyxy, 4, "boxes")
    check_finite(truth, "true boxes")
    ious = box_ious(predicted, truth)
    pairs = zip(*linear_sum_assignment(ious, maximize=True), strict=True)
    return tuple((int(i), int(j)) for i, j in pairs if ious[i, j] > 0)


def box_ious(a: F64, b: F64) -> F64:
    """IoU of each pair, (N, M); 0 for boxes that are NaN, infinite, empty or inside out.

    Args:
        a: (N, 4).
        b: (M, 4), finite.
    """
    a = np.where(np.isfinite(a).all(axis=1, keepdims=True), a, 0.0)
    corner0 = np.maximum(a[:, None, :2], b[None, :, :2])
    corner1 = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.maximum(corner1 - corner0, 0).prod(axis=2)
    area_a, area_b = (np.maximum(box[:, 2:] - box[:, :2], 0).prod(axis=1) for box in (a, b))
    union = area_a[:, None] + area_b[None] - overlap
    ious: F64 = np.where(union > 0, overlap / np.where(union > 0, union, 1.0), 0.0)
    return ious


def matched_sum(gain: F64) -> float:
    """Largest sum over one-to-one matches of (N, M)."""
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return float(gain[rows, columns].sum())


def rows_of(values: ArrayLike, width: int, what: str) -> F64:
    """Values as (N, width) float64; nothing is (0, width).

    Raises:
        ValueError: another shape; names `what`.
    """
    rows = np.asarray(values, dtype=np.float64)
    if rows.size == 0:
        return np.zeros((0, width))
    if rows.ndim != 2 or rows.shape[1] != width:
        msg = f"{what} want the shape (N, {width}), got {rows.shape}"
        raise ValueError(msg)
    return rows


def check_finite(values: F64, what: str) -> None:
    """Refuse NaN and infinities.

    Raises:
        ValueError: there is one; names `what` and where.
    """
    if not np.isfinite(values).all():
        number = int(np.argwhere(~np.isfinite(values))[0][0])
        msg = f"{what} want finite numbers, got {values[number]} at {number}"
        raise ValueError(msg)
