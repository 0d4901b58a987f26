# SPDX-License-Identifier: Apache-2.0
"""What is asked of a story, and what is known of the answer; words are drawn later.

Does not know: pixels, wordings.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from foreseg_simulation.foresight import Skill


class StoryTopic(enum.Enum):
    """What a question is about."""

    CAME_AND_WENT = "came_and_went"  # in over one edge, out over another
    WENT_OUT = "went_out"  # all that went out over an edge
    CAME_AFTER = "came_after"  # what came next after a thing
    CAME_WITH = "came_with"  # what came together with a thing
    REVEAL = "reveal"  # what a screen that begins to shrink will show
    BEHIND = "behind"  # what is behind a screen at the end
    CAME_OUT = "came_out"  # what was behind a screen and is not any more
    FALL_ALL = "fall_all"  # all that will fall
    FALL_FIRST = "fall_first"
    LEAVE_ALL = "leave_all"  # all that will leave over an edge
    TURN_BACK = "turn_back"  # all that will turn back


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """A thing came over an edge of the view, or went."""

    thing_id: int
    time_s: float
    edge: str  # "left", "right", "top", "bottom"
    is_in: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question.

    Attributes:
        topic: what it is about.
        target_ids: ascending; none where nothing fits.
        steps: the chain of thought, sentences.
        evidence_s: times of frames that show why, ascending, none after the cut.
        skill: what it takes.
        subject: name of the thing that the words speak of; "" = none.
        fill: for the words' places, as {"a": "left"}.
        event_s: when the foreseen thing happens; None for what has happened.
        is_hard: whether constant velocity gives another answer.
    """

    topic: StoryTopic
    target_ids: tuple[int, ...]
    steps: tuple[str, ...]
    evidence_s: tuple[float, ...]
    skill: Skill
    subject: str = ""
    fill: Mapping[str, str] = field(default_factory=dict)
    event_s: float | None = None
    is_hard: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When a kind of act may play.

    Attributes:
        slots: begins and ends of its acts before the finale, ascending, seconds; none meet.
        finale_s: when the last fifth may begin.
        cut_s: the last observed frame.
    """

    slots: Sequence[tuple[float, float]]
    finale_s: float
    cut_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A strip of the view, heights of the frame."""

    top: float
    bottom: float
    aspect: float

    @property
    def middle(self) -> float:
        """Its middle line."""
        return (self.top + self.bottom) / 2

    @property
    def is_upper(self) -> bool:
        """Whether it is the upper one."""
        return self.middle < 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a kind of act brings into a story."""

    asks: Sequence[Ask]
    crossings: Sequence[Crossing]
