# SPDX-License-Identifier: Apache-2.0
"""From mask logits on the model's grid to masks, boxes and the label map at source size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask, rle_from_mask
from foreseg.tracker.base import LabelMap, TrackedObject, TrackKey
from foreseg.tracker.preprocess import import_cv2

F32 = NDArray[np.float32]

_MAX_UINT8 = 255


def logits_at_source(logits: F32, size_wh: tuple[int, int]) -> F32:
    """(H, W) bilinear enlargement of (m, m) logits, pixel centres aligned as SAM2 aligns them."""
    cv2 = import_cv2()
    enlarged: F32 = cv2.resize(logits, size_wh, interpolation=cv2.INTER_LINEAR)
    return enlarged


def object_from_mask(
    key: TrackKey, mask: Mask, *, object_logit: float, score: float
) -> TrackedObject:
    """The record of one row: box, area and run-length mask of an (H, W) bool mask."""
    box = tight_box(mask)
    area_px = 0 if box is None else int(np.count_nonzero(mask))
    return TrackedObject(
        key=key,
        object_logit=object_logit,
        score=min(max(score, 0.0), 1.0),
        box=None if box is None else BoxXyxy(*(float(v) for v in box)),
        area_px=area_px,
        mask=rle_from_mask(mask),
    )


def tight_box(mask: Mask) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) of the set pixels, x1 and y1 exclusive, or None."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[y0:y1].any(axis=0))
    return int(columns[0]), y0, int(columns[-1]) + 1, y1


def label_map(
    score_maps: Sequence[F32 | None],
    boxes: Sequence[BoxXyxy | None],
    size_wh: tuple[int, int],
) -> LabelMap:
    """(H, W): 0 for background, i + 1 where the i-th map is positive and the highest.

    Args:
        score_maps: logits at source size, cut to the box each; None for an absent object.
        boxes: whole pixels outside of which no logit is positive; None for an absent object.
        size_wh: source pixels.
    """
    w, h = size_wh
    dtype = np.uint8 if len(score_maps) <= _MAX_UINT8 else np.uint16
    labels: LabelMap = np.zeros((h, w), dtype)
    taken = [box for box in boxes if box is not None]
    if not taken:
        return labels
    # the best so far, where there is a box at all: clearing a whole frame's takes as long as the rest
    left, top = int(min(box.x0 for box in taken)), int(min(box.y0 for box in taken))
    right, bottom = int(max(box.x1 for box in taken)), int(max(box.y1 for box in taken))
    best: F32 = np.zeros((bottom - top, right - left), np.float32)
    within = labels[top:bottom, left:right]
    for index, (scores, box) in enumerate(zip(score_maps, boxes, strict=True)):
        if scores is None or box is None:
            continue
        rows, columns = window(box)
        here = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        within[here][scores > best[here]] = index + 1
        np.maximum(best[here], scores, out=best[here])
    return labels


def window(box: BoxXyxy) -> tuple[slice[int, int, None], slice[int, int, None]]:
    """Rows and columns of a box of whole pixels."""
    return slice(int(box.y0), int(box.y1)), slice(int(box.x0), int(box.x1))
