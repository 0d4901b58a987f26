# SPDX-License-Identifier: Apache-2.0
"""Procedural textures from a seeded generator.

Does not know: what wears a texture.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

U8Array: TypeAlias = NDArray[np.uint8]
F32Array: TypeAlias = NDArray[np.float32]


class TextureKind(enum.Enum):
    """Families of procedural texture."""

    PLAIN = "plain"
    CLOUDS = "clouds"
    STRIPES = "stripes"
    CHECKER = "checker"
    DOTS = "dots"
    GRAIN = "grain"


def random_colour(rng: np.random.Generator) -> F32Array:
    """Draw an RGB colour, (3,) float32 in 0..255, spread over hues rather than greys."""
    hue = rng.integers(0, 180)
    saturation = int(255 * rng.uniform(0.0, 1.0) ** 0.5)
    value = int(rng.integers(40, 256))
    hsv = np.array([[[hue, saturation, value]]], dtype=np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)


def smooth_noise(rng: np.random.Generator, size_wh: tuple[int, int], cells: int) -> F32Array:
    """Make (h, w) float32 noise in -1..1 that varies over about `cells` cells along a side."""
    coarse = rng.uniform(-1.0, 1.0, (cells + 1, cells + 1)).astype(np.float32)
    return cv2.resize(coarse, size_wh, interpolation=cv2.INTER_CUBIC)


def make_texture(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    *,
    kind: TextureKind | None = None,
    base: F32Array | None = None,
    contrast: float | None = None,
) -> U8Array:
    """Paint an (h, w, 3) RGB texture.

    Args:
        rng: source of every choice.
        size_wh: width and height, pixels.
        kind: family; drawn when None.
        base: main colour, (3,) in 0..255; drawn when None.
        contrast: 0..1, how far the second colour lies from the first; drawn when None.
    """
    kinds = list(TextureKind)
    kind = kinds[rng.integers(len(kinds))] if kind is None else kind
    base = random_colour(rng) if base is None else base
    contrast = float(rng.uniform(0.15, 1.0)) if contrast is None else contrast
    other = base + contrast * (random_colour(rng) - base)
    weight = _pattern(rng, size_wh, kind)[..., None]
    shade = 1.0 + 0.18 * smooth_noise(rng, size_wh, 2)[..., None]
    return np.clip((base + weight * (other - base)) * shade, 0, 255).astype(np.uint8)


def _pattern(rng: np.random.Generator, size_wh: tuple[int, int], kind: TextureKind) -> F32Array:
    """Make the (h, w) mixing weight of the second colour, 0..1."""
    width, height = size_wh
    if kind is TextureKind.PLAIN:
        return np.zeros((height, width), dtype=np.float32)
    if kind is TextureKind.CLOUDS:
        noise = sum(smooth_noise(rng, size_wh, cells) / cells**0.5 for cells in (3, 7, 15))
        return np.clip(0.5 + 0.7 * noise, 0, 1).astype(np.float32)
    if kind is TextureKind.GRAIN:
        cells = int(rng.integers(min(size_wh) // 4, min(size_wh) // 2))
        return np.clip(0.5 + 0.5 * smooth_noise(rng, size_wh, cells), 0, 1).astype(np.float32)
    angle = rng.uniform(0, np.pi)
    period = float(rng.uniform(6, 26))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
    across = (y * np.cos(angle) - x * np.sin(angle)) * (2 * np.pi / period)
    wave = np.sin(along, dtype=np.float32)
    if kind is TextureKind.STRIPES:
        return np.clip(0.5 + 2.0 * wave, 0, 1)
    product = wave * np.sin(across, dtype=np.float32)
    if kind is TextureKind.CHECKER:
        return np.clip(0.5 + 4.0 * product, 0, 1)
    return np.clip(4.0 * (product - 0.4), 0, 1)
