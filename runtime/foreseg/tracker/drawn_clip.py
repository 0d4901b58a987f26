# SPDX-License-Identifier: Apache-2.0
"""A clip that every machine draws alike, for parity: three textured shapes on a textured ground.

Whole numbers only, and the raw bits of a generator that numpy keeps stable: not a pixel depends on
the processor, on numpy's release or on OpenCV. Does not know what tracks it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.prompts import Point, SpatialPrompt

I64 = NDArray[np.int64]

CLIP_FRAMES = 20
_ONE = 256  # of the fixed-point numbers
_CELLS = 6  # of a texture, to a side
_STARTS = ((64, 77), (179, 90), (115, 192))  # (x, y) of the shapes, in 256ths of the frame
_MAX_SPEED = 384  # 256ths of a pixel a frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Frames (H, W, 3) RGB, and one prompt on the first of them for each object."""

    frames: tuple[U8Array, ...]
    prompts: tuple[SpatialPrompt, ...]

    @property
    def size_wh(self) -> tuple[int, int]:
        """Pixels of each frame."""
        height, width = self.frames[0].shape[:2]
        return width, height

    def frame(self, index: int) -> Frame:
        """A frame as the tracker takes it."""
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(index),
            epoch=0,
            stamp_ns=index,
            received_ns=index,
            size_wh=self.size_wh,
        )
        return Frame(ref=ref, image=self.frames[index])

    def sha256(self) -> str:
        """Of all pixels."""
        digest = hashlib.sha256()
        for frame in self.frames:
            digest.update(frame.tobytes())
        return digest.hexdigest()


def moving_shapes(
    *, frames: int = CLIP_FRAMES, size_wh: tuple[int, int] = (320, 240), seed: int = 0
) -> Clip:
    """Three shapes on a textured ground: prompted by a box, a point, and a box with a point."""
    bits = np.random.PCG64(seed)
    w, h = size_wh
    ground = _texture(bits, w, h)
    radius = h // 6
    patches = [_texture(bits, 2 * radius, 2 * radius) for _ in _STARTS]
    starts = np.asarray(_STARTS) * (w, h)  # 256ths of a pixel
    speeds = _whole(bits, (len(_STARTS), 2), -_MAX_SPEED, _MAX_SPEED)
    images = []
    for t in range(frames):
        image = ground.copy()
        corners = (starts + t * speeds + _ONE // 2) // _ONE - radius
        for i, (x, y) in enumerate(corners.tolist()):
            _paste(image, patches[i], x, y, is_round=i != 1)
        images.append(image)
    centres = (starts / _ONE).tolist()
    boxes = [BoxXyxy(x - radius, y - radius, x + radius, y + radius) for x, y in centres]
    points = [Point(x, y) for x, y in centres]
    prompts = (
        SpatialPrompt(box=boxes[0]),
        SpatialPrompt(points=(points[1],)),
        SpatialPrompt(box=boxes[2], points=(points[2],)),
    )
    return Clip(frames=tuple(images), prompts=prompts)


def _whole(bits: np.random.PCG64, shape: tuple[int, ...], low: int, high: int) -> I64:
    """Whole numbers from `low` to `high`, both inclusive."""
    raw = np.asarray(bits.random_raw(int(np.prod(shape))), np.uint64)
    drawn: I64 = (raw >> np.uint64(33)).astype(np.int64) % (high - low + 1) + low
    return drawn.reshape(shape)


def _texture(bits: np.random.PCG64, w: int, h: int) -> U8Array:
    """(h, w, 3) smooth noise in a random hue, with a grain."""
    coarse = _whole(bits, (_CELLS, _CELLS, 3), 0, 255)
    hue = _whole(bits, (3,), 77, _ONE)
    grain = _whole(bits, (h, w, 3), -15, 15)
    y, x = (np.arange(n) * (_CELLS - 1) * _ONE // n for n in (h, w))
    rows = _between(coarse, y)
    smooth = _between(rows.swapaxes(0, 1), x).swapaxes(0, 1)
    image: U8Array = np.clip((smooth + grain) * hue // _ONE, 0, 255).astype(np.uint8)
    return image


def _between(values: I64, places: I64) -> I64:
    """Linear interpolation along the first axis at places in 256ths."""
    cell, part = places // _ONE, (places % _ONE)[:, None, None]
    mixed: I64 = (values[cell] * (_ONE - part) + values[cell + 1] * part) // _ONE
    return mixed


def _paste(image: U8Array, patch: U8Array, x: int, y: int, *, is_round: bool) -> None:
    """Draw a patch, cut to a disc or a square; what leaves the image is cut off."""
    side = patch.shape[0]
    twice = np.arange(side) * 2 - (side - 1)  # of the distance from the middle
    disc = twice[:, None] ** 2 + twice[None, :] ** 2 <= side**2
    inside = disc if is_round else np.ones_like(disc)
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + side, image.shape[1]), min(y + side, image.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    cut = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
    image[y0:y1, x0:x1][inside[cut]] = patch[cut][inside[cut]]
