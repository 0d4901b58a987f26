# SPDX-License-Identifier: Apache-2.0
"""A ball rolls between cushions and things; which it hits next is the question.

At each hit an unseen kick sends the ball on. Its way is simulated ahead, so that rebounds and
what happens behind the screen are known. With a habit it visits the things in one repeated
order, and rests after a hit as soon as the order has been seen once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foreseg_simulation.foresight import FutureTruth, SceneConfig, Skill, StuckSceneError, Topic
from foreseg_simulation.shapes.stage import ring_layout

from .futures import (
    HIT_QUESTION,
    LEAVE_QUESTION,
    Footprint,
    disc,
    evidence,
    first_leaver,
    first_touched,
    listed,
    nothing_truth,
    round_to,
    way_in_words,
)
from .scene import Moment
from .stage import F64Array, Stage, aim_camera, body, geom, set_stage
from .things import THING_RADIUS, draw_things, thing
from .world import Shot, World

BALL_ID = 1

_RADIUS = 0.045
_HALF = np.array([0.6, 0.43])  # of the field, metres
_SCREEN_HALF = 0.13
_SCREEN_TOP = 0.15
_TURNS_SHARE = 0.85  # of the legs that should turn on their way, late
_LATE_SHARE = 0.5
_MANY_KICKS = 150
_FREE_KICKS = 30 * _MANY_KICKS  # after which the first round may go another way
_MOST_KICKS = 40 * _MANY_KICKS
_TURN = 0.03  # metres per second within one step: a rebound
_FREE_S = 0.6  # after a hit, when the thing may still touch the ball
_REST_SHARE = 0.5
_ANKLE = (
    '<joint type="slide" axis="1 0 0" stiffness="5" damping="1"/>'
    '<joint type="slide" axis="0 1 0" stiffness="5" damping="1"/>'
)
_CUSHION = 'friction=".05" priority="1" solref="-9000 -4" solimp=".99 .99 .001"'


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Leg:
    """From one hit to the next.

    Attributes:
        shots: its frames.
        end_ns: when the ball touches the target.
        target_id: what it touches.
        rest_s: how long the ball rests first.
        turns_s: when the ball touches a cushion or the screen.
        order: in which a ball with a habit visits things, as far as it is known by then.
    """

    shots: list[Shot]
    start_s: float
    end_ns: int
    target_id: int
    rest_s: float
    turns_s: tuple[float, ...]
    order: tuple[int, ...] = ()


class RollPlot:
    """The field, and the endless way of the ball."""

    def __init__(self, seed: int, config: SceneConfig, *, has_habit: bool) -> None:
        self._seed, self._config, self._has_habit = seed, config, has_habit
        rng = np.random.default_rng([seed, 31])
        kinds = draw_things(rng, config.num_targets)
        self._homes = _lay_out(rng, len(kinds))
        self._screen = _free_place(rng, self._homes)
        self._order = [int(i) for i in rng.permutation(len(kinds)) + BALL_ID + 1]
        self._names = {BALL_ID: "ball"}
        self._names |= {i: " ".join(pair) for i, pair in enumerate(kinds, start=BALL_ID + 1)}
        camera = aim_camera(rng, config.size_wh, reach=(_HALF[0] + 0.03, _HALF[1] + 0.03, 0.06))
        things = [
            body(f"o{i}", (*home, 0.001), _ANKLE + thing(kind, paint), turn=rng.uniform(0, 6.28))
            for i, home, (paint, kind) in zip(
                range(BALL_ID + 1, BALL_ID + 1 + len(kinds)), self._homes, kinds, strict=True
            )
        ]
        ball = geom("sphere", (_RADIUS,), paint="white", more='mass=".1" friction=".3"')
        ball += geom(
            "cylinder",
            (_RADIUS * 1.01, 0.004),
            paint="dark",
            more='mass="0" contype="0" conaffinity="0"',
        )
        bodies = [*_fence(), self._screen_text(), *things]
        bodies.append(body("o1", (0, 0, _RADIUS), '<freejoint name="ball"/>' + ball))
        self._stage = set_stage(rng, camera, self._names, bodies)

    @property
    def stage(self) -> Stage:
        """Where it happens."""
        return self._stage

    @property
    def questions(self) -> tuple[str, ...]:
        """What its truths answer."""
        return (HIT_QUESTION, LEAVE_QUESTION)

    def moments(self, world: World) -> Iterator[Moment]:
        """Yield every frame's moment."""
        rows = {i: world.body(f"o{i}") for i in self._names}
        rounds: list[int] = []  # stamps of the latest hits, as many as there are things
        for leg in self._legs(world):
            for i, shot in enumerate(leg.shots):
                hit = self._hit_truth(leg, i, rows, rounds)
                moving = disc(shot, rows[BALL_ID], BALL_ID, _RADIUS)
                stays = nothing_truth(
                    LEAVE_QUESTION,
                    Topic.LEAVE,
                    shot,
                    event_ns=leg.end_ns,
                    extrapolated_id=first_leaver(world.camera, [moving]),
                    why="The cushions around the field send the ball back.",
                )
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=(hit, stays))
            rounds = [*rounds, leg.shots[-1].stamp_ns][-len(self._homes) :]

    def _hit_truth(
        self, leg: _Leg, i: int, rows: dict[int, int], rounds: list[int]
    ) -> FutureTruth:
        shot = leg.shots[i]
        time_s = shot.stamp_ns / 1e9
        ball = disc(shot, rows[BALL_ID], BALL_ID, _RADIUS)
        things = [disc(shot, row, k, 0.75 * THING_RADIUS) for k, row in rows.items() if k > 1]
        rests = time_s < leg.start_s + leg.rest_s
        turns = [t for t in leg.turns_s if t > time_s]
        name = self._names[leg.target_id]
        hidden = self._is_hidden(ball)
        if rests:
            skill, steps = Skill.HABIT, self._habit_steps(leg)
        else:
            skill = Skill.OCCLUSION if hidden else Skill.REBOUND if turns else Skill.MOTION
            way = way_in_words(self._stage.camera, ball.start, ball.velocity)
            times = {1: "once", 2: "twice"}.get(len(turns), f"{len(turns)} times")
            steps = (
                f"The ball was kicked and {way}.",
                "The screen hides it now, but it goes on behind it."
                if hidden
                else "It can be seen, and nothing but cushions and things can turn it.",
                f"It will bounce off a cushion or the screen {times} before it gets there."
                if turns
                else "No cushion lies on the rest of its way.",
                f"The first thing on that way is the {name}.",
            )
        seen = evidence(leg.shots, i, 0, i // 2)
        return FutureTruth(
            question=HIT_QUESTION,
            target_id=leg.target_id,
            event_ns=leg.end_ns,
            topic=Topic.HIT,
            skill=skill,
            extrapolated_id=first_touched(ball, things),
            steps=steps,
            evidence_ns=(*rounds, *seen) if rests else seen,
        )

    def _habit_steps(self, leg: _Leg) -> tuple[str, ...]:
        order = [self._names[k] for k in round_to(leg.target_id, leg.order)]
        return (
            f"So far the ball has visited {listed(order)}, in this order.",
            f"It has just hit the {order[-1]} and lies still.",
            f"After the {order[-1]} comes the {order[0]}.",
        )

    def _legs(self, world: World) -> Iterator[_Leg]:
        rng = np.random.default_rng([self._seed, 32])
        previous: int | None = None
        order, count = list(self._order), 0
        while True:
            wanted = [order[count % len(order)]] if self._has_habit else []
            others = order[count + 1 :] if self._has_habit else []  # of the first round
            rests = self._has_habit and count >= len(order)
            leg = self._leg(rng, world, previous, wanted, others, rests=rests)
            if others:
                at = order.index(leg.target_id)
                order[count], order[at] = order[at], order[count]
            yield replace(leg, order=tuple(order))
            previous, count = leg.target_id, count + 1

    def _leg(
        self,
        rng: np.random.Generator,
        world: World,
        previous: int | None,
        wanted: Sequence[int],
        others: Sequence[int],
        *,
        rests: bool,
    ) -> _Leg:
        """Kick the ball in one way after another until one leads to a thing in good time.

        Args:
            rng: of the kicks.
            world: at the last hit.
            previous: what was hit then.
            wanted: what is to be hit; none: anything.
            others: what may be hit in its place if it is out of reach, as behind the screen.
            rests: whether the ball lies still at first.

        Raises:
            StuckSceneError: nothing wanted can be reached.
        """
        start_s = world.time_s
        low, high = self._config.leg_s
        rest_s = _REST_SHARE * low if rests else 0.0
        waiting = world.run(start_s + rest_s, lambda _: _kick(world, np.zeros(2)))
        saved = world.save()
        likes_turns = not self._has_habit and rng.random() < _TURNS_SHARE
        for attempt in range(_MOST_KICKS):
            world.restore(saved)
            if attempt == _FREE_KICKS and others:
                wanted = [*wanted, *others]
            to = wanted[0] if len(wanted) == 1 else None
            _kick(world, self._draw_kick(rng, world, to, previous, high - rest_s))
            patience = 1 + 0.25 * (attempt // _MANY_KICKS)  # ends in every layout
            shots, hit, turns = _roll(world, previous, start_s + patience * high)
            if hit is None or world.time_s - start_s < low or (wanted and hit not in wanted):
                continue
            if likes_turns and attempt < _MANY_KICKS:
                late_s = start_s + _LATE_SHARE * (world.time_s - start_s)
                if not turns or turns[-1] < late_s:
                    continue
            return _Leg(
                shots=waiting + shots,
                start_s=start_s,
                end_ns=world.time_ns,
                target_id=hit,
                rest_s=rest_s,
                turns_s=turns,
            )
        things = " or ".join(self._names[i] for i in wanted) or "thing"
        msg = f"the ball of a tabletop scene (seed {self._seed}) reaches no {things} in {_MOST_KICKS} kicks: draw another seed"
        raise StuckSceneError(msg)

    def _draw_kick(
        self,
        rng: np.random.Generator,
        world: World,
        wanted: int | None,
        previous: int | None,
        time_s: float,
    ) -> F64Array:
        """Draw a velocity (2,): towards what is wanted, or anywhere but into what it touches."""
        at = world.joint("ball")[0]
        place = world.data.qpos[at : at + 2]
        if wanted is not None and rng.random() < 0.5:
            way = self._homes[wanted - BALL_ID - 1] - place
            return np.asarray(way / time_s * rng.uniform(0.9, 2.5) + rng.normal(0, 0.02, 2))
        angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6)
        velocity = speed * np.array([np.cos(angle), np.sin(angle)])
        is_into = previous and velocity @ (self._homes[previous - BALL_ID - 1] - place) > 0
        return -velocity if is_into else velocity

    def _is_hidden(self, ball: Footprint) -> bool:
        """Whether the sight line from the camera to the ball's middle meets the screen."""
        eye = self._stage.camera.position
        share = (self._screen[1] - eye[1]) / (ball.start[1] - eye[1])
        across, _, up = eye + share * (ball.start - eye)
        return bool(
            0 < share < 1 and abs(across - self._screen[0]) < _SCREEN_HALF and 0 < up < _SCREEN_TOP
        )

    def _screen_text(self) -> str:
        size = (_SCREEN_HALF, 0.006, _SCREEN_TOP / 2)
        place = (*self._screen, _SCREEN_TOP / 2)
        return geom("box", size, place, paint="wood", more=_CUSHION)


def _kick(world: World, velocity: F64Array) -> None:
    """Let the ball roll at a velocity (2,)."""
    spin = np.array([-velocity[1], velocity[0], 0.0]) / _RADIUS
    world.throw("ball", np.array([*velocity, 0.0]), spin)


def _roll(
    world: World, previous: int | None, until_s: float
) -> tuple[list[Shot], int | None, tuple[float, ...]]:
    """Let the ball roll to a thing: frames, the thing, and when the ball turned sharply."""
    start_s = world.time_s
    at = world.joint("ball")[1]
    hits: list[int] = []
    turns: list[float] = []
    before: list[float] = world.data.qvel[at : at + 2].tolist()

    def is_over() -> bool:
        nonlocal before
        now = world.data.qvel[at : at + 2].tolist()
        if math.dist(now, before) > _TURN and (
            not turns or world.time_s > turns[-1] + _FREE_S / 4
        ):
            turns.append(world.time_s)
        before = now
        touched = world.touching(BALL_ID) - {0}
        hits.extend(k for k in touched if k != previous or world.time_s > start_s + _FREE_S)
        return bool(hits)

    shots = world.run(until_s, done=is_over)
    return shots, hits[0] if hits else None, tuple(turns)


def _lay_out(rng: np.random.Generator, num_things: int) -> F64Array:
    """Places (N, 2) around the field, far enough from the cushions for the ball to pass."""
    size_mm = (int(2000 * _HALF[0]), int(2000 * _HALF[1]))
    return np.asarray(ring_layout(rng, size_mm, num_things, 165.0) / 1000.0 - _HALF)


def _free_place(rng: np.random.Generator, homes: F64Array) -> F64Array:
    """Middle (2,) of the screen: of some, the one farthest from all things and the start."""
    drawn = rng.uniform((-0.3, -0.22), (0.3, 0.03), (24, 2))
    along = np.linspace(-_SCREEN_HALF, _SCREEN_HALF, 9)
    screens = drawn[:, None] + np.stack([along, 0 * along], axis=1)
    points = np.concatenate([homes, np.zeros((1, 2))])
    gaps = np.linalg.norm(screens[:, :, None] - points, axis=-1).min(axis=(1, 2))
    return np.asarray(drawn[np.argmax(gaps)])


def _fence() -> list[str]:
    """Write the cushions around the field."""
    x, y = _HALF + 0.02
    sides = [((0, y), (x, 0.02)), ((0, -y), (x, 0.02)), ((x, 0), (0.02, y)), ((-x, 0), (0.02, y))]
    return [
        geom("box", (*half, 0.03), (*place, 0.03), paint="dark", more=_CUSHION)
        for place, half in sides
    ]
