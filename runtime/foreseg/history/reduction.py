# SPDX-License-Identifier: Apache-2.0
"""Copies of frames in other sizes: smaller ones by block means, as they travel to a reasoner; squares.

A reduced frame keeps its record, so that `Frame.scale_xy` leads back to source pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameWindow, U8Array
from foreseg.geometry import resize_matrix


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


def squeeze_image(image: U8Array, side_px: int) -> U8Array:
    """An (H, W, 3) uint8 image as (side_px, side_px, 3), whatever its aspect; itself if it is that.

    By the bilinear filter that widens where it shrinks, as Pillow's.
    """
    height, width, channels = image.shape
    if (height, width) == (side_px, side_px):
        return image
    rows = resize_matrix(height, side_px) @ image.reshape(height, -1).astype(np.float32)
    by_column = rows.reshape(side_px, width, channels).transpose(1, 0, 2).reshape(width, -1)
    columns = resize_matrix(width, side_px) @ by_column
    square = columns.reshape(side_px, side_px, channels).transpose(1, 0, 2)
    squeezed: U8Array = np.clip(np.rint(square), 0, 255).astype(np.uint8, order="C")
    squeezed.flags.writeable = False
    return squeezed


def squeeze_window(window: FrameWindow, side_px: int) -> FrameWindow:
    """The window with every frame squeezed by `squeeze_image`."""
    frames = (replace(f, image=squeeze_image(f.image, side_px)) for f in window.frames)
    return replace(window, frames=tuple(frames))


def _reduced_frame(frame: Frame, max_side_px: int) -> Frame:
    return replace(frame, image=reduce_image(frame.image, max_side_px))


def _block_starts(size: int, num_blocks: int) -> NDArray[np.intp]:
    return np.arange(num_blocks, dtype=np.intp) * size // num_blocks
