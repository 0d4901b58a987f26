# SPDX-License-Identifier: Apache-2.0
"""The ball hits one named object, which slides on and strikes another: a chain of two.

The ball first rolls to a place from which both lie in one line, and turns there. What the ball
hits can be extrapolated only after the turn; what is struck in the end, only after the hit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import cv2
import numpy as np

from foreseg_simulation.extrapolation import first_touched
from foreseg_simulation.foresight import ForesightFrame, FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import NamedSprite, named_ball, named_targets
from foreseg_simulation.telling import (
    MOTION_S,
    NS_PER_S,
    evidence,
    first_stamp_from,
    heading_words,
)
from foreseg_simulation.textures import F32Array, U8Array

from .acting import Actor, play
from .hit_plan import first_contact, is_clear
from .hit_truths import BALL_ID, FIRST_TARGET_ID, HIT_QUESTION
from .sprites import Pose
from .stage import corners_of, make_floor, ring_layout

KNOCK_QUESTION = "Which object will be struck next by one that the ball pushes?"

_RADIUS_SHARE = 0.08  # of the view's shorter side
_BALL_SHARE = 0.045
_RING_SHARES = {2: 0.55, 3: 0.68}  # of the view: the ball must get behind the objects
_WIDE_RING_SHARE = 0.8  # with more objects
_RUN_SHARES = (0.34, 0.26, 0.18, 0.12)  # of the shorter side: the ball's last straight way
_HOME_LEGS = 0.4  # the pushed object glides home
_ROLL_LEGS = 1.2
_SLIDE_LEGS = 0.6
_TURN_SHARE = 0.5  # of the rolling time that the way to the turn takes
_WOBBLE_S = 0.8
_STEP_PX = 0.5
_TOUCH_PX = 0.6
_WAYPOINTS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Setting:
    """What does not change."""

    names: Mapping[int, str]
    ball: NamedSprite
    ball_radius_px: float
    objects: Sequence[NamedSprite]
    homes: Sequence[Pose]
    size_wh: tuple[int, int]
    rate_hz: float

    def corners(self, number: int, place: np.ndarray) -> F32Array:
        """Outline of an object at a place."""
        return corners_of(self.objects[number].sprite, _moved(self.homes[number], place))

    def home(self, number: int) -> np.ndarray:
        """Centre (2,) of an object at rest."""
        return np.array([self.homes[number].x_px, self.homes[number].y_px])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Chain:
    """The ball's way to the one it hits, and that one's way to the one it strikes."""

    start_s: float
    roll_s: float
    hit_s: float
    knock_s: float
    way: np.ndarray  # (K, 2) of the ball: from its place to the turn
    contact: np.ndarray  # (2,) where the ball hits
    pushed: int
    struck: int
    stop: np.ndarray  # (2,) where the pushed one strikes

    @property
    def turn_s(self) -> float:
        """When the ball turns towards the one that it will hit."""
        return self.roll_s + _TURN_SHARE * (self.hit_s - self.roll_s)

    def ball_at(self, time_s: float) -> np.ndarray:
        """Centre (2,) of the ball."""
        if time_s >= self.turn_s:
            share = min((time_s - self.turn_s) / (self.hit_s - self.turn_s), 1)
            return np.asarray(self.way[-1] + share * (self.contact - self.way[-1]))
        share = np.clip((time_s - self.roll_s) / (self.turn_s - self.roll_s), 0, 1)
        steps = np.linalg.norm(np.diff(self.way, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        return np.array([np.interp(share * along[-1], along, self.way[:, i]) for i in (0, 1)])

    def ball_velocity(self, time_s: float) -> np.ndarray:
        """Velocity (2,) of the ball, pixels per second, over the next thousandth."""
        if not self.roll_s <= time_s < self.hit_s:
            return np.zeros(2)
        return np.asarray((self.ball_at(time_s + 1e-3) - self.ball_at(time_s)) / 1e-3)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Turn:
    """From one strike to the next."""

    setting: _Setting
    before: _Chain | None
    now: _Chain
    after: _Chain

    @property
    def end_s(self) -> float:
        """When the pushed object strikes."""
        return self.now.knock_s

    def places_at(self, time_s: float) -> list[np.ndarray]:
        """Centres (2,) of the objects."""
        setting, now = self.setting, self.now
        places = [setting.home(i) for i in range(len(setting.homes))]
        if self.before is not None and time_s < now.roll_s:
            share = (time_s - now.start_s) / (now.roll_s - now.start_s)
            home = places[self.before.pushed]
            places[self.before.pushed] = self.before.stop + share * (home - self.before.stop)
        if time_s > now.hit_s:
            share = min((time_s - now.hit_s) / (now.knock_s - now.hit_s), 1)
            places[now.pushed] = places[now.pushed] + share * (now.stop - places[now.pushed])
        return places

    def actors(self, time_s: float) -> list[Actor]:
        """The objects, and the ball on top."""
        setting = self.setting
        actors: list[Actor] = []
        for i, place in enumerate(self.places_at(time_s)):
            pose = _moved(setting.homes[i], place)
            if self.before is not None and i == self.before.struck:
                pose = _wobbling(pose, time_s - self.now.start_s)
            actors.append((FIRST_TARGET_ID + i, setting.objects[i].sprite, pose))
        x, y = self.now.ball_at(time_s)
        ball = Pose(
            x_px=float(x),
            y_px=float(y),
            radius_px=setting.ball_radius_px,
            angle_rad=float(x + y) / 20,
        )
        return [*actors, (BALL_ID, setting.ball.sprite, ball)]

    def truths(self, stamp_ns: int) -> tuple[FutureTruth, ...]:
        """What the ball will hit, and what will be struck in the end."""
        time_s = stamp_ns / NS_PER_S
        is_hit_over = stamp_ns >= round(self.now.hit_s * NS_PER_S)
        coming = self.after if is_hit_over else self.now
        pushed = self._name(self.now.pushed)
        struck = self._name(self.now.struck)
        has_turned = self.now.turn_s + MOTION_S <= time_s and not is_hit_over
        hit_steps, knock_steps = self._steps(time_s, has_turned=has_turned, is_hit=is_hit_over)
        stamps = [first_stamp_from(max(self.now.turn_s, time_s - 1), self.setting.rate_hz)]
        hit = FutureTruth(
            question=HIT_QUESTION,
            target_id=FIRST_TARGET_ID + coming.pushed,
            event_ns=round(coming.hit_s * NS_PER_S),
            topic=Topic.HIT,
            skill=Skill.MOTION,
            extrapolated_id=self._ball_meets(time_s),
            steps=(*hit_steps, f"So the ball will hit the {pushed} next.") if hit_steps else (),
            evidence_ns=evidence(stamps, stamp_ns) if hit_steps else (),
        )
        knock = FutureTruth(
            question=KNOCK_QUESTION,
            target_id=FIRST_TARGET_ID + self.now.struck,
            event_ns=round(self.now.knock_s * NS_PER_S),
            topic=Topic.KNOCK,
            skill=Skill.MOTION if is_hit_over else Skill.CHAIN,
            extrapolated_id=self._pushed_meets(time_s),
            steps=(*knock_steps, f"So the {struck} will be struck.") if knock_steps else (),
            evidence_ns=evidence(stamps, stamp_ns) if knock_steps else (),
        )
        return hit, knock

    def _steps(
        self, time_s: float, *, has_turned: bool, is_hit: bool
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Reasons of both truths, without their ends."""
        pushed, struck = self._name(self.now.pushed), self._name(self.now.struck)
        if is_hit:
            slides = heading_words(self.now.stop - self.setting.home(self.now.pushed))
            knock = (
                f"The ball has hit the {pushed}, which slides {slides} now.",
                f"The first object on its way is the {struck}.",
            )
            return (), knock
        if not has_turned:
            return (), ()
        heading = heading_words(self.now.ball_velocity(time_s))
        rolls = f"The ball has turned and is rolling {heading}."
        hit = (rolls, "Its way is straight.", f"The first object on it is the {pushed}.")
        chained = (
            rolls,
            f"It will hit the {pushed} and push it on in the same direction.",
            f"Beyond the {pushed}, on the same line, lies the {struck}, where nothing moves yet.",
            f"The {pushed} will slide into it.",
        )
        return hit, chained

    def _ball_meets(self, time_s: float) -> int | None:
        return first_touched(
            self.now.ball_at(time_s),
            self.now.ball_velocity(time_s),
            self.setting.ball_radius_px,
            self._outlines(time_s),
            reach_px=float(sum(self.setting.size_wh)),
        )

    def _pushed_meets(self, time_s: float) -> int | None:
        """What the sliding object would touch; nothing while none slides but home."""
        now, setting = self.now, self.setting
        if time_s < now.hit_s:
            return None
        outlines = self._outlines(time_s)
        del outlines[FIRST_TARGET_ID + now.pushed]
        place = self.places_at(time_s)[now.pushed]
        return first_touched(
            place,
            now.stop - setting.home(now.pushed),
            setting.homes[now.pushed].radius_px,
            outlines,
            reach_px=float(sum(setting.size_wh)),
        )

    def _outlines(self, time_s: float) -> dict[int, F32Array]:
        places = enumerate(self.places_at(time_s))
        return {FIRST_TARGET_ID + i: self.setting.corners(i, place) for i, place in places}

    def _name(self, number: int) -> str:
        return self.setting.names[FIRST_TARGET_ID + number]


class ChainScene:
    """A ball, named objects, and an endless plan of chains."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 51])
        side = min(config.size_wh)
        self._floor: U8Array = make_floor(rng, config.size_wh)
        ball = named_ball(rng)
        objects = named_targets(rng, config.num_targets)
        radius = _RADIUS_SHARE * side
        share = _RING_SHARES.get(config.num_targets, _WIDE_RING_SHARE)
        inner = (int(config.size_wh[0] * share), int(config.size_wh[1] * share))
        centres = ring_layout(rng, inner, config.num_targets, radius)
        centres += ((np.array(config.size_wh) - inner) / 2).astype(np.float32)
        angles = rng.uniform(-0.3, 0.3, config.num_targets)
        targets = enumerate(objects, start=FIRST_TARGET_ID)
        self._setting = _Setting(
            names=MappingProxyType({BALL_ID: ball.name, **{i: t.name for i, t in targets}}),
            ball=ball,
            ball_radius_px=_BALL_SHARE * side,
            objects=objects,
            homes=[
                Pose(x_px=float(x), y_px=float(y), radius_px=radius, angle_rad=float(angle))
                for (x, y), angle in zip(centres, angles, strict=True)
            ],
            size_wh=config.size_wh,
            rate_hz=config.rate_hz,
        )

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        return self._setting.names

    @property
    def questions(self) -> tuple[str, ...]:
        """What will be hit, and what will be struck in the end."""
        return (HIT_QUESTION, KNOCK_QUESTION)

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call."""
        return play(self._floor, self._turns(), self._config.rate_hz)

    def _turns(self) -> Iterator[_Turn]:
        chains = self._chains()
        before, now, after = None, next(chains), next(chains)
        while True:
            yield _Turn(setting=self._setting, before=before, now=now, after=after)
            before, now, after = now, after, next(chains)

    def _chains(self) -> Iterator[_Chain]:
        rng = np.random.default_rng([self._seed, 52])
        place = np.array(self._config.size_wh) / 2
        start_s, last = 0.0, None
        while True:
            leg_s = float(rng.uniform(*self._config.leg_s))
            way, pushed, struck = self._way(rng, place, last)
            roll_s = start_s + (0.0 if last is None else _HOME_LEGS * leg_s)
            hit_s = roll_s + _ROLL_LEGS * leg_s
            chain = _Chain(
                start_s=start_s,
                roll_s=roll_s,
                hit_s=hit_s,
                knock_s=hit_s + _SLIDE_LEGS * leg_s,
                way=way,
                contact=first_contact(
                    way[-1],
                    self._setting.home(pushed),
                    self._setting.corners(pushed, self._setting.home(pushed)),
                    self._setting.ball_radius_px,
                ),
                pushed=pushed,
                struck=struck,
                stop=self._stop(pushed, struck),
            )
            yield chain
            place, start_s, last = chain.contact, chain.knock_s, (pushed, struck)

    def _way(
        self, rng: np.random.Generator, place: np.ndarray, last: tuple[int, int] | None
    ) -> tuple[np.ndarray, int, int]:
        """Find a clear way to behind one of a pair; over a waypoint where need be."""
        setting = self._setting
        low, high = (
            np.zeros(2) + setting.ball_radius_px,
            np.array(setting.size_wh) - (setting.ball_radius_px),
        )
        middles = [np.array(setting.size_wh) / 2, *rng.uniform(low, high, (_WAYPOINTS, 2))]
        count = len(setting.homes)
        pairs = [(i, j) for i in range(count) for j in range(count) if i != j]
        order = [pairs[int(k)] for k in rng.permutation(len(pairs))]
        order.sort(key=lambda pair: pair == last)  # another one than the last time, if any can be
        for pushed, struck in order:
            for run_share in _RUN_SHARES:
                behind = self._behind(pushed, struck, run_share * min(setting.size_wh))
                if np.any((behind < low) | (behind > high)):
                    continue
                for way in ([place, behind], *([place, middle, behind] for middle in middles)):
                    if self._is_open(way, pushed):
                        return np.array(way), pushed, struck
        msg = f"no chain can be played from {place} in the scene with seed {self._seed}"
        raise RuntimeError(msg)

    def _behind(self, pushed: int, struck: int, run_px: float) -> np.ndarray:
        """The place on the line through a pair from which the ball rolls at the first one."""
        setting = self._setting
        home = setting.home(pushed)
        line = setting.home(struck) - home
        reach = setting.homes[pushed].radius_px + setting.ball_radius_px + run_px
        return np.asarray(home - line / np.linalg.norm(line) * reach)

    def _is_open(self, way: Sequence[np.ndarray], pushed: int) -> bool:
        setting = self._setting
        homes, radius = setting.homes, setting.ball_radius_px
        pieces = itertools.pairwise(way)
        to_turn = all(is_clear(a, b, None, homes, radius) for a, b in pieces)
        return to_turn and is_clear(way[-1], setting.home(pushed), pushed, homes, radius)

    def _stop(self, pushed: int, struck: int) -> np.ndarray:
        """Where the pushed object touches the struck one."""
        setting = self._setting
        start, goal = setting.home(pushed), setting.home(struck)
        distance = float(np.linalg.norm(goal - start))
        target = setting.corners(struck, goal)
        for share in np.arange(0.0, 1.0, _STEP_PX / distance):
            place = start + share * (goal - start)
            if _gap_px(setting.corners(pushed, place), target) <= _TOUCH_PX:
                return np.asarray(place)
        return goal


def _gap_px(one: F32Array, other: F32Array) -> float:
    """Distance between two outlines that lie apart: from a corner of one to the other."""
    gaps = [
        -float(cv2.pointPolygonTest(outline, (float(x), float(y)), measureDist=True))
        for corners, outline in ((one, other), (other, one))
        for x, y in corners
    ]
    return min(gaps)


def _moved(pose: Pose, place: np.ndarray) -> Pose:
    return replace(pose, x_px=float(place[0]), y_px=float(place[1]))


def _wobbling(pose: Pose, age_s: float) -> Pose:
    """Shake what was struck for a moment: the event can be seen."""
    if age_s >= _WOBBLE_S:
        return pose
    swing = 0.25 * (1 - age_s / _WOBBLE_S) * np.sin(25 * age_s)
    return replace(pose, angle_rad=pose.angle_rad + float(swing))
