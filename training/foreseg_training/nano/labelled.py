# SPDX-License-Identifier: Apache-2.0
"""A frame with what each of its objects covers and is called, as it was drawn, or shaken.

A tower that sees a scene's objects at the same places again and again learns the scene by heart; moved,
mirrored and lit otherwise, they have to be seen (docs/log.md). Does not know: models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from foreseg.frames import U8Array
from foreseg.geometry import BoxXyxy
from foreseg.masks import mask_from_rle
from foreseg_simulation.recording import Shot, image_of

from .mirroring import swapped

_ZOOM = (0.88, 1.2)
_FAR = 0.1  # of the frame's sides: how far it is moved at most
_LIGHT, _HAZE = (0.8, 1.2), 15.0  # factor and grey levels
_LEAST_PX = 12  # of an object that is still there


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledFrame:
    """A picture, and of each object its name, the pixels that it covers (H, W) uint8, and their box."""

    image: U8Array
    names: Sequence[str]
    masks: Sequence[U8Array]
    boxes: Sequence[BoxXyxy]


def labelled(shot: Shot, names: Mapping[int, str]) -> LabelledFrame:
    """A frame as it was drawn, with those of its objects that have a name."""
    seen = [(names[i], one) for i, one in shot.objects.items() if i in names]
    return LabelledFrame(
        image=image_of(shot),
        names=[name for name, _ in seen],
        masks=[mask_from_rle(one.mask).astype(np.uint8) for _, one in seen],
        boxes=[BoxXyxy(*map(float, one.box_xyxy)) for _, one in seen],
    )


def shaken(frame: LabelledFrame, rng: np.random.Generator) -> LabelledFrame:
    """The frame moved, zoomed, mirrored half of the time, and lit otherwise; what leaves it is gone."""
    height, width = frame.image.shape[:2]
    is_mirrored = rng.random() < 0.5
    zoom = rng.uniform(*_ZOOM)
    move = rng.uniform(-_FAR, _FAR, 2) * (width, height)
    across = -zoom if is_mirrored else zoom
    middle = (width / 2, height / 2)
    matrix = np.array(
        [
            [across, 0, middle[0] * (1 - across) + move[0]],
            [0, zoom, middle[1] * (1 - zoom) + move[1]],
        ],
        np.float32,
    )
    size = (width, height)
    image = cv2.warpAffine(frame.image, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    lit = image * rng.uniform(*_LIGHT) + rng.uniform(-_HAZE, _HAZE)
    names, masks, boxes = [], [], []
    for name, mask in zip(frame.names, frame.masks, strict=True):
        moved = cv2.warpAffine(mask, matrix, size, flags=cv2.INTER_NEAREST)
        if np.count_nonzero(moved) < _LEAST_PX:
            continue
        x, y, w, h = cv2.boundingRect(moved)
        names.append(swapped(name) if is_mirrored else name)
        masks.append(np.asarray(moved, np.uint8))
        boxes.append(BoxXyxy(float(x), float(y), float(x + w), float(y + h)))
    return LabelledFrame(
        image=lit.clip(0, 255).astype(np.uint8), names=names, masks=masks, boxes=boxes
    )
