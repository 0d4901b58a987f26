# SPDX-License-Identifier: Apache-2.0
"""Picks the frames of a contact sheet from a stream of unknown length, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foreseg.frames import U8Array
from foreseg.history.reduction import reduce_image
from foreseg.media.sinks import contact_sheet

NUM_CELLS = 9
COLUMNS = 3
CELL_WIDTH = 480
MAX_SIDE_PX = 960  # of a frame that is kept


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A drawn frame with its caption."""

    index: int
    image: U8Array
    caption: str
    is_event: bool  # something happened here: kept before any other


class Storyboard:
    """Keeps frames spread evenly over what has come so far, and the first events."""

    def __init__(self, *, num_cells: int = NUM_CELLS, max_events: int = NUM_CELLS // 2) -> None:
        self._num_cells = num_cells
        self._max_events = max_events
        self._stride = 1
        self._even: list[Scene] = []
        self._events: list[Scene] = []
        self._newest: Scene | None = None

    def wants(self, index: int) -> bool:
        """Whether the frame should be drawn for the sheet, though nothing happened on it."""
        return index % self._stride == 0

    def add(self, scene: Scene) -> None:
        """Offer a frame; frames come in order."""
        is_kept = self.wants(scene.index) or scene.is_event
        scene = replace(scene, image=reduce_image(scene.image, MAX_SIDE_PX)) if is_kept else scene
        self._newest = scene
        if scene.is_event and len(self._events) < self._max_events:
            self._events.append(scene)
        if not self.wants(scene.index):
            return
        self._even.append(scene)
        if len(self._even) > 2 * self._num_cells:
            self._stride *= 2
            self._even = [kept for kept in self._even if self.wants(kept.index)]

    def scenes(self) -> tuple[Scene, ...]:
        """The chosen frames, in order: events, the last one, and even ones far from these."""
        chosen = {scene.index: scene for scene in self._events}
        if self._newest is not None:
            chosen.setdefault(self._newest.index, self._newest)
        left = [scene for scene in self._even if scene.index not in chosen]
        while left and len(chosen) < self._num_cells:
            farthest = max(left, key=lambda s: (min(abs(s.index - i) for i in chosen), -s.index))
            chosen[farthest.index] = farthest
            left.remove(farthest)
        return tuple(chosen[index] for index in sorted(chosen))

    def sheet(self) -> U8Array | None:
        """The contact sheet, None if no frame came."""
        cells = [(scene.image, scene.caption) for scene in self.scenes()]
        if not cells:
            return None
        return contact_sheet(cells, columns=COLUMNS, cell_width=CELL_WIDTH)
