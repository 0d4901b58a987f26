# SPDX-License-Identifier: Apache-2.0
"""Names for how a region looks, and how well a description fits one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foreseg.kinematic.phrases import COLOURS, Description
from foreseg.kinematic.regions import F32Array, Region
from foreseg.masks import Mask

MIN_MARGIN_PX = 3
MARGIN_SHARE = 0.25  # of a region's longer side: how far around it one looks
MIN_COLOUR_SHARE = 0.3  # of a region's pixels, to be called by a colour
_HUES = (  # (upper bound in degrees, name), going round from red
    (15.0, "red"), (42.0, "orange"), (68.0, "yellow"), (165.0, "green"), (198.0, "cyan"),
    (258.0, "blue"), (292.0, "purple"), (338.0, "pink"), (360.0, "red"),
)  # fmt: skip
_ELLIPSE_RATIOS = {
    "ball": 1.0, "hexagon": 0.99, "square": 0.955, "triangle": 0.83, "star": 0.8, "cross": 0.8,
    "arrow": 0.8, "crescent": 0.75, "blob": 0.93,
}  # fmt: skip
_DARK, _BRIGHT, _PALE, _DIM = 50.0, 190.0, 0.2, 150.0


def colour_shares(region: Region, image: F32Array) -> dict[str, float]:
    """Each colour name's share of the region's pixels in an (h, w, 3) RGB image."""
    return _shares(image[region.rows, region.columns])


def _shares(pixels: F32Array) -> dict[str, float]:
    names = colour_names(pixels)
    counts = np.bincount(names, minlength=len(COLOURS)) / max(1, names.size)
    return dict(zip(COLOURS, counts.tolist(), strict=True))


def _around(region: Region, shape: tuple[int, ...]) -> Mask:
    """The pixels (h, w) of a region's box and a margin that are not its own."""
    box = region.box
    margin = max(MIN_MARGIN_PX, round(MARGIN_SHARE * max(box.width, box.height)))
    mask: Mask = np.zeros(shape, dtype=np.bool_)
    top, left = max(0, int(box.y0) - margin), max(0, int(box.x0) - margin)
    mask[top : int(box.y1) + margin, left : int(box.x1) + margin] = True
    mask[region.rows, region.columns] = False
    return mask


def colour_name(region: Region, image: F32Array) -> str:
    """The colour name that sets a region off from what is around it.

    A white car has dark windows and a grey shadow on a grey road: what it has most of beyond its
    surroundings is white.

    Args:
        region: of the image.
        image: (h, w, 3) RGB, 0 to 255.
    """
    shares = colour_shares(region, image)
    around = _shares(image[_around(region, image.shape[:2])])
    return max(COLOURS, key=lambda name: shares[name] - around[name])


def colour_names(pixels: F32Array) -> NDArray[np.intp]:
    """Places in `COLOURS` for (P, 3) RGB pixels in 0 to 255."""
    brightest, darkest = pixels.max(axis=1), pixels.min(axis=1)
    chroma = brightest - darkest
    saturation = chroma / np.maximum(brightest, 1.0)
    red, green, blue = pixels.T
    span = np.maximum(chroma, 1e-3)
    sixths = np.where(
        brightest == red,
        ((green - blue) / span) % 6,
        np.where(brightest == green, (blue - red) / span + 2, (red - green) / span + 4),
    )
    bounds = np.array([bound for bound, _ in _HUES])
    hues = np.array([COLOURS.index(name) for _, name in _HUES])
    names = hues[np.searchsorted(bounds, sixths * 60, side="right").clip(0, len(_HUES) - 1)]
    is_brown = (names == COLOURS.index("orange")) & (brightest < _DIM)
    names = np.where(is_brown, COLOURS.index("brown"), names)
    is_pale = saturation < _PALE
    names = np.where(is_pale, COLOURS.index("grey"), names)
    names = np.where(is_pale & (brightest > _BRIGHT), COLOURS.index("white"), names)
    darks: NDArray[np.intp] = np.where(brightest < _DARK, COLOURS.index("black"), names)
    return darks


def fit_of(description: Description, region: Region, image: F32Array) -> float:
    """How well a region fits, 0 to 1; 0 where its colour does not fit at all."""
    fit = 1.0
    if description.colour:
        share = colour_shares(region, image)[description.colour]
        fit = share if share >= MIN_COLOUR_SHARE else 0.0
    if description.shape:
        off = abs(region.ellipse_ratio - _ELLIPSE_RATIOS[description.shape])
        fit *= 1.0 - min(0.9, 3 * off)
    return fit
