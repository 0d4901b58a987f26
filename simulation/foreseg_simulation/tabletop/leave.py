# SPDX-License-Identifier: Apache-2.0
"""Toy vehicles drive off the table's view and come back; which leaves next is the question.

Each has a lane that is open at one end and barred at the other. What drives to a barrier looks
like leaving, sooner even than what does leave, until the barrier stops it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import COLOURS

from .futures import LEAVE_QUESTION, Footprint, evidence, first_leaver, nothing_truth
from .scene import Moment
from .stage import STEP_S, Camera, F64Array, Stage, aim_camera, body, geom, set_stage
from .vehicles import VEHICLE_HALF, VEHICLE_KINDS, vehicle
from .world import Shot, World

_LANE = 0.15  # from one to the next, metres
_BARRIER_X = 0.45
_HALF_SIZE = np.array([VEHICLE_HALF, 0.042, 0.05])
_SLOW_SHARE = 0.65  # of an act in which the leaver is slow
_SLOW_WAY = 0.28  # of its way that it makes meanwhile
_DECOY_LATE = 1.25  # when a decoy would leave if nothing stopped it, in lengths of the act
_DECOY_SHARE = 0.85  # of the acts
_NOTHING_SHARE = 0.2
_BAR_HALF = 0.012
_STOP = -_BARRIER_X + _BAR_HALF + VEHICLE_HALF  # of a vehicle's middle, along its lane
_PRESS = 0.01  # how far behind its stop a decoy aims
_PULL, _BRAKE = 400.0, 40.0  # of the motors, per kilogram


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Act:
    """From one departure to the next. Places lie along each lane, towards its open end.

    Attributes:
        start_s: when it begins.
        end_s: when the leaver should be gone, or the act ends without one.
        ways: per vehicle, where (metres) it means to be at which share of the act.
        leaver: row of what leaves; None if nothing does.
        decoy: row of what drives to its barrier; None if nothing does.
    """

    start_s: float
    end_s: float
    ways: list[tuple[list[float], list[float]]]
    leaver: int | None
    decoy: int | None

    def aims(self, time_s: float) -> F64Array:
        """Where (vehicles,) each means to be."""
        share = (time_s - self.start_s) / (self.end_s - self.start_s)
        return np.array([np.interp(share, shares, places) for shares, places in self.ways])


class LeavePlot:
    """Lanes with vehicles, and an endless plan of departures."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 51])
        num = config.num_targets
        kinds = [str(k) for k in rng.permutation(VEHICLE_KINDS)]
        colours = [str(c) for c in rng.permutation([c for c in COLOURS if c != "white"])]
        if num > 3:
            colours[1] = colours[0]
        pairs = [(colours[i], kinds[i % len(kinds)]) for i in range(num)]
        self._names = {i: " ".join(pair) for i, pair in enumerate(pairs, start=1)}
        self._ys = (np.arange(num) - (num - 1) / 2) * _LANE
        self._open = rng.choice([-1.0, 1.0], num)  # the side of the open end
        self._homes = rng.uniform(-0.12, 0.12, num)  # along the lane, towards the open end
        camera = aim_camera(
            rng, config.size_wh, reach=(_BARRIER_X + 0.02, 0.5 * _LANE * num, 0.08)
        )
        sides = zip(self._ys, self._open, strict=True)
        self._exits = np.array([_exit(camera, y, side) for y, side in sides])
        self._far_exits = np.array(
            [_exit(camera, y, -side) for y, side in zip(self._ys, self._open, strict=True)]
        )
        bodies = []
        for i, (colour, kind) in enumerate(pairs):
            at = (self._open[i] * self._homes[i], self._ys[i], 0.001)
            slide = f'<joint name="lane{i}" type="slide" axis="1 0 0"/>'
            turn = 0.0 if self._open[i] > 0 else np.pi  # it looks to its open end
            bodies.append(body(f"o{i + 1}", at, slide + vehicle(kind, colour), turn=turn))
            bodies += _lane(self._ys[i], -self._open[i] * _BARRIER_X)
        self._stage = set_stage(rng, camera, self._names, bodies)

    @property
    def stage(self) -> Stage:
        """Where it happens."""
        return self._stage

    @property
    def questions(self) -> tuple[str, ...]:
        """What its truths answer."""
        return (LEAVE_QUESTION,)

    def moments(self, world: World) -> Iterator[Moment]:
        """Yield every frame's moment."""
        rng = np.random.default_rng([self._seed, 52])
        gone: int | None = None
        while True:
            act = self._plan(rng, world, gone)
            shots = self._perform(world, act)
            for i, shot in enumerate(shots):
                truth = self._truth(world, act, shots, i)
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=(truth,))
            gone = act.leaver

    def _plan(self, rng: np.random.Generator, world: World, gone: int | None) -> _Act:
        places = self._homes + world.data.qpos
        order = [int(i) for i in rng.permutation(len(places)) if i != gone]
        barred = [i for i in order if places[i] < _STOP + 0.1]
        decoys = [i for i in order if i not in barred] if rng.random() < _DECOY_SHARE else []
        decoy = decoys[0] if decoys else None
        leavers = [i for i in order if i != decoy]
        idles = decoy is not None and rng.random() < _NOTHING_SHARE
        leaver = leavers[0] if leavers and not idles else None
        ways = []
        for i, place in enumerate(places):
            way = ([0.0, 1.0], [place, place])
            if i == leaver:
                slow = place + _SLOW_WAY * (self._exits[i] - place)
                way = ([0.0, _SLOW_SHARE, 1.0], [place, slow, self._exits[i]])
            elif i == decoy:
                arrives = _DECOY_LATE * (place - _STOP) / (place + self._far_exits[i])
                stop = _STOP - _PRESS
                way = ([0.0, min(0.9, arrives), 1.0], [place, stop, stop])
            elif i == gone or i in barred:
                way = ([0.0, 0.25, 0.95, 1.0], [place, place, self._homes[i], self._homes[i]])
            ways.append(way)
        return _Act(
            start_s=world.time_s,
            end_s=world.time_s + float(rng.uniform(*self._config.leg_s)),
            ways=ways,
            leaver=leaver,
            decoy=decoy,
        )

    def _perform(self, world: World, act: _Act) -> list[Shot]:
        """Drive until the leaver cannot be seen any more."""
        data = world.data
        masses = world.model.body_mass[1:]

        def drive(time_s: float) -> None:
            aims = act.aims(time_s) - self._homes
            speeds = (act.aims(time_s + STEP_S) - act.aims(time_s)) / STEP_S
            pulls = _PULL * (aims - data.qpos) + _BRAKE * (speeds - data.qvel)
            data.qfrc_applied[:] = masses * pulls

        late_s = act.start_s + 0.9 * (act.end_s - act.start_s)

        def is_gone() -> bool:
            if act.leaver is None or world.time_s < late_s:
                return False
            return not world.camera.sees(world.corners(act.leaver + 1))

        patience_s = 0.0 if act.leaver is None else 2.0
        return world.run(act.end_s + patience_s, drive, is_gone)

    def _truth(self, world: World, act: _Act, shots: list[Shot], i: int) -> FutureTruth:
        shot = shots[i]
        first = first_leaver(world.camera, self._footprints(world, shot))
        if act.leaver is None:
            other = "" if act.decoy is None else self._names[act.decoy + 1]
            return nothing_truth(
                LEAVE_QUESTION,
                Topic.LEAVE,
                shot,
                event_ns=world.time_ns,
                extrapolated_id=first,
                why=f"The {other} drives to the barrier at the end of its lane and must stop.",
            )
        name = self._names[act.leaver + 1]
        is_fooled = act.decoy is not None and first != act.leaver + 1
        fooling = "Nothing else is nearer to leaving the view."
        if act.decoy is not None:
            fooling = (
                f"The {self._names[act.decoy + 1]} drives towards a barrier, which stops it"
                " inside the view."
            )
        return FutureTruth(
            question=LEAVE_QUESTION,
            target_id=act.leaver + 1,
            event_ns=world.time_ns,
            topic=Topic.LEAVE,
            skill=Skill.DECOY if is_fooled else Skill.MOTION,
            extrapolated_id=first,
            steps=(
                "Every lane has a barrier at one end and is open at the other.",
                fooling,
                f"The {name} drives towards the open end of its lane.",
                f"So the first to leave is the {name}.",
            ),
            evidence_ns=evidence(shots, i, 0, i // 2),
        )

    def _footprints(self, world: World, shot: Shot) -> list[Footprint]:
        half = np.array([VEHICLE_HALF, 0.0, 0.0])
        rows = {k: world.body(f"o{k}") for k in self._names}
        return [
            Footprint(
                instance_id=k,
                start=shot.places[row] - half,
                end=shot.places[row] + half,
                radius=_HALF_SIZE[1],
                velocity=shot.velocities[row],
            )
            for k, row in rows.items()
        ]


def _exit(camera: Camera, y: float, side: float) -> float:
    """Find how far a vehicle must drive along its lane until nothing of it is in view."""
    signs = np.array([(i, j, k) for i in (-1, 1) for j in (-1, 1) for k in (0, 2)])
    for place in np.arange(0.3, 3.0, 0.01):
        corners = np.array([side * place, y, 0.0]) + signs * _HALF_SIZE
        if not camera.sees(corners, margin_px=1.0):
            return float(place)
    msg = f"a lane at y = {y:.2f} m never leaves the view"
    raise ValueError(msg)


def _lane(y: float, barrier_x: float) -> list[str]:
    """Write a strip of road and its barrier."""
    ghost = 'contype="0" conaffinity="0"'
    return [
        geom("box", (3.0, 0.45 * _LANE, 0.001), (0, y, 0), paint="dark", more=ghost),
        geom("box", (_BAR_HALF, 0.35 * _LANE, 0.03), (barrier_x, y, 0.03), paint="wood"),
    ]
