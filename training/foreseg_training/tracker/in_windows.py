# SPDX-License-Identifier: Apache-2.0
"""Training clips as a tracker sees them that follows an object in a window (`tracker.view window`).

The window goes where the object was a frame before, as in `foreseg.tracker.windowed`, a little off at
times, since what it follows there is a mask that may be wrong. Does not know: prompts, tensors, models.
"""

from __future__ import annotations

import cv2
import numpy as np

from foreseg.tracker.windowed import SEARCH, SIDES, towards
from foreseg_simulation.textures import U8Array

from .clips import Clip, MakeClip

_FINER = 1.5  # clips are drawn so much larger than the model's picture, for a window to show more
_LEAST_SIDE_SHARE = 0.05  # of the drawn clip's side
_LEAST_AREA_PX, _LEAST_SEEN = 40, 0.3  # of an object on the first frame, and of its full area
_OFF = 0.04  # of a window's side: standard deviation of where it goes


def in_windows(make_clip: MakeClip, share: float) -> MakeClip:
    """Show a share of the clips in windows around one of their objects, by the seed."""

    def make(seed: int, num_frames: int, image_size: int) -> Clip:
        rng = np.random.default_rng([seed, 6])
        if rng.random() >= share:
            return make_clip(seed, num_frames, image_size)
        clip = make_clip(seed, num_frames, round(_FINER * image_size))
        return windowed(rng, clip, image_size)

    return make


def windowed(rng: np.random.Generator, clip: Clip, image_size: int) -> Clip:
    """Cut windows around an object drawn at random; the whole frames where none is seen well.

    Args:
        rng: of the object, and of how far windows are off.
        clip: square frames of any size.
        image_size: of the windows as returned, pixels a side.
    """
    number = _followed(rng, clip)
    whole = clip.images.shape[1]
    images, ids = [], []
    centre, side = np.full(2, whole / 2), float(whole)
    for t, (image, seen) in enumerate(zip(clip.images, clip.instance_ids, strict=True)):
        if t == 0 and number:
            centre, longer = _box(seen == number)
            side = SIDES * longer
        off = rng.normal(0, _OFF * side, 2) if number and t else np.zeros(2)
        side = float(np.clip(side, _LEAST_SIDE_SHARE * whole, whole))
        begin = np.clip(centre + off - side / 2, 0, whole - side).astype(int)
        end = np.minimum(whole, np.ceil(begin + side)).astype(int)
        here = slice(begin[1], end[1]), slice(begin[0], end[0])
        images.append(_sized(image[here], image_size, cv2.INTER_LINEAR))
        ids.append(_sized(seen[here], image_size, cv2.INTER_NEAREST))
        if number and (seen[here] == number).any():
            window_side, (centre, longer) = side, _box(seen == number)
            side = towards(window_side, SIDES * longer)
        elif number:
            side = SEARCH * side
        if t == 0:
            scale = (image_size / (end[0] - begin[0])) ** 2
    areas = tuple(float(scale * area) for area in clip.full_areas_px)
    return Clip(images=np.stack(images), instance_ids=np.stack(ids), full_areas_px=areas)


def _followed(rng: np.random.Generator, clip: Clip) -> int:
    """An object of the first frame that is seen well; 0: there is none."""
    areas = np.bincount(clip.instance_ids[0].ravel(), minlength=len(clip.full_areas_px) + 1)
    fitting = [
        k
        for k, full in enumerate(clip.full_areas_px, start=1)
        if areas[k] >= max(_LEAST_AREA_PX, _LEAST_SEEN * full)
    ]
    return int(rng.choice(fitting)) if fitting else 0


def _box(mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre (2,) x, y of a mask's box, and its longer side."""
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    low, high = np.array([xs[0], ys[0]], float), np.array([xs[-1] + 1, ys[-1] + 1], float)
    return (low + high) / 2, float((high - low).max())


def _sized(frame: U8Array, image_size: int, interpolation: int) -> U8Array:
    if frame.shape[0] > image_size and interpolation == cv2.INTER_LINEAR:
        interpolation = cv2.INTER_AREA
    return cv2.resize(frame, (image_size, image_size), interpolation=interpolation)
