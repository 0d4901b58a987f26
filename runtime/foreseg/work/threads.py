# SPDX-License-Identifier: Apache-2.0
"""Threads: for tasks that wait for something else, such as a server."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from foreseg.work.base import Outcome, Outcomes, R, T, checked_count


class ThreadExecutor:
    """A bounded number of threads.

    Attributes:
        stopping: set when the run ends early; a task that takes long looks at it now and then.
    """

    def __init__(self, num_threads: int) -> None:
        self._num_threads = checked_count(num_threads, "threads")
        self.stopping = threading.Event()

    def run(self, task: Callable[[T], R], items: Iterable[T]) -> Outcomes[R]:
        """Yield the outcomes as they come."""
        numbered = enumerate(items)
        self.stopping.clear()
        pool = ThreadPoolExecutor(self._num_threads)
        running: dict[Future[R], int] = {}
        try:
            while True:
                for index, item in islice(numbered, self._num_threads - len(running)):
                    running[pool.submit(task, item)] = index
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield Outcome(index=running.pop(future), values=(future.result(),))
        finally:
            self.stopping.set()
            pool.shutdown(cancel_futures=True)
