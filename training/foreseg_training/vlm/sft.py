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
from foreseg.methods.grammar import Form
from foreseg_evaluation.episode import Episode
from foreseg_training.samples import Filtered
from foreseg_training.vlm.arguments import accumulation, common_arguments, newest_checkpoint
from foreseg_training.vlm.model import (
    Setup,
    adapters,
    model_to_train,
    save_trained,
    set_up,
    special_tokens,
)
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, dataset_of, drawer_of, sft_row


def train_sft(
    recipe: Recipe, folder: Path, episodes: Sequence[Episode], out: Path, *, resume: bool = False
) -> Path:
    """Train on one sample of each episode; returns the folder of the trained model.

    Args:
        recipe: of the stage "sft".
        folder: of the model to start from.
        episodes: with questions, one truth each, and chains of thought where the form has them.
        out: gets `checkpoints/` and `model/`.
        resume: go on from the newest checkpoint in `out`.

    Raises:
        ConfigError: a recipe of another stage, or nothing to resume from.
        InputError: no usable model, or no episode that gives a sample.
    """
    from trl import SFTConfig, SFTTrainer

    if recipe.stage != "sft":
        msg = f"supervised fine-tuning wants a recipe of the stage sft, got {recipe.stage}"
        raise ConfigError(msg)
    checkpoint = newest_checkpoint(out) if resume else None
    setup = set_up(recipe, folder)
    rows = sft_rows(recipe, setup, episodes, out / "rows")
    model = model_to_train(recipe, folder)
    arguments = SFTConfig(
        **common_arguments(recipe, out),
        per_device_train_batch_size=recipe.per_device,
        gradient_accumulation_steps=accumulation(recipe.batch_size, recipe.per_device),
        completion_only_loss=True,
        max_length=None,  # a cut prompt would lose frames
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        processing_class=setup.processor,
        peft_config=adapters(recipe),
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    return save_trained(trainer.model, setup, recipe, out)


def sft_rows(recipe: Recipe, setup: Setup, episodes: Sequence[Episode], folder: Path) -> Any:  # noqa: ANN401 (a Dataset)
    """All rows, on disk rather than in memory.

    Raises:
        InputError: no episode gives a sample; says why.
    """
    form = Form(recipe.form)
    drawer = drawer_of(recipe, needs_rationale=form.has_rationale)
    tokens = special_tokens(setup.parts)
    filtered = Filtered()

    def rows() -> Iterator[Row]:
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            yield sft_row(setup.method, sample, tokens)

    return dataset_of(rows(), filtered, folder)
