# SPDX-License-Identifier: Apache-2.0
"""Pickles of plain data only: a pickle that names any class or function is refused.

Lists, tuples, dicts, sets, texts, bytes, numbers, True, False and None need no name, so nothing
that a pickle could call is within reach. Python 2's texts are read as latin-1. Does not know:
what the data means.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import BinaryIO, NoReturn

from foreseg_evaluation.problems import refuse

from .entries import Entry


def read_plain_pickle(path: Path) -> Entry:
    """Read plain data.

    Raises:
        DatasetError: if the file is missing, truncated, no pickle, or names a global.
    """
    try:
        with path.open("rb") as file:
            value = _PlainUnpickler(file).load()
    except OSError as error:
        raise refuse(path, "", f"cannot be read ({error.strerror})") from error
    except _BROKEN as error:
        message = f"is no whole pickle of plain data ({type(error).__name__}: {error})"
        raise refuse(path, "", message) from error
    return Entry(file=path, key="", value=value)


_BROKEN = (  # what unpickling nonsense raises
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> NoReturn:
        msg = f"it names {module}.{name}, and only plain data is read"
        raise pickle.UnpicklingError(msg)
