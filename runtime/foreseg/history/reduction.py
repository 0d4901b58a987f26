# SPDX-License-Identifier: Apache-2.0
"""Smaller copies of frames, by block means: what travels to a reasoner.

A reduced frame keeps its record, so that `Frame.scale_xy` leads back to source pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameWindow, U8Array


def reduce_image(image: U8Array, max_side_px: int) -> U8Array:
    """An (H, W, 3) uint8 image with its longer side at most `max_side_px`; itself if it fits.

    Each pixel is the mean of its block; where the sizes do not divide, blocks differ by a pixel.
    """
    if max_side_px < 1:
        msg = f"a reduced image wants a side of at least 1 pixel, got {max_side_px}"
        raise ConfigError(msg)
    height, width, channels = image.shape
    scale = max_side_px / max(height, width)
    if scale >= 1:
        return image
    rows = _block_starts(height, max(1, round(height * scale)))
    columns = _block_starts(width, max(1, round(width * scale)))
    sums = np.add.reduceat(image.reshape(height, width * channels), rows, axis=0, dtype=np.uint32)
    sums = np.add.reduceat(sums.reshape(rows.size, width, channels), columns, axis=1)
    counts = np.outer(np.diff(rows, append=height), np.diff(columns, append=width))
    halves = (counts // 2)[..., None]
    reduced: U8Array = ((sums + halves) // counts[..., None]).astype(np.uint8)
    reduced.flags.writeable = False
    return reduced


def reduce_window(window: FrameWindow, max_side_px: int) -> FrameWindow:
    """The window with every frame reduced by `reduce_image`."""
    frames = (_reduced_frame(frame, max_side_px) for frame in window.frames)
    return replace(window, frames=tuple(frames))


def _reduced_frame(frame: Frame, max_side_px: int) -> Frame:
    return replace(frame, image=reduce_image(frame.image, max_side_px))


def _block_starts(size: int, num_blocks: int) -> NDArray[np.intp]:
    return np.arange(num_blocks, dtype=np.intp) * size // num_blocks
