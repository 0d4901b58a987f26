# SPDX-License-Identifier: Apache-2.0
"""What is costly to make is made once a test run, by one of its processes, and read by all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

VARIABLE = "FORESEG_TEST_FOLDER"  # set by tests/conftest.py, and inherited by the workers
_MAKING: set[str] = set()  # names that are being filled by this process


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name` of this test run; who asks first fills it, the others wait for that.

    It is for reading only: whoever wants to change something takes a copy.

    Args:
        name: of the folder, the same in every process.
        make: fills the empty folder that it is given. If it fails, nothing is there afterwards.
    """
    if name in _MAKING:
        msg = f"what makes {name!r} asks for it: it would wait for itself"
        raise RuntimeError(msg)
    root = Path(os.environ[VARIABLE])
    folder, part = root / name, root / f"{name}.part"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            _MAKING.add(name)
            try:
                make(part)
            finally:
                _MAKING.discard(name)
            part.rename(folder)
    return folder
