# SPDX-License-Identifier: Apache-2.0
"""Tools, the parts they are made for, and a gripper, made of primitives.

A tool lies on z = 0 with its handle along y, its head at +y; a part stands on z = 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .stage import geom

TOOL_HALF = 0.09  # length of a handle, halved
PART_OF_TOOL: Mapping[str, str] = MappingProxyType(
    {"hammer": "nail", "wrench": "bolt", "screwdriver": "screw", "brush": "paint pot"}
)
USE_OF_TOOL: Mapping[str, str] = MappingProxyType(
    {
        "hammer": "A nail is driven in with a hammer.",
        "wrench": "A bolt is turned with a wrench.",
        "screwdriver": "A screw is turned with a screwdriver.",
        "brush": "Paint is spread with a brush.",
    }
)

_GHOST = 'contype="0" conaffinity="0"'
_FLAT = (1.5708, 0.0, 0.0)  # along y


def tool(kind: str, paint: str) -> str:
    """Write the geoms of a tool with a handle of one colour."""
    handle = _part("capsule", (0.013, 0.075), (0, -0.015, 0.014), paint, _FLAT)
    if kind == "hammer":
        head = _part("box", (0.048, 0.017, 0.017), (0, 0.085, 0.02), "steel")
        return handle + head + _part("box", (0.012, 0.02, 0.02), (0.05, 0.085, 0.02), "dark")
    if kind == "wrench":
        jaws = "".join(
            _part("box", (0.009, 0.024, 0.01), (x, 0.11, 0.014), paint, (0, 0, -4 * x))
            for x in (-0.026, 0.026)
        )
        shaft = _part("box", (0.013, 0.08, 0.009), (0, -0.005, 0.012), paint)
        return shaft + _part("box", (0.034, 0.014, 0.011), (0, 0.082, 0.014), paint) + jaws
    if kind == "screwdriver":
        grip = _part("capsule", (0.018, 0.04), (0, -0.045, 0.019), paint, _FLAT)
        blade = _part("cylinder", (0.006, 0.06), (0, 0.06, 0.019), "steel", _FLAT)
        return grip + blade + _part("box", (0.009, 0.008, 0.003), (0, 0.122, 0.019), "steel")
    if kind == "brush":
        ferrule = _part("box", (0.026, 0.014, 0.01), (0, 0.07, 0.014), "steel")
        return handle + ferrule + _part("box", (0.026, 0.022, 0.008), (0, 0.104, 0.014), "dark")
    blade = _part("box", (0.036, 0.042, 0.004), (0, 0.1, 0.012), "steel")  # a spatula
    return handle + blade


def part(kind: str) -> str:
    """Write the geoms of what a tool is made for."""
    if kind == "nail":
        return _part("cylinder", (0.007, 0.045), (0, 0, 0.045), "steel") + _part(
            "cylinder", (0.02, 0.004), (0, 0, 0.09), "steel"
        )
    if kind == "bolt":
        flats = "".join(
            _part(
                "box",
                (0.036, 0.021, 0.014 + 0.0005 * i),
                (0, 0, 0.05),
                "steel",
                (0, 0, 1.0472 * i),
            )
            for i in range(3)
        )
        return _part("cylinder", (0.018, 0.02), (0, 0, 0.02), "dark") + flats
    if kind == "screw":
        slots = _part("box", (0.028, 0.005, 0.003), (0, 0, 0.043), "dark") + _part(
            "box", (0.005, 0.028, 0.003), (0, 0, 0.043), "dark"
        )
        return _part("cylinder", (0.036, 0.02), (0, 0, 0.023), "brass") + slots
    return _part("cylinder", (0.042, 0.03), (0, 0, 0.03), "steel") + _part(
        "cylinder", (0.036, 0.002), (0, 0, 0.061), "paint"
    )


PART_PAINTS = (
    '<material name="brass" rgba=".8 .66 .3 1" specular=".5" shininess=".5"/>'
    '<material name="paint" rgba=".2 .7 .55 1" specular=".6" shininess=".8"/>'
)


def palm() -> str:
    """Write the gripper without its fingers, which hang below its origin."""
    return (
        _part("box", (0.05, 0.02, 0.014), (0, 0, 0.085), "dark")
        + _part("cylinder", (0.018, 0.03), (0, 0, 0.125), "steel")
        + _part("cylinder", (0.012, 0.3), (0, 0, 0.45), "dark")
    )


def finger() -> str:
    """Write one finger; its tip is its origin."""
    return _part("box", (0.006, 0.014, 0.036), (0, 0, 0.036), "steel")


def _part(
    kind: str,
    size: tuple[float, ...],
    at: tuple[float, float, float],
    paint: str,
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> str:
    return geom(kind, size, at, paint=paint, turn=turn, more=_GHOST)
