# SPDX-License-Identifier: Apache-2.0
"""Tiny random vision-language models of the real architectures, saved as the hub's folders are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

KINDS = ("qwen2_5_vl", "qwen3_vl")
HIDDEN = 64
END, PAD, IMAGE = "<|im_end|>", "<|endoftext|>", "<|image_pad|>"
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
SPECIAL += ("<|image_pad|>", "<|video_pad|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and the chat's own."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: number for number, letter in enumerate(sorted(letters))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=list(SPECIAL),
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_model(
    kind: str = "qwen2_5_vl", *, seed: int = 0, tokenizer: PreTrainedTokenizerFast | None = None
) -> Any:
    """Random weights in bfloat16, large enough to make the answer depend on what it sees."""
    tokenizer = tokenizer or tiny_tokenizer()
    torch.manual_seed(seed)
    model = _MAKERS[kind](tokenizer)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model.to(torch.bfloat16).eval()


def save_tiny_vlm(folder: Path, kind: str = "qwen2_5_vl", *, seed: int = 0) -> Path:
    """Such a model with its tokenizer and image settings."""
    tiny_model(kind, seed=seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    settings = {"image_mean": half, "image_std": half} if kind == "qwen3_vl" else {}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), "utf-8")
    return folder


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: tokenizer.convert_tokens_to_ids(token) for name, token in names.items()}


def _text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8_192,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }


def _qwen2_5_vl(tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": 14,
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=_text(tokenizer), vision_config=vision, **_ids(tokenizer)
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def _qwen3_vl(tokenizer: PreTrainedTokenizerFast) -> Any:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": HIDDEN,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }
    text = {**_text(tokenizer), "head_dim": 16}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, **_ids(tokenizer))
    return Qwen3VLForConditionalGeneration(config)


_MAKERS = {"qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl}
