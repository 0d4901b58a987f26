# SPDX-License-Identifier: Apache-2.0
"""Completions that a model says by chance: several of each question, all a token further at a time.

A question's keys and values are run once and kept once: what its completions attend to beside their
own is the same, so all of them read it together. Completions that have ended are dropped. No grammar
keeps what is said here: what a model may not say on the robot, as a frame that was not shown, it shall
learn not to want. Does not know: rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache
from transformers.masking_utils import sdpa_mask

from .attention import float32_attention
from .batches import Batch
from .shared_frames import run_questions

SHARED_ATTENTION = "foreseg_shared"
"""What `set_attn_implementation` calls it: of float32, and of completions with one question."""
_LEAST_BUSY = 0.75  # of the rows that are run; with fewer, the others are dropped


@dataclass(slots=True)
class Said:
    """One completion.

    Attributes:
        ids: of its tokens, with its end unless it was cut.
        log_probs: of each, as it was drawn.
    """

    ids: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompts:
    """Keys and values of questions, which all of their completions see.

    Attributes:
        layers: of each, keys and values (Q, heads, P, channels) float32.
        unseen: (Q, 1, 1, P) float32, 0 or minus infinity: added to what padding is worth.
        first: (Q, 1) int64, the position after a question's last token.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    unseen: torch.Tensor
    first: torch.Tensor

    def taken(self, questions: torch.Tensor) -> Prompts:
        """Some of the questions."""
        return Prompts(
            layers=tuple((keys[questions], values[questions]) for keys, values in self.layers),
            unseen=self.unseen[questions],
            first=self.first[questions],
        )


@torch.no_grad()
def say(
    model: Any,  # noqa: ANN401 (of transformers; its tower `SeenFrames`, its attention SHARED_ATTENTION)
    batch: Batch,
    grid_thw: tuple[int, int, int],
    *,
    num_each: int,
    max_tokens: int,
    end_id: int,
    generator: torch.Generator | None,
) -> list[list[Said]]:
    """Completions of each question, at temperature 1.

    Args:
        model: says them.
        batch: of prompts, without anything said.
        grid_thw: of a frame.
        num_each: completions of a question.
        max_tokens: of a completion; it is cut there.
        end_id: the token that ends one.
        generator: of chance; None: the likeliest tokens.
    """
    prompts, last = _asked(model, batch, grid_thw)
    num_asked = len(batch.asked)
    said = [[Said() for _ in range(num_each)] for _ in range(num_asked)]
    rows = [one for its in said for one in its]
    places = torch.arange(num_asked * num_each).reshape(num_asked, num_each)  # -1: none is left
    logits = model.lm_head(last).repeat_interleave(num_each, dim=0)
    cache = DynamicCache()
    for step in range(max_tokens):
        tokens, log_probs = _drawn(logits, generator)
        for place, token, log_prob in zip(
            places.flatten().tolist(), tokens.tolist(), log_probs.tolist(), strict=True
        ):
            if place >= 0:
                rows[place].ids.append(token)
                rows[place].log_probs.append(log_prob)
        places = places.masked_fill((tokens == end_id).reshape(places.shape), -1)
        busy = int((places >= 0).sum())
        if not busy or step + 1 == max_tokens:
            break
        slots = _slots(places)
        if slots.numel() < places.numel() and busy < _LEAST_BUSY * places.numel():
            if step:
                cache.batch_select_indices(slots.flatten())
            prompts = prompts.taken(slots[:, 0] // places.shape[1])
            tokens = tokens[slots.flatten()]
            places = places.flatten()[slots]
        at = (prompts.first + step).repeat_interleave(places.shape[1], dim=0)
        hidden = model.model.language_model(
            input_ids=tokens[:, None],
            position_ids=at[None].expand(3, -1, -1),
            past_key_values=cache,
            attention_mask={"full_attention": None},
            use_cache=True,
            prompts=prompts,
        ).last_hidden_state
        logits = model.lm_head(hidden[:, 0])
    return said


def shared_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float,
    prompts: Prompts | None = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[torch.Tensor, None]:
    """Of completions' newest tokens: over their question's keys, then over their own.

    Without `prompts` it is `float32_attention`.
    """
    if prompts is None:
        return float32_attention(
            module, query, key, value, attention_mask, scaling=scaling, **settings
        )
    with torch.autocast(query.device.type, enabled=False):
        keys, values = prompts.layers[int(module.layer_idx)]  # type: ignore[arg-type]
        num_asked, groups, length, _ = keys.shape
        num_rows, heads, _, channels = query.shape
        shape = (num_asked, num_rows // num_asked, groups, heads // groups)
        asking = query.float().reshape(num_rows, groups, heads // groups, channels) * scaling
        there = _together(asking, shape) @ keys.mT + prompts.unseen
        own = _together(asking @ key.float().mT, shape)
        weights = torch.cat([there, own], dim=-1).softmax(dim=-1)
        found = _apart(weights[..., :length] @ values, shape)
        found = found + _apart(weights[..., length:], shape) @ value.float()
    return found.reshape(num_rows, 1, heads, channels).to(value.dtype), None


AttentionInterface.register(SHARED_ATTENTION, shared_attention)
AttentionMaskInterface.register(SHARED_ATTENTION, sdpa_mask)


def _together(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """(rows, groups, heads a group, n) of completions as (Q, groups, completions x heads, n)."""
    asked, each, groups, heads = shape
    split = rows.reshape(asked, each, groups, heads, -1).transpose(1, 2)
    return split.reshape(asked, groups, each * heads, -1)


def _apart(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """And back."""
    asked, each, groups, heads = shape
    split = rows.reshape(asked, groups, each, heads, -1).transpose(1, 2)
    return split.reshape(asked * each, groups, heads, -1)


def _asked(
    model: Any,  # noqa: ANN401
    batch: Batch,
    grid_thw: tuple[int, int, int],
) -> tuple[Prompts, torch.Tensor]:
    """The questions, run; and their last tokens' states (Q, width)."""
    ran = run_questions(model, batch, grid_thw)
    counts = batch.is_there.sum(dim=1)
    unseen = torch.zeros(ran.is_seen.shape).masked_fill(~ran.is_seen, -torch.inf)
    prompts = Prompts(
        layers=tuple((layer.keys.float(), layer.values.float()) for layer in ran.cache.layers),
        unseen=unseen[:, None, None],
        first=ran.first + counts[:, None],
    )
    return prompts, ran.hidden[torch.arange(len(counts)), counts - 1]


def _drawn(
    logits: torch.Tensor, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    log_probs = functional.log_softmax(logits.float(), dim=-1)
    if generator is None:
        tokens = log_probs.argmax(dim=-1, keepdim=True)
    else:
        tokens = torch.multinomial(log_probs.exp(), 1, generator=generator)
    return tokens[:, 0], log_probs.gather(1, tokens)[:, 0]


def _slots(places: torch.Tensor) -> torch.Tensor:
    """Rows to keep, (Q', G'): of questions that still speak, as many as the one with most has left.

    Of a question with fewer left, rows that have ended fill up.
    """
    is_busy = places >= 0
    left = is_busy.sum(dim=1)
    asked = torch.nonzero(left)[:, 0]
    order = (~is_busy[asked]).to(torch.int8).argsort(dim=1, stable=True)[:, : int(left.max())]
    return asked[:, None] * places.shape[1] + order


def texts_of(tokenizer: Any, said: Sequence[Said]) -> list[str]:  # noqa: ANN401
    """What was said, as text."""
    return [tokenizer.decode(one.ids, skip_special_tokens=True) for one in said]
