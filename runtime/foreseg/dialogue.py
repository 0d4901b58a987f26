# SPDX-License-Identifier: Apache-2.0
"""Queries, answers, and the parts in which an answer streams back from a reasoner."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, CameraId, FrameIndex
from foreseg.masks import MaskRle
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.texts import is_utf8

QueryId = NewType("QueryId", str)

MAX_QUERY_CHARS = 2_000
MAX_ID_CHARS = 128
MAX_QUERY_S = 604_800.0  # of a period or a horizon: a week


class AnswerStatus(IntEnum):
    """What became of one asking."""

    OK = 0
    NO_TARGET = 1
    FAILED = 2
    STALE = 3
    EVICTED = 4
    ABSTAINED = 5  # it may have a target or none: the reasoner cannot tell, and says why


class Outcome(IntEnum):
    """Whether the foresight came true, as far as the masks can tell."""

    UNKNOWN = 0
    CAME_TRUE = 1
    DID_NOT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A user's words. A period of 0 asks once; otherwise every `period_s` seconds.

    Raises:
        InputError: empty or over-long text or id, text that UTF-8 cannot carry, a number that is
            negative, not finite, or of seconds above `MAX_QUERY_S`.
    """

    id: QueryId
    text: str
    method: str = ""  # "" = the reasoner's own; another one fails
    camera: CameraId = DEFAULT_CAMERA
    period_s: float = 0.0
    horizon_s: float = 0.0  # 0 = not stated
    max_reasoning_tokens: int = 0  # 0 = the method's default
    answer_first: bool = False
    want_rationale: bool = False
    want_observed_masks: bool = False  # segment the window, too, backward and forward

    def __post_init__(self) -> None:
        if not self.text.strip():
            msg = "a query wants some text, got none"
            raise InputError(msg)
        if len(self.text) > MAX_QUERY_CHARS:
            msg = f"a query wants at most {MAX_QUERY_CHARS} characters, got {len(self.text)}"
            raise InputError(msg)
        if not 0 < len(self.id) <= MAX_ID_CHARS:
            msg = f"a query id wants 1 to {MAX_ID_CHARS} characters, got {len(self.id)}"
            raise InputError(msg)
        for name in ("text", "id", "method", "camera"):
            if not is_utf8(getattr(self, name)):
                msg = f"a query's {name} wants text that UTF-8 can carry, got {getattr(self, name)!a}"
                raise InputError(msg)
        for name in ("period_s", "horizon_s", "max_reasoning_tokens"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                msg = f"a query's {name} wants a finite number >= 0, got {value}"
                raise InputError(msg)
        for name in ("period_s", "horizon_s"):
            value = getattr(self, name)
            if value > MAX_QUERY_S:
                msg = f"a query's {name} wants at most {MAX_QUERY_S:g} s, got {value:g}"
                raise InputError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedMask:
    """The union of an answer's targets on one frame of its window."""

    frame_index: FrameIndex
    mask: MaskRle


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a reasoner said about a query; its prompts are in source pixels of the keyframe.

    It is published again, under the same query and keyframe, when more of it is known: its
    rationale, the observed masks, or the outcome.
    """

    query_id: QueryId
    query_text: str
    camera: CameraId
    status: AnswerStatus
    text: str = ""
    rationale: str = ""  # "" unless the query wants it
    reason: str = ""  # why there is no target, why it cannot be told, what failed, or what the outcome rests on
    confidence: float = math.nan  # NaN = unknown
    keyframe_index: FrameIndex | None = None
    keyframe_stamp_ns: int = 0
    frame_id: str = ""
    prompts: tuple[SpatialPrompt, ...] = ()
    object_ids: tuple[ObjectId, ...] = ()
    asked_stamp_ns: int = 0  # sensor-stamp clock: the newest frame when it was asked
    answered_stamp_ns: int = 0  # likewise when the answer came
    valid_until_stamp_ns: int = 0  # 0 = no horizon
    latency_s: float = 0.0  # monotonic: asked -> answered
    tokens: int = 0
    outcome: Outcome = Outcome.UNKNOWN
    observed: tuple[ObservedMask, ...] = ()  # by frame index, once, when the window is segmented


@dataclass(frozen=True, slots=True, kw_only=True)
class RationalePart:
    """Some more of the chain of thought."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FramesWanted:
    """A method wants these frames next; the nearest ones at hand are sent."""

    indices: tuple[FrameIndex, ...]
    side_px: int = 0  # of their longer side at most; 0 = as the first ones came


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetsFound:
    """The answer proper: tracking can start; the rationale may still follow."""

    keyframe_index: FrameIndex
    prompts: tuple[SpatialPrompt, ...]  # source pixels of the keyframe
    text: str = ""
    confidence: float = math.nan
    masks_by_frame: tuple[ObservedMask, ...] = ()  # that the model itself drew, keyframe included
    num_drawn: int = 1  # targets whose union these are; where it is one, they are that target's


@dataclass(frozen=True, slots=True, kw_only=True)
class NoTarget:
    """Nothing fits the query; a first-class answer with its reason. Ignorance is `Abstained`."""

    reason: str
    text: str = ""
    confidence: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstained:
    """The reasoner cannot answer this query from these frames, and says why: no claim at all."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFailed:
    """No answer: unparsable, crashed, timed out; with the reason. Ends the asking."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDone:
    """The completion has ended."""

    tokens: int = 0


VERDICTS = (TargetsFound, NoTarget, Abstained)
AnswerPart = (
    RationalePart | FramesWanted | TargetsFound | NoTarget | Abstained | AnswerFailed | AnswerDone
)
