# SPDX-License-Identifier: Apache-2.0
"""One picture that moves and deforms: where each pixel of a frame comes from.

A layer moves as a whole (place, turn, scale, shear), bends about a line as limbs do, and
ripples as cloth does. Does not know: where its picture comes from, what lies over it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from foreseg_simulation.textures import U8Array

F32 = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bend:
    """Turns what lies beyond a line about a point on it, smoothly across a seam.

    Lengths are shares of the layer's longer side, measured from its centre.
    """

    pivot: tuple[float, float]
    normal_rad: float  # direction of the part that turns
    seam: float  # width of the joint
    angles_rad: F32  # (T,)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ripple:
    """Plane waves of displacement; lengths are shares of the layer's longer side."""

    amplitude: F32  # (W, 2)
    wave: F32  # (W, 2) radians over the longer side
    phases_rad: F32  # (T, W)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """A picture with its ids and how it moves over T frames.

    Attributes:
        picture: (h, w, 3) RGB.
        alpha: (h, w) float32, or None where it covers everything (a background, reflected).
        ids: (h, w) uint8, of the objects in it; None where alpha above a half is the object.
        places: (T, 2) model pixels, of the layer's centre.
        matrices: (T, 2, 2) from layer pixels, centred, to model pixels.
    """

    picture: U8Array
    alpha: F32 | None
    ids: U8Array | None
    places: F32
    matrices: F32
    bend: Bend | None = None
    ripple: Ripple | None = None

    def draw(self, t: int, side: int) -> tuple[U8Array, F32 | None, U8Array]:
        """Draw frame t; returns RGB (S, S, 3), alpha (S, S) or None, and ids (S, S).

        Without ids of its own, an object is 1.
        """
        x, y = self._origins(t, side)
        border = cv2.BORDER_REFLECT_101 if self.alpha is None else cv2.BORDER_REPLICATE
        picture = cv2.remap(self.picture, x, y, cv2.INTER_LINEAR, borderMode=border)
        alpha = None
        if self.alpha is not None:
            alpha = cv2.remap(self.alpha, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        if self.ids is not None:
            ids = cv2.remap(self.ids, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        elif alpha is not None:
            ids = (alpha > 0.5).astype(np.uint8)
        else:
            ids = np.zeros((side, side), np.uint8)
        return picture, alpha, ids

    def _origins(self, t: int, side: int) -> tuple[F32, F32]:
        """Find the layer pixel of each model pixel, x and y (S, S) float32."""
        height, width = self.picture.shape[:2]
        inverse = np.linalg.inv(self.matrices[t]).astype(np.float32)
        grid = np.arange(side, dtype=np.float32) + 0.5
        dx, dy = grid[None] - self.places[t, 0], grid[:, None] - self.places[t, 1]
        u = inverse[0, 0] * dx + inverse[0, 1] * dy
        v = inverse[1, 0] * dx + inverse[1, 1] * dy
        longer = np.float32(max(height, width))
        if self.bend is not None:
            u, v = _unbent(u, v, self.bend, t, longer)
        if self.ripple is not None:
            u, v = _unrippled(u, v, self.ripple, t, longer)
        x = u + np.float32(width / 2 - 0.5)
        y = v + np.float32(height / 2 - 0.5)
        return x.astype(np.float32), y.astype(np.float32)


def _unbent(u: F32, v: F32, bend: Bend, t: int, longer: np.float32) -> tuple[F32, F32]:
    px, py = (np.float32(c) * longer for c in bend.pivot)
    du, dv = u - px, v - py
    beyond = du * np.float32(np.cos(bend.normal_rad)) + dv * np.float32(np.sin(bend.normal_rad))
    share = np.clip(beyond / (np.float32(bend.seam) * longer) + np.float32(0.5), 0, 1)
    angle = np.float32(-bend.angles_rad[t]) * share
    cos, sin = np.cos(angle), np.sin(angle)
    return px + cos * du - sin * dv, py + sin * du + cos * dv


def _unrippled(u: F32, v: F32, ripple: Ripple, t: int, longer: np.float32) -> tuple[F32, F32]:
    out_u, out_v = u, v
    for (ax, ay), (kx, ky), phase in zip(
        ripple.amplitude, ripple.wave, ripple.phases_rad[t], strict=True
    ):
        wave = np.sin(
            np.float32(kx / longer) * u + np.float32(ky / longer) * v + np.float32(phase)
        )
        out_u = out_u + np.float32(ax * longer) * wave
        out_v = out_v + np.float32(ay * longer) * wave
    return out_u, out_v


def draw_bend(rng: np.random.Generator, num_frames: int) -> Bend:
    """Draw a limb-like bend that swings over the clip."""
    swing, start = rng.uniform(0.15, 0.9), rng.uniform(0, 2 * np.pi)
    angles = swing * np.sin(start + rng.uniform(0.1, 0.9) * np.arange(num_frames))
    return Bend(
        pivot=(float(rng.uniform(-0.2, 0.2)), float(rng.uniform(-0.2, 0.2))),
        normal_rad=float(rng.uniform(0, 2 * np.pi)),
        seam=float(rng.uniform(0.1, 0.4)),
        angles_rad=angles - angles[0] * rng.uniform(0, 1),
    )


def draw_ripple(rng: np.random.Generator, num_frames: int) -> Ripple:
    """Draw one to three slow waves, each of up to a tenth of the layer."""
    num_waves = int(rng.integers(1, 4))
    direction = rng.normal(0, 1, (num_waves, 2))
    drift = rng.normal(0, 0.35, num_waves)
    start = rng.uniform(0, 2 * np.pi, num_waves)
    return Ripple(
        amplitude=rng.uniform(0.01, 0.05, (num_waves, 1)) * rng.normal(0, 1, (num_waves, 2)),
        wave=direction * rng.uniform(2, 6, (num_waves, 1)),
        phases_rad=start + drift * np.arange(num_frames)[:, None],
    )


def matrices_of(
    scale: F32, angle_rad: F32, shear: F32, *, flip: bool, stretch: float = 1.0
) -> F32:
    """Compose (T, 2, 2) from scale, turn and shear (T,), and a mirror."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
    ones, zeros = np.ones_like(shear), np.zeros_like(shear)
    slant = np.stack([np.stack([ones, shear], -1), np.stack([zeros, ones], -1)], -2)
    mirror = np.diag([(-1.0 if flip else 1.0) * stretch, 1 / stretch])
    return (scale[:, None, None] * turn @ slant @ mirror).astype(np.float32)
