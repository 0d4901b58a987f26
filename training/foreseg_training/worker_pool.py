# SPDX-License-Identifier: Apache-2.0
"""A pool of worker processes that may die, hang or refuse, and never takes its owner with it.

A worker has one task at a time, so nothing queues up in pipes; the rest waits in the list that was
handed in. A worker that dies, or takes too long, is replaced; its task is tried once more, and then
given up with a reason that is counted. Nothing waits for ever. Workers stay between batches, with what
they have loaded; that and the time limit are what `foreseg.work` has not. Does not know: what tasks are.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Generic, TypeVar, cast

from foreseg.errors import ConfigError, InputError

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_TRIES = 2  # of a task whose worker died or took too long
MAX_START_DEATHS = 3  # in a row; more is no accident
CLOSING_S = 5.0  # for a worker to end by itself

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What a worker sends: of its start (number None), or of a task."""

    number: int | None
    result: object = None
    error: str = ""


@dataclass(slots=True, kw_only=True, eq=False)
class _Worker:
    """A worker process, seen from the pool."""

    process: BaseProcess
    connection: Connection
    deadline_s: float  # by which its start, or its task, is to be done
    is_ready: bool = False
    number: int | None = None  # of its task; None: it has none


class WorkerPool(Generic[Task, Result]):
    """Does tasks in spawned processes; results come in the order of the tasks.

    Args:
        make: called once in each worker, gives the function that does a task there; picklable, as
            tasks and results are.
        num_workers: processes.
        task_timeout_s: seconds after which a task's worker is killed.
        start_timeout_s: seconds for a worker to start.

    Attributes:
        failures: tasks given up, counted by reason; and workers replaced, as "worker replaced".

    Raises:
        ConfigError: a number that is too small.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Task], Result]],
        *,
        num_workers: int,
        task_timeout_s: float = 60.0,
        start_timeout_s: float = 120.0,
    ) -> None:
        if num_workers < 1 or not min(task_timeout_s, start_timeout_s) > 0:
            msg = (
                "a pool wants at least 1 worker and timeouts above 0, got"
                f" {num_workers}, {task_timeout_s} and {start_timeout_s}"
            )
            raise ConfigError(msg)
        self._make = make
        self._num_workers = num_workers
        self._task_timeout_s = task_timeout_s
        self._start_timeout_s = start_timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._start_deaths = 0
        self.failures: Counter[str] = Counter()

    def __enter__(self) -> WorkerPool[Task, Result]:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the workers."""
        return tuple(w.process.pid for w in self._workers if w.process.pid is not None)

    def start(self) -> None:
        """Start the workers and wait until each can work.

        Raises:
            InputError: `make` raised in a worker (the message is its), or workers die or hang again
                and again before they can work.
        """
        self._fill()
        try:
            while not all(worker.is_ready for worker in self._workers):
                self._take({}, {}, deque())
                self._fill()
        except InputError:
            self.close()
            raise

    def run(self, tasks: Sequence[Task]) -> list[Result | None]:
        """Do all tasks.

        Returns:
            A result for each, in their order; None for one that was given up: it raised, or its
            worker died or took too long, twice. The reasons are in `failures`, and logged.

        Raises:
            InputError: as `start`.
        """
        todo = deque(range(len(tasks)))
        tries: dict[int, int] = {}
        done: dict[int, Result | None] = {}
        try:
            while len(done) < len(tasks):
                self._fill()
                self._hand_out(tasks, todo)
                self._take(done, tries, todo)
        except BaseException:
            self.close()  # what runs now would answer to tasks of another call
            raise
        return [done[number] for number in range(len(tasks))]

    def close(self) -> None:
        """End the workers; those that do not are killed. A later `run` starts new ones."""
        for worker in self._workers:
            worker.connection.close()
        deadline_s = time.monotonic() + CLOSING_S
        for worker in self._workers:
            is_idle = worker.is_ready and worker.number is None
            worker.process.join(max(0.0, deadline_s - time.monotonic()) if is_idle else 0.0)
            _kill(worker)
        self._workers.clear()

    def _fill(self) -> None:
        """As many workers as there should be; one that died with nothing to do is no task's fault."""
        for worker in tuple(self._workers):
            if worker.is_ready and worker.number is None and not worker.process.is_alive():
                self._bury(worker, "", {}, {}, deque())
        while len(self._workers) < self._num_workers:
            own, theirs = self._context.Pipe()
            process = self._context.Process(
                target=_serve, args=(theirs, self._make), name="foreseg-worker", daemon=True
            )
            process.start()
            theirs.close()  # so that the worker's end is seen
            deadline_s = time.monotonic() + self._start_timeout_s
            self._workers.append(_Worker(process=process, connection=own, deadline_s=deadline_s))

    def _hand_out(self, tasks: Sequence[Task], todo: deque[int]) -> None:
        for worker in self._workers:
            if todo and worker.is_ready and worker.number is None:
                number = todo.popleft()
                worker.number = number
                worker.deadline_s = time.monotonic() + self._task_timeout_s
                with contextlib.suppress(OSError):  # it is dead: `_take` will see
                    worker.connection.send((number, tasks[number]))

    def _take(
        self, done: dict[int, Result | None], tries: dict[int, int], todo: deque[int]
    ) -> None:
        """Wait until a worker says something, ends or is late, and act on it."""
        busy = [w for w in self._workers if not (w.is_ready and w.number is None)]
        left_s = min(w.deadline_s for w in busy) - time.monotonic()
        ready = wait([w.connection for w in busy], timeout=max(0.0, left_s))
        now_s = time.monotonic()
        for worker in busy:
            why = ""
            if worker.connection in ready:
                try:
                    self._read(worker, worker.connection.recv(), done)
                except (EOFError, OSError):
                    why = "its worker died: killed, out of memory, or crashed in native code"
            elif worker.deadline_s <= now_s:
                why = f"it took longer than {self._task_timeout_s:g} s"
            if why:
                self._bury(worker, why, done, tries, todo)

    def _read(self, worker: _Worker, reply: _Reply, done: dict[int, Result | None]) -> None:
        if reply.number is None:
            if reply.error:
                msg = f"a worker cannot start: {reply.error}"
                raise InputError(msg)
            worker.is_ready = True
            self._start_deaths = 0
            return
        if reply.error:
            self._give_up(reply.number, reply.error, done)
        else:
            done[reply.number] = cast("Result", reply.result)  # as `make` promises
        worker.number = None

    def _bury(
        self,
        worker: _Worker,
        why: str,
        done: dict[int, Result | None],
        tries: dict[int, int],
        todo: deque[int],
    ) -> None:
        """Replace a worker; its task is tried again or given up."""
        worker.connection.close()
        _kill(worker)
        self._workers.remove(worker)
        self.failures["worker replaced"] += 1
        if not worker.is_ready:
            self._start_deaths += 1
            if self._start_deaths >= MAX_START_DEATHS:
                code = worker.process.exitcode
                msg = f"{MAX_START_DEATHS} workers in a row died or hung at their start ({code})"
                raise InputError(msg)
        number = worker.number
        if number is None:
            return
        tries[number] = tries.get(number, 0) + 1
        if tries[number] < MAX_TRIES:
            _LOG.warning("a task is tried again: %s", why)
            todo.appendleft(number)
        else:
            self._give_up(number, why, done)

    def _give_up(self, number: int, why: str, done: dict[int, Result | None]) -> None:
        _LOG.warning("task %d of a batch is given up: %s", number, why)
        self.failures[why] += 1
        done[number] = None


def _kill(worker: _Worker) -> None:
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join(CLOSING_S)


def _serve(connection: Connection, make: Callable[[], Callable[[object], object]]) -> None:
    """A worker's life: make, then one task after the other until the pool lets go."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool's owner decides
    try:
        work = make()
    except Exception as error:  # noqa: BLE001 (a process's outermost frame: told to the pool)
        connection.send(_Reply(number=None, error=_reason(error)))
        return
    connection.send(_Reply(number=None))
    with contextlib.suppress(EOFError, OSError):
        while True:
            number, task = connection.recv()
            try:
                reply = _Reply(number=number, result=work(task))
            except Exception as error:  # noqa: BLE001 (likewise)
                reply = _Reply(number=number, error=_reason(error))
            connection.send(reply)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
