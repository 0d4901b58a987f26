# SPDX-License-Identifier: Apache-2.0
"""What a method is: a plan of steps that someone with a language model and frames carries out.

A method owns its window policy, its words, its grammar, and the way from an answer to prompts. It
calls nothing: it yields what it wants done and is sent what came of it, in training as live.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from foreseg.dialogue import (
    Abstained,
    AnswerFailed,
    FramesWanted,
    NoTarget,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.frames import FrameWindow
from foreseg.history.windows import WindowPolicy
from foreseg.language.base import LanguageRequest, Segmented, SegmentRequest
from foreseg.methods.grammar import Form
from foreseg.methods.near_json import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What an answer's text says, and what had to be repaired to read it."""

    part: TargetsFound | NoTarget | Abstained | AnswerFailed
    repairs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """An answer as it is said: what rewards count, before anything is repaired or left out."""

    keyframe: int | None = None  # its label, shown or not; None: no whole number
    items: tuple[Json, ...] = ()  # one for each target, well formed or not
    says_none: bool = False  # nothing fits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SampleStep:
    """Complete these messages `num_samples` times; is sent the completions' texts."""

    request: LanguageRequest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AnswerStep:
    """The last step: complete these messages once, as a stream, and read the answer in it."""

    request: LanguageRequest
    form: Form  # that the messages ask for
    read: Callable[[str], Verdict]  # the text between the answer's tags; never raises
    reasoning_tokens: int  # at most so many beside the answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegmentStep:
    """The last step of a [SEG] method: complete once, as a stream, and read masks in it."""

    request: SegmentRequest
    form: Form  # that the messages ask for
    read: Callable[[str, Sequence[Segmented]], Verdict]
    """From an answer's text, with marks where tokens are, and all masks so far; never raises."""
    reasoning_tokens: int  # at most so many beside the answer


Step = SampleStep | FramesWanted | RationalePart | AnswerStep | SegmentStep
Plan = Generator[Step, list[str] | FrameWindow | None, None]
"""Is sent texts after `SampleStep`, frames (or None) after `FramesWanted`, None after a note.

Ends with an `AnswerStep` or a `SegmentStep`.
"""


class Method(Protocol):
    """One of the papers' methods."""

    @property
    def name(self) -> str:
        """As options and queries name it."""

    @property
    def window_policy(self) -> WindowPolicy:
        """Picks the frames of the first window."""

    def plan(self, query: Query, window: FrameWindow) -> Plan:
        """How to answer from a window that has at least one frame."""


@runtime_checkable
class SegmentingMethod(Method, Protocol):
    """A method whose answers are [SEG] tokens: it needs a `SegmentingModel`."""

    def sentence(self, num_targets: int = 1) -> str:
        """An answer's words, with so many tokens: one, unless a dataset's answer names several."""
