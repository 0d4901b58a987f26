# SPDX-License-Identifier: Apache-2.0
"""Tiny random folders in the very layout in which Sa2VA's code exports its models."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from tests.support.meta_sam2 import HIDDEN as SAM2_HIDDEN
from tests.support.meta_sam2 import OF_21, tiny_state
from tests.support.tiny_vlm import HIDDEN, tiny_model, tiny_tokenizer

FRAME_MARKS = ("<img>", "</img>", "<IMG_CONTEXT>")
SQUARE_PX = 56  # of tiny InternVL's frames: 4 by 4 patches, 2 by 2 tokens
ADDED = ("[SEG]", "<p>", "</p>", "<vp>", "</vp>")
SAM2 = "grounding_encoder.sam2_model."
CODE = "raise RuntimeError('code of a published folder was run')\n"
CARD = "---\nlicense: apache-2.0\npipeline_tag: image-text-to-text\n---\n# tiny\n"

State = dict[str, torch.Tensor]


def sa2va_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(list(ADDED), special_tokens=True)
    return tokenizer


def head_tensors(*, seed: int = 0, has_two_decoders: bool = False) -> State:
    """SAM2.0 with `g_weight`, and the projection; Sa2VA-i has a second mask decoder."""
    draw = torch.Generator().manual_seed(seed)
    found: State = {}
    for name, value in tiny_state(seed=seed).items():
        if name in OF_21:
            continue
        published = re.sub(r"\.gamma$", ".g_weight", name)
        found[SAM2 + published] = value
        if has_two_decoders and name.startswith("sam_mask_decoder."):
            other = published.replace("sam_mask_decoder", "sam_mask_decoder_modified")
            found[SAM2 + other] = value + 0.05 * torch.randn(value.shape, generator=draw)
    for name, shape in (
        ("0.weight", (HIDDEN, HIDDEN)),
        ("0.bias", (HIDDEN,)),
        ("2.weight", (SAM2_HIDDEN, HIDDEN)),
        ("2.bias", (SAM2_HIDDEN,)),
    ):
        found[f"text_hidden_fcs.{name}"] = 0.2 * torch.randn(shape, generator=draw)
    return found


def save_tiny_sa2va(
    folder: Path,
    kind: str = "qwen2_5_vl",
    *,
    old_names: bool = False,
    has_two_decoders: bool = False,
    changes: Mapping[str, torch.Tensor | None] | None = None,
    seed: int = 0,
) -> Any:
    """Write a folder; its language model, as transformers has it.

    Args:
        folder: to be made.
        kind: of the language model.
        old_names: as exported with transformers before 4.52.
        has_two_decoders: as Sa2VA-i.
        changes: tensors to add or to put in place of others; None: left out.
        seed: of all weights.
    """
    tokenizer = sa2va_tokenizer()
    model = tiny_model(kind, seed=seed, tokenizer=tokenizer)
    language = {}
    for name, value in model.state_dict().items():
        published = name
        if old_names:
            published = re.sub(r"^model\.visual\.", "visual.", published)
            published = re.sub(r"^model\.language_model\.", "model.", published)
        language[f"model.{published}"] = value
    heads = head_tensors(seed=seed, has_two_decoders=has_two_decoders)
    config = _as_transformers_4(model.config.to_dict(), kind) | {
        "model_type": "sa2va_chat",
        "architectures": ["Sa2VAChatModelQwen"],
        "auto_map": {
            "AutoConfig": "configuration_sa2va_chat.Sa2VAChatConfigQwen",
            "AutoModel": "modeling_sa2va_qwen.Sa2VAChatModelQwen",
            "AutoModelForCausalLM": "modeling_sa2va_qwen.Sa2VAChatModelQwen",
        },
        "template": "qwen_chat",
    }
    write_folder(folder, config, tokenizer, changed(language | heads, changes))
    return model


def _as_transformers_4(config: dict[str, Any], kind: str) -> dict[str, Any]:
    """A configuration as transformers 4.57 wrote it: rotary settings apart, the text's members twice."""
    text = dict(config["text_config"])
    rope = text.pop("rope_parameters")
    scaling = {"rope_type": "default", "mrope_section": rope["mrope_section"]}
    scaling |= {"mrope_interleaved": True} if kind == "qwen3_vl" else {"type": "default"}
    text |= {"rope_theta": rope["rope_theta"], "rope_scaling": scaling}
    flat = {k: v for k, v in text.items() if k not in ("model_type", "vocab_size")}
    vision = config["vision_config"] | {"model_type": kind}
    return flat | config | {"text_config": text, "vision_config": vision}


def save_tiny_internvl(
    folder: Path,
    *,
    template: str = "phi3_chat",
    has_two_decoders: bool = False,
    seed: int = 0,
    config_changes: Mapping[str, object] | None = None,
) -> Any:
    """Write a folder of the InternVL variants; its language model, as transformers has it.

    Args:
        folder: to be made.
        template: the name of its chat template.
        has_two_decoders: as Sa2VA-i.
        seed: of all weights.
        config_changes: of config.json.
    """
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([*FRAME_MARKS, *ADDED], special_tokens=True)
    tokenizer.chat_template = None
    model = _tiny_internvl(tokenizer, seed)
    state: State = {}
    for name, value in model.state_dict().items():
        state.update(_published_internvl(name, value, state))
    heads = head_tensors(seed=seed, has_two_decoders=has_two_decoders)
    config = _internvl_settings(model, template)
    write_folder(folder, config | dict(config_changes or {}), tokenizer, state | heads)
    return model


def _internvl_settings(model: Any, template: str) -> dict[str, Any]:
    """A config.json as Sa2VA's code writes it."""
    vision = model.config.vision_config
    llm = {k: v for k, v in model.config.text_config.to_dict().items() if k != "rope_parameters"}
    return {
        "model_type": "sa2va_chat",
        "architectures": ["Sa2VAChatModel"],
        "auto_map": {"AutoModel": "modeling_sa2va_qwen.Sa2VAChatModel"},
        "template": template,
        "llm_config": llm
        | {"architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e4, "rope_scaling": None},
        "vision_config": {
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "num_channels": 3,
            "patch_size": 14,
            "image_size": SQUARE_PX,
            "qkv_bias": True,
            "qk_normalization": False,
            "hidden_size": vision.hidden_size,
            "num_attention_heads": vision.num_attention_heads,
            "intermediate_size": vision.intermediate_size,
            "num_hidden_layers": vision.num_hidden_layers,
            "hidden_act": "gelu",
            "norm_type": "layer_norm",
            "layer_norm_eps": 1e-6,
            "use_flash_attn": True,
            "drop_path_rate": 0.1,
        },
        "use_backbone_lora": 0,
        "use_llm_lora": 0,
        "select_layer": -1,
        "force_image_size": SQUARE_PX,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "use_thumbnail": True,
        "ps_version": "v2",
        "max_dynamic_patch": 12,
    }


def _tiny_internvl(tokenizer: PreTrainedTokenizerFast, seed: int) -> Any:
    torch.manual_seed(seed)
    config = InternVLConfig(
        text_config={
            "model_type": "qwen2",
            "vocab_size": len(tokenizer),
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 8_192,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
            "tie_word_embeddings": False,
        },
        vision_config={
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "attention_bias": True,
            "image_size": [SQUARE_PX, SQUARE_PX],
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    model = InternVLForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
        for name, parameter in model.named_parameters():
            if "lambda" in name or "position" in name or "cls" in name:
                parameter.normal_()
    return model.to(torch.bfloat16).eval()


_INTERNVL_NAMES = (  # transformers' -> InternVL's own
    (r"^model\.vision_tower\.embeddings\.cls_token$", "vision_model.embeddings.class_embedding"),
    (
        r"^model\.vision_tower\.embeddings\.position_embeddings$",
        "vision_model.embeddings.position_embedding",
    ),
    (
        r"^model\.vision_tower\.embeddings\.patch_embeddings\.projection\.",
        "vision_model.embeddings.patch_embedding.",
    ),
    (r"^model\.vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
    (r"\.attention\.projection_layer\.", ".attn.proj."),
    (r"\.lambda_([12])$", r".ls\1"),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^model\.multi_modal_projector\.layer_norm\.", "mlp1.0."),
    (r"^model\.multi_modal_projector\.linear_1\.", "mlp1.1."),
    (r"^model\.multi_modal_projector\.linear_2\.", "mlp1.3."),
    (r"^model\.language_model\.", "language_model.model."),
    (r"^lm_head\.", "language_model.lm_head."),
)


def _published_internvl(name: str, value: torch.Tensor, so_far: State) -> State:
    """A tensor under InternVL's own name; queries, keys and values are joined."""
    for pattern, replacement in _INTERNVL_NAMES:
        name = re.sub(pattern, replacement, name)
    joined = re.sub(r"\.attention\.[qkv]_proj\.", ".attn.qkv.", name)
    if joined == name or not name.startswith("vision_model."):
        return {name: value}
    before = [so_far[joined]] if joined in so_far else []
    return {joined: torch.cat((*before, value))}


def changed(state: State, changes: Mapping[str, torch.Tensor | None] | None) -> State:
    state = {**state, **{k: v for k, v in (changes or {}).items() if v is not None}}
    return {
        name: value for name, value in state.items() if (changes or {}).get(name, 0) is not None
    }


def write_folder(
    folder: Path, config: dict[str, Any], tokenizer: PreTrainedTokenizerFast, state: State
) -> None:
    """Two shards with an index, cut in the middle, whatever lies there."""
    folder.mkdir(parents=True)
    names = sorted(state)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    weight_map = {}
    for number, half in enumerate(halves, start=1):
        file = f"model-{number:05d}-of-00002.safetensors"
        save_file({n: state[n].contiguous() for n in half}, folder / file, {"format": "pt"})
        weight_map.update(dict.fromkeys(half, file))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    for name in ("configuration_sa2va_chat.py", "modeling_sa2va_qwen.py"):
        (folder / name).write_text(CODE)
