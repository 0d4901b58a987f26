# SPDX-License-Identifier: Apache-2.0
"""Named objects leave the view one by one and come back; which is next is the question.

While one object heads for the border, another one drifts too, but stops in time; and one that
has left returns over another border. So moving is not the same as leaving.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from .foresight import ForesightFrame, FutureTruth, SceneConfig
from .naming import NamedSprite, named_targets
from .sprites import Pose
from .stage import corners_of, make_floor, paint_frame, ring_layout
from .textures import U8Array

LEAVE_QUESTION = "What will leave the view next?"

_NS_PER_S = 1_000_000_000
_DRIFT_SHARE = 0.35  # of the way to its goal that a decoy covers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Act:
    """From one departure to the next: start and end places (N, 2) of every object, pixels."""

    start_s: float
    end_s: float  # the leaver's last pixel is gone
    starts: np.ndarray
    ends: np.ndarray
    leaver: int

    def places_at(self, time_s: float) -> np.ndarray:
        """Places (N, 2) of all objects."""
        share = np.clip((time_s - self.start_s) / (self.end_s - self.start_s), 0, 1)
        places = self.starts + share * (self.ends - self.starts)
        return np.asarray(places)


class LeaveScene:
    """Named objects on a floor, and an endless plan of departures."""

    def __init__(self, seed: int, config: SceneConfig) -> None:
        self._seed, self._config = seed, config
        rng = np.random.default_rng([seed, 21])
        self._floor: U8Array = make_floor(rng, config.size_wh)
        self._objects: list[NamedSprite] = named_targets(rng, config.num_targets)
        self._radius = 0.11 * min(config.size_wh)
        self._angles = rng.uniform(-0.4, 0.4, config.num_targets)
        inner = (int(config.size_wh[0] * 0.72), int(config.size_wh[1] * 0.72))
        margin = (np.array(config.size_wh) - inner) / 2
        self._homes = ring_layout(rng, inner, config.num_targets, self._radius) + margin

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
        order = [i for i in range(len(places)) if i != act.leaver] + [act.leaver]
        actors = [(i + 1, self._objects[i].sprite, self._pose(i, places[i])) for i in order]
        image, instance_ids = paint_frame(self._floor, actors)
        truth = FutureTruth(
            question=LEAVE_QUESTION,
            target_id=act.leaver + 1,
            event_ns=round(act.end_s * _NS_PER_S),
        )
        return ForesightFrame(
            index=index,
            stamp_ns=stamp_ns,
            image=image,
            instance_ids=instance_ids,
            truths=(truth,),
        )

    def _acts(self) -> Iterator[_Act]:
        rng = np.random.default_rng([self._seed, 22])
        places = self._homes.astype(np.float64)
        start_s, gone = 0.0, None
        while True:
            present = [i for i in range(len(places)) if i != gone]
            leaver, *others = (int(i) for i in rng.permutation(present))
            starts, ends = places.copy(), places.copy()
            if gone is not None:
                starts[gone] = self._outside(gone, self._homes[gone])
                ends[gone] = self._homes[gone]
            ends[leaver] = self._outside(leaver, starts[leaver] + rng.uniform(-20, 20, 2))
            if others:
                decoy = others[0]
                aim = self._outside(decoy, self._homes[decoy])
                near = np.linalg.norm(starts[decoy] - self._homes[decoy]) < 1.0
                away = self._homes[decoy] + _DRIFT_SHARE * (aim - self._homes[decoy])
                ends[decoy] = away if near else self._homes[decoy]
            act = _Act(
                start_s=start_s,
                end_s=start_s + float(rng.uniform(*self._config.leg_s)),
                starts=starts,
                ends=ends,
                leaver=leaver,
            )
            yield act
            places, start_s, gone = ends, act.end_s, leaver

    def _pose(self, number: int, place: np.ndarray) -> Pose:
        return Pose(
            x_px=float(place[0]),
            y_px=float(place[1]),
            radius_px=self._radius,
            angle_rad=float(self._angles[number]),
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
