# SPDX-License-Identifier: Apache-2.0
"""How a model of the InternVL kind sees a frame: squeezed to one square, always of as many tokens.

Its public code cuts a single image into several squares; frames of a video are one each, and so
are all frames here. Does not know the model, or where a frame stands in a prompt.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from foreseg.frames import U8Array
from foreseg.language.images import F32Array, ImageGeometry


@dataclass(frozen=True, slots=True, kw_only=True)
class SquareGeometry(ImageGeometry):
    """A square of `side_px`, whole: the model itself cuts it into patches."""

    side_px: int

    def fitted_wh(self, size_wh: tuple[int, int], max_pixels: int) -> tuple[int, int]:
        """The same for every image; neither its aspect nor a budget changes it."""
        del size_wh, max_pixels
        return self.side_px, self.side_px

    def patches(self, image: U8Array, max_pixels: int) -> tuple[F32Array, tuple[int, int, int]]:
        """An (h, w, 3) RGB image as (1, 3, S, S), and its grid: 1, rows, columns of patches.

        Bicubic with antialiasing in 8 bits, as PIL resizes.
        """
        del max_pixels
        pixels = torch.tensor(image).permute(2, 0, 1)[None]
        size = (self.side_px, self.side_px)
        if pixels.shape[-2:] != size:
            pixels = functional.interpolate(pixels, size, mode="bicubic", antialias=True)
        mean = np.array(self.mean, np.float32).reshape(3, 1, 1)
        std = np.array(self.std, np.float32).reshape(3, 1, 1)
        values = (pixels.numpy().astype(np.float32) / np.float32(255) - mean) / std
        side = self.side_px // self.patch_px
        return np.ascontiguousarray(values), (1, side, side)
