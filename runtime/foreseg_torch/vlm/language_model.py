# SPDX-License-Identifier: Apache-2.0
"""A vision-language model in this process, behind the contract of `foreseg.language.base`.

Generation is a plain loop: whoever reads the stream drives it, and closing it ends the work at
once. Knows no methods and no queries.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from foreseg.language.base import (
    Chunk,
    CompletionStream,
    LanguageModelError,
    LanguageRequest,
    Message,
    Role,
)
from foreseg.language.completion_text import CompletionText
from foreseg.language.stop_strings import StopStrings
from foreseg.language.token_guide import TokenGuide
from foreseg_torch.vlm.decoding import Decoding
from foreseg_torch.vlm.loading import MB, LoadedVlm
from foreseg_torch.vlm.vision_features import VisionEncoder
from foreseg_torch.vlm.vision_inputs import ModelInputs, inputs_from_messages

FRAME_PIXELS = 448 * 448
VISION_CACHE_MB = 256.0


class TransformersLanguageModel:
    """Keeps to `LanguageModel`.

    Features of frames seen lately are kept, so that asking again about the same frames costs the
    vision tower nothing.

    Raises:
        ConfigError: the model's chat template does not show images.
    """

    def __init__(
        self,
        loaded: LoadedVlm,
        *,
        frame_pixels: int = FRAME_PIXELS,
        vision_cache_mb: float = VISION_CACHE_MB,
    ) -> None:
        self._loaded = loaded
        self._frame_pixels = frame_pixels
        self._encoder = VisionEncoder(loaded.model, round(vision_cache_mb * MB))
        blank = np.zeros((loaded.geometry.unit_px, loaded.geometry.unit_px, 3), np.uint8)
        self.inputs([Message(role=Role.USER, content=("0", blank))])  # shows a frame, or raises

    @property
    def loaded(self) -> LoadedVlm:
        """The model."""
        return self._loaded

    @property
    def encoder(self) -> VisionEncoder:
        """Its vision tower."""
        return self._encoder

    def inputs(self, messages: Sequence[Message]) -> ModelInputs:
        """A prompt as this model reads it."""
        return inputs_from_messages(
            messages,
            self._loaded.tokenizer,
            self._loaded.geometry,
            frame_pixels=self._frame_pixels,
        )

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """Complete the messages; several samples share the prompt and advance together."""
        inputs = self.inputs(request.messages)
        try:
            decoding = yield from self.prepared(inputs, request.max_tokens)
            decoding.branch(request.num_samples)
            yield from self._completed(decoding, request)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            msg = (
                f"{self._loaded.name} ran out of memory over a prompt of {inputs.num_tokens}"
                f" tokens and {request.num_samples} completions: show fewer or smaller frames"
            )
            raise LanguageModelError(msg) from error

    def prepared(self, inputs: ModelInputs, max_tokens: int) -> Generator[Chunk, None, Decoding]:
        """Read a prompt, with signs of life.

        Raises:
            LanguageModelError: it and `max_tokens` more are longer than the model can read.
        """
        longest = self._loaded.model.config.get_text_config().max_position_embeddings
        if inputs.num_tokens + max_tokens > longest:
            msg = (
                f"{self._loaded.name} reads at most {longest} tokens, got a prompt of"
                f" {inputs.num_tokens} with {max_tokens} to come: show fewer or smaller frames"
            )
            raise LanguageModelError(msg)
        features = []
        for found in self._encoder.encode(inputs):
            features.append(found)
            yield Chunk()
        decoding = Decoding(self._loaded, self._encoder, inputs, features)
        for _ in decoding.prefill():
            yield Chunk()
        return decoding

    def _completed(self, decoding: Decoding, request: LanguageRequest) -> CompletionStream:
        """The completions, token by token; each row of the decoding is a sample under way."""
        decode = decoder_of(self._loaded.tokenizer)
        samples = [
            _Sample(
                number,
                CompletionText(decode),
                StopStrings(self._loaded.stop_strings),
                _randomness(request, number),
                self._guide(request, decode),
            )
            for number in range(request.num_samples)
        ]
        for _ in range(request.max_tokens):
            rows, tokens = [], []
            for row, sample in enumerate(samples):
                token, log_prob = chosen(
                    decoding.logits[row], request.temperature, sample.random, sample.guide
                )
                if token in self._loaded.end_ids:
                    continue
                if sample.guide is not None:
                    sample.guide.feed(token)
                text = sample.stop.feed(sample.text.feed(token))
                yield Chunk(text=text, sample=sample.number, num_tokens=1, log_probs=(log_prob,))
                if sample.stop.is_over:
                    continue
                rows.append(row)
                tokens.append(token)
            yield from _ended(sample for row, sample in enumerate(samples) if row not in rows)
            if not rows:
                return
            if len(rows) < len(samples):
                samples = [samples[row] for row in rows]
                decoding.keep(rows)
            decoding.advance(tokens)
        yield from _ended(samples)
        for sample in samples:
            yield Chunk(sample=sample.number, is_cut=True)

    def _guide(
        self, request: LanguageRequest, decode: Callable[[list[int]], str]
    ) -> TokenGuide | None:
        if request.grammar is None:
            return None
        return TokenGuide(
            request.grammar,
            decode,
            end_ids=self._loaded.end_ids,
            special_ids=self._loaded.tokenizer.all_special_ids,
        )


def decoder_of(tokenizer: Any) -> Callable[[list[int]], str]:  # noqa: ANN401 (of transformers)
    """What makes text of tokens, without the special ones."""
    return partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def chosen(
    logits: torch.Tensor,
    temperature: float,
    random: torch.Generator | None,
    guide: TokenGuide | None = None,
) -> tuple[int, float]:
    """The next token from (vocabulary,) logits, and its log-probability at temperature 1.

    That is the model's own, with or without a `guide` that tells which tokens may come.
    """
    log_probs = torch.log_softmax(logits, dim=-1)
    if random is None or temperature == 0:
        token = int(log_probs.argmax())
    else:
        shares = torch.softmax(logits / temperature, dim=-1).cpu()
        token = int(torch.multinomial(shares, 1, generator=random))
    if guide is not None and not guide.allows(token):
        if random is None or temperature == 0:
            order = torch.argsort(log_probs, descending=True, stable=True)
        else:  # without replacement, each in its turn by its share of what is left
            noise = torch.empty(len(logits)).exponential_(generator=random).log()
            order = torch.argsort(logits.float().cpu() / temperature - noise, descending=True)
        allowed = guide.first(map(int, order))
        token = token if allowed is None else allowed
    return token, float(log_probs[token])


def is_out_of_memory(error: RuntimeError) -> bool:
    """True for what torch raises when a GPU, or the host, has no more memory."""
    words = ("not enough memory", "can't allocate memory")  # on the host, by its system
    is_host = any(word in str(error) for word in words)
    return isinstance(error, torch.cuda.OutOfMemoryError) or is_host


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """One completion under way."""

    number: int
    text: CompletionText
    stop: StopStrings
    random: torch.Generator | None
    guide: TokenGuide | None


def _randomness(request: LanguageRequest, number: int) -> torch.Generator | None:
    """A sample's own source: what it says does not depend on how many others there are."""
    if request.temperature == 0:
        return None
    return torch.Generator().manual_seed((request.seed << 16) + number)


def _ended(samples: Iterable[_Sample]) -> CompletionStream:
    for sample in samples:
        rest = sample.stop.feed(sample.text.finish()) + sample.stop.finish()
        if rest:
            yield Chunk(text=rest, sample=sample.number)
