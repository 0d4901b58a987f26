# SPDX-License-Identifier: Apache-2.0
"""A ball rolls to one named object after another; which it hits next is the question.

Straight routes can be extrapolated. The others cannot: over a cushion the ball turns at the
border first; a habit repeats one order of targets with a rest after each hit, so that while the
ball lies still only memory answers; a lamp shows the colour of the next target; and at times
the ball slows down and stops short. A screen may hide the ball, and two targets may look alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from foreseg_simulation.foresight import ForesightFrame, SceneConfig
from foreseg_simulation.naming import (
    NamedSprite,
    equal_kind_targets,
    named_ball,
    named_targets,
    paint,
    screen_sprite,
    twin_targets,
)
from foreseg_simulation.textures import U8Array

from .figures import ShapeKind
from .hit_plan import Hit, Leg, Route, first_contact, is_clear, over_cushion
from .hit_truths import BALL_ID, FIRST_TARGET_ID, HIT_QUESTION, HitMoment, hit_truths
from .leave_scene import LEAVE_QUESTION
from .sprites import Pose, Sprite
from .stage import corners_of, make_floor, paint_frame, ring_layout

__all__ = ["BALL_ID", "HIT_QUESTION", "HitScene", "Route"]

_REST_S = 2.5
_REST_SHARE = 0.6  # of the shortest leg, at most
_WOBBLE_S = 0.8
_STOP_PROBABILITY = 0.5
_NS_PER_S = 1_000_000_000

Actor = tuple[int, Sprite, Pose]


class HitScene:
    """A ball, named targets around it, and an endless plan of hits."""

    def __init__(
        self,
        seed: int,
        config: SceneConfig,
        *,
        route: Route = Route.STRAIGHT,
        has_screen: bool = False,
        has_twins: bool = False,
    ) -> None:
        self._seed, self._config, self._route = seed, config, route
        rng = np.random.default_rng([seed, 11])
        side = min(config.size_wh)
        self._ball_radius = 0.055 * side
        self._floor: U8Array = make_floor(rng, config.size_wh)
        self._ball = named_ball(rng)
        self._targets = _make_targets(rng, config, route)
        self._poses = _target_poses(rng, config, 0.105 * side)
        self._order = [int(i) for i in rng.permutation(config.num_targets)]
        if has_twins:
            self._targets = twin_targets(rng, [(p.x_px, p.y_px) for p in self._poses])
        self._outlines = MappingProxyType(
            {
                FIRST_TARGET_ID + i: corners_of(target.sprite, pose)
                for i, (target, pose) in enumerate(zip(self._targets, self._poses, strict=True))
            }
        )
        self._names = {BALL_ID: self._ball.name} | {
            i: target.name for i, target in enumerate(self._targets, start=FIRST_TARGET_ID)
        }
        self._extra_id = FIRST_TARGET_ID + config.num_targets
        self._lamps: list[Sprite] = []
        if route is Route.LAMP:
            self._names[self._extra_id] = "lamp"
            colours = [target.name.partition(" ")[0] for target in self._targets]
            self._lamps = [paint(rng, ShapeKind.BALL, colour) for colour in colours]
        self._screen: tuple[Sprite, Pose] | None = None
        if has_screen:
            self._names[self._extra_id] = "screen"
            self._screen = screen_sprite(rng), _screen_pose(rng, config)

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        return MappingProxyType(self._names)

    @property
    def questions(self) -> tuple[str, ...]:
        """What will be hit; and what will leave, which nothing does."""
        return (HIT_QUESTION, LEAVE_QUESTION)

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

    def _frame(self, index: int, stamp_ns: int, leg: Leg) -> ForesightFrame:
        image, instance_ids = paint_frame(self._floor, self._actors(stamp_ns / _NS_PER_S, leg))
        moment = HitMoment(
            stamp_ns=stamp_ns,
            rate_hz=self._config.rate_hz,
            size_wh=self._config.size_wh,
            route=self._route,
            leg=leg,
            names=self._names,
            outlines=self._outlines,
            ball_radius_px=self._ball_radius,
            hidden_s=self._hidden_since(stamp_ns / _NS_PER_S, leg),
        )
        return ForesightFrame(
            index=index,
            stamp_ns=stamp_ns,
            image=image,
            instance_ids=instance_ids,
            truths=hit_truths(moment),
        )

    def _actors(self, time_s: float, leg: Leg) -> list[Actor]:
        actors: list[Actor] = []
        for i, (target, pose) in enumerate(zip(self._targets, self._poses, strict=True)):
            shaken = _wobbling(pose, time_s - leg.start_s) if i == leg.previous else pose
            actors.append((FIRST_TARGET_ID + i, target.sprite, shaken))
        if self._lamps:
            place = 1.4 * self._ball_radius
            lamp = Pose(x_px=place, y_px=place, radius_px=self._ball_radius)
            actors.append((self._extra_id, self._lamps[leg.aim], lamp))
        x, y = leg.ball_at(time_s)
        ball = Pose(
            x_px=float(x), y_px=float(y), radius_px=self._ball_radius, angle_rad=float(x + y) / 20
        )
        actors.append((BALL_ID, self._ball.sprite, ball))
        if self._screen is not None:
            actors.append((self._extra_id, *self._screen))
        return actors

    def _hidden_since(self, time_s: float, leg: Leg) -> float | None:
        """When the ball went behind the screen, if it is there now and was seen on this leg."""
        if self._screen is None:
            return None
        _, pose = self._screen
        half = pose.radius_px / np.sqrt(2) * np.array([pose.stretch, 1.0])
        middle = np.array([pose.x_px, pose.y_px])
        since_s = time_s
        while np.all(np.abs(leg.ball_at(since_s) - middle) <= half - 0.6 * self._ball_radius):
            since_s -= 1 / self._config.rate_hz
            if since_s < leg.roll_s:
                return leg.roll_s
        return None if since_s == time_s else since_s + 1 / self._config.rate_hz

    def _legs(self) -> Iterator[Leg]:
        rng = np.random.default_rng([self._seed, 12])
        place = np.array(self._config.size_wh) / 2 + rng.uniform(-0.06, 0.06, 2) * min(
            self._config.size_wh
        )
        past: deque[Hit] = deque(maxlen=self._config.num_targets + 2)
        start_s, previous, count = 0.0, None, 0
        while True:
            if self._route is Route.HABIT:
                aim = self._order[count % len(self._order)]
            else:
                others = [i for i in range(len(self._targets)) if i != previous]
                if self._route is Route.SHORT:
                    others = self._in_reach(place, others)
                aim = others[rng.integers(len(others))]
            leg = self._leg(rng, start_s, place, aim, previous, tuple(past))
            yield leg
            if leg.target is not None:
                past.append(Hit(target=leg.target, time_s=leg.hit_s))
            place, start_s, previous, count = leg.corners[-1], leg.hit_s, leg.target, count + 1

    def _leg(
        self,
        rng: np.random.Generator,
        start_s: float,
        place: np.ndarray,
        aim: int,
        previous: int | None,
        past: tuple[Hit, ...],
    ) -> Leg:
        way = self._way(rng, place, aim)
        contact = first_contact(
            way[-2], way[-1], self._outlines[FIRST_TARGET_ID + aim], self._ball_radius
        )
        corners = np.concatenate([way[:-1], contact[None]])
        rests = self._route in (Route.HABIT, Route.LAMP) and previous is not None
        rest_s = min(_REST_S, _REST_SHARE * self._config.leg_s[0])
        roll_s = start_s + (rest_s if rests else 0.0)
        duration_s = float(rng.uniform(*self._config.leg_s))
        stops = self._route is Route.SHORT and rng.random() < _STOP_PROBABILITY
        if stops:
            corners[-1] = place + rng.uniform(0.4, 0.6) * (contact - place)
        return Leg(
            start_s=start_s,
            roll_s=roll_s,
            hit_s=roll_s + duration_s,
            corners=corners,
            target=None if stops else aim,
            aim=aim,
            previous=previous,
            past=past,
        )

    def _way(self, rng: np.random.Generator, place: np.ndarray, aim: int) -> np.ndarray:
        """Corners (K, 2) from a place to the middle of a target."""
        pose = self._poses[aim]
        goal = np.array([pose.x_px, pose.y_px])
        if self._route is Route.LAMP:
            return np.array([place, np.array(self._config.size_wh) / 2, goal])
        bounced = None
        if self._route is Route.CUSHION:
            bounced = over_cushion(
                rng,
                place,
                goal,
                aim,
                poses=self._poses,
                ball_radius_px=self._ball_radius,
                size_wh=self._config.size_wh,
            )
        return np.array([place, goal]) if bounced is None else bounced

    def _in_reach(self, place: np.ndarray, targets: list[int]) -> list[int]:
        """Those of the targets that lie behind no other one; all if none does."""
        goals = {i: np.array([self._poses[i].x_px, self._poses[i].y_px]) for i in targets}
        free = [i for i in targets if is_clear(place, goals[i], i, self._poses, self._ball_radius)]
        return free or targets


def _make_targets(
    rng: np.random.Generator, config: SceneConfig, route: Route
) -> list[NamedSprite]:
    if route is Route.LAMP:
        return equal_kind_targets(rng, config.num_targets)
    return named_targets(rng, config.num_targets)


def _target_poses(rng: np.random.Generator, config: SceneConfig, radius_px: float) -> list[Pose]:
    centres = ring_layout(rng, config.size_wh, config.num_targets, radius_px)
    angles = rng.uniform(-0.3, 0.3, config.num_targets)
    return [
        Pose(x_px=float(x), y_px=float(y), radius_px=radius_px, angle_rad=float(angle))
        for (x, y), angle in zip(centres, angles, strict=True)
    ]


def _screen_pose(rng: np.random.Generator, config: SceneConfig) -> Pose:
    """Near the middle, between the targets."""
    width, height = config.size_wh
    return Pose(
        x_px=width / 2 + float(rng.uniform(-0.05, 0.05)) * width,
        y_px=height / 2 + float(rng.uniform(-0.05, 0.05)) * height,
        radius_px=0.26 * min(config.size_wh),
        stretch=float(rng.uniform(1.0, 1.5)),
    )


def _wobbling(pose: Pose, age_s: float) -> Pose:
    """Shake a target for a moment after its hit: the event can be seen."""
    if age_s >= _WOBBLE_S:
        return pose
    swing = 0.25 * (1 - age_s / _WOBBLE_S) * np.sin(25 * age_s)
    return replace(pose, angle_rad=pose.angle_rad + float(swing))
