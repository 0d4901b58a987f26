# SPDX-License-Identifier: Apache-2.0
"""The contract of `WorkerPool` over any executor of `foreseg.work`, such as a Ray cluster.

What `make` gives is kept in each worker, so that a tracker is loaded once. A task that takes too long
is interrupted by a signal, which code outside of Python notices only when it returns. Does not know:
what tasks are.
"""

from __future__ import annotations

import contextlib
import logging
import pickle
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType, TracebackType
from typing import Generic, TypeVar, cast

from foreseg.errors import ConfigError, InputError
from foreseg.work.base import Executor, in_order

Task = TypeVar("Task")
Result = TypeVar("Result")

_DIED = "its worker died, every time: killed, out of memory, or lost with its machine"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reply:
    """What a worker says of a task."""

    result: object = None
    error: str = ""


class ExecutorPool(Generic[Task, Result]):
    """Does tasks wherever an executor does them; results come in the order of the tasks.

    Args:
        make: as of `WorkerPool`; called once in each worker.
        executor: where.
        task_timeout_s: seconds after which a task is interrupted.

    Attributes:
        failures: tasks given up, counted by reason; and tasks done again, as "task done again".

    Raises:
        ConfigError: a time that is no time.
    """

    def __init__(
        self,
        make: Callable[[], Callable[[Task], Result]],
        executor: Executor,
        *,
        task_timeout_s: float = 60.0,
    ) -> None:
        if not task_timeout_s > 0:
            msg = f"task_timeout_s wants more than 0, got {task_timeout_s}"
            raise ConfigError(msg)
        self._made = pickle.dumps(make)
        self._executor = executor
        self._task_timeout_s = task_timeout_s
        self._stack = contextlib.ExitStack()
        self.failures: Counter[str] = Counter()

    def __enter__(self) -> ExecutorPool[Task, Result]:
        if isinstance(self._executor, contextlib.AbstractContextManager):
            self._stack.enter_context(self._executor)  # one connection for all that is to come
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def start(self) -> None:
        """See that one worker can work.

        Raises:
            InputError: `make` raised there, or nobody is there; says why.
        """
        (outcome,) = self._executor.run(_try_to_make, [self._made])
        reason = outcome.values[0] if outcome.values else _DIED
        if reason:
            msg = f"a worker cannot start: {reason}"
            raise InputError(msg)

    def run(self, tasks: Sequence[Task]) -> list[Result | None]:
        """Do all tasks.

        Returns:
            A result for each, in their order; None for one that was given up: it raised, took too
            long, or its workers died. The reasons are in `failures`, and logged.
        """
        task = partial(_done_by, made=self._made, timeout_s=self._task_timeout_s)
        results: list[Result | None] = []
        for outcome in in_order(self._executor.run(task, tasks)):
            if outcome.num_tries > 1:
                self.failures["task done again"] += outcome.num_tries - 1
            reply = outcome.values[0] if outcome.values else _Reply(error=_DIED)
            if reply.error:
                _LOG.warning("task %d of a batch is given up: %s", outcome.index, reply.error)
                self.failures[reply.error] += 1
                results.append(None)
            else:
                results.append(cast("Result", reply.result))  # as `make` promises
        return results


_known: dict[bytes, Callable[[object], object]] = {}


def _work_of(made: bytes) -> Callable[[object], object]:
    """What `make` gives, kept for the next task; only the newest, for it may be large."""
    if made not in _known:
        _known.clear()
        _known[made] = pickle.loads(made)()  # noqa: S301 (from this run's own process)
    return _known[made]


def _try_to_make(made: bytes) -> str:
    try:
        _work_of(made)
    except Exception as error:  # noqa: BLE001 (a worker's outermost frame: told to the pool)
        return f"{type(error).__name__}: {error}"
    return ""


def _done_by(task: object, made: bytes, timeout_s: float) -> _Reply:
    try:
        work = _work_of(made)
        with _interrupted_after(timeout_s):
            return _Reply(result=work(task))
    except Exception as error:  # noqa: BLE001 (likewise)
        return _Reply(error=f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def _interrupted_after(timeout_s: float) -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        msg = f"it took longer than {timeout_s:g} s"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
