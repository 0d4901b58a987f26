# SPDX-License-Identifier: Apache-2.0
"""The tracker's thread: one job at a time, on frames that are held for it.

Does not know what a job is for, nor what its results mean.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from foreseg.clock import Clock
from foreseg.cores import Share
from foreseg.driving.executor import Executor, JobOutput, PreparedJob
from foreseg.driving.guarded_thread import GuardedThread
from foreseg.errors import ForesegError
from foreseg.texts import reason_from_error, utf8_text

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class JobEnded:
    """What became of a job."""

    prepared: PreparedJob
    output: JobOutput | None  # None = it failed
    reason: str
    elapsed_ns: int


class TrackerThread:
    """Runs what `give` hands over.

    Args:
        executor: runs a job.
        clock: measures it.
        post: hands an ended job to the loop; may wait for room.
        stopping: set when the thread should end.
        share: of the processor that the thread gets.
    """

    def __init__(
        self,
        executor: Executor,
        clock: Clock,
        post: Callable[[JobEnded], None],
        stopping: threading.Event,
        share: Share = Share(),  # noqa: B008 (frozen)
    ) -> None:
        self._executor = executor
        self._clock = clock
        self._post = post
        self._jobs: queue.Queue[PreparedJob | None] = queue.Queue(maxsize=1)
        self.thread = GuardedThread("tracker", self._run, stopping, share)

    def give(self, prepared: PreparedJob) -> None:
        """The next job; never waits, as the pipeline has one at a time."""
        self._jobs.put(prepared)

    def end(self) -> None:
        """End the thread after the job that it is at; waits until that one is taken."""
        self._jobs.put(None)

    def _run(self) -> None:
        while True:
            prepared = self._jobs.get()
            if prepared is None:
                return
            began = self._clock.monotonic_ns()
            output, failure = None, None
            try:
                output = self._executor.run_job(prepared)
            except BaseException as error:  # noqa: BLE001 (the job is given back whatever happens)
                failure = error
            elapsed_ns = self._clock.monotonic_ns() - began
            reason = "" if failure is None else _reason(failure)
            self._post(
                JobEnded(prepared=prepared, output=output, reason=reason, elapsed_ns=elapsed_ns)
            )
            if failure is not None and not isinstance(failure, ForesegError):
                _log.error("a tracker job failed", exc_info=failure)


def _reason(failure: BaseException) -> str:
    """Our own errors are sentences by themselves."""
    if isinstance(failure, ForesegError):
        return utf8_text(str(failure))
    return reason_from_error(failure)
