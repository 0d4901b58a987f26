# SPDX-License-Identifier: Apache-2.0
"""An `EdgeTamVideoModel` cut into the same four graphs as a SAM2.

A frame is remembered as L latents instead of cells: F free ones, whose keys carry neither position
nor rotation, then G gridded ones on a coarse grid of their own. Everything else (neck, prompt
encoder, mask decoder, pointers, the front of the memory encoder) is SAM2's, module for module, and
comes from `sam2_pieces`. Does not know how the pieces are exported or what runs them.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import EdgeTamVideoModel

from foreseg_torch.tracker.edgetam_resampler import Resampler, check_resampler
from foreseg_torch.tracker.sam2_attention import Tables
from foreseg_torch.tracker.sam2_geometry import latent_grid
from foreseg_torch.tracker.sam2_pieces import (
    Decoder,
    ImageEncoder,
    MemoryAttention,
    MemoryEncoder,
)
from foreseg_torch.tracker.sam2_positions import rotation_tables, sine_position
from foreseg_torch.tracker.sam2_preparing import checked_copy


class LatentMemoryAttention(MemoryAttention):
    """Memory attention whose memory maps are latents: (B, K, L, Cm)."""

    key_cos: Tensor
    key_sin: Tensor

    def __init__(self, model: EdgeTamVideoModel) -> None:
        super().__init__(model)
        num_free, grid = model.config.perceiver_resampler_num_latents, latent_grid(model.config)
        encoding = model.spatial_perceiver.positional_encoding
        self.register_buffer(
            "memory_position",
            _behind(sine_position(encoding, model.mem_dim, grid), num_free, fill=0.0).unsqueeze(1),
        )
        source = model.memory_attention
        cos, sin = rotation_tables(source, source.position_ids_k)
        # rotation by no angle: free latents need no path of their own
        self.register_buffer("key_cos", _behind(cos.unsqueeze(0), num_free, fill=1.0)[0])
        self.register_buffer("key_sin", _behind(sin.unsqueeze(0), num_free, fill=0.0)[0])

    def _key_tables(self) -> Tables:
        return self.key_cos, self.key_sin


class ResamplingMemoryEncoder(MemoryEncoder):
    """feat (1, C, h, w), mask logits (B, m, m), object logit and `hard` (B,) -> latents."""

    def __init__(self, model: EdgeTamVideoModel) -> None:
        super().__init__(model)
        self.resampler = Resampler(model)

    def forward(
        self, feat: Tensor, mask_logits: Tensor, object_logit: Tensor, hard: Tensor
    ) -> Tensor:
        """Encode B masks on one frame, and resample their maps."""
        memory = super().forward(feat, mask_logits, object_logit, hard)
        return self.resampler(memory).float()


class TrunkMaps(NamedTuple):
    """What the image encoder reads from a trunk."""

    intermediate_hidden_states: list[Tensor]  # (1, h, w, C), strides 4 to 32


class TimmTrunk(nn.Module):
    """A `timm` trunk that returns its maps as a Hiera does, channels last."""

    def __init__(self, wrapper: nn.Module) -> None:
        super().__init__()
        timm = importlib.import_module("timm.utils.model")  # the wrapper has loaded it
        # branches and batch norms become single convolutions, as the trunk itself knows how
        self.features = timm.reparameterize_model(wrapper.timm_model)

    def forward(self, pixels: Tensor) -> TrunkMaps:
        """Encode (1, 3, S, S)."""
        return TrunkMaps([stage.permute(0, 2, 3, 1) for stage in self.features(pixels)])


def cut(model: EdgeTamVideoModel) -> dict[str, nn.Module]:
    """The four pieces, on a copy of the model, in the order of a frame.

    Raises:
        ValueError: for a geometry that the pieces do not cover.
    """
    check_resampler(model.config)
    model = checked_copy(model)
    trunk = model.vision_encoder.backbone
    if hasattr(trunk, "timm_model"):
        model.vision_encoder.backbone = TimmTrunk(trunk)
    return {
        "image_encoder": ImageEncoder(model).eval(),
        "memory_attention": LatentMemoryAttention(model).eval(),
        "decoder": Decoder(model).eval(),
        "memory_encoder": ResamplingMemoryEncoder(model).eval(),
    }


def _behind(table: Tensor, count: int, *, fill: float) -> Tensor:
    """(1, G, C) behind `count` rows of one value."""
    first = torch.full((1, count, table.shape[2]), fill)
    return torch.cat((first, table), dim=1)
