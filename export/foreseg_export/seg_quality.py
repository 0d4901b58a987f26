# SPDX-License-Identifier: Apache-2.0
"""What a coarser language model costs a model that segments: the masks that both draw from equal prompts.

Both are made to say [SEG] after the same prompts over drawn clips, so what differs is the state
that masks are drawn from. Says nothing of who is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

from foreseg.dialogue import Query, QueryId
from foreseg.frames import Frame, FrameWindow
from foreseg.language.base import Message
from foreseg.masks import Mask, mask_iou
from foreseg.methods.base import SegmentStep
from foreseg.methods.seg_answers import sentence
from foreseg.reasoner.options import MethodOptions, method_from_options
from foreseg_export.vlm_quality import ValidationSet
from foreseg_torch.reasoner import TransformersOptions, view_of
from foreseg_torch.seg.decode import StatePosition
from foreseg_torch.seg.language_model import SegLanguageModel
from foreseg_torch.seg.model import source_masks
from foreseg_torch.seg.store import LoadedSegVlm
from foreseg_torch.vlm.decoding import Decoding

NUM_FRAMES = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """What one model draws from the prompts, in order."""

    states: tuple[Tensor, ...]  # each (D,) float32 on the CPU
    masks: tuple[Mask, ...]
    num_bytes: int  # of the language model's weights


@dataclass(frozen=True, slots=True, kw_only=True)
class SegQuality:
    """How a coarser model's states and masks agree with its reference's."""

    precision: str
    reference: str
    validation_set: str
    num_masks: int
    mask_iou: float  # mean; two empty masks agree
    smallest_mask_iou: float
    state_cosine: float  # mean
    bytes_ratio: float  # of the language model's memory


def drawn_by(made: LoadedSegVlm, asked: ValidationSet) -> Drawn:
    """Let a model say [SEG] after each prompt, and decode it."""
    model = SegLanguageModel(made, vision_cache_mb=0)
    options = MethodOptions(method="sa2va", num_frames=NUM_FRAMES)
    view = view_of(made.loaded, TransformersOptions(num_frames=NUM_FRAMES))
    method = method_from_options(options, view)
    states: list[Tensor] = []
    masks: list[Mask] = []
    for window in asked.windows:
        shown = FrameWindow(frames=window.frames[:NUM_FRAMES], origin_index=window.origin_index)
        for number, text in enumerate(asked.queries):
            plan = method.plan(Query(id=QueryId(f"query-{number}"), text=text), shown)
            step = next(plan)
            assert isinstance(step, SegmentStep)  # noqa: S101 (the frames are whole)
            state = _state(model, made, step.request.completion.messages)
            states.append(state[0].float().cpu())
            masks += _masks(made, state, step.request.frames)
    return Drawn(states=tuple(states), masks=tuple(masks), num_bytes=made.loaded.num_bytes)


def seg_quality(
    reference: Drawn, other: Drawn, *, precision: str, asked: ValidationSet
) -> SegQuality:
    """Hold what a coarser model draws against its reference in bf16."""
    overlaps = [mask_iou(a, b) for a, b in zip(reference.masks, other.masks, strict=True)]
    cosines = [
        float(functional.cosine_similarity(a, b, dim=0))
        for a, b in zip(reference.states, other.states, strict=True)
    ]
    return SegQuality(
        precision=precision,
        reference="bf16",
        validation_set=asked.name,
        num_masks=len(overlaps),
        mask_iou=fmean(overlaps),
        smallest_mask_iou=min(overlaps),
        state_cosine=fmean(cosines),
        bytes_ratio=other.num_bytes / reference.num_bytes,
    )


@torch.inference_mode()
def _state(model: SegLanguageModel, made: LoadedSegVlm, messages: Sequence[Message]) -> Tensor:
    """(1, D): the token's state after the prompt and "It is"."""
    inputs = model.inputs(messages)
    decoding = Decoding(made.loaded, model.encoder, inputs, list(model.encoder.encode(inputs)))
    for _ in decoding.prefill():
        pass
    before = decoding.hidden
    for token in made.loaded.tokenizer(sentence(), add_special_tokens=False).input_ids:
        before = decoding.hidden
        decoding.advance([token])
        if token == made.model.token_id:
            break
    is_reading = made.model.head.decode.state_position is StatePosition.READS
    return decoding.hidden if is_reading else before


@torch.inference_mode()
def _masks(made: LoadedSegVlm, state: Tensor, frames: Sequence[Frame]) -> tuple[Mask, ...]:
    head = made.model.head
    maps = head.encoded(head.pixels_of([frame.image for frame in frames]))
    return source_masks(head(state, maps), frames, 0)
