# SPDX-License-Identifier: Apache-2.0
"""The model of a run with [SEG]: what of it is trained, and the folder that comes out.

Trained are the language model (adapters, or all of it), the row of [SEG] in its two tables, the
projection and SAM2's mask decoder; SAM2's encoders and the vision tower rest. The head hangs on the
language model while it is trained, so that trainers see one model; the folder is one that
`transformers:FILE` reads. Does not know: samples, trainers' losses.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from foreseg.errors import ConfigError
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grammar import Form
from foreseg.methods.seg_answers import TOKEN
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg.reasoner.prompt_card import CARD, PromptCard, words_hash
from foreseg_torch.reasoner import TransformersOptions, fitted_view
from foreseg_torch.seg.model import SegVlm, backbone
from foreseg_torch.seg.store import (
    HEAD,
    LoadedSegVlm,
    load_mask_head,
    save_seg_vlm,
    seg_method_of,
)
from foreseg_torch.vlm.loading import LoadedVlm, Precision, VlmParts, vlm_parts
from foreseg_torch.vlm.processor import FramesProcessor
from foreseg_training.runs.whole_file import whole_folder
from foreseg_training.seg_samples import SegMethod
from foreseg_training.vlm.model import (
    adapted_layers,
    check_form,
    gathered,
    is_in_shards,
    model_to_train,
)
from foreseg_training.vlm.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegSetup:
    """What both stages need: the method as it will run, the processor, and the model's parts."""

    method: SegMethod
    processor: FramesProcessor
    parts: VlmParts
    token_id: int  # of [SEG]


def set_up_seg(recipe: Recipe, folder: Path) -> SegSetup:
    """Read a folder's parts, and make the method that it is trained for.

    Raises:
        ConfigError: the folder was made for another method, or rewards for a form in which it was
            never taught to answer.
        InputError: no folder of a model that segments.
    """
    made_for = seg_method_of(folder)
    if made_for != recipe.method:
        was = f"was made for {made_for}" if made_for else "is none"
        msg = (
            f"{recipe.method} wants a folder that `foreseg-export seg` made for it; {folder} {was}"
        )
        raise ConfigError(msg)
    check_form(recipe, folder)
    parts = vlm_parts(folder / "vlm")
    num_frames = recipe.num_frames if recipe.method == "fevos" else 0
    options = TransformersOptions(
        num_frames=num_frames,
        image_side_px=recipe.image_side_px,
        frame_pixels=recipe.frame_pixels,
    )
    view = fitted_view(parts.config.model_type, parts.geometry.unit_px, options)
    form = Form(recipe.form)
    method: SegMethod
    if recipe.method == "visa":
        method = VisaMethod(VisaSettings(view=view, form=form))
    else:
        settings = FevosSettings(
            num_frames=num_frames, view=view, form=form, tells_budget=recipe.tells_budget
        )
        method = FevosMethod(settings)
    return SegSetup(
        method=method,
        processor=FramesProcessor(parts.tokenizer, parts.geometry, view.frame_pixels),
        parts=parts,
        token_id=int(parts.tokenizer.convert_tokens_to_ids(TOKEN)),
    )


def seg_model_to_train(recipe: Recipe, folder: Path, *, trains_head: bool = True) -> Any:  # noqa: ANN401 (of transformers)
    """A language model with its head under `HEAD`; what rests is frozen.

    Raises:
        EngineError: the folder was changed since it was made.
        InputError: it cannot be loaded, or is not whole.
    """
    model = model_to_train(recipe, folder / "vlm")
    head = load_mask_head(folder, model.config.get_text_config().hidden_size)
    head.requires_grad_(requires_grad=False)
    for part in (head.projection, head.sam.mask_decoder):
        part.requires_grad_(requires_grad=trains_head)
    setattr(model, HEAD, head)
    return model


def seg_adapters(recipe: Recipe, token_id: int, *, trains_head: bool = True) -> Any:  # noqa: ANN401 (a LoraConfig, or None)
    """LoRA on the language model, and what is trained whole beside it; None without LoRA.

    Args:
        recipe: with rank and layers.
        token_id: whose rows in the two tables are trained.
        trains_head: projection, mask decoder and the rows are trained, too.

    Raises:
        ConfigError: no such layer.
    """
    if not recipe.lora_r:
        return None
    from peft import LoraConfig

    rows = {"embed_tokens": [token_id], "lm_head": [token_id]}
    whole = [f"{HEAD}.projection", f"{HEAD}.sam.mask_decoder"]
    return LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=adapted_layers(recipe),
        modules_to_save=whole if trains_head else None,
        trainable_token_indices=rows if trains_head else None,
        task_type="CAUSAL_LM",
    )


def settle(model: Any) -> None:  # noqa: ANN401 (of transformers)
    """Make a model that a trainer has wrapped ready to be trained.

    What is trained is float32, in which a small step is not rounded away. peft's wrapper of single
    rows hides whether an output layer has a bias, for which TRL looks.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    output = model.get_output_embeddings()
    if not hasattr(output, "bias"):
        output.bias = None


def check_can_be_saved(trainer: Any, recipe: Recipe) -> None:  # noqa: ANN401 (of transformers)
    """Refuse, before anything is trained, what could not be saved at its end.

    Raises:
        ConfigError: all weights are trained, and no process has all of them.
    """
    if is_in_shards(trainer) and not recipe.lora_r:
        msg = (
            "a model that segments and whose weights lie in shards is trained under adapters: set"
            " lora_r, or use DDP or ZeRO-2"
        )
        raise ConfigError(msg)


def save_trained_seg(
    trainer: Any,  # noqa: ANN401 (of transformers)
    setup: SegSetup,
    recipe: Recipe,
    start: Path,
    out: Path,
) -> Path:
    """Save a model as the robot reads it: adapters merged, the method and the recipe beside it.

    Every process of a run calls it; the first writes, after all have handed it their shards.

    Args:
        trainer: at its end.
        setup: of the run.
        recipe: likewise.
        start: folder that the run began from.
        out: gets `model/`, whole or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = out / "model"
    is_sharded = is_in_shards(trainer)
    with gathered(trainer, out) if is_sharded else contextlib.nullcontext() as whole:
        if trainer.accelerator.is_main_process:
            model = _read_back(recipe, setup, start, whole) if whole else trainer.model
            with whole_folder(folder) as part:
                _save(model, setup, recipe, part)
    trainer.accelerator.wait_for_everyone()
    return folder


def _save(model: Any, setup: SegSetup, recipe: Recipe, folder: Path) -> None:  # noqa: ANN401
    base = backbone(model)
    loaded = LoadedVlm(
        model=base,
        tokenizer=setup.parts.tokenizer,
        geometry=setup.parts.geometry,
        name=recipe.method,
        folder=folder,
        precision=Precision.BF16 if base.dtype is torch.bfloat16 else Precision.FP32,
        is_stored=False,
        device=base.device,
    )
    seg = SegVlm(model, getattr(base, HEAD), setup.token_id)
    save_seg_vlm(
        LoadedSegVlm(model=seg, loaded=loaded, method=recipe.method, is_trained=True),
        folder,
        notes=f"{recipe.stage} of {recipe.method}, form {recipe.form}",
        merge=True,
        beside={CARD: _card_of(setup, recipe).to_json(), "recipe.yaml": recipe.to_yaml()},
    )


def _card_of(setup: SegSetup, recipe: Recipe) -> PromptCard:
    return PromptCard(
        method=recipe.method,
        form=recipe.form,
        num_frames=recipe.num_frames if recipe.method == "fevos" else 0,
        image_side_px=recipe.image_side_px,
        frame_pixels=recipe.frame_pixels,
        decode_side_px=recipe.decode_side_px,
        tells_budget=recipe.tells_budget or recipe.method == "visa",  # VISA has no thoughts
        words=words_hash(setup.method),
    )


def _read_back(recipe: Recipe, setup: SegSetup, start: Path, whole: Path) -> Any:  # noqa: ANN401
    """The trained model, from the adapters that all processes have gathered."""
    trains_head = recipe.stage == "sft" or recipe.mask_loss_weight > 0
    config = seg_adapters(recipe, setup.token_id, trains_head=trains_head)
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    model = get_peft_model(seg_model_to_train(recipe, start, trains_head=trains_head), config)
    set_peft_model_state_dict(model, load_file(whole / "adapter_model.safetensors"))
    return model
