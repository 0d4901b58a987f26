# SPDX-License-Identifier: Apache-2.0
"""Qwen2.5-VL's vision tower over frames of one size, all of their windows as rows of one product.

The tower of `transformers` goes through windows one after the other where there is no flash attention:
a thousand small products for a batch of small frames. The numbers are the same; a processor of bfloat16
takes a fifth of the time, compiled (docs/log.md). Does not know: data, losses.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch.nn import functional
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    get_vision_position_ids,
    get_vision_window_index,
)


class FramesAtOnce:
    """Runs a tower's own weights, gradients and all; `bf16` casts them for the products.

    Args:
        tower: `Qwen2_5_VisionTransformerPretrainedModel`.
        grid_thw: of every frame, patches.
        bf16: matrix products in bfloat16.
        is_compiled: by `torch.compile`, which takes a minute and halves the time of a step after.
    """

    def __init__(
        self,
        tower: Any,  # noqa: ANN401 (of transformers)
        grid_thw: tuple[int, int, int],
        *,
        bf16: bool = False,
        is_compiled: bool = False,
    ) -> None:
        self._tower = tower
        self._type = torch.bfloat16 if bf16 else torch.float32
        grid = torch.tensor([grid_thw])
        order, ends = get_vision_window_index(
            grid,
            spatial_merge_size=tower.spatial_merge_size,
            window_size=tower.window_size,
            patch_size=tower.patch_size,
            kwargs={},
        )
        self._count = grid_thw[0] * grid_thw[1] * grid_thw[2]
        sizes = ends[1:] - ends[:-1]
        is_even = bool((sizes == sizes[0]).all())
        self._window = int(sizes[0]) if is_even else self._count
        window = torch.repeat_interleave(torch.arange(len(sizes)), sizes.long())
        apart = torch.zeros(self._count, self._count, dtype=self._type)
        apart[window[:, None] != window] = -torch.inf
        self._apart = None if is_even else apart  # windows of several sizes: kept apart by a mask
        unit = tower.spatial_merge_unit
        self._patches = torch.arange(self._count).view(-1, unit)[order].flatten()
        self._back = torch.argsort(order)
        positions = get_vision_position_ids(grid, tower.spatial_merge_size, kwargs={})
        cos, sin = tower.rotary_pos_emb(torch.zeros(self._count, 1), positions)
        turns = [part.reshape(self._count, -1)[self._patches] for part in (cos, sin)]
        self._cos, self._sin = (part[None, :, None].to(self._type) for part in turns)
        self._is_compiled = is_compiled

    def __call__(self, patches: torch.Tensor) -> torch.Tensor:
        """Tokens (frames x tokens, width) float32 of patches (frames x patches, values)."""
        return self._run(patches)

    @cached_property
    def _run(self) -> Any:  # noqa: ANN401 (of torch)
        return torch.compile(self._tokens, dynamic=False) if self._is_compiled else self._tokens

    def _linear(self, layer: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 (a module of torch)
        bias = None if layer.bias is None else layer.bias.to(self._type)
        return functional.linear(x, layer.weight.to(self._type), bias)

    def _norm(self, norm: Any, x: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        weight = norm.weight.to(self._type)
        return functional.rms_norm(x, (x.shape[-1],), weight, norm.variance_epsilon)

    def _tokens(self, patches: torch.Tensor) -> torch.Tensor:
        tower = self._tower
        frames = patches.shape[0] // self._count
        x = patches.view(frames, self._count, -1)[:, self._patches].to(self._type)
        embed = tower.patch_embed.proj.weight
        x = functional.linear(x, embed.view(embed.shape[0], -1).to(self._type))
        for number, block in enumerate(tower.blocks):
            is_full = number in tower.fullatt_block_indexes
            keys, apart = (self._count, None) if is_full else (self._window, self._apart)
            x = x + self._attended(block.attn, self._norm(block.norm1, x), keys, apart)
            y, mlp = self._norm(block.norm2, x), block.mlp
            gate = mlp.act_fn(self._linear(mlp.gate_proj, y))
            x = x + self._linear(mlp.down_proj, gate * self._linear(mlp.up_proj, y))
        merger = tower.merger
        y = self._norm(merger.ln_q, x).reshape(frames, -1, tower.spatial_merge_unit * x.shape[-1])
        y = self._linear(merger.mlp[2], functional.gelu(self._linear(merger.mlp[0], y)))
        return y[:, self._back].flatten(0, 1).float()

    def _attended(
        self,
        attention: Any,  # noqa: ANN401
        x: torch.Tensor,
        keys: int,
        apart: torch.Tensor | None,
    ) -> torch.Tensor:
        heads = attention.num_heads
        query, key, value = self._linear(attention.qkv, x).unflatten(-1, (3, heads, -1)).unbind(2)
        query = self._turned(query) * attention.scaling
        rows = [
            part.reshape(-1, keys, heads, part.shape[-1]).transpose(1, 2)
            for part in (query, self._turned(key), value)
        ]
        scores = rows[0] @ rows[1].transpose(-1, -2)
        weights = (scores if apart is None else scores + apart).softmax(dim=-1)
        return self._linear(attention.proj, (weights @ rows[2]).transpose(1, 2).reshape(x.shape))

    def _turned(self, x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * self._cos + torch.cat([-second, first], dim=-1) * self._sin
