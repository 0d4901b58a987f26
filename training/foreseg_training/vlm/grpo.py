# SPDX-License-Identifier: Apache-2.0
"""Group relative policy optimisation by TRL's `GRPOTrainer`, with Veason-R1's rewards.

Deviations from Veason-R1: its reward of temporal consistency (R_u), for which the answer is tracked
through the shown frames, is not here yet; questions without a target stay in, with a reward of
their own. Knows no loop: TRL draws, compares and steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from foreseg.errors import ConfigError
from foreseg.methods.grammar import Form
from foreseg_evaluation.episode import Episode
from foreseg_training.runs.run_card import DataSource
from foreseg_training.samples import Filtered
from foreseg_training.vlm.arguments import accumulation, common_arguments
from foreseg_training.vlm.method_rewards import VeasonRewards, truth_of
from foreseg_training.vlm.model import (
    Setup,
    adapters,
    model_to_train,
    save_trained,
    set_up,
    special_tokens,
)
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, dataset_of, drawer_of, prompt_row
from foreseg_training.vlm.run import Run


def train_grpo(
    recipe: Recipe,
    folder: Path,
    episodes: Sequence[Episode],
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    source: DataSource | None = None,
) -> Path:
    """Train on one prompt of each episode; returns the folder of the trained model.

    Args and Raises as `train_sft`; ConfigError also for rewards that are unknown, InputError for a
    reward that is no number.
    """
    from trl import GRPOConfig, GRPOTrainer

    if recipe.stage != "grpo":
        msg = f"policy optimisation wants a recipe of the stage grpo, got {recipe.stage}"
        raise ConfigError(msg)
    setup = set_up(recipe, folder)
    rewards = VeasonRewards(setup.method, Form(recipe.form))
    functions, weights = rewards.functions(recipe.reward_weights)
    arguments = GRPOConfig(
        **common_arguments(recipe, out, device),
        per_device_train_batch_size=recipe.per_device,
        gradient_accumulation_steps=accumulation(
            recipe.batch_size * recipe.num_generations, recipe.per_device
        ),
        num_generations=recipe.num_generations,
        max_completion_length=recipe.max_completion_tokens,
        temperature=recipe.temperature,
        beta=recipe.kl_beta,
        epsilon=recipe.epsilon,
        loss_type="grpo",
        scale_rewards="group",
        reward_weights=weights,
    )
    run = Run(recipe, folder, out, resume=resume, source=source)
    filtered = Filtered()
    with run.guarded():
        rows = grpo_rows(recipe, setup, episodes, out / "rows", filtered)
        trainer = GRPOTrainer(
            # it knows its folder: the reference comes from there
            model=model_to_train(recipe, folder),
            reward_funcs=run.watched(functions),
            args=arguments,
            train_dataset=rows,
            processing_class=setup.processor,
            peft_config=adapters(recipe),
        )
        run.train(trainer, rows, filtered)
        return run.finish(save_trained(trainer, setup, recipe, folder, out))


def grpo_rows(
    recipe: Recipe,
    setup: Setup,
    episodes: Sequence[Episode],
    folder: Path,
    filtered: Filtered,
) -> Any:  # noqa: ANN401 (a Dataset)
    """Prompts with their truth; counts what gives none.

    Raises:
        InputError: no episode gives a sample; says why.
    """
    drawer = drawer_of(recipe)
    tokens = special_tokens(setup.parts)

    def rows() -> Iterator[Row]:
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            truth = truth_of(setup.method, sample).to_json()
            yield {**prompt_row(setup.method, sample, tokens), "truth": truth}

    return dataset_of(rows(), filtered, folder)
