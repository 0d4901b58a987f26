# SPDX-License-Identifier: Apache-2.0
"""The commands' progress bar: tqdm's on a terminal; in a log file, a line of it now and then."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import TextIO

from foreseg.errors import MissingExtraError

REDRAW_S = 0.1
LOG_PERIOD_S = 10.0  # where the stream is no terminal


class ProgressBar:
    """Counts frames. Without a known total it shows the count and the rate alone.

    Raises:
        MissingExtraError: tqdm is absent.
    """

    def __init__(self, total: int | None, *, stream: TextIO | None = None) -> None:
        try:
            from tqdm import tqdm
        except ImportError as error:
            package, extra = "tqdm", "video"
            raise MissingExtraError(package, extra, "a progress bar") from error
        self._stream = stream or sys.stderr
        is_terminal = self._stream.isatty()
        self._bar = tqdm(
            total=total,
            unit=" frames",
            file=self._stream if is_terminal else _Lines(self._stream),
            mininterval=REDRAW_S if is_terminal else LOG_PERIOD_S,
            delay=REDRAW_S,  # nothing for a command that fails at once
            dynamic_ncols=is_terminal,
        )

    def update(self, count: int, note: str | None = None) -> None:
        """So many frames are done; `note` says what goes on and stays until the next one."""
        if note is not None:
            self._bar.set_postfix_str(note, refresh=False)
        with suppress(OSError):  # the terminal has closed: nobody looks
            self._bar.update(count - self._bar.n)

    def close(self, count: int) -> None:
        """Draw the end and leave the line."""
        self.update(count)
        with suppress(OSError):
            self._bar.close()

    def say(self, text: str) -> None:
        """A line of its own above the bar."""
        with suppress(OSError):
            self._bar.write(text, file=self._stream)


class _Lines:
    """A log file for tqdm to write to: whole lines, where it would go back and overwrite."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        if line := text.strip():
            self._stream.write(line + "\n")

    def flush(self) -> None:
        self._stream.flush()
