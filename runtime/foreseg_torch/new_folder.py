# SPDX-License-Identifier: Apache-2.0
"""A folder that appears under its name whole or not at all. Does not know what goes into it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from foreseg.errors import InputError


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to write into; at the end of the block it becomes `out`, unless that failed.

    Raises:
        InputError: `out` exists and is no empty folder, or it cannot be written.
    """
    try:
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            msg = f"{out} exists: remove it, or choose another folder"
            raise InputError(msg)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            folder = Path(scratch) / "new"  # with the permissions that a folder usually has
            folder.mkdir()
            yield folder
            folder.rename(out)
    except (OSError, SafetensorError) as error:
        msg = f"{out} cannot be written: {error}"
        raise InputError(msg) from error
