# SPDX-License-Identifier: Apache-2.0
"""What a foresight scene yields: frames that know the future.

Does not know: how a scene's plan comes about, who asks, or in which words.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from foreseg.errors import StreamError

from .textures import U8Array


class StuckSceneError(StreamError):
    """A scene cannot go on with its plot; most seeds of it can."""


class Topic(enum.Enum):
    """What kind of event a question is about."""

    HIT = "hit"  # the ball touches an object
    LEAVE = "leave"  # an object leaves the view
    REACH = "reach"  # a gripper takes a tool
    PUSH = "push"  # something pushes an object
    FALL = "fall"  # a stack, or part of it, falls
    KNOCK = "knock"  # an object that was hit runs into another one
    HOP = "hop"  # an object jumps up
    EMERGE = "emerge"  # an object comes out from behind a screen


class Skill(enum.Enum):
    """What it takes to answer a question."""

    MOTION = "motion"  # going on as now
    REBOUND = "rebound"
    HABIT = "habit"  # an order of events that repeats itself
    DECOY = "decoy"  # something else moves likewise, and stops
    OCCLUSION = "occlusion"  # what matters was seen, but is hidden now
    AFFORDANCE = "affordance"  # the tool that fits the part
    GOAL = "goal"  # a rule such as "the colour of the pad"
    CHAIN = "chain"  # one thing moves another
    BALANCE = "balance"  # weight and support
    ABSENCE = "absence"  # nothing of the kind will happen
    RECALL = "recall"  # not foresight: what has happened
    NAMING = "naming"  # not foresight: what a name means


@dataclass(frozen=True, slots=True, kw_only=True)
class FutureTruth:
    """The true answer to a question at one time; it expires at the event.

    Without a target nothing of the kind happens before `event_ns`, when the question is open
    again.

    Attributes:
        question: the plain wording; `topic` has others.
        target_id: instance id; None where the answer is "nothing".
        event_ns: exclusive end of this truth, in stamps.
        topic: what kind of event it is.
        skill: what it takes to foresee it.
        extrapolated_id: the instance that the event would befall if everything went on at its
            velocity of this frame; None if none. Another one than `target_id` makes it hard.
        steps: the chain of thought, from the scene's state; sentences, oldest evidence first.
            Empty while nothing that was seen so far tells the answer: nobody should be asked then.
        evidence_ns: stamps of earlier frames that show why, ascending; this one may be among them.
            What the steps mention happened at or after the first one.
    """

    question: str
    target_id: int | None
    event_ns: int
    topic: Topic = Topic.HIT
    skill: Skill = Skill.MOTION
    extrapolated_id: int | None = None
    steps: tuple[str, ...] = ()
    evidence_ns: tuple[int, ...] = ()

    @property
    def is_hard(self) -> bool:
        """Whether constant velocity gives another answer than the true one."""
        return self.extrapolated_id != self.target_id


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ForesightFrame:
    """One rendered frame, its exact masks, and the truth of every question at its time."""

    index: int
    stamp_ns: int
    image: U8Array  # (H, W, 3) RGB
    instance_ids: U8Array  # (H, W), 0 background, k = visible part of object k
    truths: tuple[FutureTruth, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneConfig:
    """What every scene draws from.

    Attributes:
        size_wh: frame width and height, pixels, at least 160 x 120.
        rate_hz: frames per second.
        num_targets: named objects beside the ball, 2 to 5.
        leg_s: shortest and longest time from one event to the next: what a reasoner has.
        needs_images: False: images may stay black where colours take time; masks and truths are the same.
    """

    size_wh: tuple[int, int] = (320, 240)
    rate_hz: float = 30.0
    num_targets: int = 4
    leg_s: tuple[float, float] = (4.5, 7.0)
    needs_images: bool = True

    def __post_init__(self) -> None:
        if self.size_wh[0] < 160 or self.size_wh[1] < 120:
            msg = f"size_wh must be at least (160, 120), got {self.size_wh}"
            raise ValueError(msg)
        if not 2 <= self.num_targets <= 5:
            msg = f"num_targets must lie in 2..5, got {self.num_targets}"
            raise ValueError(msg)
        if not 0 < self.leg_s[0] <= self.leg_s[1]:
            msg = f"leg_s must be an ascending pair of positive seconds, got {self.leg_s}"
            raise ValueError(msg)
        if self.rate_hz <= 0:
            msg = f"rate_hz must be positive, got {self.rate_hz}"
            raise ValueError(msg)


class ForesightScene(Protocol):
    """A world with a plot."""

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""

    @property
    def questions(self) -> tuple[str, ...]:
        """Every question that its frames carry a truth for."""

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call.

        Raises:
            StuckSceneError: the plot cannot go on; one seed in some hundreds.
        """
