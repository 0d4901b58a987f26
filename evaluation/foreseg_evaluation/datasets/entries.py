# SPDX-License-Identifier: Apache-2.0
"""Values of a file from outside, each with the place where it stands, checked when taken.

Taking a value of another kind than wanted raises `DatasetError` with file and key. Does not know:
datasets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from foreseg_evaluation.problems import DatasetError, ProblemLog, refuse

MAX_SIDE_PX = 1 << 14  # what comes from outside is bounded before memory is taken for it
MAX_DIGITS = 18  # of a number in a name


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A value and where it stands: `key` is the path inside `file`, as "videos/bear/frames"."""

    file: Path
    key: str
    value: object

    def find(self, name: str) -> Entry | None:
        """Take a named value; None where it is absent or null."""
        value = self._table().get(name)
        return None if value is None else self._below(name, value)

    def __getitem__(self, name: str) -> Entry:
        found = self.find(name)
        if found is None:
            raise wrong(self._below(name, None), "is missing")
        return found

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Iterate over the values of an object by name, or of a list by index."""
        if isinstance(self.value, list):
            items = [(str(i), value) for i, value in enumerate(self.value)]
        else:
            items = [(str(name), value) for name, value in self._table().items()]
        for name, value in items:
            yield name, self._below(name, value)

    def array(self) -> list[object]:
        """Take a list."""
        if not isinstance(self.value, list):
            raise _unlike(self, "a list")
        return self.value

    def text(self) -> str:
        """Take a text that is not blank, without the blanks around it."""
        if not isinstance(self.value, str):
            raise _unlike(self, "a text")
        if not self.value.strip():
            raise wrong(self, "is empty, expected a text")
        return self.value.strip()

    def integer(self) -> int:
        """Take a whole number; 848.0 is one."""
        value = self.value
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise _unlike(self, "a whole number")
        return value

    def number(self) -> float:
        """Take a number."""
        if not isinstance(self.value, (int, float)) or isinstance(self.value, bool):
            raise _unlike(self, "a number")
        return float(self.value)

    def ident(self) -> str:
        """Take an id, an int or a text, as a text."""
        return Entry(file=self.file, key=self.key, value=[self.value]).idents()[0]

    def idents(self) -> tuple[str, ...]:
        """Take ids as texts: of a list, or the only one, each an int or a text."""
        values = self.value if isinstance(self.value, list) else [self.value]
        for value in values:
            if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
                raise _unlike(self, "an id (an int or a text)", value)
        return tuple(str(value) for value in values)

    def _table(self) -> dict[object, object]:
        if not isinstance(self.value, dict):
            raise _unlike(self, "an object")
        return self.value

    def _below(self, name: str, value: object) -> Entry:
        key = f"{self.key}/{name}" if self.key else name
        return Entry(file=self.file, key=key, value=value)


def wrong(entry: Entry, message: str) -> DatasetError:
    """Make the error for a value: what is wrong with it."""
    return refuse(entry.file, entry.key, message)


def _unlike(entry: Entry, wanted: str, value: object = ...) -> DatasetError:
    shown = repr(entry.value if value is ... else value)
    return wrong(entry, f"expected {wanted}, got {shown[:60]}")


def size_wh_of(entry: Entry, width: str = "width", height: str = "height") -> tuple[int, int]:
    """Take (W, H), pixels, from two named values.

    Raises:
        DatasetError: if one is missing, no whole number, or out of bounds.
    """
    size_wh = (entry[width].integer(), entry[height].integer())
    if not all(1 <= side <= MAX_SIDE_PX for side in size_wh):
        raise wrong(entry, f"expected sides of 1 to {MAX_SIDE_PX} pixels, got {size_wh}")
    return size_wh


def is_number(name: str) -> bool:
    """Whether a name is a whole number from 0 on, of a length that names have."""
    return name.isascii() and name.isdecimal() and len(name) <= MAX_DIGITS


class _Repeated(dict[str, object]):
    """A JSON object some of whose keys stood in it more than once."""

    names: tuple[str, ...] = ()


def read_json(path: Path, log: ProblemLog, *, fallback: str = "") -> Entry:
    """Read a JSON file; a key that stands twice in an object is reported, and neither is kept.

    Args:
        path: the file.
        log: where repeated keys go.
        fallback: an encoding to try where the file is not UTF-8.

    Raises:
        DatasetError: if the file is missing, truncated or no JSON.
    """
    repeated: list[_Repeated] = []

    def collect(pairs: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(pairs)
        if len(table) == len(pairs):
            return table
        names = [name for name, _ in pairs]
        found = _Repeated(table)
        found.names = tuple(name for name in table if names.count(name) > 1)
        repeated.append(found)
        return found

    try:
        value = json.loads(_decode(path.read_bytes(), fallback), object_pairs_hook=collect)
    except OSError as error:
        raise refuse(path, "", f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise refuse(path, "", f"is no whole JSON file ({error})") from error
    entry = Entry(file=path, key="", value=value)
    if repeated:
        _drop_repeated(entry, log)
    return entry


def checked_name(name: str, entry: Entry, *, is_nested: bool = False) -> str:
    """Refuse a name that would lead out of the dataset's folder.

    Args:
        name: of a video, frame or file.
        entry: where the name stands.
        is_nested: whether slashes may divide it.

    Raises:
        DatasetError: for such a name.
    """
    parts = PurePosixPath(name).parts
    is_plain = bool(parts) and ".." not in parts and not name.startswith("/")
    if not is_plain or "\0" in name or "\\" in name or (len(parts) > 1 and not is_nested):
        raise wrong(entry, f"the name {name!r} is no plain file name")
    return name


def _decode(data: bytes, fallback: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        if not fallback:
            raise
        return data.decode(fallback)


def _drop_repeated(root: Entry, log: ProblemLog) -> None:
    todo = [root]
    while todo:
        entry = todo.pop()
        value = entry.value
        if isinstance(value, _Repeated):
            for name in value.names:
                key = f"{entry.key}/{name}".lstrip("/")
                log.report(entry.file, key, "stands twice in one object; neither is used")
                del value[name]
            value.names = ()
        if isinstance(value, (dict, list)):
            todo += [child for _, child in entry.entries()]
