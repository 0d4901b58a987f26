# SPDX-License-Identifier: Apache-2.0
"""Outlines of what stories play with: concave shapes and rings among them, in unit coordinates.

Validation has kinds of its own, which never train. Does not know: colour, place, motion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from foreseg_simulation.textures import F32Array

Outline = Callable[[], F32Array]


def _round(num_points: int, phase: float = -np.pi / 2, radius: float = 1.0) -> F32Array:
    angle = np.arange(num_points) * (2 * np.pi / num_points) + phase
    return (radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(np.float32)


def _spiked(num_points: int, inner: float) -> F32Array:
    points = _round(2 * num_points)
    points[1::2] *= np.float32(inner)
    return points


def _holed(outer: F32Array, inner: float) -> F32Array:
    """An outline with a hole of its own form: one polygon, closed over a seam of no width."""
    closed = np.concatenate([outer, outer[:1]])
    return np.concatenate([closed, closed[::-1] * np.float32(inner)]).astype(np.float32)


def _crescent() -> F32Array:
    outer = _round(40, 0.0)[4:37]
    inner = outer[::-1] * np.float32(0.72) + np.array([0.42, 0.0], dtype=np.float32)
    return np.concatenate([outer, inner]).astype(np.float32)


def _of(*corners: tuple[float, float]) -> Outline:
    return lambda: np.array(corners, dtype=np.float32)


_TRAIN: Mapping[str, Outline] = MappingProxyType(
    {
        "square": lambda: _round(4, np.pi / 4),
        "triangle": lambda: _round(3),
        "star": lambda: _spiked(5, 0.45),
        "hexagon": lambda: _round(6),
        "crescent": _crescent,
        "arrow": _of(
            (-1, -0.35), (0.1, -0.35), (0.1, -0.85), (1, 0), (0.1, 0.85), (0.1, 0.35), (-1, 0.35)
        ),
        "bolt": _of((0.3, -1), (-0.55, 0.15), (-0.05, 0.15), (-0.3, 1), (0.55, -0.2), (0.05, -0.2)),
        "ring": lambda: _holed(_round(40), 0.66),
    }
)  # fmt: skip
_VAL: Mapping[str, Outline] = MappingProxyType(
    {
        "disc": lambda: _round(40),
        "pentagon": lambda: _round(5),
        "cross": _of(
            (0.34, 0.34), (0.34, 0.95), (-0.34, 0.95), (-0.34, 0.34), (-0.95, 0.34),
            (-0.95, -0.34), (-0.34, -0.34), (-0.34, -0.95), (0.34, -0.95), (0.34, -0.34),
            (0.95, -0.34), (0.95, 0.34),
        ),
        "gear": lambda: _spiked(9, 0.72),
        "horseshoe": _of(
            (-0.8, -0.85), (-0.35, -0.85), (-0.35, 0.35), (0.35, 0.35), (0.35, -0.85), (0.8, -0.85),
            (0.8, 0.85), (-0.8, 0.85),
        ),
        "chevron": _of((-0.9, -0.8), (0, -0.8), (0.9, 0), (0, 0.8), (-0.9, 0.8), (-0.05, 0)),
        "corner": _of((-0.8, -0.8), (-0.2, -0.8), (-0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (-0.8, 0.8)),
        "frame": lambda: _holed(_round(4, np.pi / 4), 0.64),
    }
)  # fmt: skip

KINDS: Mapping[str, Mapping[str, Outline]] = MappingProxyType(
    {"train": _TRAIN, "dev": _TRAIN, "val": _VAL}
)
HOLED: Mapping[str, str] = MappingProxyType({"train": "ring", "dev": "ring", "val": "frame"})
BAR: F32Array = np.array([(-1, -0.07), (1, -0.07), (1, 0.07), (-1, 0.07)], dtype=np.float32)
PANEL: F32Array = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)], dtype=np.float32)
