# SPDX-License-Identifier: Apache-2.0
"""Group relative policy optimisation with [SEG], as FeVOS-R1: rewards from decoded masks.

TRL's `GRPOTrainer`. The reward is the form's plus the mean over the shown frames of the IoU of the
union mask, decoded without gradient from the sampled token ids.

What is differentiated: the log-probabilities of the sampled tokens, with respect to the language
model (its adapters), weighed by the advantage. The rewards, the thresholded masks in them and the
choice of tokens are not. With `mask_loss_weight` above 0 (Sa2VA's reinforcement has such a loss; the
paper says "end-to-end" and no more), the masks' cost on the best completion of each group is added,
mean over groups: differentiated through SAM2's mask decoder, the projection and the state of its
[SEG] token into the language model; the completion is as it was sampled. Under adapters the rows of
[SEG] train, too, and the reference of the divergence has the trained row: peft's wrapper keeps it.
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
from foreseg_training.vlm.arguments import grpo_arguments
from foreseg_training.vlm.model import special_tokens
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, dataset_of
from foreseg_training.vlm.run import Run
from foreseg_training.vlm.seg_model import (
    SegSetup,
    check_can_be_saved,
    save_trained_seg,
    seg_adapters,
    seg_model_to_train,
    set_up_seg,
)
from foreseg_training.vlm.seg_rewards import SegRewards
from foreseg_training.vlm.seg_rows import seg_prompt_row
from foreseg_training.vlm.seg_sft import seg_drawer_of, weights_of


def train_seg_grpo(
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

    Args and Raises as `seg_sft.train_seg_sft`; ConfigError also for rewards that are unknown,
    InputError for a reward that is no number.
    """
    from trl import GRPOConfig

    from foreseg_training.vlm.seg_trainers import SegGrpoTrainer

    if recipe.stage != "grpo":
        msg = f"policy optimisation wants a recipe of the stage grpo, got {recipe.stage}"
        raise ConfigError(msg)
    setup = set_up_seg(recipe, folder)
    rewards = SegRewards(setup.parts.tokenizer, setup.token_id, Form(recipe.form))
    functions, weights = rewards.functions(recipe.reward_weights)
    arguments = GRPOConfig(**grpo_arguments(recipe, out, device, weights))
    trains_head = recipe.mask_loss_weight > 0
    run = Run(recipe, folder, out, resume=resume, source=source)
    filtered = Filtered()
    with run.guarded():
        rows = seg_grpo_rows(recipe, setup, episodes, run.rows_folder, filtered)
        trainer = SegGrpoTrainer(
            # it knows its folder: the reference comes from there
            model=seg_model_to_train(recipe, folder, trains_head=trains_head),
            reward_funcs=run.watched(functions),
            args=arguments,
            train_dataset=rows,
            processing_class=setup.processor,
            peft_config=seg_adapters(recipe, setup.token_id, trains_head=trains_head),
        )
        trainer.learn_masks(setup.token_id, weights_of(recipe), recipe.mask_loss_weight)
        check_can_be_saved(trainer, recipe)
        run.train(trainer, rows, filtered)
        return run.finish(save_trained_seg(trainer, setup, recipe, folder, out))


def seg_grpo_rows(
    recipe: Recipe,
    setup: SegSetup,
    episodes: Sequence[Episode],
    folder: Path,
    filtered: Filtered,
) -> Any:  # noqa: ANN401 (a Dataset)
    """Prompts with their true masks; counts what gives none.

    Raises:
        InputError: fewer episodes give a sample than a step takes; says why.
    """
    drawer = seg_drawer_of(recipe, setup, needs_rationale=False)
    tokens = special_tokens(setup.parts)

    def rows() -> Iterator[Row]:
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            yield seg_prompt_row(sample, tokens, recipe.decode_side_px)

    return dataset_of(rows(), filtered, folder, at_least=recipe.batch_size)
