# SPDX-License-Identifier: Apache-2.0
"""A model that segments with a coarser language model, and what that costs its masks.

The coarser weights are saved before they have computed anything (see `vlm`), then drawn with. SAM2,
projection and the way it is decoded stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from foreseg.reasoner.scene_check import CHECK
from foreseg_export.seg_quality import SegQuality, drawn_by, seg_quality
from foreseg_export.vlm import save_quantised
from foreseg_export.vlm_quality import ValidationSet
from foreseg_torch.json_file import read_json_object
from foreseg_torch.new_folder import new_folder
from foreseg_torch.seg.store import SEG_NAME, load_seg_vlm, write_record
from foreseg_torch.vlm.loading import MB, Precision


def quantise_seg(
    source: Path,
    out: Path,
    precision: Precision,
    asked: ValidationSet,
    report: Callable[[str], None] = lambda _: None,
) -> SegQuality:
    """Make the new folder `out` of one that foreseg loads; what it costs stands in its `seg.json`.

    Args:
        source: with its language model in bf16.
        out: must not exist, or be an empty folder.
        precision: nf4 or int8.
        asked: what both are compared on.
        report: is told each step.

    Raises:
        InputError: its language model is quantised already, or `out` cannot be written.
        EngineError: `source` was changed since it was made.
        MissingExtraError: bitsandbytes or accelerate is absent.
    """
    with new_folder(out) as folder:
        reference = load_seg_vlm(source, precision=Precision.BF16)
        wanted = drawn_by(reference, asked)
        del reference  # the two need not be in memory at once
        made = load_seg_vlm(source, precision=precision)
        (folder / "vlm").mkdir()
        save_quantised(made.loaded, folder / "vlm")
        for path in source.iterdir():
            if path.name == "sam2":
                shutil.copytree(path, folder / path.name)
            elif path.is_file() and path.name not in (SEG_NAME, CHECK):
                shutil.copyfile(path, folder / path.name)
        found = drawn_by(made, asked)
        quality = seg_quality(wanted, found, precision=precision.value, asked=asked)
        report(_told(quality, found.num_bytes))
        record = read_json_object(source / SEG_NAME)
        write_record(
            folder,
            method=made.method,
            is_trained=made.is_trained,
            notes=f"{record.get('notes', '')}; language model as {precision.value}",
            decode=made.model.head.decode,
            more={"source": record.get("source"), "quality": asdict(quality)},
        )
    return quality


def _told(quality: SegQuality, num_bytes: int) -> str:
    return (
        f"as {quality.precision}: {quality.num_masks} masks overlap those of {quality.reference} by"
        f" {quality.mask_iou:.3f} (worst {quality.smallest_mask_iou:.3f}), states' cosine"
        f" {quality.state_cosine:.4f}; the language model takes {num_bytes / MB:.0f} MB,"
        f" {quality.bytes_ratio:.2f} of it ({quality.validation_set})"
    )
