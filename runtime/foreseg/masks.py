# SPDX-License-Identifier: Apache-2.0
"""Masks at source size, and their run-length form (COCO compressed), without dependencies.

The run-length form is COCO's: runs in column-major order, the first of background, as deltas in
base 32 with six bits a character. Tested against pycocotools.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy

Mask = NDArray[np.bool_]  # (H, W) at source size
MAX_RUN_BITS = 40  # of a run length; what comes from outside is bounded before it is added up


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskRle:
    """A mask as COCO compressed counts; empty counts mean that the object is absent."""

    height: int
    width: int
    counts: str

    @property
    def is_absent(self) -> bool:
        """True if no pixel is set by convention (empty counts)."""
        return not self.counts


def rle_from_mask(mask: Mask) -> MaskRle:
    """Encode an (H, W) bool mask; an empty mask becomes empty counts.

    Raises:
        InputError: for anything that is not a two-dimensional bool array.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2:  # noqa: PLR2004 (rows and columns)
        msg = f"a mask wants (H, W) bool, got {mask.shape} {mask.dtype}"
        raise InputError(msg)
    height, width = mask.shape
    columns = np.flatnonzero(mask.any(axis=0))
    if columns.size == 0:
        return MaskRle(height=height, width=width, counts="")
    first, last = int(columns[0]), int(columns[-1]) + 1
    flat = np.ascontiguousarray(mask[:, first:last].T).reshape(-1)  # only the columns with pixels
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size])) + first * height
    runs = np.diff(edges).tolist()
    before, after = first * height, (width - last) * height
    if flat[0]:
        runs.insert(0, before)
    else:
        runs[0] += before
    if after:
        if flat[-1]:
            runs.append(after)
        else:
            runs[-1] += after
    return MaskRle(height=height, width=width, counts=_text_from_runs(runs))


def mask_from_rle(rle: MaskRle) -> Mask:
    """Decode to an (H, W) bool mask.

    Raises:
        InputError: if the runs do not sum to height x width, or the text is no run-length code.
    """
    size = rle.height * rle.width
    if rle.is_absent:
        return np.zeros((rle.height, rle.width), dtype=np.bool_)
    runs = _runs_from_text(rle.counts)
    if sum(runs) != size:
        msg = f"run lengths sum to {sum(runs)}, expected {rle.height} x {rle.width} = {size}"
        raise InputError(msg)
    values = (np.arange(len(runs)) % 2).astype(np.bool_)
    flat: Mask = np.repeat(values, runs)
    return np.ascontiguousarray(flat.reshape(rle.width, rle.height).T)


def rle_area(rle: MaskRle) -> int:
    """Number of pixels that are set."""
    return 0 if rle.is_absent else sum(_runs_from_text(rle.counts)[1::2])


def mask_iou(a: Mask, b: Mask) -> float:
    """Intersection over union in [0, 1]; 1 where both are empty.

    Raises:
        InputError: if the shapes differ.
    """
    if a.shape != b.shape:
        msg = f"masks of one size are compared, got {a.shape} and {b.shape}"
        raise InputError(msg)
    union = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / union if union else 1.0


def rle_iou(a: MaskRle, b: MaskRle) -> float:
    """`mask_iou` of two run-length masks."""
    return mask_iou(mask_from_rle(a), mask_from_rle(b))


def rle_union(a: MaskRle, b: MaskRle) -> MaskRle:
    """The pixels of either of two masks of one size."""
    if a.is_absent or b.is_absent:
        return b if a.is_absent else a
    return rle_from_mask(mask_from_rle(a) | mask_from_rle(b))


def mask_from_box(box: BoxXyxy, size_wh: tuple[int, int]) -> Mask:
    """The pixels whose centre lies in the box, (H, W) bool."""
    w, h = size_wh
    x_in = (np.arange(w) + 0.5 >= box.x0) & (np.arange(w) + 0.5 < box.x1)
    y_in = (np.arange(h) + 0.5 >= box.y0) & (np.arange(h) + 0.5 < box.y1)
    return np.logical_and(y_in[:, None], x_in[None, :])


def _text_from_runs(runs: list[int]) -> str:
    """COCO's text: from the fourth run on, the difference to the run two before."""
    text: list[int] = []
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run  # noqa: PLR2004 (the format's own number)
        while True:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text.append((bits | 0x20 if more else bits) + 48)
            if not more:
                break
    return bytes(text).decode("ascii")


def _runs_from_text(text: str) -> list[int]:
    runs: list[int] = []
    value, shift = 0, 0
    for char in text:
        code = ord(char) - 48
        if not 0 <= code < 64:  # noqa: PLR2004
            msg = f"run-length text has the character {char!r}, expected '0' to 'o'"
            raise InputError(msg)
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            if shift > MAX_RUN_BITS:
                msg = f"run-length text has a number of more than {MAX_RUN_BITS} bits"
                raise InputError(msg)
            continue
        if code & 0x10:
            value -= 1 << shift
        run = value + runs[-2] if len(runs) > 2 else value  # noqa: PLR2004
        if not 0 <= run < 1 << MAX_RUN_BITS:
            msg = f"run-length text has a run of {run} pixels, expected 0 to 2^{MAX_RUN_BITS} - 1"
            raise InputError(msg)
        runs.append(run)
        value, shift = 0, 0
    if shift:
        msg = "run-length text ends in the middle of a number"
        raise InputError(msg)
    return runs
