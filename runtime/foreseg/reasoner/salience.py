# SPDX-License-Identifier: Apache-2.0
"""Regions of a still image that stand out from its background, by colour.

A colour belongs to the background as far as it is as common along the image's rim as elsewhere; so
a textured background is fine, and an object of the background's own colours is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foreseg.masks import Mask
from foreseg.reasoner.regions import F32Array, Region, dilated, eroded, regions_from_mask

LEVELS = 12  # per channel
COLOUR_WIDTH = 16.0  # grey levels over which colours count as alike
RIM_SHARE = 0.06  # of the shorter side
MAX_RIM_RATIO = 0.35  # a colour rarer on the rim than this, compared with everywhere, stands out
MIN_AREA_SHARE = 0.0015
MAX_AREA_SHARE = 0.25


def salient_regions(image: F32Array, exclude: Mask) -> list[Region]:
    """Regions of an (h, w, 3) RGB image that stand out, in reading order.

    Args:
        image: 0 to 255.
        exclude: (h, w) pixels that belong to no region, such as what movers covered.
    """
    ratio = rim_ratio(image, exclude)
    mask = (ratio < MAX_RIM_RATIO) & ~exclude
    mask = dilated(eroded(mask))
    mask = eroded(dilated(mask, 2), 2) & ~exclude
    pixels = mask.size
    return regions_from_mask(
        mask,
        image,
        min_area=max(8, round(MIN_AREA_SHARE * pixels)),
        max_area=round(MAX_AREA_SHARE * pixels),
    )


def rim_ratio(image: F32Array, exclude: Mask) -> F32Array:
    """Per pixel, how common its colour is on the rim over how common it is anywhere: (h, w)."""
    height, width = image.shape[:2]
    bins = (image * (LEVELS / 256)).astype(np.int32)
    codes = (bins[..., 0] * LEVELS + bins[..., 1]) * LEVELS + bins[..., 2]
    colours, places = np.unique(codes, return_inverse=True)
    places = places.reshape(height, width)
    rim = ~exclude
    depth = max(1, round(RIM_SHARE * min(height, width)))
    rim[depth:-depth, depth:-depth] = False
    everywhere = np.bincount(places[~exclude], minlength=colours.size).astype(np.float64)
    on_rim = np.bincount(places[rim], minlength=colours.size).astype(np.float64)
    alike = _alikeness(colours)
    rim_density = alike @ on_rim / max(1.0, on_rim.sum())
    density = alike @ everywhere / max(1.0, everywhere.sum())
    ratio = (rim_density / np.maximum(density, 1e-9)).astype(np.float32)
    per_pixel: F32Array = ratio[places]
    return per_pixel


def _alikeness(codes: NDArray[np.int32]) -> NDArray[np.float64]:
    """(K, K) weights of 1 for equal colours, falling with their distance."""
    levels = np.stack([codes // LEVELS**2, codes // LEVELS % LEVELS, codes % LEVELS], axis=1)
    values = levels * (256 / LEVELS)
    distances = ((values[:, None] - values[None]) ** 2).sum(axis=2)
    weights: NDArray[np.float64] = np.exp(-distances / (2 * COLOUR_WIDTH**2))
    return weights
