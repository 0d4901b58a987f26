# SPDX-License-Identifier: Apache-2.0
"""A model that segments, in this process, behind `foreseg.language.base.SegmentingModel`.

Says a completion token by token; when it has read a [SEG], it decodes its state on the frames.
Knows no methods and no queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from foreseg.frames import Frame
from foreseg.language.base import (
    Chunk,
    LanguageModelError,
    Segmented,
    SegmentRequest,
    SegmentStream,
)
from foreseg.language.completion_text import CompletionText
from foreseg.language.stop_strings import StopStrings
from foreseg_torch.seg.decode import StatePosition
from foreseg_torch.seg.model import SegVlm, source_masks
from foreseg_torch.seg.store import LoadedSegVlm
from foreseg_torch.vlm.decoding import Decoding
from foreseg_torch.vlm.language_model import (
    FRAME_PIXELS,
    VISION_CACHE_MB,
    TransformersLanguageModel,
    chosen,
    decoder_of,
    is_out_of_memory,
)
from foreseg_torch.vlm.loading import LoadedVlm

ENDING_TOKENS = 64  # room for what a request adds to a completion


class SegLanguageModel(TransformersLanguageModel):
    """Keeps to `SegmentingModel`.

    Raises:
        ConfigError: the model's chat template does not show images.
    """

    def __init__(
        self,
        made: LoadedSegVlm,
        *,
        frame_pixels: int = FRAME_PIXELS,
        vision_cache_mb: float = VISION_CACHE_MB,
    ) -> None:
        super().__init__(made.loaded, frame_pixels=frame_pixels, vision_cache_mb=vision_cache_mb)
        self._model = made.model

    def segment(self, request: SegmentRequest) -> SegmentStream:
        """Complete the messages and decode the tokens."""
        inputs = self.inputs(request.completion.messages)
        try:
            room = request.completion.max_tokens + ENDING_TOKENS
            decoding = yield from self.prepared(inputs, room)
            completion = _Completion(self._model, self.loaded, decoding)
            yield from completion.said(request, self.loaded.end_ids)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            msg = (
                f"{self.loaded.name} ran out of memory over a prompt of {inputs.num_tokens} tokens"
                f" and masks on {len(request.frames)} frames: show fewer or smaller frames"
            )
            raise LanguageModelError(msg) from error


class _Completion:
    """One completion under way."""

    def __init__(self, model: SegVlm, loaded: LoadedVlm, decoding: Decoding) -> None:
        self._model = model
        self._tokenizer: Any = loaded.tokenizer
        self._decoding = decoding
        self._waiting = CompletionText(decoder_of(loaded.tokenizer))
        self._stop = StopStrings(loaded.stop_strings)
        self._text = ""
        self._num_found = 0
        self._maps: list[Tensor] | None = None  # of the frames, once they are needed

    def said(self, request: SegmentRequest, end_ids: frozenset[int]) -> SegmentStream:
        """All that the model says; without a token in it, what the request adds, too."""
        temperature, seed = request.completion.temperature, request.completion.seed
        random = torch.Generator().manual_seed(seed) if temperature else None
        is_cut = True
        for _ in range(request.completion.max_tokens):
            token, log_prob = chosen(self._decoding.logits[0], temperature, random)
            if token in end_ids:
                is_cut = False
                break
            yield from self._token(token, log_prob, request.frames, is_forced=False)
            if self._stop.is_over:
                is_cut = False
                break
        yield from self._held_back()
        if self._num_found or request.ending is None:
            if is_cut:
                yield Chunk(is_cut=True)
            return
        self._stop = StopStrings()  # what is added is whole
        ending = self._tokenizer(request.ending(self._text), add_special_tokens=False).input_ids
        for token in ending[:ENDING_TOKENS]:
            log_probs = torch.log_softmax(self._decoding.logits[0], dim=-1)
            yield from self._token(token, float(log_probs[token]), request.frames, is_forced=True)
        yield from self._held_back()

    def _token(
        self, token: int, log_prob: float, frames: Sequence[Frame], *, is_forced: bool
    ) -> SegmentStream:
        """Read one token; what it adds to the text, or its masks."""
        state = self._decoding.hidden
        self._decoding.advance([token])
        if token != self._model.token_id:
            text = self._stop.feed(self._waiting.feed(token))
            self._text += text
            yield Chunk(text=text, num_tokens=1, log_probs=(log_prob,))
            return
        if self._model.head.decode.state_position is StatePosition.READS:
            state = self._decoding.hidden
        yield from self._held_back()
        yield Chunk(num_tokens=1, log_probs=(log_prob,))
        for _ in self._encode(frames):
            yield Chunk()
        self._num_found += 1
        yield self._segmented(state, frames, is_forced=is_forced)

    def _held_back(self) -> SegmentStream:
        text = self._stop.feed(self._waiting.finish()) + self._stop.finish()
        self._text += text
        if text:
            yield Chunk(text=text)

    @torch.inference_mode()
    def _encoded(self, frame: Frame) -> list[Tensor]:
        head = self._model.head
        return head.encoded(head.pixels_of([frame.image]))

    def _encode(self, frames: Sequence[Frame]) -> Iterator[None]:
        """Encode the frames once, at the first token; yields after each."""
        if self._maps is not None:
            return
        found = []
        for frame in frames:
            found.append(self._encoded(frame))
            yield
        self._maps = [torch.cat(levels) for levels in zip(*found, strict=True)]

    @torch.inference_mode()
    def _segmented(self, state: Tensor, frames: Sequence[Frame], *, is_forced: bool) -> Segmented:
        assert self._maps is not None  # noqa: S101 (the frames were encoded)
        decoded = self._model.head(state, self._maps)
        return Segmented(
            masks=source_masks(decoded, frames, 0),
            qualities=tuple(decoded.quality[:, 0].tolist()),
            is_forced=is_forced,
        )
