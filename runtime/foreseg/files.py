# SPDX-License-Identifier: Apache-2.0
"""Reading what a user names: a plain file, looked at before it is read. Knows no contents."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def user_path(text: str | Path) -> Path:
    """A path as a shell would open its `~`; as it stands where nobody has that home folder."""
    path = Path(text)
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def file_size(path: Path) -> int:
    """The size of a plain file in bytes; a sparse file's counts its holes.

    Raises:
        OSError: not there, not readable, or no plain file: a folder, a device, a pipe.
    """
    with _opened(path) as file:
        return os.fstat(file.fileno()).st_size


def read_file(path: Path, max_bytes: int) -> bytes:
    """The content of a plain file that is not larger than it should be.

    Raises:
        OSError: as for `file_size`, or it has more than `max_bytes`.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            reason = f"it has {size} bytes, expected at most {max_bytes}"
            raise OSError(errno.EFBIG, reason, str(path))
        return file.read(size)


def _opened(path: Path) -> BinaryIO:
    try:
        # without O_NONBLOCK a pipe would keep us until somebody writes into it
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except ValueError as error:  # a zero byte in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(errno.EINVAL, "it is no plain file", str(path))
    return os.fdopen(number, "rb")
