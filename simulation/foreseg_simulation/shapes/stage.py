# SPDX-License-Identifier: Apache-2.0
"""The stage of a foresight scene: floor, layout, and the painting of one frame."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from foreseg_simulation.textures import F32Array, TextureKind, U8Array, make_texture

from .sprites import Pose, Sprite, draw_sprite


def make_floor(rng: np.random.Generator, size_wh: tuple[int, int]) -> U8Array:
    """Paint a dim, greyish floor that no named colour blends into."""
    base = np.full(3, rng.uniform(70, 105), dtype=np.float32) + rng.uniform(-6, 6, 3)
    kind = (TextureKind.CLOUDS, TextureKind.GRAIN)[rng.integers(2)]
    return make_texture(rng, size_wh, kind=kind, base=base.astype(np.float32), contrast=0.06)


def ring_layout(
    rng: np.random.Generator, size_wh: tuple[int, int], num_places: int, radius_px: float
) -> F32Array:
    """Place objects around an ellipse, (N, 2) centres: no chord between two meets a third."""
    start = rng.uniform(0, 2 * np.pi)
    jitter = rng.uniform(-0.25, 0.25, num_places) * (np.pi / num_places)
    angles = start + np.arange(num_places) * (2 * np.pi / num_places) + jitter
    reach = np.array(size_wh) / 2 - 1.25 * radius_px
    centres = np.array(size_wh) / 2 + reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return centres.astype(np.float32)


def paint_frame(
    floor: U8Array, actors: Iterable[tuple[int, Sprite, Pose]]
) -> tuple[U8Array, U8Array]:
    """Draw actors (instance id, sprite, pose) over the floor, the last on top.

    Returns:
        Image (H, W, 3) RGB and instance ids (H, W).
    """
    image = floor.copy()
    instance_ids = np.zeros(floor.shape[:2], dtype=np.uint8)
    for instance_id, sprite, pose in actors:
        draw_sprite(image, instance_ids, sprite, pose, instance_id)
    return image, instance_ids


def corners_of(sprite: Sprite, pose: Pose) -> F32Array:
    """Corners (P, 2) of a posed outline, pixels."""
    c, s = np.cos(pose.angle_rad), np.sin(pose.angle_rad)
    linear = pose.radius_px * np.array([[c * pose.stretch, -s], [s * pose.stretch, c]])
    return (sprite.outline @ linear.T + (pose.x_px, pose.y_px)).astype(np.float32)
