# SPDX-License-Identifier: Apache-2.0
"""What of a tracker's geometry may be chosen when it is exported: input size and memory slots.

No tensor of SAM2 or EdgeTAM depends on the input size, and a shorter memory is the front of the
table of temporal positions with the conditioning frame's. Does not know where a checkpoint comes
from.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import EdgeTamVideoConfig, EdgeTamVideoModel, Sam2VideoConfig, Sam2VideoModel

from foreseg.errors import InputError

MIN_IMAGE_SIZE = 256
MAX_IMAGE_SIZE = 1024
_STRIDES = (4, 8, 16)
_COARSEST_STRIDE = 32


def check_image_size(image_size: int, *, unit: int) -> None:
    """Refuse an input size that is out of bounds or no multiple of `unit`.

    Raises:
        InputError: names the bounds, the unit and the value.
    """
    if MIN_IMAGE_SIZE <= image_size <= MAX_IMAGE_SIZE and image_size % unit == 0:
        return
    msg = (
        f"an image size of {MIN_IMAGE_SIZE} to {MAX_IMAGE_SIZE} px that is a multiple of {unit} is"
        f" wanted by this checkpoint, got {image_size}"
    )
    raise InputError(msg)


def size_unit(config: Sam2VideoConfig | EdgeTamVideoConfig) -> int:
    """Input sizes must be a multiple of this.

    Of the coarsest stride, of a Hiera's first windows, and of the windows that EdgeTAM's memory
    is resampled in.
    """
    unit = _COARSEST_STRIDE
    if isinstance(config, EdgeTamVideoConfig):
        unit = math.lcm(unit, _STRIDES[-1] * latent_grid(config))
    windows = getattr(config.vision_config.backbone_config, "window_size_per_stage", None)
    return math.lcm(unit, _STRIDES[0] * int(windows[0])) if windows else unit


def latent_grid(config: EdgeTamVideoConfig) -> int:
    """Side, at least 1, of the square grid of windows that EdgeTAM's memory is resampled in."""
    return math.isqrt(max(1, config.perceiver_resampler_num_latents_2d))


def set_image_size(config: Sam2VideoConfig | EdgeTamVideoConfig, image_size: int) -> None:
    """Change a config to another input size, wherever it says so, before a model is built of it."""
    sides = [[image_size // stride] * 2 for stride in _STRIDES]
    config.image_size = image_size
    config.prompt_encoder_config.image_size = image_size
    if hasattr(config.vision_config.backbone_config, "image_size"):
        config.vision_config.backbone_config.image_size = [image_size, image_size]
    config.vision_config.backbone_feature_sizes = sides
    config.memory_attention_rope_feat_sizes = sides[-1]


def keep_memory_slots(model: Sam2VideoModel | EdgeTamVideoModel, slots: int) -> None:
    """Let a model remember fewer frames: the conditioning one and the newest `slots` - 1.

    Raises:
        InputError: fewer than 2 slots, or more than the model has.
    """
    if not 2 <= slots <= model.num_maskmem:  # noqa: PLR2004
        msg = (
            f"2 to {model.num_maskmem} memory slots are possible with this checkpoint"
            f" (the prompted frame and the newest others), got {slots}"
        )
        raise InputError(msg)
    table = model.memory_temporal_positional_encoding.detach()
    kept = torch.cat((table[: slots - 1], table[-1:]))
    model.memory_temporal_positional_encoding = nn.Parameter(kept)
    model.num_maskmem = model.config.num_maskmem = slots
