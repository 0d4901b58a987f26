# SPDX-License-Identifier: Apache-2.0
"""How things went in the last minutes: a sample a second, in a bounded ring."""

from __future__ import annotations

from collections import deque

from foreseg.clock import Clock, SystemClock
from foreseg.telemetry import StageTimer
from foreseg_view.board import Board
from foreseg_view.host import Stage, Status
from foreseg_view.records import Record

MAX_SAMPLES = 300  # five minutes
PERIOD_S = 1.0
NS = 1_000_000_000


class Health:
    """Samples on request, by one thread."""

    def __init__(self, board: Board, *, clock: Clock | None = None) -> None:
        self._board = board
        self._clock = clock or SystemClock()
        self._began_ns = self._clock.monotonic_ns()
        self._samples: deque[Record] = deque(maxlen=MAX_SAMPLES)
        self._dropped: dict[str, int] = {}
        self.num_taken = 0

    def take(self, status: Status) -> Record:
        """One more sample: what happened since the last one."""
        timer = StageTimer(window=1024)
        for took_ns in self._board.take_latencies_ns():
            timer.add(took_ns)
        spread = timer.summary()
        before, self._dropped = self._dropped, dict(status.dropped)
        stages = {query.stage for query in status.queries}
        is_asking = bool(stages & {Stage.THINKING, Stage.KEYFRAME})
        sample: Record = {
            "number": self.num_taken + 1,
            "time_s": round((self._clock.monotonic_ns() - self._began_ns) / NS, 2),
            "camera_hz": None if status.rate_hz is None else round(status.rate_hz, 2),
            "masks": spread.count,
            "mask_ms_p50": round(spread.p50_ms, 2) if spread.count else None,
            "mask_ms_p99": round(spread.p99_ms, 2) if spread.count else None,
            "dropped": {
                cause: count - before.get(cause, 0) for cause, count in self._dropped.items()
            },
            "reasoner": "asking" if is_asking else "up" if status.is_reasoner_up else "down",
            "rung": status.rung,
            "memory_mb": None
            if status.memory_bytes is None
            else round(status.memory_bytes / 1e6, 1),
        }
        self._samples.append(sample)
        self.num_taken += 1
        return sample

    def samples(self, after: int = 0) -> list[Record]:
        """Those after a number, the oldest first."""
        num_new = min(self.num_taken - after, len(self._samples))
        return list(self._samples)[len(self._samples) - num_new :] if num_new > 0 else []
