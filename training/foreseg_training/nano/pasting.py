# SPDX-License-Identifier: Apache-2.0
"""Objects cut out of some frames and pasted into others: each frame shows more, and nothing where it always was.

After Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation Method for Instance Segmentation",
2021. What a tower has learnt by heart of a scene does not help it here. Does not know: models, scenes.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from foreseg.frames import U8Array
from foreseg.geometry import BoxXyxy

from .labelled import LabelledFrame

MAX_PASTED = 5  # into a frame
_ZOOM = (0.7, 1.3)
_TURN_DEG = 20.0
_LEAST_PX = 25  # of an object that is worth a name
_LEAST_SEEN = 0.35  # of an object that keeps its name when others cover it
_WIDEST = 0.45  # of the frame's sides: what is wider is no thing that lies about
_PLACES = frozenset({"left", "right", "upper", "lower"})


def pasted(
    frame: LabelledFrame, others: Sequence[LabelledFrame], rng: np.random.Generator
) -> LabelledFrame:
    """The frame with up to five objects of others, turned, zoomed and mirrored; their names keep no words of place.

    Args:
        frame: of which nothing is changed.
        others: of the same size.
        rng: of objects and places.
    """
    image = frame.image.copy()
    names = [_unplaced(name) for name in frame.names]
    masks = [mask.copy() for mask in frame.masks]
    whole = [int(np.count_nonzero(mask)) for mask in masks]
    for _ in range(rng.integers(MAX_PASTED + 1)):
        found = _cut(others[int(rng.integers(len(others)))], rng)
        if found is None:
            continue
        name, picture, cover = found
        share = cover.astype(np.float32)[..., None] / 255
        image = (image * (1 - share) + picture * share).astype(np.uint8)
        own = (cover > 127).astype(np.uint8)
        for mask in masks:
            mask[own > 0] = 0
        names.append(name)
        masks.append(own)
        whole.append(int(np.count_nonzero(own)))
    left = [int(np.count_nonzero(mask)) for mask in masks]
    kept = [i for i, n in enumerate(left) if n >= max(_LEAST_PX, _LEAST_SEEN * whole[i])]
    boxes = [cv2.boundingRect(masks[i]) for i in kept]
    return LabelledFrame(
        image=image,
        names=[names[i] for i in kept],
        masks=[masks[i] for i in kept],
        boxes=[BoxXyxy(float(x), float(y), float(x + w), float(y + h)) for x, y, w, h in boxes],
    )


def _unplaced(name: str) -> str:
    return " ".join(word for word in name.split() if word not in _PLACES)


def _cut(frame: LabelledFrame, rng: np.random.Generator) -> tuple[str, U8Array, U8Array] | None:
    """Name, pixels, and cover (0 to 255) of one whole object, somewhere else in a frame of the same size."""
    height, width = frame.image.shape[:2]
    if not frame.masks:
        return None
    which = int(rng.integers(len(frame.masks)))
    x, y, w, h = cv2.boundingRect(frame.masks[which])
    is_whole = x > 0 and y > 0 and x + w < width and y + h < height
    if not is_whole or w > _WIDEST * width or h > _WIDEST * height:
        return None
    middle = np.array([x + w / 2, y + h / 2])
    turn = float(rng.uniform(-_TURN_DEG, _TURN_DEG))
    matrix = cv2.getRotationMatrix2D(tuple(middle), turn, float(rng.uniform(*_ZOOM)))
    if rng.random() < 0.5:
        matrix = matrix @ np.array([[-1, 0, 2 * middle[0]], [0, 1, 0], [0, 0, 1]])
    matrix[:, 2] += rng.uniform(0, 1, 2) * (width, height) - middle
    size = (width, height)
    cover = cv2.warpAffine(frame.masks[which] * np.uint8(255), matrix, size)
    if np.count_nonzero(cover > 127) < _LEAST_PX:
        return None
    picture = cv2.warpAffine(frame.image, matrix, size)
    return (
        _unplaced(frame.names[which]),
        np.asarray(picture, np.uint8),
        np.asarray(cover, np.uint8),
    )
