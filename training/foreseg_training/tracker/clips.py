# SPDX-License-Identifier: Apache-2.0
"""Training clips: a few frames at model size with instance ids, jittered like a real camera.

Does not know: prompts, tensors, models.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from foreseg_simulation.shapes.wandering import WanderingConfig, wander
from foreseg_simulation.textures import U8Array

from .composites import CompositeMaker

_SOURCE_WH = (320, 240)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clip:
    """Consecutive frames at model size."""

    images: U8Array  # (T, S, S, 3) RGB
    instance_ids: U8Array  # (T, S, S)
    full_areas_px: tuple[float, ...]  # model pixels on the first frame, of object k at k - 1


MakeClip = Callable[[int, int, int], Clip]  # seed, frames, model pixels a side


def mixed(first: MakeClip, second: MakeClip, share: float) -> MakeClip:
    """Draw from `first` with a probability of `share`, else from `second`, by the seed."""

    def make(seed: int, num_frames: int, image_size: int) -> Clip:
        is_first = np.random.default_rng([seed, 5]).random() < share
        return (first if is_first else second)(seed, num_frames, image_size)

    return make


def make_clip(seed: int, num_frames: int, image_size: int) -> Clip:
    """Render a training clip; equal arguments give equal bytes."""
    rng = np.random.default_rng([seed, 1])
    fastest = float(rng.choice([3.0, 6.0, 12.0]))
    is_large = rng.random() < 0.3
    config = WanderingConfig(
        size_wh=_SOURCE_WH,
        num_objects=(2, 4) if is_large else (2, 6),
        radius_px=(40.0, 130.0) if is_large else (12.0, 60.0),
        speed_px=(0.0, fastest),
        meeting_frames=(1, max(1, num_frames - 1)),
        meeting_probability=float(rng.choice([0.3, 0.8])),
        covers=bool(rng.random() < 0.6),
        twin_probability=0.35,
        leave_probability=0.4,
        camera_px=float(rng.uniform(0, 5)),
    )
    maker = CompositeMaker(photo_probability=0.0 if rng.random() < 0.35 else 0.7)
    world = wander(seed, config, sprite_maker=maker.sprite, background_maker=maker.background)
    frames = list(itertools.islice(world, num_frames))
    images = np.stack([_shrink(f.image, image_size, cv2.INTER_AREA) for f in frames])
    ids = np.stack([_shrink(f.instance_ids, image_size, cv2.INTER_NEAREST) for f in frames])
    scale = image_size**2 / (_SOURCE_WH[0] * _SOURCE_WH[1])
    areas = tuple(scale * area for area in frames[0].full_areas_px)
    return Clip(images=jitter(rng, images), instance_ids=ids, full_areas_px=areas)


def jitter(rng: np.random.Generator, images: U8Array) -> U8Array:
    """Change exposure, colour, sharpness and noise of a clip (T, S, S, 3), mostly alike in all."""
    gain = rng.uniform(0.75, 1.25) * rng.uniform(0.92, 1.08, 3)
    gamma = float(np.exp(rng.normal(0, 0.2)))
    levels = np.arange(256, dtype=np.float64)[:, None] / 255
    blur = _blur_kernel(rng)
    noise_level = float(rng.uniform(1, 9)) if rng.random() < 0.4 else 0.0
    out = np.empty_like(images)
    for t, image in enumerate(images):
        flicker = 1 + rng.normal(0, 0.02)
        table = np.clip(255 * flicker * gain * levels**gamma, 0, 255).astype(np.uint8)
        frame = cv2.LUT(image, table[None])
        if blur is not None:
            frame = cv2.filter2D(frame, -1, blur)
        if noise_level:
            noise = rng.standard_normal(frame.shape, dtype=np.float32)
            frame = np.clip(frame + noise_level * noise, 0, 255).astype(np.uint8)
        out[t] = frame
    return out


def _blur_kernel(rng: np.random.Generator) -> np.ndarray | None:
    """Draw a short motion streak, or None for most clips."""
    if rng.random() < 0.7:
        return None
    kernel = np.zeros((7, 7), dtype=np.float32)
    angle, reach = rng.uniform(0, np.pi), rng.uniform(0.8, 3)
    for step in np.linspace(-reach, reach, 9):
        kernel[round(3 + step * np.sin(angle)), round(3 + step * np.cos(angle))] += 1
    return kernel / kernel.sum()


def _shrink(frame: U8Array, image_size: int, interpolation: int) -> U8Array:
    return cv2.resize(frame, (image_size, image_size), interpolation=interpolation)
