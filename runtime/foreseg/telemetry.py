# SPDX-License-Identifier: Apache-2.0
"""Stage timers and drop causes: bounded, deterministic, without threads or clocks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np

DEFAULT_WINDOW = 2048  # latencies that a timer remembers


class DropCause(Enum):
    """Why a frame got no masks of its own."""

    INBOX_FULL = "inbox_full"
    TRACKER_BUSY = "tracker_busy"
    STAMP_BACKWARD = "stamp_backward"
    BAD_IMAGE = "bad_image"
    NOT_ACTIVE = "not_active"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Latencies of the last values of a timer, milliseconds; NaN where there is none."""

    count: int  # since the start, not only those remembered
    p50_ms: float
    p99_ms: float
    max_ms: float


class StageTimer:
    """Remembers the last `window` latencies of a stage."""

    def __init__(self, window: int = DEFAULT_WINDOW) -> None:
        self._ns = np.zeros(window, dtype=np.int64)
        self._count = 0

    def add(self, elapsed_ns: int) -> None:
        """One more latency; the oldest is forgotten when the window is full."""
        self._ns[self._count % self._ns.size] = elapsed_ns
        self._count += 1

    def summary(self) -> LatencySummary:
        """Percentiles by the nearest rank over what is remembered."""
        kept = self._ns[: min(self._count, self._ns.size)] / 1e6
        if kept.size == 0:
            nan = float("nan")
            return LatencySummary(count=0, p50_ms=nan, p99_ms=nan, max_ms=nan)
        p50, p99 = np.percentile(kept, [50, 99], method="inverted_cdf")
        return LatencySummary(
            count=self._count, p50_ms=float(p50), p99_ms=float(p99), max_ms=float(kept.max())
        )
