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
from foreseg.driving.executor import Executor, JobOutput, PreparedJob
from foreseg.errors import ForesegError
from foreseg.texts import reason_from_error

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
    """

    def __init__(self, executor: Executor, clock: Clock, post: Callable[[JobEnded], None]) -> None:
        self._executor = executor
        self._clock = clock
        self._post = post
        self._jobs: queue.Queue[PreparedJob | None] = queue.Queue(maxsize=1)
        self.thread = threading.Thread(target=self._run, name="foreseg-tracker", daemon=True)

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
            output, reason = None, ""
            try:
                output = self._executor.run_job(prepared)
            except ForesegError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 (the thread's outermost frame)
                reason = reason_from_error(error)
                _log.exception("a tracker job failed")
            elapsed_ns = self._clock.monotonic_ns() - began
            self._post(
                JobEnded(prepared=prepared, output=output, reason=reason, elapsed_ns=elapsed_ns)
            )
