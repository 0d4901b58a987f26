# SPDX-License-Identifier: Apache-2.0
"""The foresight scenes of the shapes world by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from .foresight import ForesightScene, SceneConfig
from .shapes.chain_scene import ChainScene
from .shapes.emerge_scene import EmergeScene
from .shapes.hit_scene import HitScene, Route
from .shapes.hop_scene import HopScene
from .shapes.leave_scene import LeaveScene

SceneMaker = Callable[[int, SceneConfig], ForesightScene]


def foresight_scenes() -> Mapping[str, SceneMaker]:
    """Map each scene's name to its maker, which takes a seed and a config."""

    def hit(route: Route, *, has_screen: bool = False, has_twins: bool = False) -> SceneMaker:
        return lambda seed, config: HitScene(
            seed, config, route=route, has_screen=has_screen, has_twins=has_twins
        )

    return MappingProxyType(
        {
            "hit": hit(Route.STRAIGHT),
            "hit_cushion": hit(Route.CUSHION),
            "hit_habit": hit(Route.HABIT),
            "hit_lamp": hit(Route.LAMP),
            "hit_screen": hit(Route.CUSHION, has_screen=True),
            "hit_short": hit(Route.SHORT),
            "hit_twins": hit(Route.CUSHION, has_twins=True),
            "chain": ChainScene,
            "emerge": EmergeScene,
            "hop": HopScene,
            "leave": LeaveScene,
            "leave_shy": lambda seed, config: LeaveScene(seed, config, has_shy=True),
        }
    )


def make_scene(name: str, seed: int, config: SceneConfig | None = None) -> ForesightScene:
    """Make a scene by name.

    Raises:
        ValueError: for a name that no scene has.
    """
    makers = foresight_scenes()
    if name not in makers:
        msg = f"no scene is called {name!r}; there are {', '.join(makers)}"
        raise ValueError(msg)
    return makers[name](seed, SceneConfig() if config is None else config)
