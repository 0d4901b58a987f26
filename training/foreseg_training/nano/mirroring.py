# SPDX-License-Identifier: Apache-2.0
"""A recording seen in a mirror: other places and ways for the same drawing, and words that fit them.

Drawing costs most of what a recording costs; its mirror image costs a fiftieth. Does not know: models,
questions' wordings beyond "left" and "right".
"""

from __future__ import annotations

import re
from dataclasses import replace

import cv2
import numpy as np

from foreseg.masks import mask_from_rle, rle_from_mask
from foreseg_simulation.clip import Clip, Expression
from foreseg_simulation.recording import JPEG_QUALITY, Seen, Shot, image_of

from .recordings import Recording

_SIDES = re.compile(r"\b(left|right)\b(?! the (?:view|picture))")  # not what left the view
_OTHER = {"left": "right", "right": "left"}


def mirrored(recording: Recording) -> Recording:
    """Left and right exchanged, in pictures, masks, boxes, names and words.

    What is true of a frame's future (`Shot.truths`) is left out: clips are cut already. What has no pictures gets none.
    """
    shots = [_shot(shot) for shot in recording.shots]
    other = {id(shot): seen for shot, seen in zip(recording.shots, shots, strict=True)}
    names = {i: swapped(name) for i, name in recording.names.items()}
    return replace(
        recording,
        names=names,
        shots=shots,
        clips=[_clip(clip, other, names) for clip in recording.clips],
    )


def swapped(text: str) -> str:
    """Words in which left is right; a thing that left the view did so."""
    return _SIDES.sub(lambda found: _OTHER[found[1]], text)


def _clip(clip: Clip, other: dict[int, Shot], names: dict[int, str]) -> Clip:
    return replace(
        clip,
        names=names,
        shots=tuple(other[id(shot)] for shot in clip.shots),
        expressions=tuple(map(_expression, clip.expressions)),
    )


def _expression(one: Expression) -> Expression:
    return replace(
        one,
        text=swapped(one.text),
        answer=swapped(one.answer),
        reasoning=swapped(one.reasoning),
    )


def _shot(shot: Shot) -> Shot:
    jpeg = b""
    if shot.jpeg:
        image = cv2.cvtColor(np.ascontiguousarray(image_of(shot)[:, ::-1]), cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    objects = {i: _seen(seen) for i, seen in shot.objects.items()}
    return replace(shot, jpeg=jpeg, objects=objects, truths=())


def _seen(seen: Seen) -> Seen:
    x0, y0, x1, y1 = seen.box_xyxy
    mask = mask_from_rle(seen.mask)[:, ::-1]
    width = mask.shape[1]
    mirrored_mask = rle_from_mask(np.ascontiguousarray(mask))
    return replace(seen, mask=mirrored_mask, box_xyxy=(width - x1, y0, width - x0, y1))
