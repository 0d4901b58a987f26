# SPDX-License-Identifier: Apache-2.0
"""SAM2's and EdgeTAM's memory attention layers in the static form that every engine builder takes.

RoPE is two slices and a concatenation; memory entries that are not in use are masked by a bias;
attention is written out as q k^T + bias -> softmax -> v, its scale lies in the query projection;
queries are taken in blocks, so that the weights of many never stand in memory at once.
Rows of a softmax sum to 1, so the value and output projections are applied after it, as one matrix:
A (V Wv + bv) Wo + bo = (A V) (Wv Wo) + (bv Wo + bo).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers.models.edgetam_video.modeling_edgetam_video import (
    EdgeTamVideoMemoryAttentionLayer,
    EdgeTamVideoRoPECrossAttention,
    EdgeTamVideoRoPESelfAttention,
)
from transformers.models.sam2_video.modeling_sam2_video import (
    Sam2VideoMemoryAttentionLayer,
    Sam2VideoRoPEAttention,
)

WEIGHT_BYTES = 32 << 20  # of attention weights at once, of each object

Tables = tuple[Tensor, Tensor]  # cosines and sines (L, C / 2)


class RotarySelfAttention(nn.Module):
    """One-headed self-attention with axial RoPE as two slices and a concatenation.

    The rows of the query and key projections are permuted, even channels first: q.k does not
    change under a common permutation, and the pairwise rotation needs no strided access.
    """

    def __init__(self, source: Sam2VideoRoPEAttention | EdgeTamVideoRoPESelfAttention) -> None:
        super().__init__()
        self.query = _even_first(source.q_proj, source.scaling)
        self.key = _even_first(source.k_proj)
        self.out = _composed(source.v_proj, source.o_proj)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Attend within (B, L, C)."""
        query = _rotate(self.query(x), cos, sin)
        key = _rotate(self.key(x), cos, sin)
        return self.out(attended(query, key, x))


class RotaryMemoryAttention(nn.Module):
    """Cross-attention to memory maps (with RoPE, of tables of their own) and pointers (without)."""

    def __init__(self, source: Sam2VideoRoPEAttention | EdgeTamVideoRoPECrossAttention) -> None:
        super().__init__()
        self.query = _even_first(source.q_proj, source.scaling)
        self.key = _even_first(source.k_proj)
        self.out = _composed(source.v_proj, source.o_proj)

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor, Tensor, Tensor],
        tables: Tables,
        key_tables: Tables,
        bias: Tensor,
    ) -> Tensor:
        """Attend from (1 or B, L, C) to (B, K, L, Cm) maps and (B, R', Cm) pointer tokens."""
        maps_key, maps_value, pointers_key, pointers_value = memory
        batch, channels = maps_key.shape[0], maps_key.shape[3]
        query = _rotate(self.query(x), *tables)
        key = _rotate(self.key(maps_key), *key_tables)
        key = key.reshape(batch, -1, key.shape[3])
        key = torch.cat((key, self.key(pointers_key)), dim=1)
        value = torch.cat((maps_value.reshape(batch, -1, channels), pointers_value), dim=1)
        return self.out(attended(query, key, value, bias))


class MemoryAttentionLayer(nn.Module):
    """Self-attention, memory attention and an MLP, each behind a layer norm."""

    def __init__(
        self, source: Sam2VideoMemoryAttentionLayer | EdgeTamVideoMemoryAttentionLayer
    ) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (
            source.layer_norm1,
            source.layer_norm2,
            source.layer_norm3,
        )
        self.self_attention = RotarySelfAttention(source.self_attn)
        self.memory_attention = RotaryMemoryAttention(source.cross_attn_image)
        if isinstance(source, EdgeTamVideoMemoryAttentionLayer):
            mlp = source.mlp
            self.linear1, self.linear2, self.activation = mlp.up_proj, mlp.down_proj, mlp.act_fn
        else:
            self.linear1, self.linear2 = source.linear1, source.linear2
            self.activation = source.activation

    def forward(
        self,
        x: Tensor,
        memory: tuple[Tensor, Tensor, Tensor, Tensor],
        tables: Tables,
        key_tables: Tables,
        bias: Tensor,
    ) -> Tensor:
        """Map (1 or B, L, C) to (B, L, C)."""
        x = x + self.self_attention(self.norm1(x), *tables)
        x = x + self.memory_attention(self.norm2(x), memory, tables, key_tables, bias)
        return x + self.linear2(self.activation(self.linear1(self.norm3(x))))


def attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(q k^T + bias) v of (1 or B, L, C), (B, K, C), (B, K, Cv) and (B, 1, K): (B, L, Cv).

    At 1024 px the weights of one object would take 470 MB a layer, and as much again beside the
    bias. In blocks of queries they take `WEIGHT_BYTES`; the result is the same to the last bit but
    for the order of sums. The number of blocks is fixed when a graph is exported.
    """
    rows = query_block(query.shape[1], key.shape[1])
    keys = key.transpose(1, 2)
    blocks = []
    for block in query.split(rows, dim=1):
        scores = block @ keys
        if bias is not None:
            scores = scores + bias
        blocks.append(torch.softmax(scores, dim=-1) @ value)
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=1)


def query_block(num_queries: int, num_keys: int) -> int:
    """Queries to a block: all of them, or an even share whose float32 weights fit `WEIGHT_BYTES`."""
    most = max(1, WEIGHT_BYTES // (4 * num_keys))
    return math.ceil(num_queries / math.ceil(num_queries / most))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x.chunk(2, dim=-1)
    return torch.cat((even * cos - odd * sin, odd * cos + even * sin), dim=-1)


@torch.no_grad()
def _even_first(source: nn.Linear, scale: float = 1.0) -> nn.Linear:
    order = torch.cat(
        (torch.arange(0, source.out_features, 2), torch.arange(1, source.out_features, 2))
    )
    linear = nn.Linear(source.in_features, source.out_features)
    linear.weight.copy_(source.weight[order] * scale)
    linear.bias.copy_(source.bias[order] * scale)
    return linear


@torch.no_grad()
def _composed(value: nn.Linear, out: nn.Linear) -> nn.Linear:
    """One matrix for `value`, then `out`."""
    linear = nn.Linear(value.in_features, out.out_features)
    linear.weight.copy_(out.weight.double() @ value.weight.double())
    linear.bias.copy_(out.weight.double() @ value.bias.double() + out.bias.double())
    return linear
