# SPDX-License-Identifier: Apache-2.0
"""How far a masked object is, and where, by a depth image and a pinhole camera.

Knows nothing of where either comes from. Lenses are taken for free of distortion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.masks import Mask

DepthImage = NDArray[np.float32]  # (H, W) metres along the optical axis; 0, NaN, inf: not measured

MAX_SAMPLED_PX = 4096  # of a mask; of a larger one every second, third ... pixel is looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinhole:
    """A camera in pixels; the centre of the pixel in column x has the abscissa x.

    Raises:
        InputError: a focal length that is not above 0, or a number that is not finite.
    """

    fx: float
    fy: float
    cx: float
    cy: float

    def __post_init__(self) -> None:
        """Check the numbers."""
        values = (self.fx, self.fy, self.cx, self.cy)
        if not all(map(math.isfinite, values)) or self.fx <= 0 or self.fy <= 0:
            msg = f"a pinhole camera wants fx, fy above 0 and finite cx, cy, got {values}"
            raise InputError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskDepth:
    """Where an object is, in the camera's optical frame: x right, y down, z forward."""

    point_xyz_m: tuple[float, float, float]  # median of each axis; z is the distance
    share: float  # of the mask's pixels that have a depth, above 0


def depth_of_mask(
    depth: DepthImage, mask: Mask, camera: Pinhole, corner_xy: tuple[int, int] = (0, 0)
) -> MaskDepth | None:
    """Where the masked pixels are; None if none of them has a depth.

    Args:
        depth: registered to the mask's image: pixel by pixel the same view.
        mask: of the same size.
        camera: of the whole image.
        corner_xy: where the upper left pixel of both lies in it.

    Raises:
        InputError: if the sizes differ.
    """
    if depth.shape != mask.shape:
        msg = f"a depth image wants the mask's size {mask.shape}, got {depth.shape}"
        raise InputError(msg)
    rows, columns = np.nonzero(mask)
    step = -(-rows.size // MAX_SAMPLED_PX) or 1
    rows, columns = rows[::step], columns[::step]
    z = depth[rows, columns].astype(np.float64)
    is_measured = np.isfinite(z) & (z > 0)
    if not is_measured.any():
        return None
    z = z[is_measured]
    x = (columns[is_measured] + corner_xy[0] - camera.cx) * z / camera.fx
    y = (rows[is_measured] + corner_xy[1] - camera.cy) * z / camera.fy
    point = float(np.median(x)), float(np.median(y)), float(np.median(z))
    return MaskDepth(point_xyz_m=point, share=z.size / rows.size)
