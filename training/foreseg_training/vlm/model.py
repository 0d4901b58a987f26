# SPDX-License-Identifier: Apache-2.0
"""The model of a run: its parts, what of it is trained, and the folder that comes out.

The folder is one that `foreseg-export vlm` and `transformers:FILE` read, with adapters merged and
`method.json` beside it. Does not know: samples, trainers, rewards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText

from foreseg.errors import InputError
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg_torch.reasoner import TransformersOptions, fitted_view
from foreseg_torch.vlm.card import CARD, PromptCard, words_hash
from foreseg_torch.vlm.loading import VlmParts, loading, vlm_parts
from foreseg_torch.vlm.processor import FramesProcessor
from foreseg_training.vlm.recipe import Recipe

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


def special_tokens(parts: VlmParts) -> frozenset[str]:
    """What no text of a prompt may spell."""
    return frozenset({*parts.tokenizer.all_special_tokens, parts.geometry.image_token})


def model_to_train(recipe: Recipe, folder: Path) -> Any:  # noqa: ANN401 (of transformers)
    """A model to train, its vision tower frozen.

    Weights that are trained are float32, whatever the arithmetic: a step of 1e-6 of a bfloat16
    weight is rounded away. Under adapters the others rest in the recipe's precision.

    Raises:
        InputError: the folder cannot be loaded, or is not whole.
    """
    rests = recipe.lora_r > 0 and recipe.precision == "bf16"
    dtype = torch.bfloat16 if rests else torch.float32
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
