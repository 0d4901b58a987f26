# SPDX-License-Identifier: Apache-2.0
"""Supervised training of the nano reasoner's language model on frames that the tower has seen, by TRL.

Does not know: recordings, methods.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    PrinterCallback,
    ProgressCallback,
)

from foreseg.reasoner.prompt_card import CARD
from foreseg_torch.vlm.loading import vlm_parts
from foreseg_training.runs.checkpoints import (
    MarkCheckpoints,
    checkpoints_of,
    newest_checkpoint,
)
from foreseg_training.runs.metrics_file import MetricsFile
from foreseg_training.runs.progress import quiet_bars
from foreseg_training.runs.resuming import goes_on_as_it_was
from foreseg_training.runs.telemetry import Telemetry

from .architecture import save_nano_reasoner
from .features import FrameStore, SeenCollator, SeenFrames
from .held_out import read_rows, score_held_out

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoTraining:
    """Numbers of the stage: AdamW at a rate that warms up, stays, and falls linearly at the end.

    Attributes:
        max_steps: of `batch_size` rows.
        lesson_steps: before them, of twice as many lessons; 0: none.
        decay_share: of the steps, the last ones, in which the rate falls to nothing.
        num_held_out: questions that are answered at the end, and told.
    """

    max_steps: int = 1500
    lesson_steps: int = 450
    batch_size: int = 32
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    decay_share: float = 0.3
    save_steps: int = 100
    num_held_out: int = 200
    bf16: bool = True
    seed: int = 0


def train_language(training: NanoTraining, out: Path, *, resume: bool = False) -> Path:
    """Train on what `prepare` left in `out`, short lessons first; returns the trained model's folder.

    Lessons of one to three frames teach to read a place off a frame's tokens, and to say a frame's
    label; on the long prompts alone that does not come about in the time that this takes.
    """
    start = out / "start"
    tokenizer = AutoTokenizer.from_pretrained(
        start, local_files_only=True, trust_remote_code=False
    )
    model = AutoModelForImageTextToText.from_pretrained(
        start, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    tower = model.model.visual
    model.model.visual = SeenFrames(tower)
    collator = _collator(out)
    is_past_lessons = resume and bool(checkpoints_of(out))
    if training.lesson_steps and not is_past_lessons:
        lessons = dataclasses.replace(
            training, max_steps=training.lesson_steps, batch_size=2 * training.batch_size
        )
        _fit(model, tokenizer, collator, lessons, out / "lessons.jsonl", out / "lessons", resume)
    _fit(model, tokenizer, collator, training, out / "rows.jsonl", out, resume)
    held_out = read_rows(out / "held_out.jsonl")[: training.num_held_out]
    _LOG.info("%s", score_held_out(model, tokenizer, collator, held_out))
    model.model.visual = tower
    folder = out / "model"
    save_nano_reasoner(model, tokenizer, folder)
    (folder / CARD).write_bytes((start / CARD).read_bytes())
    return folder


def _fit(
    model: Any,  # noqa: ANN401 (of transformers)
    tokenizer: Any,  # noqa: ANN401
    collator: SeenCollator,
    training: NanoTraining,
    rows: Path,
    out: Path,
    resume: bool,  # noqa: FBT001
) -> None:
    """Train a model in place on the rows of a file; `out` gets checkpoints and figures."""
    from datasets import Dataset
    from trl import SFTTrainer

    out.mkdir(parents=True, exist_ok=True)
    trainer = SFTTrainer(
        model=model,
        args=_arguments(training, out),
        train_dataset=Dataset.from_list(read_rows(rows)),
        data_collator=collator,
        processing_class=tokenizer,
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    telemetry = Telemetry(MetricsFile(out / "metrics.csv"))
    trainer.add_callback(telemetry)
    trainer.add_callback(MarkCheckpoints())
    checkpoint = newest_checkpoint(out) if resume and checkpoints_of(out) else None
    if checkpoint is not None:
        goes_on_as_it_was(trainer, checkpoint)
    try:
        with quiet_bars():
            trainer.train(resume_from_checkpoint=checkpoint and str(checkpoint))
    finally:
        telemetry.close()


def _collator(out: Path) -> SeenCollator:
    parts, store = vlm_parts(out / "start"), FrameStore(out / "frames.npy")
    merge = parts.geometry.merge
    columns, rows = _grid(store.array.shape[1])
    return SeenCollator(
        store,
        (1, rows * merge, columns * merge),
        parts.tokenizer.pad_token_id,
        parts.geometry.image_token_id,
    )


def _arguments(training: NanoTraining, out: Path) -> Any:  # noqa: ANN401 (an SFTConfig)
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(out / "checkpoints"),
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": int(training.decay_share * training.max_steps)},
        warmup_steps=training.warmup_steps,
        weight_decay=0.01,
        adam_beta2=0.98,
        max_grad_norm=1.0,
        bf16=training.bf16,
        use_cpu=not torch.cuda.is_available(),
        activation_checkpointing=False,
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        max_length=None,
        logging_steps=10,
        save_steps=training.save_steps,
        save_total_limit=2,
        seed=training.seed,
        report_to=[],
    )


def _grid(num_tokens: int) -> tuple[int, int]:
    """Columns and rows of a frame's tokens, at four to three or nearly."""
    rows = max(r for r in range(1, num_tokens + 1) if num_tokens % r == 0 and r * r <= num_tokens)
    return num_tokens // rows, rows
