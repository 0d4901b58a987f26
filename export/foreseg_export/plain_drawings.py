# SPDX-License-Identifier: Apache-2.0
"""Plain drawings: what a nano reasoner is not for, and what lies nearer to its worlds than any photograph.

Flat shapes, lines and letters of any colour on a plain or shaded ground, some with noise. Does not know models.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from foreseg.frames import U8Array

_SIZES_WH = ((128, 128), (160, 96), (160, 120), (224, 168), (320, 240), (640, 480))
_MAX_THINGS = 7
_GREY, _SHADED, _NOISY = 0.4, 0.3, 0.5  # shares of the drawings
_SHADE, _NOISE = 60.0, (1.0, 30.0)  # levels of 255: across the ground at most; deviation
_REACH = (0.03, 0.2)  # of a thing, of the width


def plain_drawings(count: int, seed: int = 0) -> Iterator[U8Array]:
    """Draw some, (H, W, 3) RGB; equal seeds give equal ones."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield _drawing(rng)


def _drawing(rng: np.random.Generator) -> U8Array:
    width, height = _SIZES_WH[rng.integers(len(_SIZES_WH))]
    colour = np.full(3, rng.integers(256)) if rng.random() < _GREY else rng.integers(256, size=3)
    ground = np.tile(colour.astype(np.float32), (height, width, 1))
    if rng.random() < _SHADED:
        ground += np.linspace(-1, 1, width)[None, :, None] * rng.uniform(0, _SHADE)
    image: U8Array = ground.clip(0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(_MAX_THINGS + 1))):
        _draw_thing(rng, image)
    if rng.random() < _NOISY:
        noise = rng.normal(0, rng.uniform(*_NOISE), image.shape)
        image = (image + noise).clip(0, 255).astype(np.uint8)
    return image


def _draw_thing(rng: np.random.Generator, image: U8Array) -> None:
    height, width = image.shape[:2]
    red, green, blue = map(int, rng.integers(256, size=3))
    colour = (red, green, blue)
    x, y = int(rng.integers(width)), int(rng.integers(height))
    reach = int(rng.uniform(*_REACH) * width)
    kind = int(rng.integers(4))
    if kind == 0:
        cv2.rectangle(
            image, (x, y), (x + reach, y + int(reach * rng.uniform(0.5, 1.5))), colour, -1
        )
    elif kind == 1:
        axes = (reach // 2 + 2, int(reach * rng.uniform(0.25, 0.5)) + 2)
        cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
    elif kind == 2:
        end = int(rng.integers(width)), int(rng.integers(height))
        cv2.line(image, (x, y), end, colour, int(rng.integers(1, 6)))
    else:
        letters = "".join(map(chr, rng.integers(ord("A"), ord("z") + 1, size=6)))
        scale, thickness = float(rng.uniform(0.3, 1.0)), int(rng.integers(1, 3))
        cv2.putText(image, letters, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, colour, thickness)
