# SPDX-License-Identifier: Apache-2.0
"""Figures of each step, from a trainer to whoever shows or keeps them; and the stop at a bad one.

Names are TRL's own; ours are `seconds` (of the step), `tokens_per_s` and `num_tokens`, which goes on
counting after a resume. Does not know: what is trained.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from transformers import TrainerCallback

from foreseg.errors import InputError

from .metrics_file import Figures, MetricsFile
from .progress import Progress

TOKENS = "num_tokens"
_LOWER = "lower learning_rate or max_grad_norm, or raise warmup_ratio"


class Sink(Protocol):
    """Takes a step's figures."""

    def put(self, step: int, figures: Figures) -> None:
        """A step is done."""


class Telemetry(TrainerCallback):
    """Completes a step's figures, and hands them on; in the first process alone.

    Args:
        table: where all of them are kept.
        sinks: further takers.
        clock: seconds that never go back.

    A loss or gradient that is not finite stops the run, in every process, before a checkpoint is
    written of it.
    """

    def __init__(
        self,
        table: MetricsFile,
        sinks: Sequence[Sink] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._sinks = list(sinks)
        self._clock = clock
        self._progress: Progress | None = None
        self._tokens_before = 0.0  # counted by a process that is gone, and not by this one
        self._tokens = 0.0
        self._then = 0.0
        self.last: dict[str, float | int | None] = {}
        self.seconds = 0.0  # of all steps of this process

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        """The first step follows."""
        del args, control
        self._then = self._clock()
        if not state.is_world_process_zero:
            return
        last = self._table.begin(state.global_step)
        self._tokens = float(last.get(TOKENS) or 0.0)
        # GRPO's trainer keeps its count in its state, SFT's begins anew
        self._tokens_before = 0.0 if state.num_input_tokens_seen else self._tokens
        self._progress = Progress(state.max_steps, state.global_step)

    def on_log(
        self,
        args: Any,  # noqa: ANN401
        state: Any,  # noqa: ANN401
        control: Any,  # noqa: ANN401
        logs: dict[str, Any] | None = None,
        **_: Any,  # noqa: ANN401
    ) -> None:
        """A step is done, or (without a loss) the run."""
        del args, control
        if logs is None or "loss" not in logs:
            return
        step = state.global_step
        check_finite(step, logs)
        if not state.is_world_process_zero:
            return
        figures = self.last = self._completed(logs)
        self._table.put(step, figures)
        for sink in self._sinks:
            sink.put(step, figures)
        if self._progress is not None:
            self._progress.put(step, figures)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ANN401
        """No step follows."""
        del args, state, control
        self.close()

    def close(self) -> None:
        """Leave the terminal as it was; may be called twice."""
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def _completed(self, logs: dict[str, Any]) -> dict[str, float | int | None]:
        figures = {
            name: value
            for name, value in logs.items()
            if value is None or isinstance(value, int | float)
        }
        now = self._clock()
        seconds = now - self._then
        self._then = now
        self.seconds += seconds
        tokens = figures.get(TOKENS)
        if tokens is not None:
            figures[TOKENS] = tokens = tokens + self._tokens_before
            figures["tokens_per_s"] = round((tokens - self._tokens) / max(seconds, 1e-9), 1)
            self._tokens = tokens
        figures["seconds"] = round(seconds, 3)
        return figures


def check_finite(step: int, logs: dict[str, Any]) -> None:
    """Stop at figures from which no training goes on.

    Raises:
        InputError: the loss or the gradient's norm is not finite.
    """
    for name, words in (("loss", "the loss"), ("grad_norm", "the gradient's norm")):
        value = logs.get(name)
        if isinstance(value, int | float) and not math.isfinite(value):
            msg = (
                f"{words} is {value} at step {step}: {_LOWER}; --resume goes on from the checkpoint"
                " before it"
            )
            raise InputError(msg)
