# SPDX-License-Identifier: Apache-2.0
"""The contract of what runs many independent tasks, and the plainest one that keeps to it.

An item is taken only when there is room for it, so items may be drawn from disk as they are
wanted. Does not know what a task does.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from foreseg.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")

MAX_DEATHS = 20  # of workers in one run; more is no accident


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome(Generic[R]):
    """What became of one item.

    Attributes:
        index: of the item, from 0.
        values: what the task returned, alone in a tuple; empty: whoever did it died, every time.
        num_tries: 1, and one more for each death on the way.
    """

    index: int
    values: tuple[R, ...]
    num_tries: int = 1

    @property
    def has_died(self) -> bool:
        """True where there is no value."""
        return not self.values


Outcomes = Generator[Outcome[R], None, None]
"""Closing it drops what has not begun."""


class Executor(Protocol):
    """Runs a task on each of many items."""

    def run(self, task: Callable[[T], R], items: Iterable[T]) -> Outcomes[R]:
        """Yield the outcomes as they come, in any order.

        Args:
            task: where it runs elsewhere: a function of a module, or a `partial` of one.
            items: picklable likewise, as are the values.

        Raises:
            Exception: what the task raises, the first time; nothing new is begun then.
            InputError: workers die again and again, or cannot be had.
        """


class SerialExecutor:
    """One after the other, here."""

    def run(self, task: Callable[[T], R], items: Iterable[T]) -> Outcomes[R]:
        """Yield the outcomes in order."""
        for index, item in enumerate(items):
            yield Outcome(index=index, values=(task(item),))


def in_order(outcomes: Iterable[Outcome[R]]) -> Iterator[Outcome[R]]:
    """The outcomes by their indices; what comes too early waits in memory."""
    early: dict[int, Outcome[R]] = {}
    wanted = 0
    for outcome in outcomes:
        early[outcome.index] = outcome
        while wanted in early:
            yield early.pop(wanted)
            wanted += 1


def checked_count(count: int, what: str) -> int:
    """A number of workers that can be.

    Raises:
        ConfigError: less than one.
    """
    if count < 1:
        msg = f"{what} want at least 1, got {count}"
        raise ConfigError(msg)
    return count
