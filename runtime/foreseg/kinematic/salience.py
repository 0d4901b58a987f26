# SPDX-License-Identifier: Apache-2.0
"""Regions of a still image that stand out from its background, by colour.

A colour belongs to the background as far as it is as common along the image's rim as elsewhere; so
a textured background is fine, and an object of the background's own colours is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foreseg.kinematic.regions import (
    F32Array,
    Region,
    dilated,
    eroded,
    mean_filtered,
    regions_from_mask,
)
from foreseg.masks import Mask

LEVELS = 16  # per channel
COLOUR_WIDTH = 12.0  # grey levels over which colours count as alike
RIM_SHARE = 0.06  # of the shorter side
NUM_STRETCHES = 16  # of the rim
NUM_IGNORED = 2  # stretches where a colour is most common: an object may lie on the rim
MAX_RIM_RATIO = 0.3  # a colour rarer on the rim than this, compared with everywhere, stands out
FIT_STEP = 2  # pixels between those that the light is fitted to
FIT_ROUNDS = 5
FIT_TOLERANCE = 15.0  # grey levels
MIN_AREA_SHARE = 0.0015
MAX_AREA_SHARE = 0.25


def salient_regions(image: F32Array, exclude: Mask) -> list[Region]:
    """Regions of an (h, w, 3) RGB image that stand out, in reading order.

    Args:
        image: 0 to 255.
        exclude: (h, w) pixels that belong to no region, such as what movers covered.
    """
    ratio = rim_ratio(without_shading(image, exclude), exclude)
    stands_out = (ratio < MAX_RIM_RATIO) & ~exclude
    mask = mean_filtered(stands_out.astype(np.float32)) > 0.5
    mask = eroded(dilated(mask, 2), 2) & ~exclude
    pixels = mask.size
    return regions_from_mask(
        mask,
        image,
        min_area=max(8, round(MIN_AREA_SHARE * pixels)),
        max_area=round(MAX_AREA_SHARE * pixels),
    )


def without_shading(image: F32Array, exclude: Mask) -> F32Array:
    """The (h, w, 3) image less its smooth changes of light, which a cubic surface follows.

    The surface is fitted with weights that fall with the residual, so that objects do not pull it.
    """
    height, width = image.shape[:2]
    terms = _cubic_terms(height, width)
    rows, columns = np.mgrid[0:height:FIT_STEP, 0:width:FIT_STEP]
    used = ~exclude[rows, columns]
    if np.count_nonzero(used) < 4 * terms.shape[2]:
        return image
    basis = terms[rows, columns][used]
    values = image[rows, columns][used].astype(np.float64)
    weights = np.ones(len(basis))
    for _ in range(FIT_ROUNDS):
        weighted = basis * weights[:, None]
        ridge = 1e-6 * len(basis) * np.eye(basis.shape[1])
        surface = np.linalg.solve(basis.T @ weighted + ridge, weighted.T @ values)
        residuals = np.abs(values - basis @ surface).max(axis=1)
        weights = 1 / (1 + (residuals / FIT_TOLERANCE) ** 2)
    shading = terms @ surface
    middle = values.mean(axis=0)
    flat: F32Array = (image - shading + middle).clip(0, 255).astype(np.float32)
    return flat


def _cubic_terms(height: int, width: int) -> NDArray[np.float64]:
    """(h, w, 10) products of powers of y and x, each in -1 to 1, of at most the third degree."""
    y = np.linspace(-1, 1, height)[:, None]
    x = np.linspace(-1, 1, width)[None, :]
    powers = [(i, j) for i in range(4) for j in range(4 - i)]
    return np.stack([y**i * x**j for i, j in powers], axis=2)


def rim_ratio(image: F32Array, exclude: Mask) -> F32Array:
    """Per pixel, how common its colour is on the rim over how common it is anywhere: (h, w)."""
    height, width = image.shape[:2]
    bins = (image * (LEVELS / 256)).astype(np.int32)
    codes = (bins[..., 0] * LEVELS + bins[..., 1]) * LEVELS + bins[..., 2]
    colours = np.flatnonzero(np.bincount(codes.ravel(), minlength=LEVELS**3)).astype(np.int32)
    numbers = np.zeros(LEVELS**3, dtype=np.intp)
    numbers[colours] = np.arange(colours.size)
    places = numbers[codes]
    everywhere = np.bincount(places[~exclude], minlength=colours.size).astype(np.float64)
    stretches = _rim_stretches((height, width))
    stretches[exclude] = 0
    on_rim = np.stack(
        [
            np.bincount(places[stretches == number], minlength=colours.size)
            / max(1, int(np.count_nonzero(stretches == number)))
            for number in range(1, NUM_STRETCHES + 1)
        ],
        axis=1,
    )
    alike = _alikeness(colours)
    rim_density = np.sort(alike @ on_rim, axis=1)[:, :-NUM_IGNORED].mean(axis=1)
    density = alike @ everywhere / max(1.0, everywhere.sum())
    ratio = (rim_density / np.maximum(density, 1e-9)).astype(np.float32)
    per_pixel: F32Array = ratio[places]
    return per_pixel


def _rim_stretches(shape: tuple[int, int]) -> NDArray[np.int32]:
    """Number the rim's pixels by direction from the centre, 1 to NUM_STRETCHES; 0 inside."""
    height, width = shape
    y = (np.arange(height) + 0.5) / height - 0.5
    x = (np.arange(width) + 0.5) / width - 0.5
    turns = np.arctan2(y[:, None], x[None, :]) / (2 * np.pi) + 0.5
    stretches = (turns * NUM_STRETCHES).astype(np.int32).clip(0, NUM_STRETCHES - 1) + 1
    depth = max(1, round(RIM_SHARE * min(height, width)))
    stretches[depth:-depth, depth:-depth] = 0
    return stretches


def _alikeness(codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """(K, K) weights of 1 for equal colours, falling with their distance."""
    levels = np.stack([codes // LEVELS**2, codes // LEVELS % LEVELS, codes % LEVELS], axis=1)
    values = levels * (256 / LEVELS)
    distances = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    weights: NDArray[np.float64] = np.exp(-distances / (2 * COLOUR_WIDTH**2))
    return weights
