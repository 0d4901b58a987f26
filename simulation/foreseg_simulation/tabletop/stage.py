# SPDX-License-Identifier: Apache-2.0
"""The table, its light and its camera, as a model's text; shared by all tabletop scenes.

Does not know: what stands on the table, or MuJoCo itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from foreseg_simulation.naming import COLOURS
from foreseg_simulation.textures import TextureKind, make_texture

F64Array: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = "Sequence[float] | F64Array"

STEP_NS = 5_000_000  # of physics
STEP_S = STEP_NS / 1e9

_FOVY_DEG = 42.0
_FRAME_SHARE = 0.94  # of half the frame that the scene fills
_TABLE_COLOURS = ((150, 128, 104), (112, 118, 124), (92, 104, 112), (168, 158, 144))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Camera:
    """A fixed pinhole camera. Axes are unit rows (3, 3): right, up, forward."""

    position: F64Array
    axes: F64Array
    size_wh: tuple[int, int]

    def project(self, points: F64Array) -> F64Array:
        """Map world points (N, 3) to pixels (N, 2)."""
        seen = (points - self.position) @ self.axes.T
        focal_px = self.size_wh[1] / 2 / np.tan(np.radians(_FOVY_DEG) / 2)
        across = focal_px * seen[:, :2] / np.maximum(seen[:, 2:], 1e-6)
        return np.array(self.size_wh) / 2 + across * (1, -1)

    def sees(self, points: F64Array, margin_px: float = 0.0) -> bool:
        """Whether the box around the points' pixels meets the frame."""
        pixels = self.project(points)
        low, high = pixels.min(axis=0), pixels.max(axis=0)
        return bool((high > -margin_px).all() and (low < np.array(self.size_wh) + margin_px).all())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """A scene before it is compiled.

    Attributes:
        text: the model in MuJoCo's XML; the body of instance k is called `o{k}`.
        files: its textures, PNG.
        names: instance id to words.
        camera: where it is seen from.
    """

    text: str
    files: Mapping[str, bytes]
    names: Mapping[int, str]
    camera: Camera


def aim_camera(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    *,
    reach: tuple[float, float, float],
    elevation_deg: tuple[float, float] = (42.0, 60.0),
    azimuth_deg: float = 15.0,
) -> Camera:
    """Look at the table from the front, from as near as shows the box x, y = +-reach, z = 0..h."""
    elevation = np.radians(rng.uniform(*elevation_deg))
    azimuth = np.radians(rng.uniform(-azimuth_deg, azimuth_deg))
    flat = np.array([np.sin(azimuth), -np.cos(azimuth), 0.0])
    back = flat * np.cos(elevation) + np.array([0, 0, np.sin(elevation)])
    right = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
    axes = np.stack([right, np.cross(back, right), -back])
    x, y, z = reach
    corners = np.array([(i, j, k) for i in (-x, x) for j in (-y, y) for k in (0, z)])
    half = np.array(size_wh) / 2
    centre = np.array([0, 0, z / 2])
    for distance in np.arange(0.4, 4.0, 0.02):
        camera = Camera(position=centre + distance * back, axes=axes, size_wh=size_wh)
        if (np.abs(camera.project(corners) - half) < _FRAME_SHARE * half).all():
            return camera
    return camera


def set_stage(
    rng: np.random.Generator,
    camera: Camera,
    names: Mapping[int, str],
    bodies: Sequence[str],
    *,
    table: tuple[float, float] = (3.0, 3.0),
    assets: str = "",
    contact: str = "",
) -> Stage:
    """Put bodies on a randomly made table under random light."""
    kinds = (TextureKind.CLOUDS, TextureKind.GRAIN, TextureKind.STRIPES, TextureKind.CHECKER)
    base = np.array(_TABLE_COLOURS[rng.integers(len(_TABLE_COLOURS))]) * rng.uniform(0.75, 1.05)
    picture = make_texture(
        rng,
        (256, 256),
        kind=kinds[rng.integers(len(kinds))],
        base=base.astype(np.float32),
        contrast=0.09,
    )
    picture = np.concatenate([picture, picture[::-1]], axis=0)  # tiles without a seam
    picture = np.concatenate([picture, picture[:, ::-1]], axis=1)
    _, png = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    repeat = float(rng.uniform(0.5, 1.0))
    light = rng.uniform((-0.8, -0.9, 1.4), (0.8, 0.1, 1.9))
    right, up = camera.axes[0], camera.axes[1]
    text = f"""
<mujoco>
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{STEP_S}" integrator="implicitfast" cone="elliptic"/>
  <statistic extent="1.2" center="0 0 0"/>
  <visual>
    <global offwidth="{camera.size_wh[0]}" offheight="{camera.size_wh[1]}" fovy="{_FOVY_DEG}"/>
    <quality offsamples="0" shadowsize="1024"/>
    <headlight ambient=".42 .42 .42" diffuse=".32 .32 .32" specular=".1 .1 .1"/>
    <map znear="0.02" zfar="20" shadowclip="1"/>
  </visual>
  <asset>
    <texture name="table" type="2d" file="table.png"/>
    <material name="table" texture="table" texrepeat="{repeat} {repeat}" texuniform="true"/>
    <material name="steel" rgba=".62 .64 .67 1" specular=".6" shininess=".6"/>
    <material name="dark" rgba=".16 .17 .2 1" specular=".2" shininess=".3"/>
    <material name="wood" rgba=".72 .55 .36 1" specular=".1" shininess=".1"/>
    {"".join(_paints())}
    {assets}
  </asset>
  <worldbody>
    <light pos="{_text(light)}" dir="{_text(-light)}" diffuse=".62 .62 .59" castshadow="true"
      directional="true"/>
    <camera name="view" pos="{_text(camera.position)}" xyaxes="{_text(right)} {_text(up)}"
      fovy="{_FOVY_DEG}"/>
    <geom name="table" type="box" size="{table[0]} {table[1]} .1" pos="0 0 -.1" material="table"
      friction=".5"/>
    {"".join(bodies)}
  </worldbody>
  {contact}
</mujoco>"""
    return Stage(text=text, files={"table.png": png.tobytes()}, names=names, camera=camera)


def geom(
    kind: str,
    size: Numbers,
    at: Numbers = (0.0, 0.0, 0.0),
    *,
    paint: str,
    turn: Numbers = (0.0, 0.0, 0.0),
    more: str = "",
) -> str:
    """Write one geom: half sizes, place, turn (Euler angles), material, further attributes."""
    return (
        f'<geom type="{kind}" size="{_text(size)}" pos="{_text(at)}" euler="{_text(turn)}"'
        f' material="{paint}" {more}/>'
    )


def body(
    name: str,
    at: Numbers,
    inside: str,
    *,
    turn: float = 0.0,
    is_driven: bool = False,
) -> str:
    """Write one body, turned about the vertical; a driven one moves where the plot says."""
    driven = ' mocap="true"' if is_driven else ""
    return f'<body name="{name}" pos="{_text(at)}" euler="0 0 {turn:.6f}"{driven}>{inside}</body>'


def _paints() -> list[str]:
    return [
        f'<material name="{name}" rgba="{_text(np.array(rgb) / 255)} 1" specular=".25"'
        ' shininess=".4"/>'
        for name, rgb in COLOURS.items()
    ]


def _text(numbers: Numbers) -> str:
    return " ".join(f"{number:.6f}" for number in numbers)
