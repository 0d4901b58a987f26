# SPDX-License-Identifier: Apache-2.0
"""Named objects leave the view one by one and come back; which is next is the question.

While one object heads for the border, another one drifts too, but stops in time; and one that
has left returns over another border. So moving is not the same as leaving. With a shy object,
that one rushes to the border in every act and turns back, and at times nothing leaves at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from foreseg_simulation.extrapolation import Mover, first_gone
from foreseg_simulation.foresight import ForesightFrame, FutureTruth, SceneConfig, Skill, Topic
from foreseg_simulation.naming import NamedSprite, named_targets
from foreseg_simulation.telling import (
    MOTION_S,
    edge_words,
    evidence,
    first_stamp_from,
    heading_words,
)
from foreseg_simulation.textures import U8Array

from .sprites import Pose
from .stage import corners_of, make_floor, paint_frame, ring_layout

LEAVE_QUESTION = "What will leave the view next?"

_NS_PER_S = 1_000_000_000
_DRIFT_SHARE = 0.35  # of the way to its goal that a decoy covers
_RUSH_SHARE = 0.75  # likewise, a shy object
_STAY_PROBABILITY = 0.3  # that nothing leaves, once the shy object is known
_RULE_ACTS = 2  # how often it was seen to turn before it counts as shy
_LOOK_BACK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Act:
    """From one departure to the next: start and end places (N, 2) of every object, pixels."""

    start_s: float
    end_s: float  # the leaver's last pixel is gone
    starts: np.ndarray
    ends: np.ndarray
    leaver: int | None
    decoy: int | None  # drifts, and stops
    gone: int | None  # comes back
    rush: np.ndarray  # (N, 2) how far an object goes beyond its way by half time, and back
    past_turns_s: tuple[float, ...]  # when the shy object turned before, a bounded number

    @property
    def turn_s(self) -> float:
        """Half time."""
        return (self.start_s + self.end_s) / 2

    def places_at(self, time_s: float) -> np.ndarray:
        """Places (N, 2) of all objects."""
        share = np.clip((time_s - self.start_s) / (self.end_s - self.start_s), 0, 1)
        places = self.starts + share * (self.ends - self.starts)
        return np.asarray(places + 2 * min(share, 1 - share) * self.rush)

    def velocities_at(self, time_s: float) -> np.ndarray:
        """Velocities (N, 2), pixels per second."""
        sign = 1 if time_s < self.turn_s else -1
        way = self.ends - self.starts + 2 * sign * self.rush
        return np.asarray(way / (self.end_s - self.start_s))


class LeaveScene:
    """Named objects on a floor, and an endless plan of departures."""

    def __init__(self, seed: int, config: SceneConfig, *, has_shy: bool = False) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 21])
        self._floor: U8Array = make_floor(rng, config.size_wh)
        self._objects: list[NamedSprite] = named_targets(rng, config.num_targets)
        self._radius = 0.11 * min(config.size_wh)
        self._angles = rng.uniform(-0.4, 0.4, config.num_targets)
        inner = (int(config.size_wh[0] * 0.72), int(config.size_wh[1] * 0.72))
        margin = (np.array(config.size_wh) - inner) / 2
        self._homes = ring_layout(rng, inner, config.num_targets, self._radius) + margin
        self._shy = int(rng.integers(config.num_targets)) if has_shy else None

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        return MappingProxyType({i: o.name for i, o in enumerate(self._objects, start=1)})

    @property
    def questions(self) -> tuple[str, ...]:
        """The one question of this scene."""
        return (LEAVE_QUESTION,)

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call."""
        acts = self._acts()
        act = next(acts)
        index = 0
        while True:
            stamp_ns = round(index * _NS_PER_S / self._config.rate_hz)
            while stamp_ns >= round(act.end_s * _NS_PER_S):
                act = next(acts)
            yield self._frame(index, stamp_ns, act)
            index += 1

    def _frame(self, index: int, stamp_ns: int, act: _Act) -> ForesightFrame:
        places = act.places_at(stamp_ns / _NS_PER_S)
        order = [i for i in range(len(places)) if i != act.leaver]
        order += [] if act.leaver is None else [act.leaver]
        actors = [(i + 1, self._objects[i].sprite, self._pose(i, places[i])) for i in order]
        image, instance_ids = paint_frame(self._floor, actors)
        return ForesightFrame(
            index=index,
            stamp_ns=stamp_ns,
            image=image,
            instance_ids=instance_ids,
            truths=(self._truth(stamp_ns, act),),
        )

    def _truth(self, stamp_ns: int, act: _Act) -> FutureTruth:
        time_s, rate_hz = stamp_ns / _NS_PER_S, self._config.rate_hz
        places, velocities = act.places_at(time_s), act.velocities_at(time_s)
        movers = [
            Mover(
                instance_id=i + 1,
                corners=corners_of(self._objects[i].sprite, self._pose(i, places[i])),
                velocity=velocities[i],
            )
            for i in range(len(places))
        ]
        steps = self._steps(act, time_s, places, velocities)
        stamps = [first_stamp_from(max(act.start_s, time_s - _LOOK_BACK_S), rate_hz)]
        is_rule = self._shy is not None and time_s < act.turn_s
        if is_rule:
            stamps += [first_stamp_from(turn_s, rate_hz) for turn_s in act.past_turns_s]
        skill = Skill.DECOY if is_rule or act.decoy is not None else Skill.MOTION
        return FutureTruth(
            question=LEAVE_QUESTION,
            target_id=None if act.leaver is None else act.leaver + 1,
            event_ns=round(act.end_s * _NS_PER_S),
            topic=Topic.LEAVE,
            skill=Skill.ABSENCE if act.leaver is None else skill,
            extrapolated_id=first_gone(movers, self._config.size_wh),
            steps=steps,
            evidence_ns=evidence(stamps, stamp_ns) if steps else (),
        )

    def _steps(
        self, act: _Act, time_s: float, places: np.ndarray, velocities: np.ndarray
    ) -> tuple[str, ...]:
        is_turned = self._shy is not None and time_s >= act.turn_s
        if time_s - (act.turn_s if is_turned else act.start_s) < MOTION_S:
            return ()
        names = [named.name for named in self._objects]
        steps = []
        if act.leaver is not None:
            edge = edge_words(act.ends[act.leaver], self._config.size_wh)
            heading = heading_words(velocities[act.leaver])
            steps.append(f"The {names[act.leaver]} is drifting {heading}, to the {edge} edge.")
        if act.decoy is not None:
            steps.append(
                f"The {names[act.decoy]} drifts too, {heading_words(velocities[act.decoy])},"
                " but so slowly that it is over no edge by then."
            )
        if self._shy is not None:
            shy, heading = names[self._shy], heading_words(velocities[self._shy])
            if is_turned:
                steps.append(f"The {shy} has turned back and moves {heading}.")
            elif len(act.past_turns_s) < _RULE_ACTS:
                return ()
            else:
                edge = edge_words(places[self._shy] + velocities[self._shy], self._config.size_wh)
                steps.append(f"The {shy} rushes {heading}, to the {edge} edge.")
                steps.append("But each time before it turned back there, so it will not leave.")
        if act.gone is not None and self._is_in_view(act.gone, places[act.gone]):
            steps.append(f"The {names[act.gone]} is only coming back into the view.")
        elif len(steps) < 3:
            steps.append("Nothing else moves.")
        leaver = "nothing" if act.leaver is None else f"the {names[act.leaver]}"
        return (*steps, f"So {leaver} will leave the view next.")

    def _acts(self) -> Iterator[_Act]:
        rng = np.random.default_rng([self._seed, 22])
        places = self._homes.astype(np.float64)
        start_s, gone, turns_s = 0.0, None, deque[float](maxlen=_RULE_ACTS)
        while True:
            present = [i for i in range(len(places)) if i not in (gone, self._shy)]
            leaver: int | None
            leaver, *others = (int(i) for i in rng.permutation(present))
            if len(turns_s) == _RULE_ACTS and rng.random() < _STAY_PROBABILITY:
                leaver = None
            starts, ends, rush = places.copy(), places.copy(), np.zeros_like(places)
            if gone is not None:
                starts[gone] = self._outside(gone, self._homes[gone])
                ends[gone] = self._homes[gone]
            if leaver is not None:
                ends[leaver] = self._outside(leaver, starts[leaver] + rng.uniform(-20, 20, 2))
            decoy = others[0] if others and self._shy is None else None
            if decoy is not None:
                away = self._share_of_way_out(decoy, _DRIFT_SHARE)
                near = np.linalg.norm(starts[decoy] - self._homes[decoy]) < 1.0
                ends[decoy] = away if near else self._homes[decoy]
            if self._shy is not None:
                rush[self._shy] = (
                    self._share_of_way_out(self._shy, _RUSH_SHARE) - self._homes[self._shy]
                )
            act = _Act(
                start_s=start_s,
                end_s=start_s + float(rng.uniform(*self._config.leg_s)),
                starts=starts,
                ends=ends,
                leaver=leaver,
                decoy=decoy,
                gone=gone,
                rush=rush,
                past_turns_s=tuple(turns_s),
            )
            yield act
            if self._shy is not None:
                turns_s.append(act.turn_s)
            places, start_s, gone = ends, act.end_s, leaver

    def _share_of_way_out(self, number: int, share: float) -> np.ndarray:
        home = self._homes[number]
        return np.asarray(home + share * (self._outside(number, home) - home))

    def _pose(self, number: int, place: np.ndarray) -> Pose:
        return Pose(
            x_px=float(place[0]),
            y_px=float(place[1]),
            radius_px=self._radius,
            angle_rad=float(self._angles[number]),
        )

    def _is_in_view(self, number: int, place: np.ndarray) -> bool:
        corners = corners_of(self._objects[number].sprite, self._pose(number, place))
        reaches_in = corners.max(axis=0) >= 1
        return bool(
            np.all(reaches_in & (corners.min(axis=0) <= np.array(self._config.size_wh) - 1))
        )

    def _outside(self, number: int, place: np.ndarray) -> np.ndarray:
        """The place straight beyond the nearest border where the last pixel just disappears."""
        size = np.array(self._config.size_wh, dtype=np.float64)
        gaps = np.concatenate([place, size - place])  # left, top, right, bottom
        border = int(np.argmin(gaps))
        axis = border % 2
        at_origin = replace(self._pose(number, place), x_px=0.0, y_px=0.0)
        corners = corners_of(self._objects[number].sprite, at_origin)
        beyond = place.astype(np.float64)
        if border < 2:
            beyond[axis] = -float(corners[:, axis].max()) - 1.0
        else:
            beyond[axis] = size[axis] - float(corners[:, axis].min()) + 1.0
        return beyond
