# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a dataset or a prediction folder: listed, or, if strict, raised at once.

Does not know: what the files should hold; readers do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from foreseg.errors import ForesegError


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong: where it stands, and what was expected instead."""

    file: str
    key: str  # inside the file, as "videos/bear/expressions/3"; "" = the file itself
    message: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.key}" if self.key else self.file
        return f"{place}: {self.message}"


class DatasetError(ForesegError):
    """A dataset cannot be read; carries the problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


@dataclass(slots=True, kw_only=True)
class ProblemLog:
    """Collects problems and assumptions while a dataset is read."""

    strict: bool = False
    problems: list[Problem] = field(default_factory=list)
    assumptions: list[str] = field(default_factory=list)

    def report(self, file: Path | str, key: str, message: str) -> None:
        """Note a problem and go on.

        Raises:
            DatasetError: if strict.
        """
        problem = Problem(file=str(file), key=key, message=message)
        if self.strict:
            raise DatasetError(problem)
        self.problems.append(problem)

    def assume(self, what: str) -> None:
        """Note once what was taken for granted where a format is uncertain."""
        if what not in self.assumptions:
            self.assumptions.append(what)


def refuse(file: Path | str, key: str, message: str) -> DatasetError:
    """Make the error for what cannot be gone on with, strict or not."""
    return DatasetError(Problem(file=str(file), key=key, message=message))
