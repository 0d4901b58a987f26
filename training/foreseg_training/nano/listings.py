# SPDX-License-Identifier: Apache-2.0
"""What a frame shows, listed: each object's name and its box, in any order.

The first thing that the language model learns: after each name the place of that very object has to
be found among the frame's tokens, a dozen times in a line; a question asks for one of them, once.
Boxes are written as answers write them. Does not know: models, methods.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from foreseg_simulation.recording import Shot

from .tokenizer import BOXES_BEGIN, BOXES_END, VISION_END, VISION_START


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


def frame_prompt(image: str) -> str:
    """The words before a listing; `image` is as many image tokens as a frame has."""
    return f"{VISION_START}{image}{VISION_END}\n"
