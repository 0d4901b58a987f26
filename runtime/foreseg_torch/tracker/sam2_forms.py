# SPDX-License-Identifier: Apache-2.0
"""Layers of a SAM2 or EdgeTAM in forms that compute the same and run faster on a processor.

A layer norm over the few channels of a large map is slow: kernels normalise one cell after the
other. Its mean is therefore taken off by the convolution before it (the mean over output channels
is linear in its input), and the rest is written as operations on whole maps. Does not know the
rest of the model.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

_FEW_CHANNELS = 32  # from here on a kernel that takes cell by cell is as fast


class CentredChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (B, C, h, w) maps whose mean over channels is 0."""

    def __init__(self, source: nn.LayerNorm) -> None:
        super().__init__(source.normalized_shape, eps=source.eps)
        self.load_state_dict(source.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise."""
        scale = torch.rsqrt((x * x).mean(dim=1, keepdim=True) + self.eps)
        return x * scale * self.weight.reshape(-1, 1, 1) + self.bias.reshape(-1, 1, 1)


@torch.no_grad()
def centre_norms(model: PreTrainedModel) -> None:
    """Take the mean off in the convolution, wherever a norm of few channels follows one."""
    for owner, conv_name, norm_name in _normed_convolutions(model):
        conv, norm = getattr(owner, conv_name), getattr(owner, norm_name)
        if conv.out_channels < _FEW_CHANNELS:
            conv.weight.copy_(conv.weight - conv.weight.mean(dim=0, keepdim=True))
            conv.bias.copy_(conv.bias - conv.bias.mean())
            setattr(owner, norm_name, CentredChannelNorm(norm))


def _normed_convolutions(model: PreTrainedModel) -> Iterator[tuple[nn.Module, str, str]]:
    """The owner, and its names of a convolution and of the norm that alone reads it."""
    for layer in model.memory_encoder.mask_downsampler.layers:
        yield layer, "conv", "layer_norm"
    embed = model.prompt_encoder.mask_embed
    yield embed, "conv1", "layer_norm1"
    yield embed, "conv2", "layer_norm2"
