# SPDX-License-Identifier: Apache-2.0
"""`metrics.csv`: a row a step, appended as it comes, in one piece across resumes.

Does not know: trainers, or what the figures mean.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from foreseg.errors import InputError

from .whole_file import write_whole

STEP = "step"
Figures = Mapping[str, float | int | None]


class MetricsFile:
    """A table of figures, one row a step; the first column is the step.

    A figure that comes later than the first row gets a column of its own; rows before have it empty.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns: list[str] = []

    def begin(self, step: int) -> dict[str, str]:
        """Keep what was written up to a step, and nothing after it.

        Args:
            step: after which the run goes on; 0: a new run.

        Returns:
            The last row kept; empty if there is none.

        Raises:
            InputError: the file cannot be read or written, or is no such table.
        """
        rows = [row for row in self.rows() if int(row[STEP]) <= step]
        self._columns = list(rows[0]) if rows else []
        write_whole(self._path, self._table(rows))
        return rows[-1] if rows else {}

    def rows(self) -> list[dict[str, str]]:
        """What stands in the file; a last line that was cut is left out.

        Raises:
            InputError: it cannot be read, or is no such table.
        """
        try:
            text = self._path.read_text("utf-8") if self._path.exists() else ""
            whole = text[: text.rfind("\n") + 1]
            rows = list(csv.DictReader(io.StringIO(whole)))
            if any(not row.get(STEP, "").isdecimal() for row in rows):
                msg = f"{self._path} is no table of figures by step: remove it, or take another --out"
                raise InputError(msg)
        except (OSError, UnicodeDecodeError) as error:
            msg = f"{self._path} cannot be read: {error}"
            raise InputError(msg) from error
        return rows

    def put(self, step: int, figures: Figures) -> None:
        """Append a row.

        Raises:
            InputError: the disk does not take it.
        """
        row = {STEP: str(step), **{name: _text(value) for name, value in figures.items()}}
        new = [name for name in row if name not in self._columns]
        if new:
            self._columns += new
            write_whole(self._path, self._table([*self.rows(), row]))
            return
        line = io.StringIO()
        csv.DictWriter(line, self._columns, lineterminator="\n").writerow(row)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(line.getvalue())
        except OSError as error:
            msg = f"{self._path} cannot be written: {error.strerror}"
            raise InputError(msg) from error

    def _table(self, rows: Iterable[Mapping[str, str]]) -> str:
        text = io.StringIO()
        if self._columns:
            writer = csv.DictWriter(text, self._columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return text.getvalue()


def _text(value: float | None) -> str:
    """A number as it is read back to the same value; "" for none."""
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() and abs(value) >= 1 else repr(value)
