# SPDX-License-Identifier: Apache-2.0
"""Supervised fine-tuning on true completions, by TRL's `SFTTrainer`: completion-only cross entropy.

Deviations from Veason-R1: its teacher's chains are not public, so the dataset's own are used; what
the paper leaves unsaid is marked in the recipe. Saves a folder that `foreseg-export vlm` and
`transformers:FILE` read, with adapters merged and `method.json` beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from foreseg.errors import ConfigError, InputError
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg_evaluation.episode import Episode
from foreseg_torch.reasoner import TransformersOptions, fitted_view
from foreseg_torch.vlm.card import CARD, PromptCard, words_hash
from foreseg_torch.vlm.loading import VlmParts, loading, vlm_parts
from foreseg_torch.vlm.processor import FramesProcessor
from foreseg_training.samples import Filtered, SampleDrawer
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, sft_row

_LOG = logging.getLogger(__name__)
_LINEAR = r".*language_model.*\.(q|k|v|o|gate|up|down)_proj"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """What both stages need: the method as it will run, the processor, and the model's parts."""

    method: VeasonMethod
    processor: FramesProcessor
    parts: VlmParts


def set_up(recipe: Recipe, folder: Path) -> Setup:
    """Read a model's parts, and make the method that it is trained for.

    Raises:
        InputError: no model of the Qwen-VL kind.
    """
    parts = vlm_parts(folder)
    options = TransformersOptions(
        num_frames=recipe.num_frames,
        image_side_px=recipe.image_side_px,
        frame_pixels=recipe.frame_pixels,
    )
    view = fitted_view(parts.config.model_type, parts.geometry.unit_px, options)
    settings = VeasonSettings(num_frames=recipe.num_frames, view=view, form=Form(recipe.form))
    return Setup(
        method=VeasonMethod(settings),
        processor=FramesProcessor(parts.tokenizer, parts.geometry, view.frame_pixels),
        parts=parts,
    )


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
    rows = sft_rows(recipe, setup, episodes)
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


def sft_rows(recipe: Recipe, setup: Setup, episodes: Sequence[Episode]) -> Any:  # noqa: ANN401 (a Dataset)
    """All rows, on disk rather than in memory.

    Raises:
        InputError: no episode gives a sample; says why.
    """
    form = Form(recipe.form)
    drawer = SampleDrawer(
        num_frames=recipe.num_frames,
        label_offset=recipe.label_offset,
        needs_rationale=form.has_rationale,
    )
    tokens = special_tokens(setup.parts)
    filtered = Filtered()

    def rows() -> Iterator[Row]:
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            yield sft_row(setup.method, sample, tokens)

    return dataset_of(list(rows()), filtered)


def dataset_of(rows: list[Row], filtered: Filtered) -> Any:  # noqa: ANN401 (a Dataset)
    """Rows as TRL takes them; what was left out is told.

    Raises:
        InputError: there is none.
    """
    from datasets import Dataset

    if filtered.reasons:
        _LOG.warning("episodes left out: %s", filtered)
    if not rows:
        msg = f"no episode gives a sample: {str(filtered) or 'there is none'}"
        raise InputError(msg)
    return Dataset.from_list(rows)


def special_tokens(parts: VlmParts) -> frozenset[str]:
    """What no text of a prompt may spell."""
    return frozenset({*parts.tokenizer.all_special_tokens, parts.geometry.image_token})


def model_to_train(recipe: Recipe, folder: Path) -> Any:  # noqa: ANN401 (of transformers)
    """A model in the recipe's precision, its vision tower frozen.

    Raises:
        InputError: the folder cannot be loaded, or is not whole.
    """
    dtype = torch.float32 if recipe.precision == "fp32" else torch.bfloat16
    with loading(folder):
        model, found = AutoModelForImageTextToText.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    lacking = sorted(map(str, found["missing_keys"]))
    if lacking:
        msg = f"{folder} is not whole: it lacks {len(lacking)} tensors, {lacking[0]} among them"
        raise InputError(msg)
    model.model.visual.requires_grad_(requires_grad=False)
    return model


def adapters(recipe: Recipe) -> Any:  # noqa: ANN401 (a LoraConfig, or None)
    """LoRA on the language model's linear layers; None where all weights are trained."""
    if not recipe.lora_r:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=_LINEAR,
        task_type="CAUSAL_LM",
    )


def common_arguments(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What both stages tell the trainer."""
    return {
        "output_dir": str(out / "checkpoints"),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_ratio,  # below 1: a share of all steps
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "bf16": recipe.precision == "bf16" and torch.cuda.is_available(),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": 1,
        "save_steps": recipe.save_steps,
        "save_total_limit": 2,
        "activation_checkpointing": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "report_to": [],
    }


def accumulation(wanted: int, per_device: int) -> int:
    """Steps of accumulation for so many rows a step.

    Raises:
        ConfigError: the devices at hand do not divide them.
    """
    at_once = per_device * max(1, torch.cuda.device_count())
    if wanted % at_once:
        msg = f"{wanted} rows a step cannot be divided by {at_once} at once: change per_device"
        raise ConfigError(msg)
    return wanted // at_once


def newest_checkpoint(out: Path) -> str:
    """The checkpoint to go on from.

    Raises:
        ConfigError: there is none.
    """
    folders = (out / "checkpoints").glob("checkpoint-*")
    found = sorted((p for p in folders if p.name[11:].isdecimal()), key=lambda p: int(p.name[11:]))
    if not found:
        msg = f"nothing to resume from in {out}: it has no checkpoints/checkpoint-N"
        raise ConfigError(msg)
    return str(found[-1])


def save_trained(model: Any, setup: Setup, recipe: Recipe, out: Path) -> Path:  # noqa: ANN401
    """Save a model as the robot reads it: adapters merged, the method and the recipe beside it."""
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    folder = out / "model"
    model.save_pretrained(folder)
    setup.processor.save_pretrained(folder)
    card = PromptCard(
        method=setup.method.name,
        form=recipe.form,
        num_frames=recipe.num_frames,
        image_side_px=recipe.image_side_px,
        frame_pixels=recipe.frame_pixels,
        words=words_hash(setup.method),
    )
    (folder / CARD).write_text(card.to_json(), "utf-8")
    (folder / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")
    return folder
