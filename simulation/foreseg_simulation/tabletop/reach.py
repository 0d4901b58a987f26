# SPDX-License-Identifier: Apache-2.0
"""A gripper takes one tool after another; which it takes next is the question.

Either it has a habit, one order of tools that repeats itself, or a belt brings parts to it and
it takes the tool that fits. It often sets out towards another tool first. The gripper and
what it holds move as planned: no force acts here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import COLOURS

from .futures import (
    PUSH_QUESTION,
    REACH_QUESTION,
    Footprint,
    disc,
    evidence,
    first_touched,
    listed,
    nothing_truth,
    round_to,
    way_in_words,
)
from .scene import Moment
from .stage import STEP_NS, STEP_S, F64Array, Stage, aim_camera, body, geom, set_stage
from .tools import PART_OF_TOOL, PART_PAINTS, TOOL_HALF, USE_OF_TOOL, finger, palm, part, tool
from .world import Drive, Shot, World

GRIPPER_ID = 1

_HOME = np.array([0.0, -0.06, 0.2])
_WORK = np.array([0.0, -0.25, 0.17])  # the gripper above the part
_BELT_Y = -0.25
_BELT_XS = (1.4, 0.0, -0.26, -1.4)  # gone, at work, waiting, to come
_SHOW = np.array([0.0, -0.16, 0.2])
_LIFT = 0.13
_BELT_TOP = 0.008
_SIDES = {"left": -1, "right": 1}
_AWAY = np.array([0.0, 3.0, -1.0])
_OPEN, _CLOSED = 0.034, 0.019  # of a finger from the middle
_GRIP_Z = 0.012
_HALF_WIDTH = 0.02  # of a tool, and of the gripper
# Shares of a turn, which runs from one taking to the next.
_AT_WORK, _WORKED, _AT_HOME_PLACE, _PUT_DOWN, _UP, _SET_OUT, _TURN_ASIDE = (
    0.2,
    0.3,
    0.42,
    0.48,
    0.54,
    0.62,
    0.82,
)
_BELT_MOVES = (0.5, 0.62)
_DECOY_SHARE = 0.6  # of the turns
_GAP_SHARE = 0.15  # of the places on the belt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A place on the belt: the tool that fits its part, None for a gap; which copy of the part."""

    tool: int | None
    copy: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Turn:
    """From one taking to the next.

    Attributes:
        start_s: when the last tool was taken, or none.
        end_s: when the next is.
        held: place among the tools of what it holds at first, None for nothing.
        target: place of what it takes at the end; None for nothing.
        decoy: place of what it sets out to first; None for the target at once.
        is_known: whether the target can be known before the gripper sets out.
    """

    start_s: float
    end_s: float
    held: int | None
    target: int | None
    decoy: int | None
    is_known: bool

    def share(self, time_s: float) -> float:
        """How much of it has passed, 0..1."""
        return (time_s - self.start_s) / (self.end_s - self.start_s)


class ReachPlot:
    """Tools on a table, and an endless plan of takings."""

    def __init__(self, seed: int, config: SceneConfig, *, has_habit: bool) -> None:
        self._seed, self._config, self._has_habit = seed, config, has_habit
        rng = np.random.default_rng([seed, 41])
        kinds = [str(k) for k in rng.permutation(list(PART_OF_TOOL))][: config.num_targets]
        kinds += ["spatula"] * (config.num_targets - len(kinds))
        colours = [str(c) for c in rng.permutation([c for c in COLOURS if c != "white"])]
        if len(kinds) > 3:
            colours[1] = colours[0]
        pairs = [(colours[i], kinds[i]) for i in rng.permutation(len(kinds))]
        self._kinds = [kind for _, kind in pairs]
        self._names = {GRIPPER_ID: "gripper"}
        self._names |= {i: " ".join(pair) for i, pair in enumerate(pairs, start=2)}
        xs = (np.arange(len(pairs)) - (len(pairs) - 1) / 2) * 0.17
        spots = np.stack([xs, np.full(len(pairs), 0.1), np.zeros(len(pairs))], axis=1)
        self._homes = spots + rng.uniform((-0.02, -0.04, 0), (0.02, 0.05, 0), spots.shape)
        self._turns_rad = rng.uniform(-0.3, 0.3, len(pairs))
        self._order = [int(i) for i in rng.permutation(len(pairs))]
        camera = aim_camera(rng, config.size_wh, reach=(0.45, 0.32, 0.12))
        bodies = [
            body(f"o{i + 2}", home, tool(kind, colour), turn=turn, is_driven=True)
            for i, (home, turn, (colour, kind)) in enumerate(
                zip(self._homes, self._turns_rad, pairs, strict=True)
            )
        ]
        bodies.append(body("o1", _HOME, palm(), is_driven=True))
        bodies += [body(f"o1_{side}", _HOME, finger(), is_driven=True) for side in _SIDES]
        if not has_habit:
            bodies += _belt(self._kinds)
        self._stage = set_stage(rng, camera, self._names, bodies, assets=PART_PAINTS)

    @property
    def stage(self) -> Stage:
        """Where it happens."""
        return self._stage

    @property
    def questions(self) -> tuple[str, ...]:
        """What its truths answer."""
        return (REACH_QUESTION, PUSH_QUESTION)

    def moments(self, world: World) -> Iterator[Moment]:
        """Yield every frame's moment."""
        rows = {i: world.body(f"o{i}") for i in self._names}
        rng = np.random.default_rng([self._seed, 42])
        sequence = self._sequence()
        belt = (_Place(tool=None, copy=0), next(sequence), next(sequence))
        turn = self._turn(rng, 0, 0.0, None, belt[1].tool)
        seen: list[int] = []  # stamps of the latest takings, a round of them
        for count in itertools.count(1):
            shots = world.run(turn.end_s, self._drive(world, turn, belt))
            for i, shot in enumerate(shots):
                truths = self._truths(turn, shots, i, rows, seen)
                yield Moment(stamp_ns=shot.stamp_ns, state=shot.state, truths=truths)
            seen = [*seen, shots[-1].stamp_ns][-len(self._homes) :]
            belt = (belt[1], belt[2], next(sequence))
            turn = self._turn(rng, count, turn.end_s, turn.target, belt[1].tool)

    def _sequence(self) -> Iterator[_Place]:
        """Yield what is taken, one after another."""
        if self._has_habit:
            yield from itertools.cycle(_Place(tool=i, copy=0) for i in self._order)
        rng = np.random.default_rng([self._seed, 43])
        fitting = [i for i, kind in enumerate(self._kinds) if kind in PART_OF_TOOL]
        copies = dict.fromkeys(fitting, 0)
        previous: int | None = None
        while True:
            if previous is not None and rng.random() < _GAP_SHARE:
                previous = None
                yield _Place(tool=None, copy=0)
                continue
            choices = [i for i in fitting if i != previous]
            previous = choices[rng.integers(len(choices))]
            copies[previous] = 1 - copies[previous]
            yield _Place(tool=previous, copy=copies[previous])

    def _turn(
        self,
        rng: np.random.Generator,
        count: int,
        start_s: float,
        held: int | None,
        target: int | None,
    ) -> _Turn:
        lasts_s = float(rng.uniform(*self._config.leg_s))
        is_known = not self._has_habit or count >= len(self._order)
        others = [i for i in range(len(self._homes)) if i not in (target, held)]
        has_decoy = is_known and bool(others) and rng.random() < _DECOY_SHARE
        return _Turn(
            start_s=start_s,
            end_s=round((start_s + lasts_s) / STEP_S) * STEP_S,
            held=held,
            target=target,
            decoy=others[rng.integers(len(others))] if has_decoy else None,
            is_known=is_known,
        )

    def _way(self, turn: _Turn) -> tuple[list[float], F64Array]:
        """Plan where the gripper is at which share of a turn."""
        shares, places = [0.0], [_HOME]
        work = _SHOW if self._has_habit else _WORK
        if turn.held is not None:
            low = self._homes[turn.held] + _up(_GRIP_Z)
            high = low + _up(_LIFT)
            shares = [0.0, 0.08, _AT_WORK, _WORKED, _AT_HOME_PLACE, _PUT_DOWN, _UP]
            places = [low, high, work, work - _up(0.04), high, low, high]
        shares, places = [*shares, _SET_OUT], [*places, _HOME]
        if turn.decoy is not None:
            aside = self._homes[turn.decoy] + _up(_LIFT)
            shares.append(_TURN_ASIDE)
            places.append(_HOME + 0.75 * (aside - _HOME))
        if turn.target is None:
            return [*shares, 1.0], np.array([*places, _HOME])
        low = self._homes[turn.target] + _up(_GRIP_Z)
        return [*shares, 0.94, 1.0], np.array([*places, low + _up(_LIFT / 2), low])

    def _drive(self, world: World, turn: _Turn, belt: tuple[_Place, ...]) -> Drive:
        """Make the function that moves everything in one turn."""
        shares, places = self._way(turn)

        def drive(time_s: float) -> None:
            share = turn.share(time_s)
            at = _glide(share, shares, places)
            gap = _OPEN
            if turn.held is not None:
                is_held = share < _PUT_DOWN
                gap = _CLOSED if is_held else _OPEN
                home = self._homes[turn.held]
                world.put(f"o{turn.held + 2}", at - _up(_GRIP_Z) if is_held else home)
            if turn.target is not None and share > 0.97:
                gap = float(np.interp(share, (0.97, 1.0), (_OPEN, _CLOSED)))
            world.put("o1", at)
            for side, sign in _SIDES.items():
                world.put(f"o1_{side}", at + np.array([sign * gap, 0, 0]))
            if not self._has_habit:
                self._move_belt(world, share, belt)

        return drive

    def _move_belt(self, world: World, share: float, belt: tuple[_Place, ...]) -> None:
        moved = float(np.clip((share - _BELT_MOVES[0]) / np.ptp(_BELT_MOVES), 0, 1))
        for i, place in enumerate(belt):
            if place.tool is not None:
                x = np.interp(i - moved, (-1, 0, 1, 2), _BELT_XS)
                world.put(f"part{place.tool}_{place.copy}", np.array([x, _BELT_Y, _BELT_TOP]))

    def _truths(
        self,
        turn: _Turn,
        shots: Sequence[Shot],
        i: int,
        rows: dict[int, int],
        seen: list[int],
    ) -> tuple[FutureTruth, FutureTruth]:
        shot = shots[i]
        share = turn.share(shot.stamp_ns / 1e9)
        hand = disc(shot, rows[GRIPPER_ID], GRIPPER_ID, _HALF_WIDTH)
        touched = first_touched(hand, self._footprints(shot, rows))
        end_ns = round(turn.end_s / STEP_S) * STEP_NS
        out_s = turn.start_s + _SET_OUT * (turn.end_s - turn.start_s)
        out_ns = round(out_s / STEP_S) * STEP_NS
        is_open = not turn.is_known and shot.stamp_ns < out_ns
        if turn.target is None or is_open:
            reach = nothing_truth(
                REACH_QUESTION,
                Topic.REACH,
                shot,
                event_ns=out_ns if is_open else end_ns,
                extrapolated_id=touched,
                why="The gripper is not done with its last turn, and no order is known yet."
                if is_open
                else "The belt has a gap where the next part should be, so no tool fits.",
            )
        else:
            has_set_out = share >= _SET_OUT
            strays = has_set_out and turn.decoy is not None and share < _TURN_ASIDE
            knows = Skill.HABIT if self._has_habit else Skill.AFFORDANCE
            skill = Skill.DECOY if strays else Skill.MOTION if has_set_out else knows
            ahead = evidence(shots, i, 0, i // 2)
            reach = FutureTruth(
                question=REACH_QUESTION,
                target_id=turn.target + 2,
                event_ns=end_ns,
                topic=Topic.REACH,
                skill=skill,
                extrapolated_id=touched,
                steps=self._steps(turn, turn.target, hand, has_set_out=has_set_out, strays=strays),
                evidence_ns=(*seen, *ahead) if self._has_habit and turn.is_known else ahead,
            )
        push = nothing_truth(
            PUSH_QUESTION,
            Topic.PUSH,
            shot,
            event_ns=end_ns,
            extrapolated_id=touched,
            why="The gripper comes from above and lifts what it takes: it pushes nothing.",
        )
        return reach, push

    def _steps(
        self, turn: _Turn, target: int, hand: Footprint, *, has_set_out: bool, strays: bool
    ) -> tuple[str, ...]:
        """Reason from what has been seen to the target."""
        name = self._names[target + 2]
        words = f"The gripper {way_in_words(self._stage.camera, hand.start, hand.velocity)}."
        if not turn.is_known:
            return (
                "Nothing has been repeated so far.",
                words,
                f"It has set out for the {name}.",
            )
        if self._has_habit:
            order = [self._names[k + 2] for k in round_to(target, self._order)]
            last = order[-1]
            known = (
                f"The gripper has taken {listed(order)}, in this order, again and again.",
                f"The last one was the {last}.",
            )
            rule = f"After the {last} comes the {name}."
        else:
            kind = self._kinds[target]
            known = (f"The next part on the belt is a {PART_OF_TOOL[kind]}.", USE_OF_TOOL[kind])
            rule = f"So it takes the {name}."
        if strays and turn.decoy is not None:
            other = self._names[turn.decoy + 2]
            return (*known, f"It sets out towards the {other}, which does not fit.", rule)
        return (*known, words, rule) if has_set_out else (*known, rule)

    def _footprints(self, shot: Shot, rows: dict[int, int]) -> list[Footprint]:
        found = []
        for i, turn_rad in enumerate(self._turns_rad):
            row = rows[i + 2]
            along = TOOL_HALF * np.array([-np.sin(turn_rad), np.cos(turn_rad), 0.0])
            found.append(
                Footprint(
                    instance_id=i + 2,
                    start=shot.places[row] - along,
                    end=shot.places[row] + along,
                    radius=_HALF_WIDTH,
                    velocity=shot.velocities[row],
                )
            )
        return found


def _up(height: float) -> F64Array:
    return np.array([0.0, 0.0, height])


def _glide(share: float, shares: Sequence[float], places: F64Array) -> F64Array:
    """Place (3,) on a way whose stretches begin and end slowly."""
    k = min(int(np.searchsorted(shares, share, side="right")) - 1, len(shares) - 2)
    along = min(1.0, (share - shares[k]) / (shares[k + 1] - shares[k]))
    smooth = along * along * (3 - 2 * along)
    return np.asarray(places[k] + smooth * (places[k + 1] - places[k]))


def _belt(kinds: Sequence[str]) -> list[str]:
    """Write the belt, the place of work, and two parts for each tool that has one."""
    ghost = 'contype="0" conaffinity="0"'
    strip = geom("box", (2.0, 0.07, _BELT_TOP), (0, _BELT_Y, 0), paint="dark", more=ghost)
    marks = [
        geom("box", (0.05, 0.008, 0.02), (0, _BELT_Y + y, 0.02), paint="white", more=ghost)
        for y in (-0.08, 0.08)
    ]
    parts = [
        body(f"part{i}_{copy}", _AWAY, part(PART_OF_TOOL[kind]), is_driven=True)
        for i, kind in enumerate(kinds)
        for copy in range(2)
        if kind in PART_OF_TOOL
    ]
    return [strip, *marks, *parts]
