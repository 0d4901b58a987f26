# SPDX-License-Identifier: Apache-2.0
"""Processes of this machine: for tasks that compute, and may die of it.

When a process dies, nobody can tell which of the running tasks killed it: each is done again, alone
in a process of its own. Who dies there too has no value.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Generic

from foreseg.errors import InputError
from foreseg.work.base import MAX_DEATHS, Outcome, Outcomes, R, T, checked_count


class ProcessExecutor:
    """A bounded number of processes, begun anew, so that nothing of this one is in them."""

    def __init__(self, num_processes: int) -> None:
        self._num_processes = checked_count(num_processes, "processes")

    def run(self, task: Callable[[T], R], items: Iterable[T]) -> Outcomes[R]:
        """Yield the outcomes as they come."""
        rest = iter(enumerate(items))
        deaths: Counter[int] = Counter()  # that an item was there at
        for _ in range(MAX_DEATHS):
            crew = _Crew(task, self._num_processes, deaths)
            yield from crew.work(rest)
            if not crew.suspects:
                return
            for suspect in crew.suspects:
                alone = _Crew(task, 1, deaths)
                yield from alone.work(iter([suspect]))
                for index, _item in alone.suspects:
                    yield Outcome(index=index, values=(), num_tries=deaths[index])
        msg = (
            f"{MAX_DEATHS} worker processes died; the rest is left: run again with fewer --workers"
        )
        raise InputError(msg)


class _Crew(Generic[T, R]):
    """Some processes, until one of them dies.

    Attributes:
        suspects: what was running then.
    """

    def __init__(self, task: Callable[[T], R], num_processes: int, deaths: Counter[int]) -> None:
        self.suspects: deque[tuple[int, T]] = deque()
        self._task = task
        self._num_processes = num_processes
        self._deaths = deaths
        self._running: dict[Future[R], tuple[int, T]] = {}

    def work(self, rest: Iterator[tuple[int, T]]) -> Generator[Outcome[R], None, None]:
        """Take from the rest until it is over, or a process dies."""
        spawn = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._num_processes, mp_context=spawn)
        try:
            while not self.suspects and self._fill(pool, rest):
                yield from self._ended(wait(self._running, return_when=FIRST_COMPLETED).done)
            yield from self._ended(wait(self._running).done)  # what ran beside the one that died
        finally:
            pool.shutdown(cancel_futures=True)

    def _fill(self, pool: ProcessPoolExecutor, rest: Iterator[tuple[int, T]]) -> bool:
        """Give every process something to do; whether any has."""
        for numbered in islice(rest, self._num_processes - len(self._running)):
            try:
                self._running[pool.submit(self._task, numbered[1])] = numbered
            except BrokenProcessPool:  # one died between two tasks
                self._suspect(numbered)
                break
        return bool(self._running)

    def _ended(self, futures: Iterable[Future[R]]) -> Generator[Outcome[R], None, None]:
        for future in futures:
            numbered = self._running.pop(future)
            try:
                value = future.result()
            except BrokenProcessPool:
                self._suspect(numbered)
                continue
            index, _ = numbered
            yield Outcome(index=index, values=(value,), num_tries=self._deaths[index] + 1)

    def _suspect(self, numbered: tuple[int, T]) -> None:
        self._deaths[numbered[0]] += 1
        self.suspects.append(numbered)
