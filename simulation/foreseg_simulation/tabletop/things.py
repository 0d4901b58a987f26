# SPDX-License-Identifier: Apache-2.0
"""Everyday things made of primitives, to stand on the table.

Each stands on z = 0 around the vertical axis and fits a circle of `THING_RADIUS`.
"""

from __future__ import annotations

import numpy as np

from foreseg_simulation.naming import COLOURS

from .stage import geom

THING_RADIUS = 0.07
THING_KINDS = ("cube", "can", "mug", "bottle", "duck", "lamp")

_SCALE = 1.4


def draw_things(rng: np.random.Generator, num_things: int) -> list[tuple[str, str]]:
    """Draw differing (colour, kind) pairs; of four or more, two share a colour, two a kind."""
    colours = [str(c) for c in rng.permutation([c for c in COLOURS if c != "white"])]
    kinds = [str(k) for k in rng.permutation(THING_KINDS)]
    if num_things > 3:
        colours[1], kinds[3] = colours[0], kinds[2]
    return list(zip(colours[:num_things], kinds[:num_things], strict=True))


def thing(kind: str, paint: str) -> str:
    """Write the geoms of a thing."""
    if kind == "cube":
        return _part("box", (0.036, 0.036, 0.036), (0, 0, 0.036), paint=paint)
    if kind == "can":
        return _part("cylinder", (0.034, 0.05), (0, 0, 0.05), paint=paint) + geom(
            "cylinder", (0.028, 0.003), (0, 0, 0.101), paint="steel"
        )
    if kind == "mug":
        return (
            _part("cylinder", (0.034, 0.038), (0, 0, 0.038), paint=paint)
            + _part("cylinder", (0.028, 0.002), (0, 0, 0.076), paint="dark")
            + _part("capsule", (0.006, 0.014), (0.046, 0, 0.038), paint=paint)
            + _bar((0.034, 0, 0.056), (0.046, 0, 0.052), 0.006, paint)
            + _bar((0.034, 0, 0.02), (0.046, 0, 0.024), 0.006, paint)
        )
    if kind == "bottle":
        return (
            _part("cylinder", (0.028, 0.045), (0, 0, 0.045), paint=paint)
            + _part("ellipsoid", (0.028, 0.028, 0.02), (0, 0, 0.09), paint=paint)
            + _part("cylinder", (0.011, 0.022), (0, 0, 0.12), paint=paint)
            + _part("cylinder", (0.013, 0.006), (0, 0, 0.147), paint="dark")
        )
    if kind == "duck":
        return (
            _part("ellipsoid", (0.046, 0.034, 0.032), (0, 0, 0.032), paint=paint)
            + _part("sphere", (0.024,), (0.024, 0, 0.078), paint=paint)
            + _part("ellipsoid", (0.014, 0.01, 0.005), (0.05, 0, 0.074), paint="wood")
            + _part("sphere", (0.005,), (0.04, -0.014, 0.088), paint="dark")
            + _part("sphere", (0.005,), (0.04, 0.014, 0.088), paint="dark")
        )
    return (  # a lamp
        _part("cylinder", (0.034, 0.012), (0, 0, 0.012), paint=paint)
        + _part("cylinder", (0.008, 0.04), (0, 0, 0.06), paint="steel")
        + _part("ellipsoid", (0.036, 0.036, 0.026), (0, 0, 0.11), paint=paint)
    )


def _part(
    kind: str, size: tuple[float, ...], at: tuple[float, float, float], *, paint: str
) -> str:
    grown = [_SCALE * x for x in size], [_SCALE * x for x in at]
    return geom(kind, *grown, paint=paint, more='density="150"')


def _bar(
    start: tuple[float, float, float], end: tuple[float, float, float], radius: float, paint: str
) -> str:
    ends = " ".join(f"{_SCALE * x:.6f}" for x in (*start, *end))
    return (
        f'<geom type="capsule" size="{_SCALE * radius}" fromto="{ends}" material="{paint}"'
        ' density="150"/>'
    )
