# SPDX-License-Identifier: Apache-2.0
"""A nano reasoner's bundle behind the contract of `foreseg.language.base`, by ONNX Runtime and numpy.

Generation is a plain loop: whoever reads the stream drives it, and closing it ends the work at
once. Knows no methods and no queries.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.onnx import OnnxEngine
from foreseg.errors import EngineError
from foreseg.frames import U8Array
from foreseg.language.base import (
    Chunk,
    CompletionStream,
    LanguageModelError,
    LanguageRequest,
    Message,
    Role,
)
from foreseg.language.completion_text import CompletionText
from foreseg.language.images import F32Array
from foreseg.language.token_guide import TokenGuide
from foreseg.nano.bundle import DECODER, TOKENIZER, VISION, NanoBundle
from foreseg.nano.decoding import Decoding, Past, Prompt
from foreseg.nano.drafts import Drafts
from foreseg.nano.seeing import SeenFrame, VisionEncoder
from foreseg.nano.words import chat_text, open_tokenizer, special_tokens, unread_words

MB = 1e6
MAX_SAMPLES = 64  # of a request: each has keys and values of its own


class OnnxLanguageModel:
    """Keeps to `LanguageModel`.

    Tokens of frames seen lately are kept, and the keys and values of the last prompt: a prompt that
    begins as it did is read from where they part.

    Args:
        bundle: its graphs and words.
        frame_pixels: each frame is read at this many pixels at most.
        threads: of ONNX Runtime.
        vision_cache_mb: for tokens of frames.
        guesses: whether what comes next is guessed and run together (`drafts`); what is said is the same.

    Raises:
        EngineError: graphs, tokenizer and manifest do not fit together.
        MissingExtraError: a package is absent.
    """

    def __init__(
        self,
        bundle: NanoBundle,
        *,
        frame_pixels: int,
        threads: int = 1,
        vision_cache_mb: float = 64.0,
        guesses: bool = True,
    ) -> None:
        manifest = bundle.manifest
        self._name = manifest.name
        self._geometry = manifest.decoder
        self._images = manifest.images
        self._tokenizer = open_tokenizer(bundle.files[TOKENIZER], f"{self._name}'s {TOKENIZER}")
        self._special = special_tokens(self._tokenizer) | {self._images.image_token}
        ids = (self._tokenizer.token_to_id(token) for token in self._special)
        self._special_ids = frozenset(number for number in ids if number is not None)
        self._decoder = OnnxEngine("decoder", bundle.files[DECODER], threads=threads)
        self._encoder = VisionEncoder(
            OnnxEngine("vision", bundle.files[VISION], threads=threads),
            self._images,
            window_px=manifest.window_px,
            frame_pixels=frame_pixels,
            max_bytes=round(vision_cache_mb * MB),
        )
        self._drafts = Drafts(self._are_numbers()) if guesses else None
        self._past: Past | None = None  # of the last prompt, unless a stream has it
        self._num_prompt = self._num_reused = 0
        self._try_out()

    @property
    def encoder(self) -> VisionEncoder:
        """The eye."""
        return self._encoder

    @property
    def num_prompt(self) -> int:
        """Tokens of the last prompt."""
        return self._num_prompt

    @property
    def num_reused(self) -> int:
        """Tokens of the last prompt that were not read again."""
        return self._num_reused

    def unread_words(self, text: str) -> list[str]:
        """Words that it never read: what they ask for it cannot know."""
        return unread_words(self._tokenizer, text)

    def forget(self, *, frames: bool = True) -> None:
        """Let go the last prompt, and the tokens of frames unless they are to stay."""
        self._past = None
        if frames:
            self._encoder.forget()

    def seen(self, images: Sequence[U8Array]) -> Generator[Chunk, None, list[SeenFrame]]:
        """Frames as the model sees them, with signs of life.

        Raises:
            LanguageModelError: the graph failed.
        """
        try:
            found: list[SeenFrame] | None = None
            for found in self._encoder.encode(images):
                if found is None:
                    yield Chunk()
        except EngineError as error:
            raise LanguageModelError(str(error)) from error
        return found or []

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """Complete the messages; several samples share the prompt and advance together."""
        if request.num_samples > MAX_SAMPLES:
            msg = f"{self._name} gives at most {MAX_SAMPLES} samples, got {request.num_samples}"
            raise LanguageModelError(msg)
        prompt = yield from self._prompt(request)
        past, self._past = self._past, None
        room = len(prompt.ids) + request.max_tokens
        drafts = self._drafts if request.num_samples == 1 and request.temperature == 0 else None
        decoding = Decoding(
            self._decoder, self._geometry, prompt, room=room, past=past, drafts=drafts
        )
        self._num_prompt, self._num_reused = len(prompt.ids), decoding.num_reused
        try:
            for _ in decoding.prefill():
                yield Chunk()
            decoding.branch(request.num_samples)
            yield from self._completed(decoding, request)
        except EngineError as error:
            raise LanguageModelError(str(error)) from error
        finally:
            self._past = decoding.past

    def _prompt(self, request: LanguageRequest) -> Generator[Chunk, None, Prompt]:
        """The prompt, its frames seen.

        Raises:
            LanguageModelError: it and `max_tokens` more are longer than the model can read.
        """
        images = [p for m in request.messages for p in m.content if not isinstance(p, str)]
        num_tokens = [self._images.num_tokens(self._encoder.grid_of(image)) for image in images]
        ids = self._ids(request.messages, num_tokens)
        longest = self._geometry.max_tokens
        if len(ids) + request.max_tokens > longest:
            msg = (
                f"{self._name} reads at most {longest} tokens, got a prompt of {len(ids)} with"
                f" {request.max_tokens} to come: show fewer or smaller frames"
            )
            raise LanguageModelError(msg)
        frames = yield from self.seen(images)
        array = np.array(ids, np.int64)
        return Prompt(
            ids=array,
            is_image=array == self._images.image_token_id,
            frames=tuple(frames),
            merge=self._images.merge,
        )

    def _ids(self, messages: Sequence[Message], num_tokens: Sequence[int]) -> list[int]:
        token = self._images.image_token
        pieces = chat_text(messages, token, self._special).split(token)
        text = pieces[0]
        for count, piece in zip(num_tokens, pieces[1:], strict=True):
            text += token * count + piece
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def _completed(self, decoding: Decoding, request: LanguageRequest) -> CompletionStream:
        """The completions, token by token; each row of the decoding is a sample under way."""
        samples = [
            _Sample(
                number,
                CompletionText(self._decoded),
                _randomness(request, number),
                self._guide(request),
            )
            for number in range(request.num_samples)
        ]
        for _ in range(request.max_tokens):
            rows, tokens = [], []
            for row, sample in enumerate(samples):
                token, log_prob = chosen(
                    decoding.logits[row], request.temperature, sample.random, sample.guide
                )
                if token in self._geometry.end_ids:
                    continue
                if sample.guide is not None:
                    sample.guide.feed(token)
                rows.append(row)
                tokens.append(token)
                text = sample.text.feed(token)
                yield Chunk(text=text, sample=sample.number, num_tokens=1, log_probs=(log_prob,))
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

    def _guide(self, request: LanguageRequest) -> TokenGuide | None:
        if request.grammar is None:
            return None
        return TokenGuide(
            request.grammar,
            self._decoded,
            end_ids=self._geometry.end_ids,
            special_ids=self._special_ids,
        )

    def _decoded(self, tokens: list[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special_tokens=True)

    def _are_numbers(self) -> NDArray[np.bool_]:
        """(vocabulary,): tokens that are digits."""
        tokens = (self._tokenizer.id_to_token(n) for n in range(self._geometry.vocabulary))
        return np.array([token is not None and token.isdecimal() for token in tokens])

    def _try_out(self) -> None:
        """Answer once about a blank frame: what does not fit together shows now, not on the robot."""
        token, number = self._images.image_token, self._images.image_token_id
        if self._tokenizer.token_to_id(token) != number:
            msg = f"{self._name}: its tokenizer does not know {token!r} as {number}"
            raise EngineError(msg)
        blank = np.zeros((self._images.unit_px, self._images.unit_px, 3), np.uint8)
        message = Message(role=Role.USER, content=("0", blank))
        request = LanguageRequest(messages=(message,), max_tokens=2)
        try:
            with closing(self.generate(request)) as stream:
                for _ in stream:
                    pass
        except (LanguageModelError, ValueError) as error:
            msg = f"{self._name}: graphs, tokenizer and manifest do not fit together: {error}"
            raise EngineError(msg) from error
        self.forget()


def chosen(
    logits: F32Array,
    temperature: float,
    random: np.random.Generator | None,
    guide: TokenGuide | None = None,
) -> tuple[int, float]:
    """The next token from (vocabulary,) logits, and its log-probability at temperature 1.

    That is the model's own, with or without a `guide` that tells which tokens may come.

    Raises:
        LanguageModelError: they are no numbers.
    """
    values = logits.astype(np.float64)
    values -= values.max()
    if not np.isfinite(values).all():
        msg = "the model's output is not finite: its bundle is damaged, or its input out of range"
        raise LanguageModelError(msg)
    token = _drawn(values, temperature, random)
    if guide is not None and not guide.allows(token):
        if random is None or temperature == 0:
            order = np.argsort(-values, kind="stable")
        else:  # without replacement, each in its turn by its share of what is left
            order = np.argsort(-(values / temperature + random.gumbel(size=len(values))))
        allowed = guide.first(map(int, order))
        token = token if allowed is None else allowed
    return token, float(values[token] - np.log(np.exp(values).sum()))


def _drawn(
    values: NDArray[np.float64], temperature: float, random: np.random.Generator | None
) -> int:
    if random is None or temperature == 0:
        return int(values.argmax())
    total = np.cumsum(np.exp(values / temperature))
    place = int(np.searchsorted(total, random.random() * total[-1], side="right"))
    return min(place, len(values) - 1)


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """One completion under way."""

    number: int
    text: CompletionText
    random: np.random.Generator | None
    guide: TokenGuide | None


def _randomness(request: LanguageRequest, number: int) -> np.random.Generator | None:
    """A sample's own source: what it says does not depend on how many others there are."""
    if request.temperature == 0:
        return None
    return np.random.default_rng([request.seed & 0xFFFFFFFFFFFFFFFF, number])


def _ended(samples: Iterable[_Sample]) -> CompletionStream:
    for sample in samples:
        rest = sample.text.finish()
        if rest:
            yield Chunk(text=rest, sample=sample.number)
