# SPDX-License-Identifier: Apache-2.0
"""Named objects hop in an order that repeats itself, in which one of them comes twice.

Between two hops everything lies still: only the order tells whose turn it is, and for what
follows the one that comes twice, one must know what came before it, too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from foreseg_simulation.foresight import ForesightFrame, FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import NamedSprite, named_targets
from foreseg_simulation.telling import NS_PER_S, evidence, first_stamp_from, in_turn
from foreseg_simulation.textures import U8Array

from .acting import Actor, play
from .sprites import Pose
from .stage import make_floor, ring_layout

HOP_QUESTION = "Which object will hop next?"

_AIR_S = 0.7
_HEIGHT_SHARE = 0.14  # of the view


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hop:
    number: int  # place among the objects
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Turn:
    """From one hop to the next."""

    end_s: float
    hopper: int  # hops at the end
    past: tuple[_Hop, ...]  # oldest first; enough to know the order, where there were so many
    num_context: int  # how many of the last hops tell what follows
    pattern_length: int
    objects: Sequence[NamedSprite]
    poses: Sequence[Pose]
    height_px: float
    rate_hz: float

    def actors(self, time_s: float) -> list[Actor]:
        """All objects, the one in the air on top."""
        air = self._in_air(time_s)
        order = [i for i in range(len(self.poses)) if i != air] + ([] if air is None else [air])
        return [(i + 1, self.objects[i].sprite, self._pose(i, time_s)) for i in order]

    def truths(self, stamp_ns: int) -> tuple[FutureTruth, ...]:
        """Whose turn it is next."""
        air = self._in_air(stamp_ns / NS_PER_S)
        seen = self._telling_hops()
        stamps = [first_stamp_from(hop.time_s, self.rate_hz) for hop in seen]
        truth = FutureTruth(
            question=HOP_QUESTION,
            target_id=self.hopper + 1,
            event_ns=round(self.end_s * NS_PER_S),
            topic=Topic.HOP,
            skill=Skill.HABIT,
            extrapolated_id=None if air is None else air + 1,
            steps=self._steps(seen, air),
            evidence_ns=evidence(stamps, stamp_ns) if seen else (),
        )
        return (truth,)

    def _telling_hops(self) -> tuple[_Hop, ...]:
        """The hops since the same context was there the last time; none if it never was."""
        num_hops = self.pattern_length + self.num_context
        return self.past[-num_hops:] if len(self.past) >= num_hops else ()

    def _steps(self, seen: Sequence[_Hop], air: int | None) -> tuple[str, ...]:
        if not seen:
            return ()
        names = [self.objects[hop.number].name for hop in seen]
        last = names[-1]
        context = f"the {last}" if self.num_context == 1 else f"{in_turn(names[-2:])}"
        motion = (
            f"The {last} is in the air now, which tells nothing of what comes after it."
            if air is not None
            else "Nothing moves now, so motion tells nothing."
        )
        return (
            f"The order of the hops was {in_turn(names)}.",
            motion,
            f"The last to hop was {context}."
            if self.num_context == 1
            else f"Last came {context}.",
            f"When that happened before, the {names[self.num_context]} followed.",
            f"So the {self.objects[self.hopper].name} will hop next.",
        )

    def _in_air(self, time_s: float) -> int | None:
        is_in_air = bool(self.past) and time_s - self.past[-1].time_s < _AIR_S
        return self.past[-1].number if is_in_air else None

    def _pose(self, number: int, time_s: float) -> Pose:
        pose = self.poses[number]
        if number != self._in_air(time_s):
            return pose
        share = (time_s - self.past[-1].time_s) / _AIR_S
        rise = self.height_px * 4 * share * (1 - share)
        return replace(pose, y_px=pose.y_px - float(rise))


class HopScene:
    """Named objects and an endless plan of hops."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 31])
        self._floor: U8Array = make_floor(rng, config.size_wh)
        self._objects = named_targets(rng, config.num_targets)
        radius = 0.1 * min(config.size_wh)
        self._height_px = _HEIGHT_SHARE * config.size_wh[1]
        inner = (config.size_wh[0], int(config.size_wh[1] - 1.2 * self._height_px))
        centres = ring_layout(rng, inner, config.num_targets, radius)
        centres += (0, np.float32(config.size_wh[1] - inner[1]))
        self._poses = [
            Pose(x_px=float(x), y_px=float(y), radius_px=radius, angle_rad=float(angle))
            for (x, y), angle in zip(centres, rng.uniform(-0.3, 0.3, len(centres)), strict=True)
        ]
        first, *others = (int(i) for i in rng.permutation(config.num_targets))
        self._pattern = [first, others[0], first, *others[1:]]

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        return MappingProxyType({i: o.name for i, o in enumerate(self._objects, start=1)})

    @property
    def questions(self) -> tuple[str, ...]:
        """The one question of this scene."""
        return (HOP_QUESTION,)

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call."""
        return play(self._floor, self._turns(), self._config.rate_hz)

    def _turns(self) -> Iterator[_Turn]:
        rng = np.random.default_rng([self._seed, 32])
        past: deque[_Hop] = deque(maxlen=len(self._pattern) + 2)
        end_s, count = 0.0, 0
        while True:
            end_s += float(rng.uniform(*self._config.leg_s))
            hopper = self._pattern[count % len(self._pattern)]
            is_ambiguous = bool(past) and self._pattern.count(past[-1].number) > 1
            yield _Turn(
                end_s=end_s,
                hopper=hopper,
                past=tuple(past),
                num_context=2 if is_ambiguous else 1,
                pattern_length=len(self._pattern),
                objects=self._objects,
                poses=self._poses,
                height_px=self._height_px,
                rate_hz=self._config.rate_hz,
            )
            past.append(_Hop(number=hopper, time_s=end_s))
            count += 1
