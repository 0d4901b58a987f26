# SPDX-License-Identifier: Apache-2.0
"""Pairs of named objects go behind a screen and come out again; which is next is the question.

In some scenes the first one in is the first one out, in others the last one in: the round before
tells. Both are hidden when it matters, so that no motion can be seen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from foreseg_simulation.foresight import ForesightFrame, FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import NamedSprite, named_targets, screen_sprite
from foreseg_simulation.telling import NS_PER_S, evidence, first_stamp_from
from foreseg_simulation.textures import U8Array

from .acting import Actor, play
from .sprites import Pose, Sprite
from .stage import corners_of, make_floor, ring_layout

EMERGE_QUESTION = "Which object will come out from behind the screen next?"

_SCREEN_HALF = np.array([0.25, 0.13])  # of the view's shorter side
_SLOT_SHARE = 0.13  # likewise, from the middle
_RADIUS_SHARE = 0.085
_SEEN_PX = 1.0  # beyond the screen's edge: a pixel shows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Move:
    """An object's way from its home behind the screen, or back."""

    number: int  # place among the objects
    start_s: float
    end_s: float
    start: np.ndarray  # (2,) pixels
    end: np.ndarray
    seen_s: float  # when it vanishes or emerges

    def place_at(self, time_s: float) -> np.ndarray:
        """Centre (2,) of the object."""
        share = np.clip((time_s - self.start_s) / (self.end_s - self.start_s), 0, 1)
        return np.asarray(self.start + share * (self.end - self.start))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Round:
    """Two objects went in, one after the other, and come out."""

    ins: tuple[_Move, _Move]
    outs: tuple[_Move, _Move]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Wait:
    """From one emergence to the next."""

    end_s: float
    round: _Round
    before: _Round | None
    is_second: bool
    is_queue: bool
    objects: Sequence[NamedSprite]
    homes: Sequence[Pose]
    screen: tuple[int, Sprite, Pose]
    rate_hz: float

    def actors(self, time_s: float) -> list[Actor]:
        """All objects, the screen on top."""
        places = {i: np.array([home.x_px, home.y_px]) for i, home in enumerate(self.homes)}
        earlier = () if self.before is None else self.before.outs
        for move in (*earlier, *self.round.ins, *self.round.outs):
            if time_s >= move.start_s:
                places[move.number] = move.place_at(time_s)
        actors: list[Actor] = [
            (i + 1, self.objects[i].sprite, _moved(self.homes[i], place))
            for i, place in places.items()
        ]
        return [*actors, self.screen]

    def truths(self, stamp_ns: int) -> tuple[FutureTruth, ...]:
        """What comes out next."""
        time_s = stamp_ns / NS_PER_S
        steps, told_s = self._reasons(time_s)
        stamps = [first_stamp_from(told, self.rate_hz) for told in told_s]
        truth = FutureTruth(
            question=EMERGE_QUESTION,
            target_id=self.round.outs[self.is_second].number + 1,
            event_ns=round(self.end_s * NS_PER_S),
            topic=Topic.EMERGE,
            skill=Skill.OCCLUSION,
            extrapolated_id=self._extrapolated(time_s),
            steps=steps,
            evidence_ns=evidence(stamps, stamp_ns) if steps else (),
        )
        return (truth,)

    def _extrapolated(self, time_s: float) -> int | None:
        """Who would come out if everything went on: who moves behind the screen, or towards it."""
        going = [move for move in self.round.ins if move.start_s <= time_s < move.end_s]
        coming = [move for move in self.round.outs if move.start_s <= time_s < move.seen_s]
        moving = [*coming, *going]
        return moving[0].number + 1 if moving else None

    def _reasons(self, time_s: float) -> tuple[tuple[str, ...], tuple[float, ...]]:
        """Steps, and the times that show them; none while the answer cannot be known."""
        first, second = (self.objects[move.number].name for move in self.round.ins)
        target = self.objects[self.round.outs[self.is_second].number].name
        end = f"So the {target} will come out next."
        ins_s = tuple(move.start_s for move in self.round.ins)
        if self.is_second:
            came = self.objects[self.round.outs[0].number].name
            steps = (
                f"The {first} went behind the screen, then the {second}.",
                f"The {came} has come out again since.",
                f"Only the {target} is still hidden there.",
                end,
            )
            return steps, (*ins_s, self.round.outs[0].seen_s)
        if self.before is None or time_s < self.round.ins[1].start_s:
            return (), ()
        old = [self.objects[move.number].name for move in self.before.ins]
        out = self.objects[self.before.outs[0].number].name
        rule = "first" if self.is_queue else "last"
        verb = "is going there" if time_s < self.round.ins[1].seen_s else "went there"
        steps = (
            f"Before, the {old[0]} went behind the screen, and then the {old[1]}.",
            f"The {out} was the first to come out: the {rule} one in is the first one out.",
            f"Now the {first} went behind the screen, and after it the {second} {verb}.",
            end,
        )
        seen_s = (*(move.start_s for move in self.before.ins), self.before.outs[0].seen_s)
        return steps, (*seen_s, *ins_s)


class EmergeScene:
    """Named objects around a screen, and an endless plan of rounds."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 41])
        side = min(config.size_wh)
        self._floor: U8Array = make_floor(rng, config.size_wh)
        self._objects = named_targets(rng, config.num_targets)
        radius = _RADIUS_SHARE * side
        centres = ring_layout(rng, config.size_wh, config.num_targets, radius)
        self._homes = [
            Pose(x_px=float(x), y_px=float(y), radius_px=radius, angle_rad=float(angle))
            for (x, y), angle in zip(centres, rng.uniform(-0.4, 0.4, len(centres)), strict=True)
        ]
        self._middle = np.array(config.size_wh) / 2
        half = _SCREEN_HALF * side
        pose = Pose(
            x_px=float(self._middle[0]),
            y_px=float(self._middle[1]),
            radius_px=float(half[1] * np.sqrt(2)),
            stretch=float(half[0] / half[1]),
        )
        self._half = half
        self._screen = (config.num_targets + 1, screen_sprite(rng), pose)
        self._is_queue = bool(rng.random() < 0.5)

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        named = {i: o.name for i, o in enumerate(self._objects, start=1)}
        return MappingProxyType({**named, self._screen[0]: "screen"})

    @property
    def questions(self) -> tuple[str, ...]:
        """The one question of this scene."""
        return (EMERGE_QUESTION,)

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call."""
        return play(self._floor, self._waits(), self._config.rate_hz)

    def _waits(self) -> Iterator[_Wait]:
        rng = np.random.default_rng([self._seed, 42])
        before: _Round | None = None
        start_s = 0.0
        while True:
            now = self._round(rng, start_s, before)
            for is_second in (False, True):
                yield _Wait(
                    end_s=now.outs[is_second].seen_s,
                    round=now,
                    before=before,
                    is_second=is_second,
                    is_queue=self._is_queue,
                    objects=self._objects,
                    homes=self._homes,
                    screen=self._screen,
                    rate_hz=self._config.rate_hz,
                )
            before, start_s = now, now.outs[1].end_s

    def _round(self, rng: np.random.Generator, start_s: float, before: _Round | None) -> _Round:
        """Plan a round; each move takes half a leg, and the pairs wait for a leg in between."""
        leg_s = float(rng.uniform(*self._config.leg_s))
        pair = [int(i) for i in rng.permutation(len(self._homes))[:2]]
        while before is not None and pair == [move.number for move in before.ins]:
            pair = [int(i) for i in rng.permutation(len(self._homes))[:2]]
        slots = {
            number: self._middle + np.array([sign * _SLOT_SHARE * min(self._config.size_wh), 0])
            for number, sign in zip(pair, (-1, 1), strict=True)
        }
        ins = [
            self._move(number, slots[number], start_s + k * 0.6 * leg_s, 0.5 * leg_s, is_in=True)
            for k, number in enumerate(pair)
        ]
        order = pair if self._is_queue else pair[::-1]
        begin_s = start_s + 1.7 * leg_s
        outs = [
            self._move(number, slots[number], begin_s + k * leg_s, 0.5 * leg_s, is_in=False)
            for k, number in enumerate(order)
        ]
        return _Round(ins=(ins[0], ins[1]), outs=(outs[0], outs[1]))

    def _move(
        self, number: int, slot: np.ndarray, start_s: float, duration_s: float, *, is_in: bool
    ) -> _Move:
        home = np.array([self._homes[number].x_px, self._homes[number].y_px])
        hidden = self._hidden_share(number, slot, home)
        share = 1 - hidden if is_in else hidden
        return _Move(
            number=number,
            start_s=start_s,
            end_s=start_s + duration_s,
            start=home if is_in else slot,
            end=slot if is_in else home,
            seen_s=start_s + share * duration_s,
        )

    def _hidden_share(self, number: int, slot: np.ndarray, home: np.ndarray) -> float:
        """Share of the way from a slot home that an object is hidden on."""
        for share in np.linspace(0, 1, 400):
            pose = _moved(self._homes[number], slot + share * (home - slot))
            corners = corners_of(self._objects[number].sprite, pose) - self._middle
            if np.any(np.abs(corners) > self._half + _SEEN_PX):
                return float(share)
        return 1.0


def _moved(pose: Pose, place: np.ndarray) -> Pose:
    return replace(pose, x_px=float(place[0]), y_px=float(place[1]))
