# SPDX-License-Identifier: Apache-2.0
"""Memory attention for training: the same numbers as `Sam2VideoModel`'s, with less work.

Keys and values of a memory are projected and rotated once, when it is made, and not again on
every later frame: projection and rotation are linear, so the part that depends on a memory's
age (its temporal position) is added afterwards and is shared by all rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional
from transformers import Sam2VideoModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProjectedMemory:
    """A memory as each attention layer sees it."""

    keys: tuple[torch.Tensor, ...]  # per layer (O, hw, C), rotated, without position
    values: tuple[torch.Tensor, ...]  # per layer (O, hw, C)


class MemoryAttention:
    """Wraps a model's memory attention for one unrolled clip."""

    def __init__(self, model: Sam2VideoModel, position: torch.Tensor) -> None:
        """Prepare for a clip; `position` is the top feature map's, (hw, 1, C)."""
        attention = model.memory_attention
        self._layers, self._final_norm = attention.layers, attention.layer_norm
        cos, sin = attention.rotary_emb(position, attention.position_ids)
        self._cos, self._sin = cos[..., ::2], sin[..., ::2]  # (1, hw, C/2), pairs are equal
        self._query_position = 0.1 * position.transpose(0, 1)
        side = model.backbone_feature_sizes[-1]
        encoding = model.memory_encoder.position_encoding
        shape = torch.Size((1, model.mem_dim, *side))
        spatial = encoding(shape, position.device, torch.float32).flatten(2).transpose(1, 2)
        temporal = model.memory_temporal_positional_encoding[:, 0]  # (7, 1, 64)
        positions = spatial + temporal  # (7, hw, 64)
        self._key_positions = [
            self._rotate(functional.linear(positions, layer.cross_attn_image.k_proj.weight))
            for layer in self._layers
        ]

    def project(self, features: torch.Tensor) -> ProjectedMemory:
        """Project memory features (O, hw, 64) for every layer."""
        crosses = [layer.cross_attn_image for layer in self._layers]
        return ProjectedMemory(
            keys=tuple(self._rotate(cross.k_proj(features)) for cross in crosses),
            values=tuple(cross.v_proj(features) for cross in crosses),
        )

    def attend(
        self,
        top: torch.Tensor,
        entries: list[tuple[int, ProjectedMemory]],
        pointers: torch.Tensor,
        pointer_positions: torch.Tensor,
    ) -> torch.Tensor:
        """Condition top features on memories.

        Args:
            top: (O, hw, C).
            entries: age, 0 for the conditioning frame, and memory.
            pointers: (O, K, 64) tokens.
            pointer_positions: (1, K, 64).

        Returns:
            (O, hw, C).
        """
        x = top + self._query_position
        for number, layer in enumerate(self._layers):
            normed = layer.layer_norm1(x)
            own = layer.self_attn
            query = self._rotate(own.q_proj(normed))
            key = self._rotate(own.k_proj(normed))
            x = x + own.o_proj(_attention(query, key, own.v_proj(normed)))
            cross = layer.cross_attn_image
            query = self._rotate(cross.q_proj(layer.layer_norm2(x)))
            positions = self._key_positions[number]
            keys = [memory.keys[number] + positions[age - 1] for age, memory in entries]
            keys.append(cross.k_proj(pointers + pointer_positions))
            values = [memory.values[number] for _, memory in entries]
            values.append(cross.v_proj(pointers))
            attended = _attention(query, torch.cat(keys, dim=1), torch.cat(values, dim=1))
            x = x + cross.o_proj(attended)
            hidden = layer.activation(layer.linear1(layer.layer_norm3(x)))
            x = x + layer.linear2(hidden)
        return self._final_norm(x)

    def _rotate(self, x: torch.Tensor) -> torch.Tensor:
        """Rotate neighbouring channel pairs of (..., hw, C) by their place."""
        cos, sin = self._cos.to(x.dtype), self._sin.to(x.dtype)
        even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)


def _attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """One head over (O, Q, C) and (O, K, C)."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(1, 2)
    return scores.softmax(dim=-1).to(value.dtype) @ value
