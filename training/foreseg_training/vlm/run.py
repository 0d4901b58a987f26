# SPDX-License-Identifier: Apache-2.0
"""One run of a trainer: frozen when it begins, refused where it would go on as another, told at its end.

Whoever trains makes a `Run`, lets it train, and hands it the folder of the saved model. Does not
know: methods, samples, rewards, how a model is saved.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from foreseg.errors import ConfigError
from foreseg_training.runs.checkpoints import (
    MarkCheckpoints,
    checkpoints_of,
    newest_checkpoint,
    remove_halves,
    step_of,
    was_whole,
)
from foreseg_training.runs.completions_page import CompletionsPage
from foreseg_training.runs.faults import told
from foreseg_training.runs.metrics_file import MetricsFile
from foreseg_training.runs.progress import quiet_bars
from foreseg_training.runs.resuming import goes_on_as_it_was
from foreseg_training.runs.run_card import (
    Card,
    DataSource,
    code_record,
    command_line,
    hardware_record,
    rows_digest,
    weights_digest,
    write_card,
)
from foreseg_training.runs.telemetry import Telemetry
from foreseg_training.runs.watched_rewards import RewardFunction, WatchedRewards
from foreseg_training.runs.whole_file import write_whole
from foreseg_training.samples import Filtered
from foreseg_training.vlm.recipe import Recipe

RECORD, RECIPE, METRICS, PAGE = "run.json", "recipe.yaml", "metrics.csv", "completions.html"
MAY_CHANGE = (  # on resuming
    *("epochs", "max_steps", "save_steps", "show_steps"),
    *("tracker_workers", "tracker_timeout_s", "tracker_backend", "tracker_ray"),
)
PICTURES = ("images", "image", "decoded_images")  # columns
_TOKENS = "num_tokens"


class Run:
    """A run in a folder, from its first step or from a checkpoint.

    Args:
        recipe: its numbers.
        model: folder to start from.
        out: its own folder; gets `run.json`, `recipe.yaml`, `metrics.csv`, `completions.html`.
        resume: go on from the newest whole checkpoint in `out`.
        source: where the episodes came from; None: the card says that it is not known.

    Attributes:
        checkpoint: to go on from; None: from the start.
        page: of completions.
        rows_folder: of this process, for its rows; gone when the run is finished.

    Raises:
        ConfigError: another run lies there, or the recipe or model is not the one it began with.
    """

    def __init__(
        self,
        recipe: Recipe,
        model: Path,
        out: Path,
        *,
        resume: bool = False,
        source: DataSource | None = None,
    ) -> None:
        self.recipe = recipe
        self._out = out
        self._model = model
        self._source = source
        rank = int(os.environ.get("RANK", "0"))
        self._is_first = rank == 0
        self.rows_folder = out / f"rows-{rank}"
        self._record: Card = {
            "recipe": dataclasses.asdict(recipe),
            "model": weights_digest(model),
        }
        self.checkpoint = newest_checkpoint(out) if resume else None
        self._start = 0 if self.checkpoint is None else step_of(self.checkpoint)
        if self.checkpoint is not None:
            _check_same(out, self._record)
        elif any(map(was_whole, checkpoints_of(out))):  # halves go when the run begins
            msg = f"{out} holds a run already: --resume goes on with it, another --out begins a new one"
            raise ConfigError(msg)
        self._table = MetricsFile(out / METRICS)
        self.page = CompletionsPage(out / PAGE)
        self._telemetry = Telemetry(self._table)
        self._card: Card = {}

    def watched(self, functions: Sequence[RewardFunction]) -> list[RewardFunction]:
        """Reward functions that stop the run at a score that is no number, and fill the page."""
        return WatchedRewards(functions, self.page, self.recipe.show_steps).functions

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """Faults of the machine as one sentence."""
        try:
            with quiet_bars(), told(dataclasses.asdict(self.recipe), self._out):
                yield
        finally:
            self._telemetry.close()

    def train(self, trainer: Any, rows: Any, filtered: Filtered) -> None:  # noqa: ANN401 (of transformers and datasets)
        """Train to the end.

        Args:
            trainer: of `transformers`.
            rows: a Dataset, with ids, words and truths beside the images.
            filtered: what gave no row.

        Raises:
            ConfigError: the run went on from other rows.
            InputError: a fault of the machine, or figures from which no training goes on.
        """
        from transformers import PrinterCallback, ProgressCallback

        self._freeze(rows)
        for callback in (PrinterCallback, ProgressCallback):
            trainer.remove_callback(callback)
        if self.checkpoint is not None:
            goes_on_as_it_was(trainer, self.checkpoint)
        trainer.add_callback(MarkCheckpoints())
        trainer.add_callback(self._telemetry)
        if self._is_first:
            for callback in _tensorboard(self._out, self._start):
                trainer.add_callback(callback)
        began = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        with self.guarded():
            trainer.train(resume_from_checkpoint=self.checkpoint and str(self.checkpoint))
        self._card = self._made_card(trainer, rows, filtered, began)

    def finish(self, folder: Path) -> Path:
        """Lay the run's card beside its model, and remove the rows; returns the folder."""
        shutil.rmtree(self.rows_folder, ignore_errors=True)
        if self._is_first:
            write_card(folder, self._card)
        return folder

    def _freeze(self, rows: Any) -> None:  # noqa: ANN401
        """Write down what the run is, or see that its rows are the same.

        Raises:
            ConfigError: they are not.
        """
        plain = rows.remove_columns([name for name in PICTURES if name in rows.column_names])
        self._record["data"] = rows_digest(plain)
        if self.checkpoint is not None:
            _check_same(self._out, self._record)
        if self._is_first:
            remove_halves(self._out)
            write_whole(self._out / RECIPE, self.recipe.to_yaml())
            write_whole(self._out / RECORD, json.dumps(self._record, indent=1) + "\n")
            self.page.begin(self._start)

    def _made_card(self, trainer: Any, rows: Any, filtered: Filtered, began: str) -> Card:  # noqa: ANN401
        table = self._table.rows() if self._is_first else []
        last = table[-1] if table else {}
        seconds = sum(float(row.get("seconds") or 0.0) for row in table)
        return {
            "recipe": self._record["recipe"],
            "command": command_line(),
            "model": {"folder": str(self._model.resolve()), "weights": self._record["model"]},
            "data": {
                "rows": len(rows),
                "digest": self._record["data"],
                "drawn": dict(filtered.drawn),
                "left_out": dict(filtered.reasons),
                **({"licence": "unknown"} if self._source is None else self._source.record()),
            },
            "code": code_record(),
            "hardware": hardware_record(),
            "result": {
                "began": began,
                "resumed_after_step": self._start or None,
                "steps": trainer.state.global_step,
                "seconds_of_all_steps": round(seconds, 1),
                "tokens": last.get(_TOKENS),
            },
            "last_figures": last,
        }


def _check_same(out: Path, record: Card) -> None:
    """Refuse to go on with another run than was begun.

    Raises:
        ConfigError: names what differs, or says that nothing was begun.
    """
    try:
        before = json.loads((out / RECORD).read_text("utf-8"))
        numbers = before["recipe"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"nothing to resume from in {out}: its {RECORD} cannot be read ({error})"
        raise ConfigError(msg) from error
    now = record["recipe"]
    changed = [
        f"{name} was {numbers.get(name)!r}, is {value!r}"
        for name, value in now.items()
        if name not in MAY_CHANGE and numbers.get(name) != json.loads(json.dumps(value))
    ]
    for name, words in (("model", "the model it began from"), ("data", "its samples")):
        if name in record and record[name] != before.get(name):
            changed.append(f"{words} were {before.get(name)}, are {record[name]}")
    if changed:
        msg = f"{out} holds another run: {'; '.join(changed)}; resume it as it was, or take another --out"
        raise ConfigError(msg)


def _tensorboard(out: Path, start: int) -> list[Any]:
    """The callback that writes for TensorBoard, where its package is installed."""
    from transformers.integrations import TensorBoardCallback
    from transformers.integrations.integration_utils import is_tensorboard_available

    if not is_tensorboard_available():
        return []
    from torch.utils.tensorboard import SummaryWriter

    make: Callable[..., Any] = SummaryWriter
    return [TensorBoardCallback(make(log_dir=str(out / "tensorboard"), purge_step=start + 1))]
