# SPDX-License-Identifier: Apache-2.0
"""The simulated scene of part one: the same for the camera that plays it and the judge that knows its truth.

A scene of the tabletop is drawn before it is played: drawing one frame takes as long as tracking it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from foreseg.errors import ForesegError
from foreseg.media.sources import DEFAULT_RATE_HZ
from foreseg_simulation.foresight import ForesightFrame, ForesightScene, SceneConfig
from foreseg_simulation.worlds import World, require_world, scene_maker

SHAPES = ("leave", "hit", "hit_cushion", "hit_habit")
TABLETOP = ("tabletop_roll", "tabletop_reach_habit", "tabletop_reach_part", "tabletop_leave")
SIZE_WH = {World.SHAPES: (640, 480), World.TABLETOP: (480, 360)}
RATE_HZ = {World.SHAPES: DEFAULT_RATE_HZ, World.TABLETOP: 15.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoScene:
    """One scene by its name and seed."""

    name: str
    seed: int

    @property
    def world(self) -> World:
        """Where it plays."""
        return World.TABLETOP if self.name in TABLETOP else World.SHAPES

    @property
    def rate_hz(self) -> float:
        """Frames per second, as they are sent."""
        return RATE_HZ[self.world]

    def make(self) -> ForesightScene:
        """The scene, from its beginning."""
        config = SceneConfig(size_wh=SIZE_WH[self.world], rate_hz=self.rate_hz)
        return scene_maker(self.world, self.name)(self.seed, config)

    def frames(self, seconds: float) -> Iterator[ForesightFrame]:
        """At least so many seconds of it, each frame as quickly as it can be had."""
        frames = self.make().frames()
        if self.world is World.TABLETOP:
            return iter(list(islice(frames, round(seconds * self.rate_hz) + 1)))
        return frames


def problem_of(scene: DemoScene) -> str:
    """Why this machine cannot draw it; "" if it can."""
    try:
        require_world(scene.world)
    except ForesegError as error:
        return str(error)
    return ""
