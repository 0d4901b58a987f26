# SPDX-License-Identifier: Apache-2.0
"""How a run goes, on the terminal: a bar that moves; elsewhere a line every so many steps.

Does not know: trainers, files.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from .metrics_file import Figures

EVERY = 10  # steps between lines where nobody watches
_SHORT = {  # what TRL calls it -> what a narrow line calls it
    "loss": "loss",
    "reward": "reward",
    "kl": "kl",
    "completions/mean_length": "length",
    "tokens_per_s": "tokens/s",
}
_REWARD, _MEAN = "rewards/", "/mean"


class Progress:
    """Shows the step, its figures, and the time that is left.

    Args:
        total: steps of the run.
        done: of them before this process began.
        stream: stderr.
        every: steps between lines where the stream is no terminal.
    """

    def __init__(
        self, total: int, done: int, *, stream: TextIO | None = None, every: int = EVERY
    ) -> None:
        from tqdm import tqdm

        self._stream = stream or sys.stderr
        self._every = every
        self._is_terminal = self._stream.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="step",
            file=self._stream,
            dynamic_ncols=True,
            disable=not self._is_terminal,
        )
        self._total, self._first, self._seconds = total, done + 1, 0.0

    def put(self, step: int, figures: Figures) -> None:
        """A step is done."""
        words = shown(figures)
        self._seconds += float(figures.get("seconds") or 0.0)
        with suppress(OSError):  # the terminal has closed: nobody looks
            if self._is_terminal:
                self._bar.set_postfix_str(words, refresh=False)
                self._bar.update(step - self._bar.n)
            elif step in (self._first, self._total) or step % self._every == 0:
                pace = self._seconds / max(1, step - self._first + 1)
                left = clock_of(pace * (self._total - step))
                self._stream.write(f"step {step}/{self._total}, {left} left: {words}\n")
                self._stream.flush()

    def close(self) -> None:
        """Leave the line."""
        with suppress(OSError):
            self._bar.close()


@contextmanager
def quiet_bars(stream: TextIO | None = None) -> Iterator[None]:
    """Without the bars of other libraries, for rows and weights, where nobody watches."""
    import datasets
    from transformers.utils import logging as transformers_logging

    is_quiet = not (stream or sys.stderr).isatty()
    had_bars = (
        transformers_logging.is_progress_bar_enabled(),
        not datasets.are_progress_bars_disabled(),
    )
    if is_quiet:
        transformers_logging.disable_progress_bar()
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if is_quiet and had_bars[0]:
            transformers_logging.enable_progress_bar()
        if is_quiet and had_bars[1]:
            datasets.enable_progress_bars()


def shown(figures: Figures) -> str:
    """A step's figures in a few words, rewards by their names."""
    parts = []
    for name, value in figures.items():
        short = _SHORT.get(name)
        if name.startswith(_REWARD) and name.endswith(_MEAN):
            short = name[len(_REWARD) : -len(_MEAN)]
        if short is not None and value is not None:
            parts.append(f"{short} {value:.4g}")
    return ", ".join(parts)


def clock_of(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
