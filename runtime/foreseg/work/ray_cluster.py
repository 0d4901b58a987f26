# SPDX-License-Identifier: Apache-2.0
"""A Ray cluster: tasks that compute, on many machines.

foreseg and what its tasks read must be on every machine, under the same paths. A task whose worker
or machine is lost is done again elsewhere, and that is counted. Ray is imported when it is used.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from foreseg.errors import InputError, MissingExtraError
from foreseg.work.base import MAX_DEATHS, Outcome, Outcomes, R, T

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

MAX_TRIES = 3
POLL_S = 5.0  # between two looks at how many processors there are
CONNECT_S = 10.0
AHEAD = 2  # tasks given out for each processor: one that runs, one that waits beside it

_LOG = logging.getLogger(__name__)


class RayExecutor:
    """The processors of a cluster, one for each task.

    As a context it stays connected between its runs.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._stack = ExitStack()

    def __enter__(self) -> RayExecutor:  # noqa: PYI034 (Self is Python 3.11)
        self._stack.enter_context(_connected(self._address))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def run(self, task: Callable[[T], R], items: Iterable[T]) -> Outcomes[R]:
        """Yield the outcomes as they come; the cluster may grow and shrink meanwhile."""
        with _connected(self._address) as ray:
            yield from _given_out(ray, task, items)


@contextmanager
def _connected(address: str) -> Iterator[ModuleType]:
    try:
        import ray
    except ImportError as error:
        package, extra = "ray", "cluster"
        raise MissingExtraError(package, extra, "working on a cluster") from error
    if ray.is_initialized():  # by whoever calls: it is theirs
        yield ray
        return
    try:
        _probe(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError, RuntimeError, AssertionError) as error:
        said = " ".join(str(error).split())[:300]
        msg = f"--ray wants the address of a running cluster, got {address!r}: {said}"
        raise InputError(msg) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _probe(address: str) -> None:
    """See that somebody listens: Ray itself tries for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            pass


def _given_out(
    ray: ModuleType, task: Callable[[T], R], items: Iterable[T]
) -> Generator[Outcome[R], None, None]:
    remote = ray.remote(num_cpus=1, max_retries=0)(_done)
    shared = ray.put((task, Path.cwd()))
    rest = iter(enumerate(items))
    again: list[tuple[int, T]] = []
    running: dict[object, tuple[int, T]] = {}
    lost: Counter[int] = Counter()  # tries, by index
    try:
        while True:
            room = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1))) - len(running)
            for numbered in _next_of(again, rest, room):
                running[remote.remote(shared, numbered[1])] = numbered
            if not running:
                return
            ready, _ = ray.wait(list(running), num_returns=1, timeout=POLL_S)
            for reference in ready:
                numbered = running.pop(reference)
                index = numbered[0]
                try:
                    value = ray.get(reference)
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None  # as if it had been raised here
                except ray.exceptions.RayError as error:  # its worker or its machine is gone
                    lost[index] += 1
                    _LOG.warning("task %d was lost (try %d): %s", index, lost[index], _line(error))
                    if lost.total() > MAX_DEATHS:
                        msg = (
                            f"{lost.total()} tasks were lost with their workers; the rest is left"
                        )
                        raise InputError(msg) from error
                    if lost[index] < MAX_TRIES:
                        again.append(numbered)
                    else:
                        yield Outcome(index=index, values=(), num_tries=lost[index])
                else:
                    yield Outcome(index=index, values=(value,), num_tries=lost[index] + 1)
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _done(shared: tuple[Callable[[T], R], Path], item: T) -> R:
    """What a worker runs, in the folder of whoever asks, so that paths mean the same."""
    task, folder = shared
    os.chdir(folder)
    return task(item)


def _next_of(
    again: list[tuple[int, T]], rest: Iterator[tuple[int, T]], room: int
) -> Iterator[tuple[int, T]]:
    """What was lost first, then the rest."""
    while room > 0:
        numbered = again.pop(0) if again else next(rest, None)
        if numbered is None:
            return
        room -= 1
        yield numbered


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
