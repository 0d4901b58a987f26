# SPDX-License-Identifier: Apache-2.0
"""A table in MuJoCo: physics, rendered without a display, with a known future.

Importing this needs no MuJoCo; making a scene does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from foreseg_simulation.foresight import ForesightScene, SceneConfig


def tabletop_scenes() -> Mapping[str, Callable[[int, SceneConfig], ForesightScene]]:
    """Map each scene's name to its maker, which takes a seed and a config.

    A maker raises MissingExtraError without MuJoCo, StreamError where nothing can render.
    """
    from .roll import RollPlot
    from .scene import TabletopScene

    def roll(*, has_habit: bool) -> Callable[[int, SceneConfig], ForesightScene]:
        return lambda seed, config: TabletopScene(
            config, RollPlot(seed, config, has_habit=has_habit)
        )

    return MappingProxyType(
        {
            "tabletop_roll": roll(has_habit=False),
            "tabletop_roll_habit": roll(has_habit=True),
        }
    )
