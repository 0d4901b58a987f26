# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning on true completions, by TRL's `SFTTrainer`: completion-only cross entropy.

Deviations from Veason-R1: its teacher's chains are not public, so the dataset's own are used; what
the paper leaves unsaid is marked in the recipe.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foreseg.errors import ConfigError
from foreseg_evaluation.episode import Episode
from foreseg_training.runs.run_card import DataSource
from foreseg_training.samples import Filtered
from foreseg_training.vlm.arguments import accumulation, common_arguments
from foreseg_training.vlm.model import (
    Setup,
    adapters,
    model_to_train,
    save_trained,
    set_up,
    special_tokens,
)
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, dataset_of, taught_row
from foreseg_training.vlm.run import Run
from foreseg_training.vlm.said_samples import said_samples


def train_sft(
    recipe: Recipe,
    folder: Path,
    episodes: Sequence[Episode],
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    source: DataSource | None = None,
) -> Path:
    """Train on one sample of each episode; returns the folder of the trained model.

    Args:
        recipe: of the stage "sft".
        folder: of the model to start from.
        episodes: with questions, one truth each, and chains of thought where the form has them.
        out: gets `checkpoints/` and `model/`, and what `Run` writes.
        resume: go on from the newest whole checkpoint in `out`.
        device: "auto" takes the GPU where torch sees one; "cuda"; "cpu".
        source: where the episodes came from, for the run's card.

    Raises:
        ConfigError: a recipe of another stage, no such device, nothing to resume from, or another
            run in `out`.
        InputError: no usable model, no episode that gives a sample, or a fault of the machine.
    """
    from trl import SFTConfig, SFTTrainer

    if recipe.stage != "sft":
        msg = f"supervised fine-tuning wants a recipe of the stage sft, got {recipe.stage}"
        raise ConfigError(msg)
    arguments = SFTConfig(
        **common_arguments(recipe, out, device),
        per_device_train_batch_size=recipe.per_device,
        gradient_accumulation_steps=accumulation(recipe.batch_size, recipe.per_device),
        completion_only_loss=True,
        max_length=None,  # a cut prompt would lose frames
    )
    setup = set_up(recipe, folder)
    config = adapters(recipe)
    run = Run(recipe, folder, out, resume=resume, source=source)
    filtered = Filtered()
    with run.guarded():
        rows = sft_rows(setup, episodes, run.rows_folder, filtered)
        trainer = SFTTrainer(
            model=model_to_train(recipe, folder),
            args=arguments,
            train_dataset=rows,
            processing_class=setup.processor,
            peft_config=config,
            callbacks=[said_samples(recipe, setup.processor, rows, run.page)],
        )
        run.train(trainer, rows, filtered)
        return run.finish(save_trained(trainer, setup, recipe, folder, out))


def sft_rows(
    setup: Setup,
    episodes: Sequence[Episode],
    folder: Path,
    filtered: Filtered,
) -> Any:  # noqa: ANN401 (a Dataset)
    """All rows, on disk rather than in memory; counts what gives none.

    Raises:
        InputError: no episode gives a sample; says why.
    """
    tokens = special_tokens(setup.parts)

    def rows() -> Iterator[Row]:
        for lesson in setup.lessons.draw(episodes, filtered, has_completions=True):
            yield taught_row(lesson, tokens)

    return dataset_of(rows(), filtered, folder)
