# SPDX-License-Identifier: Apache-2.0
"""Stage timers over a bounded window, and the named causes of dropped frames.

No thread, no clock, no output: values come in, summaries go out. The pipeline counts the drops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

from foreseg.errors import ConfigError

NS_PER_MS = 1_000_000
DEFAULT_WINDOW = 4096  # latencies remembered: over two minutes at 30 Hz


class DropCause(Enum):
    """Why a frame got no masks. Values are keys of `summary.json` and of diagnostics."""

    INBOX_FULL = "inbox_full"  # a newer frame came before the loop took this one
    TRACKER_BUSY = "tracker_busy"  # a newer frame came before the tracker was free
    STAMP_BACKWARD = "stamp_backward"  # not newer than the frame before
    BAD_IMAGE = "bad_image"  # unknown encoding, wrong size, truncated
    NOT_ACTIVE = "not_active"  # the node is not in its active state
    DISABLED = "disabled"  # switched off by a service call
    FAILED = "failed"  # it could not be kept: no memory, or an error of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Of the latest values: quantiles by nearest rank, so that each is a value that occurred."""

    count: int = 0  # values since the start
    window: int = 0  # values that the quantiles are of
    p50_ms: float = math.nan  # NaN = none yet
    p99_ms: float = math.nan
    max_ms: float = math.nan


class StageTimer:
    """The last `window` latencies of one stage.

    Raises:
        ConfigError: for a window below 1.
    """

    def __init__(self, window: int = DEFAULT_WINDOW) -> None:
        if window < 1:
            msg = f"a stage timer wants a window of at least 1 value, got {window}"
            raise ConfigError(msg)
        self._values_ns = np.zeros(window, dtype=np.int64)
        self._count = 0

    def add(self, took_ns: int) -> None:
        """Remember one latency in place of the oldest."""
        self._values_ns[self._count % self._values_ns.size] = took_ns
        self._count += 1

    def summary(self) -> LatencySummary:
        """Quantiles of what is remembered."""
        size = min(self._count, self._values_ns.size)
        if not size:
            return LatencySummary()
        ordered = np.sort(self._values_ns[:size])
        return LatencySummary(
            count=self._count,
            window=size,
            p50_ms=_nearest_rank_ns(ordered.tolist(), 0.50) / NS_PER_MS,
            p99_ms=_nearest_rank_ns(ordered.tolist(), 0.99) / NS_PER_MS,
            max_ms=int(ordered[-1]) / NS_PER_MS,
        )


def _nearest_rank_ns(ordered: list[int], share: float) -> int:
    """The smallest value that at least `share` of the values do not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
