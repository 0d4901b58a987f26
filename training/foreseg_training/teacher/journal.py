# SPDX-License-Identifier: Apache-2.0
"""What a teacher has said so far: one JSON object a line, only ever appended.

The first line says what was asked and of whom; a journal of something else is refused. A last line
that a crash cut off is dropped. Of several lines with one id the last counts. Does not know what a
line means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from foreseg.errors import ConfigError, InputError

Line = Mapping[str, Any]


class Journal:
    """A context: open for appending."""

    def __init__(self, path: Path, about: Line) -> None:
        """Read what is there.

        Args:
            path: of the file; made if it is not there.
            about: what was asked and of whom.

        Raises:
            ConfigError: it is the journal of something else.
            InputError: a line inside that is none of ours.
        """
        self.lines: dict[str, Line] = {}
        self._path = path
        self._file: TextIO | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = self._whole_part()
        if not whole:
            path.write_text(_text({"about": about}), "utf-8")
            return
        first, *rest = whole
        there = _parsed(first, path, 1).get("about")
        wanted = json.loads(json.dumps(about))
        if there != wanted:
            raise _another(path, there, wanted)
        for number, text in enumerate(rest, start=2):
            line = _parsed(text, path, number)
            if not isinstance(line.get("id"), str):
                msg = f"{path}, line {number}: expected an id, got {text[:80]!r}"
                raise InputError(msg)
            self.lines[line["id"]] = line

    def __enter__(self) -> Journal:  # noqa: PYI034 (Self is Python 3.11)
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def append(self, line: Line) -> None:
        """Add a line, which has an "id"; it is in the file when this returns."""
        if self._file is None:
            msg = "a journal is appended to inside its context"
            raise RuntimeError(msg)
        self._file.write(_text(line))
        self._file.flush()
        self.lines[str(line["id"])] = line

    def _whole_part(self) -> list[str]:
        """The lines; the file is cut where its last one is not whole."""
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        end = data.rfind(b"\n") + 1
        if end < len(data):
            with self._path.open("r+b") as file:
                file.truncate(end)
        return data[:end].decode("utf-8", "replace").splitlines()


def _text(line: Line) -> str:
    return json.dumps(line, ensure_ascii=True) + "\n"


def _parsed(text: str, path: Path, number: int) -> Line:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        msg = f"{path}, line {number}: expected a JSON object, got {text[:80]!r}"
        raise InputError(msg)
    return value


def _another(path: Path, there: object, wanted: Line) -> ConfigError:
    before = there if isinstance(there, dict) else {}
    keys = [k for k in {**before, **wanted} if before.get(k) != wanted.get(k)]
    differs = "; ".join(f"{k} was {before.get(k)!r}, is {wanted.get(k)!r}" for k in keys)
    return ConfigError(f"{path} is of another run ({differs}): choose another --out")
