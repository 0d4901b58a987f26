# SPDX-License-Identifier: Apache-2.0
"""A plot on a stage, rendered frame by frame.

Does not know: what happens in the plot.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from foreseg_simulation.foresight import ForesightFrame, FutureTruth, SceneConfig

from .graphics import load_mujoco
from .stage import F64Array, Stage
from .world import Renderer, World


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """One frame before it is rendered: its stamp, the world's state, and the truths."""

    stamp_ns: int
    state: F64Array
    truths: tuple[FutureTruth, ...]


class Plot(Protocol):
    """What happens on a stage, for ever."""

    @property
    def stage(self) -> Stage:
        """Where it happens."""

    @property
    def questions(self) -> tuple[str, ...]:
        """What its truths answer."""

    def moments(self, world: World) -> Iterator[Moment]:
        """Yield every frame's moment, from a fresh world; the same at every call."""


class TabletopScene:
    """A foresight scene with physics."""

    def __init__(self, config: SceneConfig, plot: Plot) -> None:
        load_mujoco()
        self._rate_hz, self._plot = config.rate_hz, plot
        self._needs_images = config.needs_images

    @property
    def names(self) -> Mapping[int, str]:
        """Instance id to the words for it."""
        return MappingProxyType(dict(self._plot.stage.names))

    @property
    def questions(self) -> tuple[str, ...]:
        """Every question that its frames carry a truth for."""
        return self._plot.questions

    def moments(self) -> Iterator[Moment]:
        """Yield what happens, unrendered."""
        return self._plot.moments(World(self._plot.stage, self._rate_hz))

    def frames(self) -> Iterator[ForesightFrame]:
        """Yield frames for ever, the same bytes at every call on one machine."""
        world = World(self._plot.stage, self._rate_hz)
        renderer = Renderer(world, needs_images=self._needs_images)
        try:
            for index, moment in enumerate(self._plot.moments(world)):
                image, instance_ids = renderer.render(moment.state)
                yield ForesightFrame(
                    index=index,
                    stamp_ns=moment.stamp_ns,
                    image=image,
                    instance_ids=instance_ids,
                    truths=moment.truths,
                )
        finally:
            renderer.close()
