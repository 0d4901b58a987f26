# SPDX-License-Identifier: Apache-2.0
"""`--check` of an export: ask the finished folder about drawn scenes, and leave the result in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from foreseg.reasoner.options import Scalar
from foreseg.reasoner.scene_check import SceneCheck, check_reasoner, write_check
from foreseg_torch.reasoner import transformers_reasoner
from foreseg_torch.seg.store import seg_method_of


def check_folder(
    folder: Path, *, device: str = "auto", report: Callable[[str], None] = lambda _: None
) -> SceneCheck:
    """Load a folder as a robot does, ask it, and write `check.json` beside its weights.

    Args:
        folder: of a language model, or of one that segments; it stays, whatever comes of it.
        device: "auto" takes the GPU where there is one.
        report: is told each answer.

    Raises:
        InputError, EngineError, ConfigError: it cannot be loaded.
    """
    options: dict[str, Scalar] = {"model": str(folder), "device": device}
    method = seg_method_of(folder)
    if method is not None:
        options["method"] = method
    found = check_reasoner(transformers_reasoner(options), report=report)
    write_check(folder, found)
    report(found.caution or f"checked: on drawn scenes IoU is at least {found.worst_iou:.2f}")
    return found
