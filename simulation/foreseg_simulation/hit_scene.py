# SPDX-License-Identifier: Apache-2.0
"""A ball rolls to one named object after another; which it hits next is the question.

Straight routes can be extrapolated. Two others cannot: a route over a cushion turns at the
border first, and a habit repeats one order of targets with a rest after each hit, so that
while the ball lies still only memory answers.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np

from .foresight import ForesightFrame, FutureTruth, SceneConfig
from .naming import NamedSprite, named_ball, named_targets
from .sprites import Pose
from .stage import corners_of, make_floor, paint_frame, ring_layout
from .textures import U8Array

BALL_ID = 1
HIT_QUESTION = "Which object will the ball hit next?"

_FIRST_TARGET_ID = 2
_REST_S = 2.5
_WOBBLE_S = 0.8
_MARCH_PX = 0.1
_NS_PER_S = 1_000_000_000


class Route(enum.Enum):
    """How the ball gets to its next target."""

    STRAIGHT = "straight"
    CUSHION = "cushion"
    HABIT = "habit"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Leg:
    """From one hit to the next; the ball may rest first."""

    start_s: float
    roll_s: float  # when the ball starts to roll
    hit_s: float
    corners: np.ndarray  # (K, 2) the way of the ball's centre, pixels
    target: int  # place among the targets
    previous: int | None  # the target that was hit when this leg began

    def ball_at(self, time_s: float) -> np.ndarray:
        """Centre (2,) of the ball."""
        share = np.clip((time_s - self.roll_s) / (self.hit_s - self.roll_s), 0, 1)
        steps = np.linalg.norm(np.diff(self.corners, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        distance = share * along[-1]
        return np.array([np.interp(distance, along, self.corners[:, i]) for i in (0, 1)])


class HitScene:
    """A ball, named targets around it, and an endless plan of hits."""

    def __init__(self, seed: int, config: SceneConfig, *, route: Route = Route.STRAIGHT) -> None:
        self._seed, self._config, self._route = seed, config, route
        rng = np.random.default_rng([seed, 11])
        side = min(config.size_wh)
        self._ball_radius = 0.055 * side
        self._floor: U8Array = make_floor(rng, config.size_wh)
        self._ball = named_ball(rng)
        self._targets: list[NamedSprite] = named_targets(rng, config.num_targets)
        self._poses = _target_poses(rng, config, 0.105 * side)
        self._order = [int(i) for i in rng.permutation(config.num_targets)]

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        targets = enumerate(self._targets, start=_FIRST_TARGET_ID)
        return MappingProxyType({BALL_ID: self._ball.name, **{i: t.name for i, t in targets}})

    @property
    def questions(self) -> tuple[str, ...]:
        """The one question of this scene."""
        return (HIT_QUESTION,)

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call."""
        legs = self._legs()
        leg = next(legs)
        index = 0
        while True:
            stamp_ns = round(index * _NS_PER_S / self._config.rate_hz)
            while stamp_ns >= round(leg.hit_s * _NS_PER_S):
                leg = next(legs)
            yield self._frame(index, stamp_ns, leg)
            index += 1

    def _frame(self, index: int, stamp_ns: int, leg: _Leg) -> ForesightFrame:
        time_s = stamp_ns / _NS_PER_S
        actors = []
        for i, (target, pose) in enumerate(zip(self._targets, self._poses, strict=True)):
            shaken = _wobbling(pose, time_s - leg.start_s) if i == leg.previous else pose
            actors.append((_FIRST_TARGET_ID + i, target.sprite, shaken))
        x, y = leg.ball_at(time_s)
        ball = Pose(
            x_px=float(x), y_px=float(y), radius_px=self._ball_radius, angle_rad=float(x + y) / 20
        )
        actors.append((BALL_ID, self._ball.sprite, ball))
        image, instance_ids = paint_frame(self._floor, actors)
        truth = FutureTruth(
            question=HIT_QUESTION,
            target_id=_FIRST_TARGET_ID + leg.target,
            event_ns=round(leg.hit_s * _NS_PER_S),
        )
        return ForesightFrame(
            index=index,
            stamp_ns=stamp_ns,
            image=image,
            instance_ids=instance_ids,
            truths=(truth,),
        )

    def _legs(self) -> Iterator[_Leg]:
        rng = np.random.default_rng([self._seed, 12])
        place = np.array(self._config.size_wh) / 2 + rng.uniform(-0.06, 0.06, 2) * min(
            self._config.size_wh
        )
        start_s, previous, count = 0.0, None, 0
        while True:
            if self._route is Route.HABIT:
                target = self._order[count % len(self._order)]
            else:
                others = [i for i in range(len(self._targets)) if i != previous]
                target = others[rng.integers(len(others))]
            leg = self._leg(rng, start_s, place, target, previous)
            yield leg
            place, start_s, previous, count = leg.corners[-1], leg.hit_s, target, count + 1

    def _leg(
        self,
        rng: np.random.Generator,
        start_s: float,
        place: np.ndarray,
        target: int,
        previous: int | None,
    ) -> _Leg:
        pose = self._poses[target]
        goal = np.array([pose.x_px, pose.y_px])
        way = np.array([place, goal])
        if self._route is Route.CUSHION:
            bounced = self._over_cushion(rng, place, goal, target)
            way = way if bounced is None else bounced
        contact = self._first_contact(way[-2], goal, target)
        corners = np.concatenate([way[:-1], contact[None]])
        rests = self._route is Route.HABIT and previous is not None
        roll_s = start_s + (_REST_S if rests else 0.0)
        duration_s = float(rng.uniform(*self._config.leg_s))
        return _Leg(
            start_s=start_s,
            roll_s=roll_s,
            hit_s=roll_s + duration_s,
            corners=corners,
            target=target,
            previous=previous,
        )

    def _over_cushion(
        self, rng: np.random.Generator, place: np.ndarray, goal: np.ndarray, target: int
    ) -> np.ndarray | None:
        """Find a way with one rebound at a border that touches nothing on its way, or None."""
        size = np.array(self._config.size_wh, dtype=np.float64)
        low, high = self._ball_radius, size - self._ball_radius
        walls = [(axis, float(wall)) for axis in (0, 1) for wall in (low, high[axis])]
        for number in rng.permutation(len(walls)):
            axis, wall = walls[number]
            mirrored = goal.copy()
            mirrored[axis] = 2 * wall - goal[axis]
            step = mirrored - place
            if abs(step[axis]) < 1.0:
                continue
            bounce = place + step * ((wall - place[axis]) / step[axis])
            is_inside = bool(np.all((bounce >= low - 1e-6) & (bounce <= high + 1e-6)))
            if (
                is_inside
                and self._is_clear(place, bounce, None)
                and self._is_clear(bounce, goal, target)
            ):
                return np.array([place, bounce, goal])
        return None

    def _is_clear(self, start: np.ndarray, end: np.ndarray, target: int | None) -> bool:
        """Whether the ball passes every object but `target` on its way, leaving its start aside."""
        for i, pose in enumerate(self._poses):
            centre = np.array([pose.x_px, pose.y_px])
            reach = pose.radius_px + 1.3 * self._ball_radius
            if i == target or np.linalg.norm(centre - start) < reach:
                continue
            along = end - start
            share = np.clip((centre - start) @ along / max(along @ along, 1e-9), 0, 1)
            if np.linalg.norm(start + share * along - centre) < reach:
                return False
        return True

    def _first_contact(self, start: np.ndarray, goal: np.ndarray, target: int) -> np.ndarray:
        """Centre of the ball where it first touches the target's outline on a straight way."""
        corners = corners_of(self._targets[target].sprite, self._poses[target])
        distance = float(np.linalg.norm(goal - start))
        for share in np.arange(0.0, 1.0, _MARCH_PX / distance):
            centre = start + share * (goal - start)
            point = (float(centre[0]), float(centre[1]))
            if cv2.pointPolygonTest(corners, point, measureDist=True) >= -self._ball_radius:
                return centre
        return goal


def _target_poses(rng: np.random.Generator, config: SceneConfig, radius_px: float) -> list[Pose]:
    centres = ring_layout(rng, config.size_wh, config.num_targets, radius_px)
    angles = rng.uniform(-0.3, 0.3, config.num_targets)
    return [
        Pose(x_px=float(x), y_px=float(y), radius_px=radius_px, angle_rad=float(angle))
        for (x, y), angle in zip(centres, angles, strict=True)
    ]


def _wobbling(pose: Pose, age_s: float) -> Pose:
    """Shake a target for a moment after its hit: the event can be seen."""
    if age_s >= _WOBBLE_S:
        return pose
    swing = 0.25 * (1 - age_s / _WOBBLE_S) * np.sin(25 * age_s)
    return replace(pose, angle_rad=pose.angle_rad + float(swing))
