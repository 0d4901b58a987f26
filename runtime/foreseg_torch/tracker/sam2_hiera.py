# SPDX-License-Identifier: Apache-2.0
"""A block of a Hiera trunk with less to compute and less to move than in `transformers`.

- Queries, keys and values are projected before the map is padded to whole windows: 14-cell windows
  on 32x32 cells are 42x42, 1.7 times as many. What is projected from padding is the bias.
- A key's bias adds the same to all logits of a query, so it drops out of the softmax; a value's
  bias comes through it unchanged, so it joins the bias of the output.
- Cells go into windows and channels into heads in one transposition.
- Nothing is added right behind a product: ONNX Runtime would make it a Gemm that writes its bias
  out first, which is slower.

Does not know the rest of the trunk.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleBlock


class HieraBlock(nn.Module):
    """(1, H, W, C) -> (1, H', W', C'): window or global attention, pooled queries, and an MLP.

    Raises:
        ValueError: if pooling would cross windows.
    """

    query_bias: Tensor

    def __init__(self, source: Sam2MultiScaleBlock) -> None:
        super().__init__()
        attention = source.attn
        self.stride = 1 if source.query_stride is None else int(source.query_stride[0])
        self.window = int(source.window_size)  # cells, before pooling; 0: the whole map
        if self.window % self.stride:
            msg = f"a pooled window wants a multiple of {self.stride} cells, got {self.window}"
            raise ValueError(msg)
        self.heads = attention.num_attention_heads
        self.norm1, self.norm2 = source.layer_norm1, source.layer_norm2
        self.shortcut = source.proj if source.dim != source.dim_out else None
        self.activation = source.mlp.activation
        self.widen, self.narrow = source.mlp.proj_in, source.mlp.proj_out
        query, key, value = attention.qkv.weight.detach().chunk(3)
        query_bias, _, value_bias = attention.qkv.bias.detach().chunk(3)
        self.query = _matrix(query * attention.scale)
        self.key, self.value, self.out = (
            _matrix(key),
            _matrix(value),
            copy.deepcopy(attention.proj),
        )
        self.register_buffer("query_bias", query_bias * attention.scale)
        with torch.no_grad():
            moved = self.out.weight.double() @ value_bias.double()
            self.out.bias.copy_(self.out.bias.double() + moved)

    def forward(self, x: Tensor, **_: object) -> Tensor:
        """Map one frame."""
        normed = self.norm1(x)
        residual = x
        if self.shortcut is not None:
            residual = _pooled(_linear(normed, self.shortcut), self.stride)
        query = self._padded(_product(normed, self.query)) + self.query_bias
        query = _pooled(query, self.stride)
        key, value = (self._padded(_product(normed, part)) for part in (self.key, self.value))
        weights = self._heads(query, self.stride) @ self._heads(key).transpose(2, 3)
        weights = torch.softmax(weights, dim=-1, dtype=torch.float32).to(value.dtype)
        mixed = self._map(weights @ self._heads(value), query.shape[1:3])
        x = residual + _linear(mixed[:, : residual.shape[1], : residual.shape[2]], self.out)
        wide = self.activation(_linear(self.norm2(x), self.widen))
        return x + _linear(wide, self.narrow)

    def _padded(self, x: Tensor) -> Tensor:
        """To whole windows, at the bottom and on the right."""
        if not self.window:
            return x
        below, right = (-x.shape[1]) % self.window, (-x.shape[2]) % self.window
        return functional.pad(x, (0, 0, 0, right, 0, below)) if below or right else x

    def _heads(self, x: Tensor, stride: int = 1) -> Tensor:
        """(1, H, W, C) -> (windows, heads, cells, C / heads)."""
        h, w = self._window_size(x.shape[1:3], stride)
        down, across = x.shape[1] // h, x.shape[2] // w
        parts = x.reshape(down, h, across, w, self.heads, -1).permute(0, 2, 4, 1, 3, 5)
        return parts.reshape(down * across, self.heads, h * w, -1)

    def _map(self, x: Tensor, size: torch.Size) -> Tensor:
        """Queries' windows and heads -> (1, H, W, C)."""
        h, w = self._window_size(size, self.stride)
        down, across = size[0] // h, size[1] // w
        parts = x.reshape(down, across, self.heads, h, w, -1).permute(0, 3, 1, 4, 2, 5)
        return parts.reshape(1, size[0], size[1], -1)

    def _window_size(self, size: torch.Size, stride: int) -> tuple[int, int]:
        if not self.window:
            return size[0], size[1]
        return self.window // stride, self.window // stride


def _matrix(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return linear


def _product(x: Tensor, linear: nn.Linear) -> Tensor:
    """Without the bias; between flat rows, so that a reshape follows the product."""
    _, h, w, _ = x.shape
    return functional.linear(x.flatten(1, 2), linear.weight).reshape(1, h, w, -1)


def _linear(x: Tensor, linear: nn.Linear) -> Tensor:
    return _product(x, linear) + linear.bias


def _pooled(x: Tensor, stride: int) -> Tensor:
    """The largest of each stride x stride cells of (1, H, W, C)."""
    if stride == 1:
        return x
    pooled = functional.max_pool2d(x.permute(0, 3, 1, 2), kernel_size=stride, stride=stride)
    return pooled.permute(0, 2, 3, 1)
