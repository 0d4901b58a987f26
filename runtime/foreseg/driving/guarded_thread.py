# SPDX-License-Identifier: Apache-2.0
"""A thread that does not die of what its function raises: told, and after a pause run again."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from foreseg.cores import Share, take
from foreseg.errors import ConfigError
from foreseg.texts import reason_from_error

PAUSE_S = 0.2  # before a function that has raised runs again

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadHealth:
    """How a thread is."""

    name: str
    is_alive: bool
    num_failures: int  # times that its function has raised
    last: str  # of these, "" if there was none


class GuardedThread:
    """Runs a function until it returns.

    Args:
        name: for people.
        run: keeps what must outlive a failure outside itself; what it raises is told.
        stopping: set when the function should return, and is not to be run again.
        share: of the processor; `check_share` tells beforehand whether it can be had.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], None],
        stopping: threading.Event,
        share: Share = Share(),  # noqa: B008 (frozen)
    ) -> None:
        self._run = run
        self._share = share
        self._stopping = stopping
        self._name = name
        self._num_failures = 0
        self._last = ""
        self._thread = threading.Thread(target=self._guard, name=f"foreseg-{name}", daemon=True)

    def start(self) -> None:
        """Start it, once."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for its end; True if it has ended, or has never begun."""
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def health(self) -> ThreadHealth:
        """How it is now."""
        return ThreadHealth(
            name=self._name,
            is_alive=self._thread.is_alive(),
            num_failures=self._num_failures,
            last=self._last,
        )

    def _guard(self) -> None:
        try:
            take(self._share, self._name)
        except ConfigError:  # taken away since it was checked
            _log.exception("the %s thread has no share of its own", self._name)
        while True:
            try:
                self._run()
            except BaseException as error:  # noqa: BLE001 (the thread's outermost frame)
                self._num_failures += 1
                self._last = reason_from_error(error)
                with suppress(Exception):  # logging may be what has failed
                    _log.error("the %s thread goes on after an error", self._name, exc_info=error)
            else:
                return
            if self._stopping.wait(PAUSE_S):
                return


def check_share(share: Share, name: str) -> None:
    """Try a share in a thread that ends at once.

    Raises:
        ConfigError: it cannot be had.
    """
    refused: list[ConfigError] = []

    def attempt() -> None:
        try:
            take(share, name)
        except ConfigError as error:
            refused.append(error)

    thread = threading.Thread(target=attempt, name="foreseg-share", daemon=True)
    thread.start()
    thread.join()
    if refused:
        raise refused[0]
