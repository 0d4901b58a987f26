# SPDX-License-Identifier: Apache-2.0
"""What sampled completions decode to: the union mask of their [SEG] tokens, without gradient.

A second forward pass over prompt and completion ids, a few rows at once; the tokens that count are
those of the answer, as the robot's reader finds it. Does not know: rewards, trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from foreseg.methods.grammar import answer_of
from foreseg.methods.seg_answers import marks_in
from foreseg_torch.seg.model import MaskHead, backbone, token_states
from foreseg_torch.seg.store import HEAD
from foreseg_torch.seg.tokens import marked_text
from foreseg_training.vlm.seg_loss import MaskTruth, union_logits

BoolArray = NDArray[np.bool_]


@torch.no_grad()
def decoded_unions(
    model: Any,  # noqa: ANN401 (of transformers)
    head: MaskHead,
    processor: Any,  # noqa: ANN401 (likewise)
    token_id: int,
    rows: Sequence[Mapping[str, Any]],
    truths: Sequence[MaskTruth],
    *,
    at_once: int,
) -> list[BoolArray | None]:
    """The masks (F, H, W) of each row, in the size of its true masks; None: no token in its answer.

    Args:
        model: may be under adapters.
        head: its mask head.
        processor: as the trainer has it.
        token_id: of [SEG].
        rows: with `prompt` and `images`, and the `completion_ids`.
        truths: what each decodes on which frames.
        at_once: rows in a forward pass.
    """
    numbers = [_tokens_that_count(row["completion_ids"], processor, token_id) for row in rows]
    found: list[BoolArray | None] = [None] * len(rows)
    waiting = [i for i, counting in enumerate(numbers) if counting]
    was_training = model.training
    model.eval()
    try:
        for start in range(0, len(waiting), at_once):
            chosen = waiting[start : start + at_once]
            states = _states(model, processor, token_id, [rows[i] for i in chosen])
            for i, one in zip(chosen, states, strict=True):
                truth = truths[i].on(one.device)
                logits = union_logits(head, one[list(numbers[i])], truth.pixels)
                found[i] = _at_size(logits, truth.masks.shape[-2:])
    finally:
        model.train(was_training)
    return found


def _tokens_that_count(ids: Sequence[int], processor: Any, token_id: int) -> tuple[int, ...]:  # noqa: ANN401
    """Which of a completion's tokens stand in its answer, by their number."""
    return marks_in(answer_of(marked_text(ids, processor.tokenizer, token_id)) or "")


def _states(
    model: Any,  # noqa: ANN401
    processor: Any,  # noqa: ANN401
    token_id: int,
    rows: Sequence[Mapping[str, Any]],
) -> tuple[Tensor, ...]:
    texts = [
        processor.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        for row in rows
    ]
    asked = processor(
        images=[row["images"] for row in rows],
        text=texts,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    said = [torch.tensor(row["completion_ids"]) for row in rows]
    pad_id = processor.tokenizer.pad_token_id
    ids = torch.nn.utils.rnn.pad_sequence(said, batch_first=True, padding_value=pad_id)
    is_said = torch.nn.utils.rnn.pad_sequence(
        [torch.ones_like(one) for one in said], batch_first=True, padding_value=0
    )
    inputs = dict(asked.items())
    whole = torch.cat((inputs["input_ids"], ids), dim=1)
    completion = torch.cat((torch.zeros_like(inputs["input_ids"]), is_said), dim=1).bool()
    types = inputs["mm_token_type_ids"]
    inputs |= {
        "input_ids": whole,
        "attention_mask": torch.cat((inputs["attention_mask"], is_said), dim=1),
        "mm_token_type_ids": torch.cat((types, torch.zeros_like(ids, dtype=types.dtype)), dim=1),
    }
    base = backbone(model)
    device = next(base.parameters()).device
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    hidden = base.model(**inputs, use_cache=False).last_hidden_state
    position = getattr(base, HEAD).decode.state_position
    return token_states(hidden, inputs["input_ids"], completion.to(device), token_id, position)


def _at_size(logits: Tensor, size_hw: torch.Size) -> BoolArray:
    enlarged = functional.interpolate(
        logits[:, None].float(), size_hw, mode="bilinear", align_corners=False
    )
    masks: BoolArray = (enlarged[:, 0] > 0).cpu().numpy()
    return masks
