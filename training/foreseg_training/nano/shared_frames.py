# SPDX-License-Identifier: Apache-2.0
"""Questions about windows, run through the language model: frames once, then all that is asked of them.

Does not know: losses, what is sampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from .batches import Batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ran:
    """What the language model makes of a batch.

    Attributes:
        hidden: (S, L, width) last states of what is asked.
        first: (S, 1) int64, the position of its first token.
        is_seen: (S, P + L) bool: which of the keys are there.
        cache: their keys and values, a row for each question.
    """

    hidden: torch.Tensor
    first: torch.Tensor
    is_seen: torch.Tensor
    cache: DynamicCache


def run_questions(
    model: Any,  # noqa: ANN401 (of transformers, its tower `SeenFrames`)
    batch: Batch,
    grid_thw: tuple[int, int, int],
) -> Ran:
    """Run a batch; `grid_thw` is that of a frame. Keys and values are handed on with their gradients."""
    length = batch.beginning.shape[1]
    cache = DynamicCache()
    _run_beginnings(model, batch, grid_thw, cache)
    first = torch.full((len(batch.owner), 1), length)
    if batch.num_frames:
        first += model.model.rope_deltas[batch.owner]
    cache.batch_select_indices(batch.owner)
    at = first + torch.arange(batch.asked.shape[1])
    seen = torch.ones((len(batch.asked), length), dtype=torch.bool)
    is_seen = torch.cat([seen, batch.is_there], dim=1)
    hidden = model.model(
        input_ids=batch.asked,
        past_key_values=cache,
        attention_mask=is_seen.to(torch.int64),
        position_ids=at[None].expand(3, -1, -1),
        use_cache=True,
    ).last_hidden_state
    return Ran(hidden=hidden, first=first, is_seen=is_seen, cache=cache)


def _run_beginnings(
    model: Any,  # noqa: ANN401
    batch: Batch,
    grid_thw: tuple[int, int, int],
    cache: DynamicCache,
) -> None:
    if not batch.num_frames:
        at = torch.arange(batch.beginning.shape[1])
        model.model(
            input_ids=batch.beginning,
            position_ids=at.expand(3, len(batch.beginning), -1),
            past_key_values=cache,
            use_cache=True,
        )
        return
    model.model(
        input_ids=batch.beginning,
        pixel_values=batch.tokens,
        image_grid_thw=torch.tensor([grid_thw] * batch.num_frames),
        mm_token_type_ids=(batch.beginning == model.config.image_token_id).to(torch.int32),
        past_key_values=cache,
        use_cache=True,
    )
