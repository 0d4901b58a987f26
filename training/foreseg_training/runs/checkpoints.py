# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are whole: each gets a mark once all of it lies on the disk; others count nothing.

The mark names the files and their sizes, so that a folder that lost some later is known, too. A
trainer writes in place, file by file; a run that is killed meanwhile leaves a folder without a mark,
which is never resumed from and is removed when the run goes on. Does not know: what checkpoints hold.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from foreseg.errors import ConfigError, InputError

from .whole_file import write_whole

FOLDER = "checkpoints"  # in a run's folder
MARK = "whole.json"
_PREFIX = "checkpoint-"

_LOG = logging.getLogger(__name__)


class MarkCheckpoints(TrainerCallback):
    """Marks a checkpoint as whole, after every process has written its part."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        """The trainer has written a checkpoint."""
        from accelerate import PartialState

        del control
        PartialState().wait_for_everyone()
        folder = Path(args.output_dir) / f"{_PREFIX}{state.global_step}"
        if state.is_world_process_zero:
            mark_whole(folder)


def mark_whole(folder: Path) -> None:
    """Bring a checkpoint's files to the disk, then say that they are all there.

    Raises:
        InputError: the disk does not take them.
    """
    try:
        sizes = {}
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MARK):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            sizes[path.relative_to(folder).as_posix()] = path.stat().st_size
    except OSError as error:
        msg = f"the checkpoint {folder} cannot be written: {error.strerror}"
        raise InputError(msg) from error
    write_whole(folder / MARK, json.dumps(sizes, indent=1) + "\n")


def was_whole(folder: Path) -> bool:
    """True if a checkpoint was finished, whatever it may have lost since."""
    return (folder / MARK).is_file()


def is_whole(folder: Path) -> bool:
    """True if a checkpoint is marked, and has all the files of its mark in their sizes."""
    try:
        sizes = json.loads((folder / MARK).read_text("utf-8"))
        return bool(sizes) and all(
            (folder / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, AttributeError):  # no mark, half a mark, or a file less
        return False


def checkpoints_of(out: Path) -> list[Path]:
    """All checkpoint folders of a run, whole or not, by step."""
    found = [p for p in (out / FOLDER).glob(f"{_PREFIX}*") if p.name[len(_PREFIX) :].isdecimal()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name[len(_PREFIX) :])


def newest_checkpoint(out: Path) -> Path:
    """The newest whole checkpoint of a run.

    Raises:
        ConfigError: there is none; says if there are halves.
    """
    found = checkpoints_of(out)
    whole = [path for path in found if is_whole(path)]
    if not whole:
        halves = f", only {len(found)} that were not finished" if found else ""
        msg = f"nothing to resume from in {out}: it has no whole {FOLDER}/checkpoint-N{halves}"
        raise ConfigError(msg)
    return whole[-1]


def remove_halves(out: Path) -> None:
    """Remove checkpoints that were never finished, so that no later one is written into them."""
    for path in checkpoints_of(out):
        if not is_whole(path):
            _LOG.warning("%s was not finished: removed", path)
            shutil.rmtree(path)
