# SPDX-License-Identifier: Apache-2.0
"""The model of a run: its parts, what of it is trained, and the folder that comes out.

The folder is one that `foreseg-export vlm` and `transformers:FILE` read, with adapters merged and
`method.json` beside it. Does not know: samples, trainers, rewards.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForImageTextToText
from transformers.integrations import is_deepspeed_zero3_enabled

from foreseg.errors import ConfigError, InputError
from foreseg.reasoner.prompt_card import CARD, PromptCard, read_card, words_hash
from foreseg_torch.reasoner import TransformersOptions, fitted_view
from foreseg_torch.vlm.loading import VlmParts, loading, read_config, stored_precision, vlm_parts
from foreseg_torch.vlm.processor import FramesProcessor
from foreseg_training.runs.whole_file import whole_folder
from foreseg_training.vlm.lesson import Lessons
from foreseg_training.vlm.lessons import lessons_of, method_options
from foreseg_training.vlm.recipe import Recipe

ADAPTER = "adapter"
_LAYERS = ("q", "k", "v", "o", "gate", "up", "down")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setup:
    """What both stages need: the method as it will run, the processor, and the model's parts."""

    lessons: Lessons
    processor: FramesProcessor
    parts: VlmParts


def set_up(recipe: Recipe, folder: Path) -> Setup:
    """Read a model's parts, and make the method that it is trained for.

    Raises:
        ConfigError: rewards for a form in which it was never taught to answer.
        InputError: no model of the Qwen-VL kind.
    """
    check_form(recipe, folder)
    parts = vlm_parts(folder)
    options = TransformersOptions(
        num_frames=method_options(recipe).num_frames,
        image_side_px=recipe.image_side_px,
        frame_pixels=recipe.frame_pixels,
        labels=recipe.labels,
    )
    view = fitted_view(parts.config.model_type, parts.geometry.unit_px, options)
    return Setup(
        lessons=lessons_of(recipe, view),
        processor=FramesProcessor(parts.tokenizer, parts.geometry, view.frame_pixels),
        parts=parts,
    )


def check_form(recipe: Recipe, folder: Path) -> None:
    """Refuse to optimise a policy that was taught to be asked otherwise: it would start from nothing.

    Raises:
        ConfigError: names what differs.
    """
    card = read_card(folder)
    if recipe.stage != "grpo" or card is None or card.trains == "sampler":
        return
    taught = {name: getattr(card, name) for name in ("method", "form", "labels", "tells_budget")}
    for name, value in taught.items():
        if getattr(recipe, name) != value:
            shown = str(value).lower() if isinstance(value, bool) else value
            msg = (
                f"{folder} was trained with {name} {shown}, the recipe says {getattr(recipe, name)}:"
                f" --set {name}={shown}, or begin from another model"
            )
            raise ConfigError(msg)


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
    stored = stored_precision(read_config(folder), folder)
    if stored is not None:
        msg = f"{folder} is quantised to {stored.value}, which is not trained: take the model it came from"
        raise InputError(msg)
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
            ignore_mismatched_sizes=True,  # they are told below
        )
    if not hasattr(model.model, "visual"):
        msg = f"{folder} is a {model.config.model_type!r}: its vision tower is not known here"
        raise InputError(msg)
    _check_whole(folder, found)
    model.model.visual.requires_grad_(requires_grad=False)
    return model


def _check_whole(folder: Path, found: dict[str, Any]) -> None:
    """Refuse weights that are not those of the configuration beside them.

    Raises:
        InputError: some are missing, or have other shapes.
    """
    lacking = sorted(map(str, found["missing_keys"]))
    if lacking:
        msg = f"{folder} is not whole: it lacks {len(lacking)} tensors, {lacking[0]} among them"
        raise InputError(msg)
    others = sorted(str(each[0]) for each in found["mismatched_keys"])
    if others:
        msg = (
            f"{folder} has weights of another architecture than its config.json says: {len(others)}"
            f" tensors have other shapes, {others[0]} among them"
        )
        raise InputError(msg)


def adapted_layers(recipe: Recipe) -> str:
    """A pattern of the names of the layers that a recipe adapts.

    Raises:
        ConfigError: no such layer.
    """
    names = [name.strip() for name in recipe.lora_targets.split(",")]
    if unknown := set(names) - set(_LAYERS):
        msg = f"lora_targets want some of {','.join(_LAYERS)}, got {','.join(sorted(unknown))!r}"
        raise ConfigError(msg)
    return rf".*language_model.*\.({'|'.join(names)})_proj"


def adapters(recipe: Recipe) -> Any:  # noqa: ANN401 (a LoraConfig, or None)
    """LoRA on the language model's linear layers; None where all weights are trained.

    Raises:
        ConfigError: no such layer.
    """
    if not recipe.lora_r:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=adapted_layers(recipe),
        task_type="CAUSAL_LM",
    )


def save_trained(trainer: Any, setup: Setup, recipe: Recipe, start: Path, out: Path) -> Path:  # noqa: ANN401
    """Save a model as the robot reads it: adapters merged, the method and the recipe beside it.

    Every process of a run calls it; the first writes, after all have handed it their shards.

    Args:
        trainer: of `transformers`, at its end.
        setup: of the run.
        recipe: likewise.
        start: folder that the run began from.
        out: gets `model/`, and of LoRA `adapter/`; each whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = out / "model"
    is_sharded = trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled
    with gathered(trainer, out) if is_sharded else contextlib.nullcontext() as whole:
        if trainer.accelerator.is_main_process:
            model = _read_back(recipe, start, whole) if whole else trainer.model
            if hasattr(model, "merge_and_unload"):
                with whole_folder(out / ADAPTER) as part:
                    model.save_pretrained(part)
                    (part / CARD).write_text(_card_of(setup, recipe).to_json(), "utf-8")
                model = model.merge_and_unload()
            with whole_folder(folder) as part:
                model.save_pretrained(part)
                setup.processor.save_pretrained(part)
                (part / CARD).write_text(_card_of(setup, recipe).to_json(), "utf-8")
                (part / "recipe.yaml").write_text(recipe.to_yaml(), "utf-8")
    trainer.accelerator.wait_for_everyone()
    return folder


def is_in_shards(trainer: Any) -> bool:  # noqa: ANN401 (of transformers)
    """Whether no process has all weights: ZeRO-3 and FSDP; under ZeRO-2 and DDP each has."""
    return bool(trainer.is_fsdp_enabled) or is_deepspeed_zero3_enabled()


@contextlib.contextmanager
def gathered(trainer: Any, out: Path) -> Iterator[Path]:  # noqa: ANN401
    """A folder with the weights (of LoRA: the adapters) whose shards lie in several processes."""
    folder = out / ".gathered"
    trainer.save_model(str(folder))
    trainer.accelerator.wait_for_everyone()
    try:
        yield folder
    finally:
        if trainer.accelerator.is_main_process:
            shutil.rmtree(folder, ignore_errors=True)


def _read_back(recipe: Recipe, start: Path, whole: Path) -> Any:  # noqa: ANN401
    """The trained model from gathered weights, on the CPU."""
    if not recipe.lora_r:
        return model_to_train(recipe, whole)
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    model = get_peft_model(model_to_train(recipe, start), adapters(recipe))
    set_peft_model_state_dict(model, load_file(whole / "adapter_model.safetensors"))
    return model


def _card_of(setup: Setup, recipe: Recipe) -> PromptCard:
    options = method_options(recipe)
    return PromptCard(
        method=recipe.method,
        form=recipe.form,
        num_frames=options.num_frames,
        image_side_px=recipe.image_side_px,
        frame_pixels=recipe.frame_pixels,
        num_key_frames=options.num_key_frames,
        num_reference_frames=options.num_reference_frames,
        labels=recipe.labels,
        tells_budget=recipe.tells_budget,
        trains=recipe.trains,
        words=words_hash(setup.lessons.method),
    )
