# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning with [SEG]: cross entropy of the words, and what the decoded masks cost.

TRL's `SFTTrainer`; the loss is its own plus `MaskForward`'s, mean over the completions that say the
token: L = CE + (bce_weight BCE + dice_weight Dice), VISA's. Differentiated is all that is trained:
the token's state is that of the very forward pass whose words are learnt. Several processes take
the mean of their means. Deviations: VISA's visual
questions (Video-ChatGPT, without masks) are not read here; FeVOS-R1 leaves its numbers unsaid, they
are Sa2VA's, whose points are drawn where the mask is unsure, ours anywhere.
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
from foreseg_training.seg_samples import SegSampleDrawer
from foreseg_training.vlm.arguments import accumulation, common_arguments
from foreseg_training.vlm.model import special_tokens
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, dataset_of
from foreseg_training.vlm.run import Run
from foreseg_training.vlm.said_samples import said_samples
from foreseg_training.vlm.seg_loss import MaskWeights
from foreseg_training.vlm.seg_model import (
    SegSetup,
    check_can_be_saved,
    save_trained_seg,
    seg_adapters,
    seg_model_to_train,
    set_up_seg,
)
from foreseg_training.vlm.seg_rows import seg_sft_row


def train_seg_sft(
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

    Args and Raises as `sft.train_sft`; the folder is one that `foreseg-export seg` made for the
    recipe's method, or that came out of here.
    """
    from trl import SFTConfig

    from foreseg_training.vlm.seg_trainers import SegSftTrainer, with_masks

    if recipe.stage != "sft":
        msg = f"supervised fine-tuning wants a recipe of the stage sft, got {recipe.stage}"
        raise ConfigError(msg)
    arguments = SFTConfig(
        **common_arguments(recipe, out, device),
        per_device_train_batch_size=recipe.per_device,
        gradient_accumulation_steps=accumulation(recipe.batch_size, recipe.per_device),
        completion_only_loss=True,
        max_length=None,  # a cut prompt would lose frames
        remove_unused_columns=False,  # those of the masks are used
    )
    setup = set_up_seg(recipe, folder)
    config = seg_adapters(recipe, setup.token_id)
    run = Run(recipe, folder, out, resume=resume, source=source)
    filtered = Filtered()
    with run.guarded():
        rows = seg_sft_rows(recipe, setup, episodes, run.rows_folder, filtered)
        trainer = SegSftTrainer(
            model=seg_model_to_train(recipe, folder),
            args=arguments,
            train_dataset=rows,
            processing_class=setup.processor,
            peft_config=config,
            callbacks=[said_samples(recipe, setup.processor, rows, run.page)],
        )
        masks = trainer.learn_masks(setup.token_id, weights_of(recipe))
        trainer.data_collator = with_masks(trainer.data_collator, masks)
        check_can_be_saved(trainer, recipe)
        run.train(trainer, rows, filtered)
        return run.finish(save_trained_seg(trainer, setup, recipe, folder, out))


def weights_of(recipe: Recipe) -> MaskWeights:
    """How much a mask's parts cost in a recipe."""
    return MaskWeights(
        bce=recipe.bce_weight, dice=recipe.dice_weight, num_points=recipe.mask_points
    )


def seg_drawer_of(recipe: Recipe, setup: SegSetup, *, needs_rationale: bool) -> SegSampleDrawer:
    """What draws the samples of a recipe."""
    return SegSampleDrawer(
        method=setup.method,
        label_offset=recipe.label_offset,
        label_stride=recipe.label_stride,
        needs_rationale=needs_rationale,
        negative_share=recipe.negative_share,
        least_references=recipe.least_references,
        most_references=recipe.most_references,
    )


def seg_sft_rows(
    recipe: Recipe,
    setup: SegSetup,
    episodes: Sequence[Episode],
    folder: Path,
    filtered: Filtered,
) -> Any:  # noqa: ANN401 (a Dataset)
    """All rows, on disk rather than in memory; counts what gives none.

    Raises:
        InputError: no episode gives a sample; says why.
    """
    drawer = seg_drawer_of(recipe, setup, needs_rationale=Form(recipe.form).has_rationale)
    tokens = special_tokens(setup.parts)

    def rows() -> Iterator[Row]:
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            yield seg_sft_row(setup.method, sample, tokens, recipe.decode_side_px)

    return dataset_of(rows(), filtered, folder)
