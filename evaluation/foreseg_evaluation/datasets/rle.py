# SPDX-License-Identifier: Apache-2.0
"""Run-length records as datasets write them: {"size": [H, W], "counts": ...}.

Counts are COCO's compressed text (also as bytes, as pycocotools gives it) or a list of runs. The
checks when a dataset is read are cheap; a mask is decoded when it is asked for. Does not know:
files, datasets.
"""

from __future__ import annotations

import numpy as np

from foreseg.errors import InputError
from foreseg.masks import Mask, MaskRle, mask_from_rle

Counts = str | bytes | list[object]


def counts_of(record: object, size_wh: tuple[int, int]) -> Counts:
    """Take the counts of a record of a known size, without decoding them.

    Raises:
        InputError: for anything that is no record, or has another size.
    """
    if not isinstance(record, dict) or not {"size", "counts"} <= record.keys():
        msg = f"expected an RLE with size and counts, got {repr(record)[:60]}"
        raise InputError(msg)
    size = record["size"]
    wanted = [size_wh[1], size_wh[0]]
    if not isinstance(size, (list, tuple)) or list(size) != wanted:
        msg = f"the RLE has the size {size!r}, expected {wanted} (height, width)"
        raise InputError(msg)
    counts = record["counts"]
    if not isinstance(counts, (str, bytes, list)):
        msg = f"RLE counts are a text or a list of runs, got {type(counts).__name__}"
        raise InputError(msg)
    return counts


def mask_from_counts(counts: Counts, size_wh: tuple[int, int]) -> Mask:
    """Decode to (H, W) bool.

    Raises:
        InputError: if the runs do not fill the mask exactly, or are none.
    """
    width, height = size_wh
    if isinstance(counts, list):
        return _mask_from_runs(counts, size_wh)
    text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
    return mask_from_rle(MaskRle(height=height, width=width, counts=text))


def _mask_from_runs(runs: list[object], size_wh: tuple[int, int]) -> Mask:
    width, height = size_wh
    lengths: list[int] = []
    for run in runs:
        if not isinstance(run, int) or isinstance(run, bool) or run < 0:
            msg = f"a run is a whole number from 0 on, got {run!r}"
            raise InputError(msg)
        lengths.append(run)
    if sum(lengths) != height * width:
        msg = f"run lengths sum to {sum(lengths)}, expected {height} x {width} = {height * width}"
        raise InputError(msg)
    values = (np.arange(len(lengths)) % 2).astype(np.bool_)
    flat: Mask = np.repeat(values, lengths)
    return np.ascontiguousarray(flat.reshape(width, height).T)
