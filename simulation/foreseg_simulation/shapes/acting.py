# SPDX-License-Identifier: Apache-2.0
"""Play a plot: an endless row of acts, drawn frame by frame.

Does not know: what happens in an act.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeAlias

from foreseg_simulation.foresight import ForesightFrame, FutureTruth
from foreseg_simulation.telling import NS_PER_S
from foreseg_simulation.textures import U8Array

from .sprites import Pose, Sprite
from .stage import paint_frame

Actor: TypeAlias = tuple[int, Sprite, Pose]  # instance id, looks, place


class Act(Protocol):
    """A part of a plot."""

    @property
    def end_s(self) -> float:
        """When the next act begins, seconds since the scene did."""

    def actors(self, time_s: float) -> Sequence[Actor]:
        """What is to be seen at a time, the last on top."""

    def truths(self, stamp_ns: int) -> tuple[FutureTruth, ...]:
        """The truth of every question of the scene at a stamp."""


def play(floor: U8Array, acts: Iterator[Act], rate_hz: float) -> Iterator[ForesightFrame]:
    """Draw an endless plot, for ever."""
    act = next(acts)
    index = 0
    while True:
        stamp_ns = round(index * NS_PER_S / rate_hz)
        while stamp_ns >= round(act.end_s * NS_PER_S):
            act = next(acts)
        image, instance_ids = paint_frame(floor, act.actors(stamp_ns / NS_PER_S))
        yield ForesightFrame(
            index=index,
            stamp_ns=stamp_ns,
            image=image,
            instance_ids=instance_ids,
            truths=act.truths(stamp_ns),
        )
        index += 1
