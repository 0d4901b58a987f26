# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner's architecture: Qwen2.5-VL from a small configuration, with a tokenizer of its own.

The code path is that of 3B and 7B; only numbers differ. Does not know: data, training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from .tokenizer import END, IMAGE, PAD, VIDEO, VISION_END, VISION_START

_TEXT_LAYERS = "language_model.layers."
_HANDS_ON = ("self_attn.o_proj", "mlp.down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoReasonerConfig:
    """Geometry of the nano reasoner.

    Attributes:
        width: of the language model, a multiple of 32 (heads have 32 channels).
        vision_width: of the vision tower, likewise.
        vision_layers: of the vision tower, the last with full attention.
        text_layers: of the language model.
        patch_px: side of a patch: small, since forms of things a patch or two wide are to be told apart.
        merge: patches a side that become one token.
    """

    width: int = 192
    vision_width: int = 96
    vision_layers: int = 4
    text_layers: int = 6
    patch_px: int = 7
    merge: int = 4

    @property
    def token_px(self) -> int:
        """Side of what one token shows."""
        return self.patch_px * self.merge

    def qwen(self, tokenizer: Any) -> Qwen2_5_VLConfig:  # noqa: ANN401 (of transformers)
        """As `transformers` wants it."""
        heads = self.width // 32
        vision = {
            "depth": self.vision_layers,
            "hidden_size": self.vision_width,
            "intermediate_size": 2 * self.vision_width,
            "num_heads": self.vision_width // 32,
            "out_hidden_size": self.width,
            "patch_size": self.patch_px,
            "temporal_patch_size": 1,
            "spatial_merge_size": self.merge,
            "window_size": 8 * self.patch_px,
            "fullatt_block_indexes": [self.vision_layers // 2 - 1, self.vision_layers - 1],
        }
        text = {
            "vocab_size": len(tokenizer),
            "hidden_size": self.width,
            "intermediate_size": 3 * self.width,
            "num_hidden_layers": self.text_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": max(1, heads // 2),
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [8, 4, 4],
            },
            "tie_word_embeddings": True,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": None,
        }
        ids = {
            name: tokenizer.convert_tokens_to_ids(token)
            for name, token in (
                ("image_token_id", IMAGE),
                ("video_token_id", VIDEO),
                ("vision_start_token_id", VISION_START),
                ("vision_end_token_id", VISION_END),
            )
        }
        return Qwen2_5_VLConfig(
            text_config=text, vision_config=vision, tie_word_embeddings=True, **ids
        )


def build_nano_reasoner(config: NanoReasonerConfig, tokenizer: Any, seed: int) -> Any:  # noqa: ANN401
    """A model of random weights, float32."""
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config.qwen(tokenizer))
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(END)
    model.generation_config.pad_token_id = tokenizer.convert_tokens_to_ids(PAD)
    return model


def grown(model: Any, tokenizer: Any, text_layers: int) -> Any:  # noqa: ANN401
    """A deeper model that says what `model` says: layers are copied, and the second of two alike adds nothing yet.

    As LLaMA Pro (arXiv:2401.02415) expands blocks: what the attention and the feed-forward part of a new layer hand on is
    multiplied by zeros, which learn.

    Args:
        model: a nano reasoner.
        tokenizer: of it.
        text_layers: of the language model, at least as many as it has.

    Raises:
        ValueError: fewer layers than it has.
    """
    config = model.config
    has = config.text_config.num_hidden_layers
    if text_layers < has:
        msg = f"a model of {has} layers cannot grow to {text_layers}"
        raise ValueError(msg)
    if text_layers == has:
        return model
    vision = config.vision_config
    numbers = NanoReasonerConfig(
        width=config.text_config.hidden_size,
        vision_width=vision.hidden_size,
        vision_layers=vision.depth,
        text_layers=text_layers,
        patch_px=vision.patch_size,
        merge=vision.spatial_merge_size,
    )
    deeper = build_nano_reasoner(numbers, tokenizer, 0)
    old, new = model.state_dict(), deeper.state_dict()
    origin = [layer * has // text_layers for layer in range(text_layers)]
    for name in new:
        first, part, rest = name.partition(_TEXT_LAYERS)
        if not part:
            new[name] = old[name]
            continue
        number, _, weight = rest.partition(".")
        layer = int(number)
        new[name] = old[f"{first}{part}{origin[layer]}.{weight}"].clone()
        if layer and origin[layer] == origin[layer - 1] and weight.startswith(_HANDS_ON):
            new[name].zero_()
    deeper.load_state_dict(new)
    return deeper


def read_nano_reasoner(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model (float32) of a folder that `save_nano_reasoner` wrote."""
    tokenizer = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    model = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    return tokenizer, model


def save_nano_reasoner(model: Any, tokenizer: Any, folder: Path) -> None:  # noqa: ANN401
    """Write a folder as the hub's are: weights, tokenizer, and how pixels are normalised."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    half = [0.5, 0.5, 0.5]
    settings = {"image_mean": half, "image_std": half}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), "utf-8")
