# SPDX-License-Identifier: Apache-2.0
"""A progress bar on one line of a terminal; in a log file, a line now and then."""

from __future__ import annotations

import shutil
import sys
from typing import TextIO

from foreseg.clock import Clock, SystemClock

REDRAW_S = 0.1
LOG_PERIOD_S = 10.0  # where the stream is no terminal
BAR_WIDTH = 24


class ProgressBar:
    """Counts frames. Without a known total it shows the count and the rate alone."""

    def __init__(
        self, total: int | None, *, stream: TextIO | None = None, clock: Clock | None = None
    ) -> None:
        self._total = total
        self._stream = stream or sys.stderr
        self._clock = clock or SystemClock()
        self._is_terminal = self._stream.isatty()
        self._began_ns = self._drawn_ns = self._clock.monotonic_ns()
        self._note = ""

    def update(self, count: int, note: str | None = None) -> None:
        """So many frames are done; `note` says what goes on and stays until the next one."""
        self._note = self._note if note is None else note
        now = self._clock.monotonic_ns()
        period_s = REDRAW_S if self._is_terminal else LOG_PERIOD_S
        if now - self._drawn_ns >= period_s * 1e9:
            self._drawn_ns = now
            self._draw(count, (now - self._began_ns) / 1e9)

    def close(self, count: int) -> None:
        """Draw the end and leave the line."""
        self._draw(count, (self._clock.monotonic_ns() - self._began_ns) / 1e9)
        if self._is_terminal:
            self._stream.write("\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        """A line of its own above the bar."""
        clear = "\r\x1b[K" if self._is_terminal else ""
        self._stream.write(f"{clear}{text}\n")
        self._stream.flush()

    def _draw(self, count: int, elapsed_s: float) -> None:
        rate = count / elapsed_s if elapsed_s > 0 else 0.0
        if self._total:
            share = min(1.0, count / self._total)
            filled = round(share * BAR_WIDTH)
            bar = "#" * filled + "-" * (BAR_WIDTH - filled)
            line = f"[{bar}] {count}/{self._total} frames, {rate:.1f}/s"
        else:
            line = f"{count} frames, {rate:.1f}/s"
        if self._note:
            line += f"  {self._note}"
        if not self._is_terminal:
            self._stream.write(line + "\n")
        else:
            columns = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + line[:columns])
        self._stream.flush()
