# SPDX-License-Identifier: Apache-2.0
"""Strict, typed reading of the JSON files of a bundle; knows none of their fields."""

from __future__ import annotations

import json
import math
from pathlib import Path, PurePosixPath
from typing import NoReturn

from foreseg.errors import EngineError
from foreseg.files import read_file

MAX_RECORD_BYTES = 1 << 24
MAX_SIZE = 1_000_000  # of anything that is counted
Json = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


def read_fields(path: Path, missing: str) -> Fields:
    """The fields of a JSON file that holds one object.

    Args:
        path: of the file.
        missing: what it means if the file cannot be opened.

    Raises:
        EngineError: it cannot be opened, or is damaged.
    """
    try:
        text = read_file(path, MAX_RECORD_BYTES).decode("utf-8")
    except OSError as error:
        msg = f"{missing}: {error.strerror or error}"
        raise EngineError(msg) from error
    except UnicodeDecodeError as error:
        msg = f"{path} is damaged: {error}"
        raise EngineError(msg) from error
    try:
        data: Json = json.loads(text)
    except (ValueError, RecursionError) as error:  # also a number of thousands of digits
        msg = f"{path} is damaged: {error}"
        raise EngineError(msg) from error
    return Fields(data, str(path))


class Fields:
    """Typed access to a JSON object; every mistake names the file and the field."""

    def __init__(self, data: Json, where: str) -> None:
        if not isinstance(data, dict):
            msg = f"{where} wants an object, got {type(data).__name__}"
            raise EngineError(msg)
        self._data = data
        self._where = where

    def _get(self, key: str, kinds: tuple[type, ...], wanted: str) -> Json:
        value = self._data.get(key)
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            self.refuse(f"wants {wanted} in {key!r}, got {value!r:.60}")
        return value

    def refuse(self, reason: str) -> NoReturn:
        """Say what does not fit.

        Raises:
            EngineError: always; names the file.
        """
        msg = f"{self._where} {reason}"
        raise EngineError(msg)

    def text(self, key: str) -> str:
        """A text."""
        return str(self._get(key, (str,), "a text"))

    def file_name(self, key: str) -> str:
        """A plain name: a file in the folder of the record, never elsewhere."""
        name = self.text(key)
        is_plain = PurePosixPath(name).name == name and name not in ("", "..")
        if not is_plain or "\\" in name or not name.isprintable():
            self.refuse(f"wants a plain file name in {key!r}, got {name!r:.60}")
        return name

    def integer(self, key: str) -> int:
        """An integer; true and false are none."""
        value = self._get(key, (int,), "an integer")
        return value if isinstance(value, int) else 0

    def positive(self, key: str) -> int:
        """An integer of 1 to `MAX_SIZE`."""
        value = self.integer(key)
        if not 1 <= value <= MAX_SIZE:
            self.refuse(f"wants an integer of 1 to {MAX_SIZE} in {key!r}, got {value!r:.60}")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self._get(key, (int, float), "a number")
        number = _finite(value)
        if number is None:
            self.refuse(f"wants a finite number in {key!r}, got {value!r:.60}")
        return number

    def number_or_none(self, key: str) -> float | None:
        """A finite number, or null; the field itself must be there."""
        return None if key in self._data and self._data[key] is None else self.number(key)

    def flag(self, key: str) -> bool:
        """True or false."""
        return bool(self._get(key, (bool,), "true or false"))

    def items(self, key: str) -> list[Json]:
        """A list."""
        value = self._get(key, (list,), "a list")
        return value if isinstance(value, list) else []

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` finite numbers."""
        values = self.items(key)
        numbers = [number for value in values if (number := _finite(value)) is not None]
        if len(numbers) != len(values) or len(numbers) != count:
            self.refuse(f"wants {count} finite numbers in {key!r}, got {values!r:.60}")
        return tuple(numbers)

    def child(self, key: str) -> Fields:
        """An object in the object."""
        return Fields(self._data.get(key), f"{self._where} ({key})")

    def child_or_none(self, key: str) -> Fields | None:
        """An object in the object, or null; the field itself must be there."""
        return None if key in self._data and self._data[key] is None else self.child(key)

    def children(self, key: str) -> list[Fields]:
        """A list of objects."""
        return [Fields(item, f"{self._where} ({key})") for item in self.items(key)]


def _finite(value: Json) -> float | None:
    """A number as a fraction; None for one that no fraction can hold, and for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
