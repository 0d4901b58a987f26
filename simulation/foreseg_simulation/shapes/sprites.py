# SPDX-License-Identifier: Apache-2.0
"""Drawing: textured outlines onto an image and, exactly, into its instance map.

Does not know: how a sprite moves or what it is called.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from foreseg_simulation.textures import F32Array, U8Array

_SHIFT = 4  # fractional bits of polygon corners


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sprite:
    """A texture cut out along an outline."""

    texture: U8Array  # (h, w, 3) RGB, spans -1..1 in both unit coordinates
    outline: F32Array  # (P, 2) x, y in unit coordinates


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where a sprite is: centre and radius in pixels, angle in radians, stretch along x."""

    x_px: float
    y_px: float
    radius_px: float
    angle_rad: float = 0.0
    stretch: float = 1.0


def full_area_px(sprite: Sprite, pose: Pose) -> float:
    """Compute the area of a sprite, square pixels, as if nothing hid it or cut it off."""
    x, y = sprite.outline[:, 0], sprite.outline[:, 1]
    unit = 0.5 * abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))))
    return unit * pose.radius_px**2 * pose.stretch


def draw_sprite(
    image: U8Array, instance_ids: U8Array, sprite: Sprite, pose: Pose, instance_id: int
) -> None:
    """Paint a sprite over what is there; image and instance ids always agree with each other.

    OpenCV's antialiased edge lies about half a pixel outside the polygon.

    Args:
        image: (H, W, 3) RGB, changed in place; edges are antialiased.
        instance_ids: (H, W) uint8, changed in place where coverage is at least a half.
        sprite: what to paint.
        pose: where.
        instance_id: 1..255.
    """
    c, s = np.cos(pose.angle_rad), np.sin(pose.angle_rad)
    linear = pose.radius_px * np.array([[c * pose.stretch, -s], [s * pose.stretch, c]])
    points = sprite.outline @ linear.T + (pose.x_px, pose.y_px)
    height, width = instance_ids.shape
    x0, y0 = np.maximum(np.floor(points.min(axis=0)).astype(int) - 1, 0)
    x1, y1 = np.minimum(np.ceil(points.max(axis=0)).astype(int) + 2, (width, height))
    if x1 <= x0 or y1 <= y0:
        return
    coverage = np.zeros((y1 - y0, x1 - x0), dtype=np.uint8)
    corners = np.round((points - (x0, y0)) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(coverage, [corners], 255, lineType=cv2.LINE_AA, shift=_SHIFT)
    texture_h, texture_w = sprite.texture.shape[:2]
    unit_from_texture = np.diag([2 / texture_w, 2 / texture_h])
    matrix = np.empty((2, 3))
    matrix[:, :2] = linear @ unit_from_texture
    matrix[:, 2] = (pose.x_px - x0, pose.y_px - y0) - linear @ (1.0, 1.0)
    paint = cv2.warpAffine(
        sprite.texture, matrix, (x1 - x0, y1 - y0), borderMode=cv2.BORDER_REFLECT_101
    )
    region = image[y0:y1, x0:x1]
    alpha = coverage[..., None].astype(np.int32)
    alpha += alpha >> 7  # 255 becomes 256, so that full coverage replaces the pixel exactly
    region[:] = region + ((paint.astype(np.int32) - region) * alpha >> 8)
    instance_ids[y0:y1, x0:x1][coverage >= 128] = instance_id
