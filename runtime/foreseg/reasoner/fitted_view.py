# SPDX-License-Identifier: Apache-2.0
"""How frames are shown to a model in this process: at the very size at which it reads them.

Does not know the model.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreseg.frames import Frame
from foreseg.language.images import fitted_wh
from foreseg.methods.grounding import Coordinates, View


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedView(View):
    """Frames are read at most at `frame_pixels`, as `ImageGeometry.fitted_wh` has it."""

    frame_pixels: int

    def size_wh(self, frame: Frame) -> tuple[float, float]:
        """A shown frame's size in the model's own units."""
        if self.coordinates is not Coordinates.PIXELS:
            return View.size_wh(self, frame)
        height, width = frame.image.shape[:2]
        fitted = fitted_wh((width, height), self.patch_px, self.frame_pixels)
        return float(fitted[0]), float(fitted[1])
