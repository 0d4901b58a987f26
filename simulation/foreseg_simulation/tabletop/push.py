# SPDX-License-Identifier: Apache-2.0
"""A pusher turns a lever, and the lever pushes a thing; which is pushed next is the question.

The pusher's own way often leads to another thing than the one that the far arm reaches first.
Sometimes it pushes a thing without the lever. Everything springs back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import FutureTruth, SceneConfig, Skill, Topic

from .futures import (
    PUSH_QUESTION,
    disc,
    evidence,
    first_touched,
    nothing_truth,
    way_in_words,
)
from .scene import Moment
from .stage import F64Array, Stage, aim_camera, body, geom, set_stage
from .things import THING_RADIUS, draw_things, thing
from .world import Shot, World

PUSHER_ID = 1

_ARM = 0.28  # of the lever, metres
_THING_X = 0.22
_INNER_X = 0.12  # where the pusher meets the lever and no thing
_START_Y = 0.36
_LEVER_WAY = 0.4  # of the pusher until something is pushed, about
_DIRECT_WAY = 0.13
_LONGEST_WAY = 0.56
_NEAR, _FAR = (0.02, 0.045), (0.1, 0.125)  # from the lever to a thing
_DIRECT_SHARE = 0.2  # of the pushes
_RADIUS = 0.02  # of the pusher
_HIGH = 0.25
_FOLLOW = 0.018  # how far the pusher goes on after it pushed
_SPRINGS = (
    '<joint type="slide" axis="1 0 0" stiffness="5" damping="1.2"/>'
    '<joint type="slide" axis="0 1 0" stiffness="5" damping="1.2"/>'
)
_CORNERS = ((-1, -1), (1, 1), (-1, 1), (1, -1))  # side in x and y; two diagonals


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Push:
    """One straight way of the pusher.

    Attributes:
        x: across.
        way: +1 to go away from the camera, -1 to come.
        speed: metres per second.
    """

    x: float
    way: float
    speed: float

    @property
    def has_lever(self) -> bool:
        """Whether the lever lies on the way."""
        return abs(self.x) < _THING_X

    @property
    def start(self) -> F64Array:
        """Where it begins."""
        return np.array([self.x, -self.way * _START_Y, 0.0])


class PushPlot:
    """A lever among things, and an endless plan of pushes."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 71])
        kinds = draw_things(rng, config.num_targets)
        self._names = {PUSHER_ID: "pusher"}
        self._names |= {i: " ".join(pair) for i, pair in enumerate(kinds, start=2)}
        is_near = [bool(side) for side in rng.integers(0, 2, 2)]
        corners = [_CORNERS[i] for i in rng.permutation(len(_CORNERS))]
        self._corners = {i + 2: corner for i, corner in enumerate(corners[: len(kinds)])}
        bodies = [*_lever(), _pusher()]
        for i, (colour, kind) in enumerate(kinds, start=2):
            at = np.array([0.0, 0.3, 0.001])
            if i in self._corners:
                x, y = self._corners[i]
                diagonal = int(x != y)
                gap = rng.uniform(*(_NEAR if (y > 0) == is_near[diagonal] else _FAR))
                at = np.array([x * _THING_X, y * (0.75 * THING_RADIUS + gap), 0.001])
            bodies.append(body(f"o{i}", at, _SPRINGS + thing(kind, colour)))
        camera = aim_camera(rng, config.size_wh, reach=(0.4, 0.38, 0.1))
        self._stage = set_stage(rng, camera, self._names, bodies)

    @property
    def stage(self) -> Stage:
        """Where it happens."""
        return self._stage

    @property
    def questions(self) -> tuple[str, ...]:
        """What its truths answer."""
        return (PUSH_QUESTION,)

    def moments(self, world: World) -> Iterator[Moment]:
        """Yield every frame's moment."""
        rng = np.random.default_rng([self._seed, 72])
        push = self._plan(rng)
        while True:
            shots, target = self._perform(world, push)
            for i, shot in enumerate(shots):
                truth = self._truth(world, push, shots, i, target)
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=(truth,))
            following = self._plan(rng)
            lasts_s = float(rng.uniform(*self._config.leg_s))
            for shot in _withdraw(world, push, following.start, lasts_s):
                truth = nothing_truth(
                    PUSH_QUESTION,
                    Topic.PUSH,
                    shot,
                    event_ns=world.time_ns,
                    extrapolated_id=self._first_touched(world, shot),
                    why="The pusher lifts off and goes over everything to its next place.",
                )
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=(truth,))
            push = following

    def _plan(self, rng: np.random.Generator) -> _Push:
        lasts_s = float(rng.uniform(*self._config.leg_s))
        way = float(rng.choice([-1, 1]))
        beginnings = [x for x, y in self._corners.values() if y == -way]
        if beginnings and rng.random() < _DIRECT_SHARE:
            x = _THING_X * beginnings[rng.integers(len(beginnings))]
            return _Push(x=x, way=way, speed=_DIRECT_WAY / lasts_s)
        return _Push(x=_INNER_X * rng.choice([-1, 1]), way=way, speed=_LEVER_WAY / lasts_s)

    def _perform(self, world: World, push: _Push) -> tuple[list[Shot], int | None]:
        """Push until a thing is touched: frames, and the thing."""
        start_s = world.time_s
        pushed: list[int] = []

        def drive(time_s: float) -> None:
            along = push.way * push.speed * (time_s - start_s)
            world.put("o1", push.start + np.array([0.0, along, 0.0]))

        def is_over() -> bool:
            pushed.extend(k for k in self._names if k != PUSHER_ID and world.touching(k))
            return bool(pushed)

        longest_s = self._config.leg_s[1] * _LONGEST_WAY / _LEVER_WAY
        limit_s = min(_LONGEST_WAY / push.speed, longest_s)
        shots = world.run(start_s + limit_s, drive, is_over)
        return shots, pushed[0] if pushed else None

    def _truth(
        self, world: World, push: _Push, shots: list[Shot], i: int, target: int | None
    ) -> FutureTruth:
        shot = shots[i]
        first = self._first_touched(world, shot)
        side = "left" if push.x < 0 else "right"
        if target is None:
            return nothing_truth(
                PUSH_QUESTION,
                Topic.PUSH,
                shot,
                event_ns=world.time_ns,
                extrapolated_id=first,
                why="The pusher turns the lever, but no thing is within reach of its arms.",
            )
        name = self._names[target]
        pusher = disc(shot, world.body("o1"), PUSHER_ID, _RADIUS)
        words = way_in_words(world.camera, pusher.start, pusher.velocity)
        steps: tuple[str, ...] = (
            f"The pusher is on the {side} and {words}.",
            f"Nothing lies between it and the {name}.",
            f"So the next to be pushed is the {name}.",
        )
        if push.has_lever:
            x, _ = self._corners[target]
            arm = "arm that it presses" if x * push.x > 0 else "other arm, which turns against it,"
            steps = (
                f"The pusher is on the {side} and {words}, towards the lever.",
                "The lever turns about its middle: one arm goes away, the other comes.",
                f"Of all things in their ways, the {arm} meets one first.",
                f"So the next to be pushed is the {name}.",
            )
        return FutureTruth(
            question=PUSH_QUESTION,
            target_id=target,
            event_ns=world.time_ns,
            topic=Topic.PUSH,
            skill=Skill.CHAIN if push.has_lever else Skill.MOTION,
            extrapolated_id=first,
            steps=steps,
            evidence_ns=evidence(shots, i, 0, i // 2),
        )

    def _first_touched(self, world: World, shot: Shot) -> int | None:
        pusher = disc(shot, world.body("o1"), PUSHER_ID, _RADIUS)
        rows = {k: world.body(f"o{k}") for k in self._names if k != PUSHER_ID}
        return first_touched(
            pusher, [disc(shot, row, k, 0.75 * THING_RADIUS) for k, row in rows.items()]
        )


def _withdraw(world: World, push: _Push, goal: F64Array, lasts_s: float) -> list[Shot]:
    """Press on a little, back off, lift, and come down at the next start."""
    start_s, place = world.time_s, world.data.mocap_pos[0].copy()
    on = np.array([0.0, push.way, 0.0])
    high = np.array([0.0, 0.0, _HIGH])
    back = place - 0.08 * on
    places = np.array([place, place + _FOLLOW * on, back, back + high, goal + high, goal])

    def drive(time_s: float) -> None:
        share = (time_s - start_s) / lasts_s
        world.put("o1", _along((0.0, 0.08, 0.2, 0.35, 0.75, 1.0), places, share))

    return world.run(start_s + lasts_s, drive)


def _along(shares: tuple[float, ...], places: F64Array, share: float) -> F64Array:
    return np.array([np.interp(share, shares, places[:, axis]) for axis in range(3)])


def _lever() -> list[str]:
    """Write the lever and its post."""
    ghost = 'contype="0" conaffinity="0" mass="0"'
    hinge = '<joint type="hinge" axis="0 0 1" stiffness=".1" damping=".03"/>'
    bar = geom("box", (_ARM, 0.012, 0.012), (0, 0, 0.045), paint="steel", more='mass=".3"')
    tips = "".join(
        geom("sphere", (0.018,), (x, 0, 0.045), paint="dark", more=ghost) for x in (-_ARM, _ARM)
    )
    post = geom("cylinder", (0.024, 0.03), (0, 0, 0.032), paint="dark", more=ghost)
    return [body("lever", (0, 0, 0), hinge + bar + tips + post)]


def _pusher() -> str:
    """Write the pusher: a rod on a foot."""
    foot = geom("cylinder", (_RADIUS, 0.03), (0, 0, 0.035), paint="white")
    rod = geom("cylinder", (0.01, 0.4), (0, 0, 0.46), paint="dark")
    return body("o1", (0, -1, 0), foot + rod, is_driven=True)
