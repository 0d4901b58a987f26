# SPDX-License-Identifier: Apache-2.0
"""Connected regions of a binary mask, and the few mask operations that lead to them.

numpy only, for small masks (some 160 x 120). Knows nothing of time or words.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask

F32Array = NDArray[np.float32]
IntArray = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Region:
    """One connected region; all in pixels of the mask it was found in."""

    rows: NDArray[np.intp]  # (P,)
    columns: NDArray[np.intp]  # (P,)
    colour: F32Array  # (3,) mean RGB, 0 to 255

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.rows.size)

    @property
    def centre_xy(self) -> tuple[float, float]:
        """Centre of mass; a pixel's own centre is at + 0.5."""
        return float(self.columns.mean()) + 0.5, float(self.rows.mean()) + 0.5

    @property
    def box(self) -> BoxXyxy:
        """Tight box."""
        return BoxXyxy(
            float(self.columns.min()),
            float(self.rows.min()),
            float(self.columns.max()) + 1,
            float(self.rows.max()) + 1,
        )

    @property
    def ellipse_ratio(self) -> float:
        """Area over the area of the ellipse with the same second moments.

        A disc has 1, a square 0.955, a triangle 0.827, whatever their size and angle.
        """
        spread = np.cov(np.stack([self.columns, self.rows]).astype(np.float64), bias=True)
        spread += np.eye(2) / 12  # of a pixel itself
        return float(self.area / (4 * np.pi * np.sqrt(np.linalg.det(spread))))

    def touches_border(self, size_wh: tuple[int, int]) -> bool:
        """True if a pixel lies on the image's rim."""
        box = self.box
        return box.x0 <= 0 or box.y0 <= 0 or box.x1 >= size_wh[0] or box.y1 >= size_wh[1]


def dilated(mask: Mask, radius: int = 1) -> Mask:
    """The (H, W) mask grown by a square of `radius` pixels."""
    for _ in range(radius):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        mask = grown.copy()
        mask[:, 1:] |= grown[:, :-1]
        mask[:, :-1] |= grown[:, 1:]
    return mask


def eroded(mask: Mask, radius: int = 1) -> Mask:
    """The (H, W) mask shrunk by a square of `radius` pixels; the outside counts as set."""
    return ~dilated(~mask, radius)


def mean_filtered(values: F32Array, radius: int = 1) -> F32Array:
    """The (H, W) means over squares of 2 `radius` + 1 pixels; edges repeat."""
    size = 2 * radius + 1
    padded = np.pad(values, radius, mode="edge").astype(np.float64)
    sums = np.pad(padded.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    total = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    means: F32Array = (total / size**2).astype(np.float32)
    return means


def label_map_from_mask(mask: Mask) -> IntArray:
    """Number the 8-connected components of an (H, W) mask from 1, in reading order; 0 is outside.

    Joins runs of set pixels from row to row, with a union-find over runs.
    """
    height, width = mask.shape
    steps = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    run_rows, starts = np.nonzero(steps == 1)
    ends = np.nonzero(steps == -1)[1]  # exclusive
    parents = list(range(run_rows.size))
    first_of_row = np.searchsorted(run_rows, np.arange(height + 1)).tolist()
    starts_list, ends_list = starts.tolist(), ends.tolist()
    for row in range(1, height):
        above, last_above = first_of_row[row - 1], first_of_row[row]
        for run in range(first_of_row[row], first_of_row[row + 1]):
            while above < last_above and ends_list[above] < starts_list[run]:
                above += 1
            other = above
            while other < last_above and starts_list[other] <= ends_list[run]:
                _join(parents, run, other)
                other += 1
    roots = np.array([_root(parents, run) for run in range(len(parents))], dtype=np.int32)
    numbers = np.unique(roots, return_inverse=True)[1].astype(np.int32) + 1
    labels = np.zeros((height, width), dtype=np.int32)
    runs = zip(run_rows.tolist(), starts_list, ends_list, numbers.tolist(), strict=True)
    for row, start, end, number in runs:
        labels[row, start:end] = number
    return labels


def regions_from_mask(
    mask: Mask, image: F32Array, *, min_area: int, max_area: int, gap: int = 0
) -> list[Region]:
    """The regions of an (H, W) mask, with colours from an (H, W, 3) RGB image.

    Parts at most 2 `gap` pixels apart count as one region; only the mask's own pixels belong to it.
    """
    labels = label_map_from_mask(dilated(mask, gap))
    labels[~mask] = 0
    rows, columns = np.nonzero(labels)
    found = labels[rows, columns]
    order = np.argsort(found, kind="stable")
    cuts = np.flatnonzero(np.diff(found[order])) + 1
    regions = []
    for pixels in np.split(order, cuts):
        if min_area <= pixels.size <= max_area and pixels.size:
            r, c = rows[pixels], columns[pixels]
            regions.append(Region(rows=r, columns=c, colour=image[r, c].mean(axis=0)))
    return regions


def _root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


def _join(parents: list[int], a: int, b: int) -> None:
    a, b = _root(parents, a), _root(parents, b)
    parents[max(a, b)] = min(a, b)
