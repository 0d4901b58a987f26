# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear under their names whole or not at all. Does not know what they hold."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from foreseg.errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write a text beside its place, on the disk, and put it there at once.

    Raises:
        InputError: it cannot be written: no space, no right, no folder; what was there stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror}"
        raise InputError(msg) from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to write into; at the end of the block it takes the place of `path`, unless that failed.

    Raises:
        InputError: it cannot be written; what was there stays.
    """
    part, old = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.old")
    try:
        for left in (part, old):  # of a run that was killed here
            shutil.rmtree(left, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rename(old)
        part.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        msg = f"{path} cannot be written: {error}"
        raise InputError(msg) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
