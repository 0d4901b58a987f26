# SPDX-License-Identifier: Apache-2.0
"""Outlines of the kinds of shape, in unit coordinates.

Does not know: colour, texture, place, or motion.
"""

from __future__ import annotations

import enum

import numpy as np

from foreseg_simulation.textures import F32Array


class ShapeKind(enum.Enum):
    """Kinds of shape; the value is the noun that a question uses."""

    BALL = "ball"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    CROSS = "cross"
    HEXAGON = "hexagon"
    ARROW = "arrow"
    CRESCENT = "crescent"
    BLOB = "blob"


_ARROW = ((-1, -0.35), (0.1, -0.35), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.35), (-1, 0.35))


def outline(kind: ShapeKind, rng: np.random.Generator) -> F32Array:
    """Trace a shape as a (P, 2) float32 polygon of x, y within about -1..1.

    Only `BLOB` draws from the generator: the other kinds always look the same.
    """
    if kind is ShapeKind.BALL:
        return _circle(40)
    if kind is ShapeKind.CRESCENT:
        outer = _circle(40)[4:37]
        inner = outer[::-1] * np.float32(0.72) + np.array([0.42, 0.0], dtype=np.float32)
        return np.concatenate([outer, inner]).astype(np.float32)
    if kind is ShapeKind.BLOB:
        return _blob(rng)
    if kind is ShapeKind.ARROW:
        return np.array(_ARROW, dtype=np.float32)
    if kind is ShapeKind.CROSS:
        a = 0.36
        quarter = np.array([(a, a), (a, 1), (-a, 1)], dtype=np.float32)
        return np.concatenate([_rotated(quarter, i * np.pi / 2) for i in range(4)])
    if kind is ShapeKind.STAR:
        points = _circle(10, phase=-np.pi / 2)
        points[1::2] *= np.float32(0.45)
        return points
    corners = {ShapeKind.SQUARE: 4, ShapeKind.TRIANGLE: 3, ShapeKind.HEXAGON: 6}[kind]
    phase = np.pi / 4 if kind is ShapeKind.SQUARE else -np.pi / 2
    return _circle(corners, phase=phase)


def _circle(num_points: int, *, phase: float = 0.0) -> F32Array:
    angle = np.arange(num_points, dtype=np.float64) * (2 * np.pi / num_points) + phase
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def _rotated(points: F32Array, angle: float) -> F32Array:
    c, s = np.cos(angle), np.sin(angle)
    return (points @ np.array([[c, s], [-s, c]])).astype(np.float32)


def _blob(rng: np.random.Generator) -> F32Array:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, 7):
        radius += rng.normal(0, 0.32 / wave) * np.cos(wave * angle + rng.uniform(0, 2 * np.pi))
    radius = np.clip(radius, 0.3, None)
    radius /= radius.max()
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    points[:, 0] *= rng.uniform(0.5, 1.0)
    return points.astype(np.float32)
