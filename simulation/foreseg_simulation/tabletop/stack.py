# SPDX-License-Identifier: Apache-2.0
"""Blocks lie on two pillars each; one pillar is drawn away, and some fall; which is the question.

A block whose weight lies over the pillar that stays does not fall, though its other pillar may
be away first. Physics decides; then the pillars return, and a gripper puts back what fell
and shifts what stands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import COLOURS

from .futures import FALL_QUESTION, evidence, listed, nothing_truth
from .scene import Moment
from .stage import F64Array, Stage, aim_camera, body, geom, set_stage
from .tools import finger, palm
from .world import Shot, World

GRIPPER_ID = 1

_PILLAR = np.array([0.025, 0.03, 0.06])  # half sizes
_PILLAR_X = 0.04  # from a tower's middle; the one at -x stays
_BLOCK = np.array([0.085, 0.032, 0.018])
_REST_Z = 2 * _PILLAR[2] + _BLOCK[2]
_FALLEN_Z = _REST_Z - 0.04
_WEIGHT_X = 0.06
_BLOCK_KG, _WEIGHT_KG = 0.2, 0.3
# Where the middle of a block lies so that it stays or falls, by the side of its weight.
_STAYS = {-1: 0.0, 0: -0.04, 1: -0.065}
_FALLS = {-1: 0.045, 0: 0.015, 1: -0.03}
_FREE_WAY = float(_PILLAR[1] + _BLOCK[1])  # of a pillar until it bears nothing
_FALLS_SHARE = 0.5
_NOTHING_SHARE = 0.15
_HOME = np.array([0.0, 0.1, 0.42])
_LIFT_Z = 0.34
_OPEN, _CLOSED = 0.05, 0.04  # of a finger from the middle
_SIDES = {"left": -1, "right": 1}
_ACROSS = np.array([np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)])  # turned by 90 degrees
_REST = np.array([*_HOME, 1.0, 0.0, 0.0, 0.0])
_SHIFTED = 0.02  # metres that are worth a job of the gripper
_GAP = 0.0003  # between what rests and what moves under it
_SINKS = 0.01  # metres per second downwards
_SETTLE_S = 0.8
# Shares of one job of building up.
_TAKES, _OVER, _LETS_GO = 0.12, (0.35, 0.58), 0.82
_RETURNS = (0.3, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Pull:
    """Pillars are drawn away until something falls.

    Attributes:
        speeds: (towers,) of the pillars, metres per second.
        start_s: when they begin to move.
        end_s: when the pull ends at the latest.
    """

    speeds: F64Array
    start_s: float
    end_s: float


class StackPlot:
    """Towers, and an endless plan of pulling and building."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 61])
        num = config.num_targets
        colours = [str(c) for c in rng.permutation([c for c in COLOURS if c != "white"])]
        self._names = {GRIPPER_ID: "gripper"}
        self._names |= {i + 2: f"{colour} block" for i, colour in enumerate(colours[:num])}
        self._spots = _spots(num) + rng.uniform(-0.02, 0.02, (num, 2))
        self._mirror = rng.choice([-1.0, 1.0], num)
        self._weights = [int(w) for w in rng.integers(-1, 2, num)]
        self._first_falls = np.array([i % 2 == 0 for i in rng.permutation(num)])
        reach = np.abs(self._spots).max(axis=0) + 0.12
        camera = aim_camera(
            rng, config.size_wh, reach=(*reach, 0.16), elevation_deg=(32, 45), azimuth_deg=12
        )
        bodies = []
        for i, colour in enumerate(colours[:num]):
            bodies += self._tower(i, colour, falls=bool(self._first_falls[i]))
        bodies.append(body("o1", _HOME, palm(), is_driven=True))
        bodies += [body(f"o1_{side}", _HOME, finger(), is_driven=True) for side in _SIDES]
        self._stage = set_stage(rng, camera, self._names, bodies)

    @property
    def stage(self) -> Stage:
        """Where it happens."""
        return self._stage

    @property
    def questions(self) -> tuple[str, ...]:
        """What its truths answer."""
        return (FALL_QUESTION,)

    def moments(self, world: World) -> Iterator[Moment]:
        """Yield every frame's moment."""
        rng = np.random.default_rng([self._seed, 62])
        falls = self._first_falls.copy()
        self._show_gripper(world, 0.0, _REST, _REST)
        while True:
            pull = self._plan(rng, world.time_s, falls)
            shots, fallen = self._pull(world, pull)
            for i, shot in enumerate(shots):
                truth = self._fall_truth(world, pull, shots, i, fallen)
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=(truth,))
            falls = _redrawn(rng, falls, fallen)
            shots = self._build(rng, world, pull, falls)
            for shot in shots:
                truth = nothing_truth(
                    FALL_QUESTION,
                    Topic.FALL,
                    shot,
                    event_ns=world.time_ns,
                    extrapolated_id=self._first_down(world, shot),
                    why="The pillars return and the gripper builds up again: all is supported.",
                )
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=(truth,))

    def _plan(self, rng: np.random.Generator, start_s: float, falls: F64Array) -> _Pull:
        """Choose a tower that falls at the end, and others that lose their pillar before."""
        lasts_s = float(rng.uniform(*self._config.leg_s))
        speeds = np.zeros(len(falls))
        stable = np.flatnonzero(np.logical_not(falls))
        for i in rng.permutation(stable)[: rng.integers(1, len(stable) + 1)]:
            speeds[i] = _FREE_WAY / lasts_s * rng.uniform(1.2, 1.9)
        if rng.random() > _NOTHING_SHARE:
            speeds[rng.choice(np.flatnonzero(falls))] = _FREE_WAY / lasts_s
        return _Pull(speeds=speeds, start_s=start_s, end_s=start_s + 1.1 * lasts_s)

    def _pull(self, world: World, pull: _Pull) -> tuple[list[Shot], int | None]:
        """Draw pillars away: frames, and the tower whose block falls."""
        start_s = world.time_s
        heights = [world.joint(f"block{i}")[0] + 2 for i in range(len(self._spots))]
        fallen: list[int] = []

        def drive(time_s: float) -> None:
            self._move_pillars(world, pull.speeds * (time_s - start_s))

        def is_over() -> bool:
            fallen.extend(np.flatnonzero(world.data.qpos[heights] < _FALLEN_Z).tolist())
            return bool(fallen)

        shots = world.run(pull.end_s, drive, is_over)
        return shots, fallen[0] if fallen else None

    def _build(
        self, rng: np.random.Generator, world: World, pull: _Pull, falls: F64Array
    ) -> list[Shot]:
        """Let things settle, return the pillars, and put every block where it belongs."""
        drawn = pull.speeds * (world.time_s - pull.start_s)
        falling = world.run(world.time_s + _SETTLE_S, lambda _: self._move_pillars(world, drawn))
        start_s = world.time_s
        lasts_s = float(rng.uniform(*self._config.leg_s)) - _SETTLE_S
        joints = [world.joint(f"block{i}") for i in range(len(self._spots))]
        starts = [world.data.qpos[at : at + 7].copy() for at, _ in joints]
        ends = [self._pose(i, falls=bool(falls[i])) for i in range(len(joints))]
        is_down = [bool(start[2] < _FALLEN_Z) for start in starts]
        moved = [bool(abs(s[0] - e[0]) > _SHIFTED) for s, e in zip(starts, ends, strict=True)]
        jobs = [i for i in range(len(joints)) if is_down[i]]
        jobs += [i for i in range(len(joints)) if moved[i] and not is_down[i]]

        def drive(time_s: float) -> None:
            share = (time_s - start_s) / lasts_s * max(1, len(jobs))  # 0..1 for the first job, ...
            self._move_pillars(world, drawn * np.interp(share, _RETURNS, (1, 0)))
            for i, (at, speed) in enumerate(joints):
                own = share - (jobs.index(i) if i in jobs else 0)
                if own < _LETS_GO:
                    pose = _carried(own, starts[i], ends[i], is_lifted=i in jobs)
                    world.data.qpos[at : at + 7] = pose
                    world.data.qvel[speed : speed + 6] = 0.0
            if jobs:
                job = min(int(share), len(jobs) - 1)
                i = jobs[job]
                self._show_gripper(world, share - job, starts[i], ends[i])

        return falling + world.run(start_s + lasts_s, drive)

    def _show_gripper(self, world: World, share: float, start: F64Array, end: F64Array) -> None:
        """Let the gripper fetch, carry and leave a block."""
        lows = [start[:3], _carried(share, start, end, is_lifted=True)[:3], end[:3]]
        near = float(np.interp(share, (0, _TAKES, _LETS_GO, 1), (0, 1, 1, 0)))
        low = lows[1] if _TAKES < share < _LETS_GO else lows[0] if share <= _TAKES else lows[2]
        at = _HOME + near * (low - _HOME)
        gap = _CLOSED if _TAKES < share < _LETS_GO else _OPEN
        world.put("o1", at, _ACROSS)
        for side, sign in _SIDES.items():
            world.put(f"o1_{side}", at + np.array([0.0, sign * gap, 0.0]), _ACROSS)

    def _move_pillars(self, world: World, drawn: F64Array) -> None:
        """Draw the pillars this far out of their towers, metres."""
        for i, way in enumerate(drawn):
            world.put(f"pillar{i}", self._pillar(i, float(way)))

    def _fall_truth(
        self, world: World, pull: _Pull, shots: list[Shot], i: int, fallen: int | None
    ) -> FutureTruth:
        shot = shots[i]
        first = self._first_down(world, shot)
        drawn = [self._names[k + 2] for k in np.flatnonzero(pull.speeds)]
        under = f"Pillars are drawn away from under {listed(drawn)}."
        if fallen is None:
            return nothing_truth(
                FALL_QUESTION,
                Topic.FALL,
                shot,
                event_ns=world.time_ns,
                extrapolated_id=first,
                why=f"{under} The weight of each lies over the pillar that stays.",
            )
        name = self._names[fallen + 2]
        others = [other for other in drawn if other != name]
        stay = "No other pillar moves."
        if others:
            stay = f"The pillar that stays bears the whole weight of {listed(others)}."
        weight = "has no weight on it" if not self._weights[fallen] else "has a weight at one end"
        return FutureTruth(
            question=FALL_QUESTION,
            target_id=fallen + 2,
            event_ns=world.time_ns,
            topic=Topic.FALL,
            skill=Skill.BALANCE,
            extrapolated_id=first,
            steps=(
                under,
                stay,
                f"The {name} {weight}, and its middle of mass lies off the pillar that stays.",
                f"When its other pillar is gone, what falls is the {name}.",
            ),
            evidence_ns=evidence(shots, i, 0, i // 2),
        )

    def _first_down(self, world: World, shot: Shot) -> int | None:
        """Id of the block that would come down first at its velocity, or None."""
        rows = {k: world.body(f"o{k}") for k in self._names if k != GRIPPER_ID}
        falls_s = {
            k: (shot.places[row, 2] - _BLOCK[2]) / -shot.velocities[row, 2]
            for k, row in rows.items()
            if shot.velocities[row, 2] < -_SINKS
            and shot.places[row, 2] > _FALLEN_Z
            and abs(shot.places[row, 2] - _REST_Z) > 2 * _GAP
        }
        return min(falls_s, key=lambda k: falls_s[k]) if falls_s else None

    def _pillar(self, tower: int, drawn: float) -> F64Array:
        """Where the pillar stands that can be drawn away."""
        x, y = self._spots[tower]
        return np.array([x + self._mirror[tower] * _PILLAR_X, y - drawn, _PILLAR[2] - _GAP])

    def _pose(self, tower: int, *, falls: bool) -> F64Array:
        """Place and turn (7,) of a block that stays or falls without its second pillar."""
        x, y = self._spots[tower]
        along = (_FALLS if falls else _STAYS)[self._weights[tower]]
        turn = (1.0, 0.0) if self._mirror[tower] > 0 else (0.0, 1.0)
        at = (x + self._mirror[tower] * along, y, _REST_Z + _GAP)
        return np.array([*at, turn[0], 0.0, 0.0, turn[1]])

    def _tower(self, tower: int, colour: str, *, falls: bool) -> list[str]:
        """Write two pillars and a block."""
        x, y = self._spots[tower]
        slippery = 'friction=".02" priority="1"'
        stays_at = (x - self._mirror[tower] * _PILLAR_X, y, _PILLAR[2])
        block = f'<freejoint name="block{tower}"/>'
        block += geom("box", _BLOCK, paint=colour, more=f'mass="{_BLOCK_KG}" friction="1"')
        if self._weights[tower]:
            at = (self._weights[tower] * _WEIGHT_X, 0, _BLOCK[2] + 0.02)
            block += geom(
                "cylinder", (0.024, 0.02), at, paint="steel", more=f'mass="{_WEIGHT_KG}"'
            )
        pose = self._pose(tower, falls=falls)
        turn = 0.0 if self._mirror[tower] > 0 else np.pi
        moving = geom("box", _PILLAR, paint="wood", more=slippery)
        return [
            geom("box", _PILLAR, stays_at, paint="dark", more='friction="1"'),
            body(f"pillar{tower}", self._pillar(tower, 0.0), moving, is_driven=True),
            body(f"o{tower + 2}", pose[:3], block, turn=turn),
        ]


def _redrawn(rng: np.random.Generator, falls: F64Array, fallen: int | None) -> F64Array:
    """Draw anew how the fallen block and one other lie; some can fall then, and some stay."""
    while True:
        drawn = falls.copy()
        others = [i for i in range(len(falls)) if i != fallen]
        for i in (others[rng.integers(len(others))], fallen):
            if i is not None:
                drawn[i] = rng.random() < _FALLS_SHARE
        if drawn.any() and not drawn.all():
            return drawn


def _carried(share: float, start: F64Array, end: F64Array, *, is_lifted: bool) -> F64Array:
    """Pose (7,) of a block on its way; one that is not lifted is set right in place."""
    over = float(np.interp(share, _OVER, (0, 1)))
    pose = start + over * (end * _same_turn(start, end) - start)
    pose[3:] /= np.linalg.norm(pose[3:])
    if is_lifted:
        pose[2] = np.interp(
            share, (_TAKES, *_OVER, _LETS_GO), (start[2], _LIFT_Z, _LIFT_Z, end[2])
        )
    return pose


def _same_turn(start: F64Array, end: F64Array) -> F64Array:
    """Signs (7,) that make two quaternions lie on one side."""
    return np.array([1.0] * 3 + [1.0 if start[3:] @ end[3:] >= 0 else -1.0] * 4)


def _spots(num_towers: int) -> F64Array:
    """Places (N, 2) of towers, in one row or two."""
    rows = [num_towers] if num_towers < 4 else [(num_towers + 1) // 2, num_towers // 2]
    spots = [
        (0.3 * (i - (count - 1) / 2), 0.0 if len(rows) == 1 else 0.22 - 0.4 * row)
        for row, count in enumerate(rows)
        for i in range(count)
    ]
    return np.array(spots)
