# SPDX-License-Identifier: Apache-2.0
"""Draws the newest frame as JPEG for all viewers together: once a size, only while one waits.

What nobody waits for is not drawn, and no picture waits behind another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from foreseg.clock import Clock, SystemClock
from foreseg.frames import FrameRef
from foreseg_view.board import Board, Shown
from foreseg_view.pixels import drawn_jpeg

MAX_HZ = 15.0
POLL_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """A drawn frame."""

    number: int  # counts drawn frames, from 1
    frame: FrameRef
    jpeg: bytes


class Painter:
    """Its `run` is the thread's function; the rest is for any thread.

    Args:
        board: what is drawn.
        on_picture: called when there is a new one, from the painting thread.
        stopping: ends `run`.
        clock: for the highest rate.
    """

    def __init__(
        self,
        board: Board,
        on_picture: Callable[[], None],
        stopping: threading.Event,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.on_picture = on_picture
        self._board = board
        self._stopping = stopping
        self._clock = clock or SystemClock()
        self._awake = threading.Event()
        self._lock = threading.Lock()
        self._wanted: set[int] = set()
        self._pictures: dict[int, Picture] = {}
        self._drawn: dict[int, Shown] = {}  # what each picture shows
        self._number = 0

    def want(self, side_px: int) -> None:
        """Somebody waits for a newer picture of this size."""
        with self._lock:
            self._wanted.add(side_px)
        self._awake.set()

    def wake(self) -> None:
        """There may be a newer frame."""
        self._awake.set()

    def picture(self, side_px: int) -> Picture | None:
        """The newest one of this size."""
        return self._pictures.get(side_px)

    def run(self) -> None:
        """Draw until stopped."""
        while not self._stopping.is_set():
            if not self._awake.wait(POLL_S):
                continue
            self._awake.clear()
            began_ns = self._clock.monotonic_ns()
            if self.draw_wanted():
                self.on_picture()
                took_s = (self._clock.monotonic_ns() - began_ns) / 1e9
                self._stopping.wait(max(0.0, 1 / MAX_HZ - took_s))

    def draw_wanted(self) -> bool:
        """Draw what is wanted of the newest frame and not drawn yet; False if nothing was."""
        shown = self._board.newest
        if shown is None:
            return False
        with self._lock:
            due = {side for side in self._wanted if self._drawn.get(side) is not shown}
            self._wanted -= due
        if due:
            self._number += 1
            self._draw(shown, due)
        return bool(due)

    def _draw(self, shown: Shown, sides: set[int]) -> None:
        for side in sorted(sides):
            jpeg = drawn_jpeg(
                shown.image, shown.label_map, shown.tracks, side, self._board.name_of
            )
            self._drawn[side] = shown
            self._pictures[side] = Picture(number=self._number, frame=shown.frame, jpeg=jpeg)
