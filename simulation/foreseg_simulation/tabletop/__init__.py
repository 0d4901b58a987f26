# SPDX-License-Identifier: Apache-2.0
"""A table in MuJoCo: physics, rendered without a display, with a known future.

Importing this needs no MuJoCo; making a scene does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from foreseg_simulation.foresight import ForesightScene, SceneConfig

Maker = Callable[[int, SceneConfig], ForesightScene]


def tabletop_scenes() -> Mapping[str, Maker]:
    """Map each scene's name to its maker, which takes a seed and a config.

    A maker raises MissingExtraError without MuJoCo, StreamError where nothing can render.
    """
    from .leave import LeavePlot
    from .push import PushPlot
    from .reach import ReachPlot
    from .roll import RollPlot
    from .scene import Plot, TabletopScene
    from .stack import StackPlot

    def scene(make_plot: Callable[[int, SceneConfig], Plot]) -> Maker:
        return lambda seed, config: TabletopScene(config, make_plot(seed, config))

    return MappingProxyType(
        {
            "tabletop_roll": scene(partial(RollPlot, has_habit=False)),
            "tabletop_roll_habit": scene(partial(RollPlot, has_habit=True)),
            "tabletop_reach_habit": scene(partial(ReachPlot, has_habit=True)),
            "tabletop_reach_part": scene(partial(ReachPlot, has_habit=False)),
            "tabletop_leave": scene(LeavePlot),
            "tabletop_stack": scene(StackPlot),
            "tabletop_push": scene(PushPlot),
        }
    )
