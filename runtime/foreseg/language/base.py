# SPDX-License-Identifier: Apache-2.0
"""The contract of a language model that sees frames: messages in, a stream of text out.

Knows nothing of queries, methods or boxes, nor where the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, runtime_checkable

from foreseg.errors import ConfigError, ForesegError
from foreseg.frames import Frame, U8Array
from foreseg.language.text_grammar import TextGrammar
from foreseg.masks import Mask


class LanguageModelError(ForesegError):
    """A language model gave no whole completion; the message says why, for its operator."""


class Role(Enum):
    """Who says a message."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """Text and images in the order in which they are read; an image is (h, w, 3) RGB uint8."""

    role: Role
    content: tuple[str | U8Array, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LanguageRequest:
    """One or more completions of the same messages.

    Attributes:
        grammar: what a completion may say, for models that can be kept to it (those in this process);
            None: anything.
    """

    messages: tuple[Message, ...]
    max_tokens: int  # of each completion
    num_samples: int = 1
    temperature: float = 0.0  # 0 = the most probable token each time
    seed: int = 0
    grammar: TextGrammar | None = None

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or self.num_samples < 1 or self.temperature < 0:
            msg = (
                "a language request wants max_tokens >= 1, num_samples >= 1 and temperature >= 0,"
                f" got {self.max_tokens}, {self.num_samples} and {self.temperature}"
            )
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some more of a completion. One without text is a sign of life, or a late count."""

    text: str = ""
    sample: int = 0  # which of the completions, from 0
    num_tokens: int = 0  # that this adds to the count
    num_prompt_tokens: int = 0  # of the request, once, where the model tells
    log_probs: tuple[float, ...] = ()  # of its tokens; () = not known
    is_cut: bool = False  # the completion ends here because its tokens are used up


CompletionStream = Generator[Chunk, None, None]
"""Ends after the last completion. Closing it ends the generation."""


class LanguageModel(Protocol):
    """Yields a chunk at least every second or so, so that its user may close the stream in time."""

    def generate(self, request: LanguageRequest) -> CompletionStream:
        """Complete the messages.

        Raises:
            LanguageModelError: while it is read, if a completion cannot be had or breaks off.
        """


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentRequest:
    """One completion; what its [SEG] tokens mean is decoded on each of `frames`."""

    completion: LanguageRequest  # num_samples 1
    frames: tuple[Frame, ...]  # at least one
    ending: Callable[[str], str] | None
    """What is to be said after a completion that ended without the token; "" = nothing.

    None: nothing is, for without the token there is no target.
    """

    def __post_init__(self) -> None:
        if self.completion.num_samples != 1 or not self.frames:
            msg = (
                "a request for masks wants one sample and at least one frame, got"
                f" {self.completion.num_samples} samples and {len(self.frames)} frames"
            )
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Segmented:
    """What one [SEG] means; it stands where the completion so far ends."""

    masks: tuple[Mask, ...]  # of each frame asked for, (H, W) bool in source pixels
    qualities: tuple[float, ...]  # of each mask, 0 to 1, as the model itself judges
    is_forced: bool = False  # said by the request's `ending`, not by the model


SegmentStream = Generator[Chunk | Segmented, None, None]
"""A token's chunk has no text: `Segmented` follows in its place. Closing ends the generation."""


@runtime_checkable
class SegmentingModel(LanguageModel, Protocol):
    """A language model that can also say where in a frame the things are that it speaks of."""

    def segment(self, request: SegmentRequest) -> SegmentStream:
        """Complete the messages and decode the tokens.

        Raises:
            LanguageModelError: while it is read, if a completion cannot be had or breaks off.
        """
