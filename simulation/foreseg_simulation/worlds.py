# SPDX-License-Identifier: Apache-2.0
"""The worlds that clips are cut of, each with its version and its pace.

A version counts up whenever equal seeds make other bytes. Does not know: clips or files.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from foreseg.errors import InputError

from .scenes import SceneMaker, foresight_scenes


class World(enum.Enum):
    """Where scenes play."""

    SHAPES = "shapes"
    TABLETOP = "tabletop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Shortest and longest seconds from one event to the next."""

    clip_leg_s: tuple[float, float]
    stream_leg_s: tuple[float, float]


WORLD_VERSIONS: Mapping[World, int] = MappingProxyType({World.SHAPES: 1, World.TABLETOP: 2})
PACES: Mapping[World, Pace] = MappingProxyType(
    {
        World.SHAPES: Pace(clip_leg_s=(1.2, 1.8), stream_leg_s=(2.5, 4.0)),
        World.TABLETOP: Pace(clip_leg_s=(1.2, 1.8), stream_leg_s=(2.5, 4.0)),
    }
)


def scenes_of(world: World) -> Mapping[str, SceneMaker]:
    """Map the names of a world's scenes to their makers."""
    if world is World.TABLETOP:
        from .tabletop import tabletop_scenes

        return tabletop_scenes()
    return foresight_scenes()


def require_world(world: World) -> None:
    """See that what a world needs is installed.

    Raises:
        MissingExtraError: MuJoCo is not installed.
        StreamError: there is no library to render with.
    """
    if world is World.TABLETOP:
        from .tabletop.graphics import load_mujoco

        load_mujoco()


def scene_maker(world: World, name: str) -> SceneMaker:
    """Find a scene by name.

    Raises:
        InputError: for a name that no scene of this world has.
    """
    makers = scenes_of(world)
    if name not in makers:
        msg = f"no scene of the world {world.value} is called {name!r}; expected one of"
        msg = f"{msg} {', '.join(makers)}"
        raise InputError(msg)
    return makers[name]
