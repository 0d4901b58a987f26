# SPDX-License-Identifier: Apache-2.0
"""One task of any dataset: frames that are read when wanted, a question, and the truth over time.

Frames are counted by *position*: 0 is the first frame of the video, whatever its file is called.
Does not know: file formats, systems, scores.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from foreseg.frames import U8Array
from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask

from .problems import Problem

DEFAULT_RATE_HZ = 24.0


class QuestionKind(enum.Enum):
    """What a question asks for."""

    REFERRING = "referring"  # names an object that is there
    REASONING = "reasoning"  # describes it by what must be inferred
    FORESIGHT = "foresight"  # asks for what will happen
    DESCRIPTIVE = "descriptive"  # asks for what has happened
    NO_TARGET = "no_target"  # nothing fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the dataset says that an answer rests on.

    Attributes:
        keyframe: position at which the targets are best pointed at.
        frames: positions of the frames that show why, ascending.
        boxes: around all targets together, source pixels, by position; only where they are stated.
        is_about_keyframe: the chain of thought says why that frame and where in it, and fits no other.
    """

    keyframe: int
    frames: tuple[int, ...] = ()
    boxes: Mapping[int, BoxXyxy] = field(default_factory=dict)
    is_about_keyframe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The words, and what is known of them; "" = the dataset does not say."""

    text: str
    kind: QuestionKind
    answer: str = ""  # in words
    skill: str = ""  # what it takes: "rebound", "habit", ...
    difficulty: str = ""  # "easy" or "hard"
    rationale: str = ""  # a reference chain of thought
    evidence: Evidence | None = None  # what that chain rests on
    rating: float | None = None  # how difficult, 1 (easy) to 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TruthSpan:
    """The true targets from one position to another; nothing fits where there are none."""

    first: int  # position, inclusive
    end: int  # exclusive
    object_ids: tuple[str, ...]
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionPlace:
    """Where a benchmark's own evaluator looks for an episode's masks, if not VIDEO/EXPRESSION."""

    folder: str  # below the folder of predictions
    label: int | None = None  # the target's value in a label map; None: whatever is not zero


class Media(Protocol):
    """Reads pixels when asked; keeps nothing that grows with the video.

    Every method raises `DatasetError` with file and key for what is missing or malformed.
    """

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""

    def mask(self, object_id: str, position: int) -> Mask | None:
        """Read an object's mask (H, W); None where the frame is not annotated."""

    def void(self, position: int) -> Mask | None:
        """Read the pixels (H, W) that are not judged; None if all are."""

    def foreground(self, position: int) -> Mask | None:
        """Read the union (H, W) of all that is annotated in the video; None if there is none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """One question about one video, or (`question` None) objects given by their first masks.

    Attributes:
        id: unique in its dataset: the video, a slash, and the expression where there is one.
        video: name as the dataset has it; may contain slashes.
        expression_id: as the dataset has it; "" without a question.
        frame_names: stems of the frames in order; predictions are stored under them.
        rate_hz: declared frames per second; not measured.
        question: None where objects are given by their first masks.
        object_ids: everything that has masks here and may be a target.
        spans: the truth over time, in order and without overlaps; positions outside all spans
            are not judged. Without a question: one span with every object.
        annotated: positions with truth, ascending.
        scored: the annotated positions that the dataset's own protocol counts.
        size_wh: (W, H), pixels.
        media: reads pixels.
        official_place: of masks made elsewhere; None where it is VIDEO/EXPRESSION.
        object_names: words for everything that is in the video, by object id; empty = unknown.
    """

    id: str
    video: str
    expression_id: str = ""
    frame_names: tuple[str, ...]
    rate_hz: float = DEFAULT_RATE_HZ
    question: Question | None
    object_ids: tuple[str, ...]
    spans: tuple[TruthSpan, ...]
    annotated: tuple[int, ...]
    scored: tuple[int, ...]
    size_wh: tuple[int, int]
    media: Media
    official_place: PredictionPlace | None = None
    object_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        """Frames of the video."""
        return len(self.frame_names)

    @property
    def duration_s(self) -> float:
        """Seconds at the declared rate."""
        return self.num_frames / self.rate_hz

    def stamp_ns(self, position: int) -> int:
        """When a frame is shown, from 0, at the declared rate."""
        return round(position * 1_000_000_000 / self.rate_hz)

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""
        return self.media.image(position)

    def span_at(self, position: int) -> TruthSpan | None:
        """The truth that holds at a position; None where nothing is judged."""
        return next((s for s in self.spans if s.first <= position < s.end), None)

    def target_masks(self, position: int) -> Mapping[str, Mask]:
        """Read the masks (H, W) of the true targets at an annotated position, by object id."""
        span = self.span_at(position)
        ids = () if span is None else span.object_ids
        masks = {object_id: self.media.mask(object_id, position) for object_id in ids}
        return {object_id: mask for object_id, mask in masks.items() if mask is not None}

    def truth(self, position: int) -> Mask:
        """Read the union (H, W) of the true targets at an annotated position."""
        union: Mask = np.zeros(self.size_wh[::-1], dtype=np.bool_)
        for mask in self.target_masks(position).values():
            union |= mask
        return union


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """What a reader found: episodes, what is wrong, and what had to be assumed."""

    form: str
    root: str
    split: str
    episodes: tuple[Episode, ...]
    problems: tuple[Problem, ...] = ()
    assumptions: tuple[str, ...] = field(default=())
