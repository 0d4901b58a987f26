# SPDX-License-Identifier: Apache-2.0
"""What the ball will hit, and why: told from the true state of one moment.

Does not know: how a plan is drawn, or pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.extrapolation import first_touched
from foreseg_simulation.foresight import FutureTruth, Skill, Topic
from foreseg_simulation.telling import (
    MOTION_S,
    NS_PER_S,
    edge_words,
    evidence,
    first_stamp_from,
    heading_words,
    in_turn,
    last_stamp_before,
)
from foreseg_simulation.textures import F32Array

from .hit_plan import Leg, Route
from .leave_scene import LEAVE_QUESTION

BALL_ID = 1
FIRST_TARGET_ID = 2
HIT_QUESTION = "Which object will the ball hit next?"

_LOOK_BACK_S = 1.0
_TELLING_SHARE = 0.3  # of a leg: before, nobody sees whether the ball slows down
_LAMP_BEFORE_S = 0.55  # before a hit: the ball heads for what has the colour of the lamp
_RULE_HITS = 2  # how often a rule is seen before it counts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HitMoment:
    """The true state at one stamp."""

    stamp_ns: int
    rate_hz: float
    size_wh: tuple[int, int]
    route: Route
    leg: Leg
    names: Mapping[int, str]
    outlines: Mapping[int, F32Array]  # of the targets
    ball_radius_px: float
    hidden_s: float | None  # since when the ball is behind the screen; None while it is seen

    @property
    def time_s(self) -> float:
        """Seconds since the scene began."""
        return self.stamp_ns / NS_PER_S

    @property
    def velocity(self) -> np.ndarray:
        """Velocity (2,) of the ball, pixels per second."""
        return self.leg.velocity_at(self.time_s)

    @property
    def is_rolling(self) -> bool:
        """Whether the ball moves."""
        return bool(np.any(self.velocity))

    @property
    def is_motion_seen(self) -> bool:
        """Whether the ball has rolled as it does for long enough to see where to."""
        turn_s = self.leg.turn_s()
        since_s = turn_s if self.time_s >= turn_s else self.leg.roll_s
        return self.is_rolling and self.time_s - since_s >= MOTION_S

    @property
    def has_turned(self) -> bool:
        """Whether the ball rolls on the last piece of its way."""
        return self.is_rolling and self.time_s >= self.leg.turn_s()

    def name(self, target: int) -> str:
        """Name a target by its place."""
        return self.names[FIRST_TARGET_ID + target]

    def target_name(self) -> str:
        """Name what the ball rolls towards."""
        return self.name(self.leg.aim)


def hit_truths(moment: HitMoment) -> tuple[FutureTruth, ...]:
    """Tell what will be hit, and that nothing will leave."""
    straight_on = first_touched(
        moment.leg.ball_at(moment.time_s),
        moment.velocity,
        moment.ball_radius_px,
        moment.outlines,
        reach_px=float(sum(moment.size_wh)),
    )
    return _hit_truth(moment, straight_on), _leave_truth(moment, straight_on)


def _hit_truth(moment: HitMoment, straight_on: int | None) -> FutureTruth:
    leg = moment.leg
    skill, steps, stamps = _reasons(moment, straight_on)
    if steps:
        end = (
            "It will come to rest before it gets there, so the ball will hit nothing."
            if leg.target is None
            else f"So the ball will hit the {moment.target_name()} next."
        )
        steps = (*steps, end)
    return FutureTruth(
        question=HIT_QUESTION,
        target_id=None if leg.target is None else FIRST_TARGET_ID + leg.target,
        event_ns=round(leg.hit_s * NS_PER_S),
        topic=Topic.HIT,
        skill=skill,
        extrapolated_id=straight_on,
        steps=steps,
        evidence_ns=evidence(stamps, moment.stamp_ns) if steps else (),
    )


_Reasons = tuple[Skill, tuple[str, ...], tuple[int, ...]]  # skill, steps without the end, stamps


def _reasons(moment: HitMoment, straight_on: int | None) -> _Reasons:
    if moment.hidden_s is not None and moment.is_rolling:
        return _hidden(moment)
    is_shown = moment.route in (Route.HABIT, Route.LAMP) and not moment.has_turned
    if not is_shown and not moment.is_motion_seen:
        return Skill.MOTION, (), ()
    if moment.has_turned and moment.route is not Route.SHORT:
        return _straight(moment)
    if moment.route is Route.CUSHION:
        return _before_cushion(moment, straight_on)
    if moment.route is Route.HABIT:
        return _habit(moment)
    if moment.route is Route.LAMP:
        return _lamp(moment)
    return _slowing(moment)


def _straight(moment: HitMoment) -> _Reasons:
    leg, rate_hz = moment.leg, moment.rate_hz
    turn_s, heading = leg.turn_s(), heading_words(moment.velocity)
    since_s = max(leg.roll_s, moment.time_s - _LOOK_BACK_S)
    moves = f"The ball is rolling {heading} at a steady speed."
    if len(leg.corners) > 2 and moment.route is Route.CUSHION:
        edge = edge_words(leg.corners[-2], moment.size_wh)
        moves = f"The ball came off the {edge} edge and is now rolling {heading}."
        since_s = min(since_s, max(turn_s - 1.5 / rate_hz, leg.roll_s))
    steps = (
        moves,
        "Everything else lies still.",
        f"The way ahead is straight, and the {moment.target_name()} is the first object on it.",
    )
    return Skill.MOTION, steps, (first_stamp_from(since_s, rate_hz),)


def _hidden(moment: HitMoment) -> _Reasons:
    leg, rate_hz = moment.leg, moment.rate_hz
    since_s = moment.time_s if moment.hidden_s is None else moment.hidden_s
    if since_s - leg.roll_s < MOTION_S:
        return Skill.OCCLUSION, (), ()
    steps = [
        "The ball rolled behind the screen and cannot be seen now.",
        f"When it vanished it was rolling {heading_words(leg.velocity_at(since_s))}.",
        "Behind the screen it goes on as before.",
    ]
    if moment.time_s < leg.turn_s():
        edge = edge_words(leg.corners[-2], moment.size_wh)
        steps.append(f"It will come out, rebound from the {edge} edge and turn.")
    steps.append(f"The first object on that way is the {moment.target_name()}.")
    seen_s = max(leg.roll_s, since_s - _LOOK_BACK_S)
    stamps = (first_stamp_from(seen_s, rate_hz), last_stamp_before(since_s, rate_hz))
    return Skill.OCCLUSION, tuple(steps), stamps


def _before_cushion(moment: HitMoment, straight_on: int | None) -> _Reasons:
    leg = moment.leg
    edge = edge_words(leg.corners[1], moment.size_wh)
    naive = "out of the view" if straight_on is None else f"into the {moment.names[straight_on]}"
    steps = (
        f"The ball is rolling {heading_words(moment.velocity)}, towards the {edge} edge.",
        f"If it could go straight on for ever, that would lead {naive}.",
        f"But the {edge} edge is nearer, and turns the ball back like a cushion.",
        f"Mirrored at that edge, its way leads to the {moment.target_name()}.",
    )
    since_s = max(leg.roll_s, moment.time_s - _LOOK_BACK_S)
    return Skill.REBOUND, steps, (first_stamp_from(since_s, moment.rate_hz),)


def _habit(moment: HitMoment) -> _Reasons:
    """While the ball rests: what followed the last time."""
    past = moment.leg.past
    before = [i for i, hit in enumerate(past[:-1]) if hit.target == moment.leg.previous]
    if not before:
        return Skill.HABIT, (), ()
    seen = past[before[-1] :]
    last = moment.name(seen[-1].target)
    steps = (
        f"The ball hit {in_turn([moment.name(hit.target) for hit in seen])}.",
        f"It lies still at the {last} now, so its motion tells nothing.",
        f"But it keeps to an order: after the {last} came the {moment.name(seen[1].target)}.",
    )
    return Skill.HABIT, steps, tuple(first_stamp_from(h.time_s, moment.rate_hz) for h in seen)


def _lamp(moment: HitMoment) -> _Reasons:
    """Before the ball heads for its target: what the lamp meant so far."""
    past = moment.leg.past[-_RULE_HITS:]
    if len(past) < _RULE_HITS:
        return Skill.GOAL, (), ()
    first, second = (moment.name(hit.target) for hit in past)
    colour, then = first.partition(" ")[0], second.partition(" ")[0]
    now = moment.target_name().partition(" ")[0]
    motion = "is only rolling back to the middle" if moment.is_rolling else "lies still"
    steps = (
        f"When the lamp was {colour}, the ball went to the {first}.",
        f"When the lamp was {then}, it went to the {second}.",
        "So the ball goes to the object that has the colour of the lamp.",
        f"Now the ball {motion}, which tells nothing yet, but the lamp is {now}.",
    )
    shown_s = [max(hit.time_s - _LAMP_BEFORE_S, 0.0) for hit in past]
    stamps = tuple(first_stamp_from(time_s, moment.rate_hz) for time_s in shown_s)
    return Skill.GOAL, steps, stamps


def _slowing(moment: HitMoment) -> _Reasons:
    leg = moment.leg
    share = leg.share_at(moment.time_s)
    skill = Skill.ABSENCE if leg.is_slowing else Skill.MOTION
    if share < _TELLING_SHARE:
        return skill, (), ()
    stamps = (first_stamp_from(leg.roll_s, moment.rate_hz),)
    if not leg.is_slowing:
        _, steps, _ = _straight(moment)
        return skill, steps, stamps
    heading = heading_words(leg.velocity_at(leg.roll_s))
    steps = (
        f"The ball was rolling {heading}, towards the {moment.target_name()}.",
        "But from frame to frame it covers less ground: it gets slower and slower.",
        "Nothing else moves.",
    )
    return skill, steps, stamps


def _leave_truth(moment: HitMoment, straight_on: int | None) -> FutureTruth:
    """Nothing leaves: the ball is stopped by what it hits, or by the edges."""
    leg = moment.leg
    runs_out = moment.is_rolling and straight_on is None
    if not moment.is_rolling:
        steps: tuple[str, ...] = ("The ball lies still.", "Nothing else moves either.")
    elif runs_out:
        edge = edge_words(leg.corners[-2], moment.size_wh)
        steps = (
            f"Only the ball moves: it is rolling {heading_words(moment.velocity)}.",
            f"Straight on it would roll out of the view, but it does not cross the {edge} edge.",
            "An edge turns it back like a cushion.",
        )
        steps = steps if moment.route is Route.CUSHION else ()
    else:
        steps = (
            f"Only the ball moves: it is rolling {heading_words(moment.velocity)}.",
            "An object lies on its way, and stops it before the edge.",
        )
    if moment.hidden_s is not None or (moment.is_rolling and not moment.is_motion_seen):
        steps = ()
    if steps:
        steps = (*steps, "So nothing will leave the view.")
    since_s = max(leg.start_s, moment.time_s - _LOOK_BACK_S)
    stamps = (first_stamp_from(since_s, moment.rate_hz),)
    return FutureTruth(
        question=LEAVE_QUESTION,
        target_id=None,
        event_ns=round(leg.hit_s * NS_PER_S),
        topic=Topic.LEAVE,
        skill=Skill.ABSENCE,
        extrapolated_id=BALL_ID if runs_out else None,
        steps=steps,
        evidence_ns=evidence(stamps, moment.stamp_ns) if steps else (),
    )
