# SPDX-License-Identifier: Apache-2.0
"""How a model of the Qwen-VL kind cuts an image into patches, in training as live, with torch or without.

Does not know the model, where an image stands in a prompt, or what executes the patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import MissingExtraError
from foreseg.frames import U8Array

F32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageGeometry:
    """How a model cuts an image into patches, and where their features go in its text."""

    patch_px: int
    temporal_patch: int  # an image is repeated so often: patches are made for video
    merge: int  # so many patches a side become one token
    mean: tuple[float, float, float]  # RGB, of pixels in 0..1
    std: tuple[float, float, float]
    image_token: str  # stands for one token's worth of an image
    image_token_id: int

    @property
    def unit_px(self) -> int:
        """Sides of an image are multiples of this."""
        return self.patch_px * self.merge

    def fitted_wh(self, size_wh: tuple[int, int], max_pixels: int) -> tuple[int, int]:
        """The size at which an image of `size_wh` is read: the nearest multiples of `unit_px`.

        At least one unit a side; else at most `max_pixels`, with about the same aspect.
        """
        return fitted_wh(size_wh, self.unit_px, max_pixels)

    def patches(self, image: U8Array, max_pixels: int) -> tuple[F32Array, tuple[int, int, int]]:
        """An (h, w, 3) RGB image as (patches, values) and its grid: 1, rows, columns of patches."""
        width, height = self.fitted_wh((image.shape[1], image.shape[0]), max_pixels)
        pixels = _resized(image, width, height).astype(np.float32) / np.float32(255)
        pixels = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        side, merge = self.patch_px, self.merge
        rows, columns = height // side, width // side
        blocks = pixels.reshape(
            rows // merge, merge, side, columns // merge, merge, side, 3
        ).transpose(0, 3, 1, 4, 6, 2, 5)  # merged tokens, patches within, then C h w of each
        repeated = np.repeat(blocks[:, :, :, :, :, None], self.temporal_patch, axis=5)
        flat = repeated.reshape(rows * columns, 3 * self.temporal_patch * side * side)
        return np.ascontiguousarray(flat), (1, rows, columns)

    def num_tokens(self, grid: tuple[int, int, int]) -> int:
        """How many tokens an image of this grid takes in the text."""
        return grid[0] * grid[1] * grid[2] // self.merge**2


def fitted_wh(size_wh: tuple[int, int], unit_px: int, max_pixels: int) -> tuple[int, int]:
    """The nearest multiples of `unit_px`; less, with about the same aspect, beyond `max_pixels`."""
    width, height = (max(1, round(side / unit_px)) for side in size_wh)
    most = max(1, max_pixels // unit_px**2)
    if width * height > most:
        scale = math.sqrt(max_pixels / (size_wh[0] * size_wh[1])) / unit_px
        width, height = (max(1, math.floor(side * scale + 1e-6)) for side in size_wh)
        width, height = min(width, most), min(height, most)  # of a strip one unit wide
    return width * unit_px, height * unit_px


def _resized(image: U8Array, width: int, height: int) -> U8Array:
    if image.shape[:2] == (height, width):
        return image
    try:
        import cv2
    except ImportError as error:
        package, extra = "opencv-python-headless", "nano"
        raise MissingExtraError(package, extra, "a frame that a model reads") from error
    shrinks = width * height < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    resized: U8Array = cv2.resize(image, (width, height), interpolation=method)
    return resized
