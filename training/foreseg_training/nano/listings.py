# SPDX-License-Identifier: Apache-2.0
"""What a frame shows, listed: each object's name and its box, in any order; and the other way round.

The first thing that the language model learns: after each name the place of that very object has to
be found among the frame's tokens, a dozen times in a line; a question asks for one of them, once. Then it
is told places and says what is there, as a thought does where something was hit.
Boxes are written as answers write them. Does not know: models, methods.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foreseg_simulation.recording import Shot

from .tokenizer import BOXES_BEGIN, BOXES_END, VISION_END, VISION_START

_FAR = 1.5  # of an object's half sides: as far from its middle a place is at most


def listing_of(
    shot: Shot,
    names: Mapping[int, str],
    scale_xy: tuple[float, float],
    rng: np.random.Generator,
) -> str:
    """A line for each object of a frame that has a name.

    Args:
        shot: the frame.
        names: of its objects, by instance id.
        scale_xy: from its pixels to those of the frame as shown.
        rng: of the order.
    """
    seen = [(names[i], one) for i, one in shot.objects.items() if i in names]
    lines = []
    for at in rng.permutation(len(seen)):
        name, one = seen[at]
        sides = np.array(one.box_xyxy, float) * [*scale_xy, *scale_xy]
        numbers = ", ".join(str(round(side)) for side in sides)
        lines.append(f" {name}{BOXES_BEGIN}{numbers}{BOXES_END}\n")
    return "".join(lines)


def places_of(
    shot: Shot,
    names: Mapping[int, str],
    scale_xy: tuple[float, float],
    rng: np.random.Generator,
    count: int,
) -> list[tuple[str, str]]:
    """Places at or near objects of a frame, and the name of the object that is nearest to each.

    Args:
        shot: the frame.
        names: of its objects, by instance id.
        scale_xy: from its pixels to those of the frame as shown.
        rng: of the places.
        count: of them, if anything can be seen.
    """
    ids = [i for i in shot.objects if i in names]
    if not ids:
        return []
    boxes = np.array([shot.objects[i].box_xyxy for i in ids], float) * [*scale_xy, *scale_xy]
    chosen = boxes[rng.integers(len(boxes), size=count)]
    middle, half = (chosen[:, :2] + chosen[:, 2:]) / 2, (chosen[:, 2:] - chosen[:, :2]) / 2
    places = (middle + half * rng.uniform(-_FAR, _FAR, (count, 2))).round().clip(0)
    beyond = np.maximum(boxes[:, None, :2] - places, places - boxes[:, None, 2:]).clip(0)
    off = np.linalg.norm(places - (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, axis=2)
    nearest = (np.linalg.norm(beyond, axis=2) + off / 1000).argmin(axis=0)
    return [
        (f"[{int(x)}, {int(y)}]", f" {names[ids[which]]}")
        for (x, y), which in zip(places, nearest, strict=True)
    ]


def frame_prompt(image: str) -> str:
    """The words before a listing; `image` is as many image tokens as a frame has."""
    return f"{VISION_START}{image}{VISION_END}\n"
