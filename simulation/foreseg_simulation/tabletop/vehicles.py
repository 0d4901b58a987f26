# SPDX-License-Identifier: Apache-2.0
"""Toy vehicles made of primitives; each stands on z = 0 and looks along x."""

from __future__ import annotations

from .stage import geom

VEHICLE_KINDS = ("car", "truck", "bus", "van")
VEHICLE_HALF = 0.085  # of its length, metres

_LIGHT = 'density="200"'


def vehicle(kind: str, paint: str) -> str:
    """Write the geoms of a vehicle."""
    length = VEHICLE_HALF
    wheels = "".join(
        geom("cylinder", (0.016, 0.006), (x, y, 0.016), paint="dark", turn=(1.5708, 0, 0))
        for x in (-0.6 * length, 0.6 * length)
        for y in (-0.036, 0.036)
    )
    if kind == "car":
        return (
            wheels
            + _box((length, 0.036, 0.017), (0, 0, 0.033), paint)
            + _box((0.042, 0.032, 0.016), (-0.012, 0, 0.065), "steel")
            + _box((0.038, 0.033, 0.004), (-0.012, 0, 0.084), paint)
        )
    if kind == "truck":
        return (
            wheels
            + _box((length, 0.034, 0.008), (0, 0, 0.026), "dark")
            + _box((0.026, 0.036, 0.034), (0.058, 0, 0.066), paint)
            + _box((0.004, 0.03, 0.012), (0.084, 0, 0.078), "steel")
            + _box((0.052, 0.038, 0.018), (-0.032, 0, 0.05), paint)
        )
    if kind == "bus":
        return (
            wheels
            + _box((length, 0.037, 0.022), (0, 0, 0.04), paint)
            + _box((length - 0.004, 0.036, 0.014), (0, 0, 0.075), "steel")
            + _box((length, 0.037, 0.007), (0, 0, 0.096), paint)
        )
    return (  # a van
        wheels
        + _box((length, 0.036, 0.018), (0, 0, 0.034), paint)
        + _box((0.055, 0.036, 0.024), (-0.03, 0, 0.074), paint)
        + _box((0.018, 0.032, 0.016), (0.038, 0, 0.066), "steel")
    )


def _box(size: tuple[float, float, float], at: tuple[float, float, float], paint: str) -> str:
    return geom("box", size, at, paint=paint, more=_LIGHT)
