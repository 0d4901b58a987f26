# SPDX-License-Identifier: Apache-2.0
"""Clocks. A monotonic one gives latencies, a stamp clock gives ages; they are never mixed."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two readings in nanoseconds, of two clocks that must not be compared with each other."""

    def monotonic_ns(self) -> int:
        """A reading that never runs backward: for latencies."""

    def stamp_ns(self) -> int:
        """Now, in the clock that sensor stamps use: for ages."""


class SystemClock:
    """The machine's clocks."""

    def monotonic_ns(self) -> int:
        """Nanoseconds of the monotonic clock."""
        return time.monotonic_ns()

    def stamp_ns(self) -> int:
        """Nanoseconds since 1970 (cameras without a ROS clock stamp with this)."""
        return time.time_ns()


class ManualClock:
    """A clock that moves only when told to: for tests, simulation and replay."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def monotonic_ns(self) -> int:
        """The set time."""
        return self._now_ns

    def stamp_ns(self) -> int:
        """The set time."""
        return self._now_ns

    def advance(self, by_ns: int) -> int:
        """Move on by `by_ns` (>= 0) and return the new time.

        Raises:
            ValueError: for a step backward.
        """
        if by_ns < 0:
            msg = f"a clock only advances, got {by_ns} ns"
            raise ValueError(msg)
        self._now_ns += by_ns
        return self._now_ns
