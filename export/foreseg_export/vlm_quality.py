# SPDX-License-Identifier: Apache-2.0
"""How well a quantised vision-language model agrees with its reference on equal prompts.

Prompts are those of the method veason, about windows of clips. Both models answer by themselves,
then the quantised one follows the reference's words, token by token. Says nothing of who is right.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from tqdm import tqdm

from foreseg.dialogue import Abstained, AnswerFailed, NoTarget, Query, QueryId, TargetsFound
from foreseg.errors import InputError
from foreseg.frames import (
    DEFAULT_CAMERA,
    Frame,
    FrameIndex,
    FrameRef,
    FrameWindow,
    U8Array,
)
from foreseg.geometry import BoxXyxy
from foreseg.language.base import Chunk
from foreseg.language.completion_text import CompletionText
from foreseg.media.sources import frames_of, open_source
from foreseg.methods.base import AnswerStep
from foreseg.methods.grammar import CompletionReader
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.tracker.drawn_clip import moving_shapes
from foreseg_torch.reasoner import TransformersOptions, view_of
from foreseg_torch.vlm.decoding import Decoding
from foreseg_torch.vlm.language_model import TransformersLanguageModel, chosen, decoder_of
from foreseg_torch.vlm.loading import LoadedVlm
from foreseg_torch.vlm.manifest import Quality
from foreseg_torch.vlm.vision_inputs import ModelInputs

NUM_FRAMES = 6  # of a window
MAX_CLIP_FRAMES = 300  # of a clip that does not say how long it is
NOT_COMPARED = -1.0
DRAWN = "drawn: three shapes that move"
QUERIES = (
    "the shape that moves fastest",
    "What will leave the picture first?",
    "the thing that lies lowest",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ValidationSet:
    """Windows of clips, and what is asked about each of them."""

    name: str
    windows: tuple[FrameWindow, ...]
    queries: tuple[str, ...] = QUERIES


def drawn_set() -> ValidationSet:
    """Two clips that need no file."""
    clips = [moving_shapes(frames=30, seed=seed).frames for seed in range(2)]
    return ValidationSet(name=DRAWN, windows=tuple(_window(clip[::5]) for clip in clips))


def clip_set(clips: Sequence[str], queries: Sequence[str]) -> ValidationSet:
    """Videos, or folders of images.

    Raises:
        StreamError: one cannot be read.
        InputError: one has no frame.
    """
    windows = []
    for clip in clips:
        with open_source(clip) as source:
            last = (source.num_frames or MAX_CLIP_FRAMES) - 1
            wanted = {round(last * i / (NUM_FRAMES - 1)) for i in range(NUM_FRAMES)}
            images = []
            for index, item in enumerate(frames_of(source)):
                if index in wanted:
                    images.append(item.image)
                if index >= last:
                    break
        if not images:
            msg = f"the clip {clip!r} wants at least one frame, got none"
            raise InputError(msg)
        windows.append(_window(images))
    name = ", ".join(clips)
    return ValidationSet(name=name, windows=tuple(windows), queries=tuple(queries) or QUERIES)


def measured_quality(
    reference: LoadedVlm, quantised: LoadedVlm, asked: ValidationSet, *, max_tokens: int
) -> Quality:
    """Let both answer everything that is asked, at most `max_tokens` a completion."""
    view = view_of(reference, TransformersOptions(num_frames=NUM_FRAMES))
    method = VeasonMethod(VeasonSettings(view=view, num_frames=NUM_FRAMES))
    models = [
        TransformersLanguageModel(loaded, frame_pixels=view.frame_pixels)
        for loaded in (reference, quantised)
    ]
    pairs = [(window, text) for window in asked.windows for text in asked.queries]
    compared = []
    for number, (window, text) in enumerate(
        tqdm(pairs, desc="asking both", unit="query", leave=False, disable=None)
    ):
        query = Query(id=QueryId(f"query-{number}"), text=text)
        step = next(method.plan(query, window))
        assert isinstance(step, AnswerStep)  # noqa: S101 (veason has no other)
        inputs = models[0].inputs(step.request.messages)
        compared.append(_compared(models, inputs, step, max_tokens))
    return _summed(compared, reference, quantised, asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Compared:
    """One prompt."""

    verdicts: tuple[
        TargetsFound | NoTarget | Abstained | AnswerFailed, ...
    ]  # the reference's, the other's
    divergences: tuple[float, ...]  # nats, of each token of the reference
    agreements: tuple[bool, ...]  # likewise: the same token is the most probable


@torch.inference_mode()
def _compared(
    models: Sequence[TransformersLanguageModel],
    inputs: ModelInputs,
    step: AnswerStep,
    max_tokens: int,
) -> _Compared:
    reference, quantised = models
    own = _said(reference, inputs, max_tokens)
    other = _said(quantised, inputs, max_tokens)
    divergences, agreements = [], []
    decoding = _result(quantised.prepared(inputs, max_tokens))
    for number, expected in enumerate(own.log_probs):
        if number:
            decoding.advance([own.tokens[number - 1]])
        found = torch.log_softmax(decoding.logits[0], dim=-1).cpu()
        divergences.append(float((expected.exp() * (expected - found)).sum()))
        agreements.append(bool(found.argmax() == expected.argmax()))
    verdicts = tuple(
        _verdict(said.tokens, model.loaded, step)
        for said, model in ((own, reference), (other, quantised))
    )
    return _Compared(
        verdicts=verdicts, divergences=tuple(divergences), agreements=tuple(agreements)
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Said:
    """A completion, and the distributions that it was taken from: one more than tokens, at most."""

    tokens: list[int]
    log_probs: list[torch.Tensor]  # each (vocabulary,)


def _said(model: TransformersLanguageModel, inputs: ModelInputs, max_tokens: int) -> _Said:
    decoding = _result(model.prepared(inputs, max_tokens))
    said = _Said(tokens=[], log_probs=[])
    while True:
        said.log_probs.append(torch.log_softmax(decoding.logits[0], dim=-1).cpu())
        token, _ = chosen(decoding.logits[0], 0.0, None)
        if token in model.loaded.end_ids:
            return said
        said.tokens.append(token)
        if len(said.tokens) == max_tokens:
            return said
        decoding.advance([token])


def _verdict(
    tokens: Sequence[int], loaded: LoadedVlm, step: AnswerStep
) -> TargetsFound | NoTarget | Abstained | AnswerFailed:
    """What a completion amounts to, as the reasoner reads it."""
    writer, reader = CompletionText(decoder_of(loaded.tokenizer)), CompletionReader()
    pieces = [reader.feed(writer.feed(token)) for token in tokens]
    pieces += [reader.feed(writer.finish()), reader.finish()]
    answer = next((piece.answer for piece in pieces if piece.answer is not None), None)
    return AnswerFailed(reason="no answer") if answer is None else step.read(answer).part


def _summed(
    compared: Sequence[_Compared],
    reference: LoadedVlm,
    quantised: LoadedVlm,
    asked: ValidationSet,
) -> Quality:
    verdicts = [item.verdicts for item in compared]
    both = [
        (own, other)
        for own, other in verdicts
        if isinstance(own, TargetsFound) and isinstance(other, TargetsFound)
    ]
    divergences = [value for item in compared for value in item.divergences]
    agreements = [value for item in compared for value in item.agreements]
    overlaps = [
        box_agreement(_boxes(own), _boxes(other))
        for own, other in both
        if own.keyframe_index == other.keyframe_index
    ]
    return Quality(
        reference=reference.precision.value,
        validation_set=asked.name,
        num_prompts=len(compared),
        num_answers=sum(not isinstance(own, AnswerFailed) for own, _ in verdicts),
        verdict_agreement=_mean([type(own) is type(other) for own, other in verdicts]),
        keyframe_agreement=_mean([a.keyframe_index == b.keyframe_index for a, b in both]),
        box_iou=_mean(overlaps),
        token_agreement=_mean(agreements),
        mean_kl=_mean(divergences),
        tokens=len(agreements),
        bytes_ratio=quantised.num_bytes / reference.num_bytes,
    )


def box_agreement(ours: Sequence[BoxXyxy], theirs: Sequence[BoxXyxy]) -> float:
    """Overlaps (IoU) of boxes matched greedily, best first, over the larger number of boxes."""
    pairs = sorted(
        ((_iou(a, b), i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs)),
        reverse=True,
    )
    total, seen_ours, seen_theirs = 0.0, set[int](), set[int]()
    for overlap, i, j in pairs:
        if i not in seen_ours and j not in seen_theirs:
            total += overlap
            seen_ours.add(i)
            seen_theirs.add(j)
    return total / max(len(ours), len(theirs))


def _iou(a: BoxXyxy, b: BoxXyxy) -> float:
    width = max(0.0, min(a.x1, b.x1) - max(a.x0, b.x0))
    height = max(0.0, min(a.y1, b.y1) - max(a.y0, b.y0))
    both = width * height
    return both / (a.width * a.height + b.width * b.height - both)


def _boxes(found: TargetsFound) -> list[BoxXyxy]:
    return [prompt.box for prompt in found.prompts if prompt.box is not None]


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else NOT_COMPARED


def _result(stream: Generator[Chunk, None, Decoding]) -> Decoding:
    while True:
        try:
            next(stream)
        except StopIteration as end:
            decoding: Decoding = end.value
            return decoding


def _window(images: Sequence[U8Array]) -> FrameWindow:
    frames = []
    for number, image in enumerate(images):
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(number),
            epoch=0,
            stamp_ns=number,
            received_ns=number,
            size_wh=(image.shape[1], image.shape[0]),
        )
        frames.append(Frame(ref=ref, image=image))
    return FrameWindow(frames=tuple(frames), origin_index=FrameIndex(0))
