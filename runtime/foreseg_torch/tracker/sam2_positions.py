# SPDX-License-Identifier: Apache-2.0
"""Where things are, as constants of a graph: sine encodings of square grids, and RoPE's tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import Sam2VideoModel

from foreseg_torch.tracker.sam2_attention import Tables


def rotation_tables(attention: nn.Module, positions: Tensor) -> Tables:
    """Cosines and sines (L, C / 2) of axial RoPE; each angle turns a pair of channels."""
    cos, sin = attention.rotary_emb(torch.zeros(1), positions)
    return cos[0, :, ::2].clone(), sin[0, :, ::2].clone()


def frame_position(model: Sam2VideoModel) -> Tensor:
    """(1, L, C) position encoding of the stride-16 map."""
    side = model.backbone_feature_sizes[-1][0]
    return sine_position(model.vision_encoder.neck.position_encoding, model.hidden_dim, side)


def memory_position(model: Sam2VideoModel) -> Tensor:
    """(1, 1, L, Cm) position encoding of a memory map."""
    side = model.backbone_feature_sizes[-1][0]
    encoding = model.memory_encoder.position_encoding
    return sine_position(encoding, model.mem_dim, side).unsqueeze(1)


@torch.no_grad()
def sine_position(encoding: nn.Module, channels: int, side: int) -> Tensor:
    """(1, side^2, channels) of a model's sine encoding of a square grid, row by row."""
    shape = torch.Size((1, channels, side, side))
    grid = encoding(shape, torch.device("cpu"), torch.float32)
    return grid.flatten(2).transpose(1, 2).clone()
