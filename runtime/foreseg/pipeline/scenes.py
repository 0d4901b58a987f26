# SPDX-License-Identifier: Apache-2.0
"""How much of a scene has changed since a query was last asked: a cheap measure on a coarse grid.

Counts the cells of a grid whose brightness has changed. A change of light that the whole picture
shares does not count. Knows nothing of when a query is asked or what a change leads to.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from foreseg.dialogue import QueryId
from foreseg.frames import U8Array

GRID = 16  # cells a side
SAMPLES = (
    4  # pixels a side that are read of a cell: their mean is calm where single ones are noisy
)
CELL_CHANGE = 20.0  # of 255; sensor noise and compression move a cell's mean by far less

Sketch = NDArray[np.float32]  # (GRID, GRID) brightness, 0 to 255


def sketch_from_image(image: U8Array) -> Sketch:
    """Brightness of an (H, W, 3) image on the grid, from a few pixels of each cell."""
    height, width = image.shape[:2]
    steps = (np.arange(GRID * SAMPLES) + 0.5) / (GRID * SAMPLES)
    rows, columns = (steps * height).astype(np.intp), (steps * width).astype(np.intp)
    picked = image[rows[:, None], columns[None, :]].mean(axis=2, dtype=np.float32)
    cells: Sketch = picked.reshape(GRID, SAMPLES, GRID, SAMPLES).mean(axis=(1, 3))
    return cells


def changed_share(before: Sketch, after: Sketch) -> float:
    """Share of the cells, 0 to 1, that have changed by more than the picture as a whole."""
    difference = after - before
    shared = np.median(difference)
    return float(np.mean(np.abs(difference - shared) > CELL_CHANGE))


class SceneMemory:
    """What the scene looked like when each standing query of a camera was last asked."""

    def __init__(self) -> None:
        self._sketches: dict[QueryId, Sketch] = {}

    def remember(self, query_id: QueryId, image: U8Array) -> None:
        """This is the scene that the query is asked about now."""
        self._sketches[query_id] = sketch_from_image(image)

    def changes(self, image: U8Array, standing: Collection[QueryId]) -> Mapping[QueryId, float]:
        """For every query that still stands and was asked: the share that has changed since."""
        self._sketches = {i: sketch for i, sketch in self._sketches.items() if i in standing}
        if not self._sketches:
            return {}
        now = sketch_from_image(image)
        return {i: changed_share(sketch, now) for i, sketch in self._sketches.items()}
