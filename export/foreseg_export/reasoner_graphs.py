# SPDX-License-Identifier: Apache-2.0
"""A small Qwen2.5-VL as two graphs: patches to tokens, and tokens with their past to what comes next.

The arithmetic is that of `transformers`' Qwen2_5_VLForConditionalGeneration, on its own layers.
Windows are masks here, not an order of patches. Does not know bundles, tokenizers or prompts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from foreseg_export.graphs import PieceSpec

VISION, DECODER = "vision", "decoder"
_MAX_ROOM = 1 << 16  # of any axis that is left open
_HIDDEN = -1e30  # of a score: exp of it is 0, and no difference of two is NaN


class VisionGraph(nn.Module):
    """The vision tower over frames of one size."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 (of transformers)
        super().__init__()
        self.tower = model.model.visual
        self.full = tuple(self.tower.config.fullatt_block_indexes)
        self.heads = self.tower.config.num_heads
        embed = self.tower.patch_embed.proj.weight
        self.patch_weight = nn.Parameter(embed.detach().reshape(embed.shape[0], -1).T.contiguous())

    def forward(self, patches: Tensor, places: Tensor, windows: Tensor) -> Tensor:
        """Tokens (F, T, C) of patches (F, T, patches of a token, values).

        Args:
            patches: float32, in the order of `ImageGeometry.patches`.
            places: (T, patches of a token, 2) int64: row and column of each.
            windows: (T,) int64: the number of the window that each token is in.
        """
        hidden = patches.flatten(1, 2) @ self.patch_weight
        places = places.flatten(0, 1)[..., None].float()
        angles = (places * self.tower.rotary_pos_emb.inv_freq).flatten(1)
        angles = torch.cat([angles, angles], dim=-1)
        turn = (angles.cos(), angles.sin())
        windows = windows[:, None].expand(-1, patches.shape[2]).flatten()
        apart = (windows[:, None] != windows[None, :]).float() * _HIDDEN
        for number, block in enumerate(self.tower.blocks):
            bias = None if number in self.full else apart
            hidden = hidden + self._attended(block.attn, block.norm1(hidden), turn, bias)
            hidden = hidden + block.mlp(block.norm2(hidden))
        merger = self.tower.merger
        merged = merger.ln_q(hidden).reshape(hidden.shape[0], -1, merger.hidden_size)
        tokens: Tensor = merger.mlp(merged)
        return tokens

    def _attended(
        self,
        layer: Any,  # noqa: ANN401 (of transformers)
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        bias: Tensor | None,
    ) -> Tensor:
        frames, patches, _ = hidden.shape
        parts = (
            layer.qkv(hidden).reshape(frames, patches, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )
        query, key, value = parts[0], parts[1], parts[2]
        scores = _turned(query, *turn) @ _turned(key, *turn).transpose(-1, -2) * layer.scaling
        if bias is not None:
            scores = scores + bias
        out = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(frames, patches, -1)
        attended: Tensor = layer.proj(out)
        return attended


class DecoderGraph(nn.Module):
    """The language model over some tokens after a past: a piece of a prompt, or one token a row.

    Written for few nodes, a tenth of a token's time (docs/log.md): what reads the same numbers is one matrix, and norms
    are in the form that ONNX Runtime fuses.
    """

    def __init__(self, model: Any) -> None:  # noqa: ANN401 (of transformers)
        super().__init__()
        text = model.model.language_model
        self.table = text.embed_tokens.weight
        is_tied = model.lm_head.weight is self.table  # then a graph holds it once
        self.output = self.table if is_tied else model.lm_head.weight
        self.layers = nn.ModuleList(_DecoderLayer(layer) for layer in text.layers)
        self.norm = _Norm(text.norm)
        rotary = text.rotary_emb
        sections = rotary.mrope_section
        axes = [axis % 3 for axis, size in enumerate(sections) for _ in range(size)]
        mine = torch.zeros(3, sum(sections))
        mine[torch.tensor(axes), torch.arange(sum(sections))] = 1.0
        self.register_buffer("frequencies", mine * rotary.inv_freq)  # each channel has one axis

    def forward(
        self,
        ids: Tensor,
        seen: Tensor,
        is_seen: Tensor,
        positions: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (B, L, vocabulary) of what comes after each token; keys and values (L, layers, B, H, D) of these.

        Args:
            ids: (B, L) int64.
            seen: (B, L, C) float32: frames' tokens, where they stand.
            is_seen: (B, L) bool: where that is.
            positions: (3, B, L) int64: in time, rows and columns.
            keys: (P, layers, B, H, D) float32: of the tokens before these, after one that is never
                looked at: ONNX Runtime divides by the size of a past that is empty.
            values: likewise.
        """
        hidden = torch.where(is_seen[..., None], seen, functional.embedding(ids, self.table))
        # (B, L, D / 2): of the three positions of a token each channel follows one
        angles = torch.einsum("abl,ad->bld", positions.float(), self.frequencies)
        cos, sin = angles.cos()[:, :, None], angles.sin()[:, :, None]  # of all heads
        # channel i turns with channel i + D / 2
        turn = (torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))
        place = torch.arange(ids.shape[1])
        later = (place[None, :] > place[:, None]).float() * _HIDDEN
        before = torch.arange(keys.shape[0])
        unseen = torch.cat([(before == 0).float() * _HIDDEN, torch.zeros(ids.shape[1])])
        past_keys = keys.permute(1, 2, 3, 4, 0)  # layers, B, H, D, P
        past_values = values.permute(1, 2, 3, 0, 4)
        new_keys, new_values = [], []
        for number, layer in enumerate(self.layers):
            past = (past_keys[number], past_values[number])
            hidden, key, value = layer(hidden, turn, (later, unseen), past)
            new_keys.append(key)
            new_values.append(value)
        logits = (self.output @ self.norm(hidden).mT).mT
        return logits, torch.stack(new_keys, dim=1), torch.stack(new_values, dim=1)


class _Norm(nn.Module):
    """A root mean square norm; a division by a root is what ONNX Runtime takes for one, a product with its inverse is not."""

    def __init__(self, norm: Any) -> None:  # noqa: ANN401 (of transformers)
        super().__init__()
        self.weight, self.least = norm.weight, norm.variance_epsilon

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + self.least)
        return normed * self.weight


class _DecoderLayer(nn.Module):
    """One layer of `transformers`' Qwen2.5-VL."""

    def __init__(self, layer: Any) -> None:  # noqa: ANN401 (of transformers)
        super().__init__()
        own, mlp = layer.self_attn, layer.mlp
        self.heads, self.groups = own.num_key_value_heads, own.num_key_value_groups
        self.head = own.head_dim
        self.before, self.after = (
            _Norm(layer.input_layernorm),
            _Norm(layer.post_attention_layernorm),
        )
        self.scaling = own.scaling
        parts = (own.q_proj, own.k_proj, own.v_proj)
        self.into = nn.Parameter(torch.cat([part.weight.detach().T for part in parts], dim=1))
        self.bias = nn.Parameter(torch.cat([part.bias.detach() for part in parts]))
        self.out = own.o_proj
        wide = torch.cat([mlp.gate_proj.weight.detach().T, mlp.up_proj.weight.detach().T], dim=1)
        self.wide, self.activate, self.down = nn.Parameter(wide), mlp.act_fn, mlp.down_proj
        half = self.head // 2
        self.register_buffer("turned", (torch.arange(self.head) + half) % self.head)

    def forward(
        self,
        hidden: Tensor,
        turn: tuple[Tensor, Tensor],
        biases: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States (B, L, C) after it, and the keys and values of its tokens, each (L, B, H, D)."""
        attended, key, value = self._attended(self.before(hidden), turn, biases, past)
        hidden = hidden + attended
        gate, up = (self.after(hidden) @ self.wide).chunk(2, dim=-1)
        return hidden + self.down(self.activate(gate) * up), key, value

    def _attended(
        self,
        normed: Tensor,
        turn: tuple[Tensor, Tensor],
        biases: tuple[Tensor, Tensor],
        past: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, _ = normed.shape
        heads, groups, head = self.heads, self.groups, self.head
        asked = heads * groups
        parts = (normed @ self.into + self.bias).reshape(batch, length, -1, head)
        turning, value = parts.split([asked + heads, heads], dim=2)
        turning = turning * turn[0] + turning[..., self.turned] * turn[1]
        query, key = turning.split([asked, heads], dim=2)
        query = query.transpose(1, 2).reshape(batch, heads, groups * length, head) * self.scaling
        key, value = key.transpose(1, 2), value.transpose(1, 2)
        own = (query @ key.transpose(-1, -2)).reshape(batch, heads, groups, length, length)
        own = (own + biases[0]).reshape(batch, heads, groups * length, length)
        scores = (torch.cat([query @ past[0], own], dim=-1) + biases[1]).softmax(dim=-1)
        before = past[1].shape[-2]
        out = scores[..., :before] @ past[1] + scores[..., before:] @ value
        out = out.reshape(batch, asked, length, head).transpose(1, 2)
        return (
            self.out(out.reshape(batch, length, -1)),
            key.permute(2, 0, 1, 3),
            value.permute(2, 0, 1, 3),
        )


def graph_specs(model: Any) -> dict[str, PieceSpec]:  # noqa: ANN401 (of transformers)
    """How both are traced: no size but the model's own is baked in."""
    vision, text = model.config.vision_config, model.config.text_config
    values = 3 * vision.temporal_patch_size * vision.patch_size**2
    tokens, merged = 6, vision.spatial_merge_size**2
    frames, batch, length, before = 2, 2, 3, 5
    heads, head = text.num_key_value_heads, text.hidden_size // text.num_attention_heads
    cache = (before, text.num_hidden_layers, batch, heads, head)
    past = {0: "P", 2: "B"}
    return {
        VISION: PieceSpec(
            inputs={
                "patches": torch.randn(frames, tokens, merged, values),
                "places": torch.zeros(tokens, merged, 2, dtype=torch.int64),
                "windows": torch.arange(tokens) // 2,
            },
            outputs=("tokens",),
            dynamic={"patches": {0: "F", 1: "T"}, "places": {0: "T"}, "windows": {0: "T"}},
            max_room=_MAX_ROOM,
        ),
        DECODER: PieceSpec(
            inputs={
                "ids": torch.zeros(batch, length, dtype=torch.int64),
                "seen": torch.randn(batch, length, text.hidden_size),
                "is_seen": torch.zeros(batch, length, dtype=torch.bool),
                "positions": torch.ones(3, batch, length, dtype=torch.int64),
                "keys": torch.randn(cache),
                "values": torch.randn(cache),
            },
            outputs=("logits", "new_keys", "new_values"),
            dynamic={
                "ids": {0: "B", 1: "L"},
                "seen": {0: "B", 1: "L"},
                "is_seen": {0: "B", 1: "L"},
                "positions": {1: "B", 2: "L"},
                "keys": past,
                "values": past,
            },
            max_room=_MAX_ROOM,
        ),
    }


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions: channel i turns with channel i + D / 2."""
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin
