# SPDX-License-Identifier: Apache-2.0
"""The option `--check` of the exports of language models; `scene_check` does the work."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

CHECK_HELP = (
    "then load the folder as a robot does and ask it about drawn scenes; one whose answers overlap"
    " the truth by less than half is kept and marked unchecked (exit code 1)"
)
UNCHECKED = 1


def checked(folder: Path, device: str, report: Callable[[str], None]) -> int:
    """Check a finished folder; the exit code."""
    check = importlib.import_module("foreseg_export.scene_check")  # needs torch
    found = check.check_folder(folder, device=device, report=report)
    return 0 if found.is_checked else UNCHECKED
