# SPDX-License-Identifier: Apache-2.0
"""A boxed object segmented in a window around its box, where it has more of the model's pixels.

A small model squeezes a frame to 224 px a side: an object of a hundredth of it is 22 px wide there.
In the window it is what the model saw in training. Does not know: memory, rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.frames import Frame
from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask, mask_from_rle, rle_from_mask
from foreseg.prompts import Point, SpatialPrompt
from foreseg.tracker.postprocess import logits_at_source
from foreseg.tracker.preprocess import points_from_prompt
from foreseg.tracker.sam2_network import Sam2Network

_SIDES = 2.2  # of the window, in sides of the box
_LEAST_PX = 16  # of the picture, a side of a window
_LARGEST_SHARE = 0.8  # of the frame: a larger window shows no more than the frame

Window = tuple[int, int, int, int]  # x0, y0, x1, y1, ends exclusive


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Zoomed:
    """What the window shows of the object."""

    mask: Mask  # (H, W) source size, at least one pixel
    object_logit: float  # above 0
    score: float  # predicted mask IoU


def zoomed_mask(network: Sam2Network, frame: Frame, prompt: SpatialPrompt) -> Zoomed | None:
    """Segment a box, and its points, in a window around it: one image encoding, one decoding.

    Args:
        network: of the bundle.
        frame: with the object.
        prompt: checked for the frame.

    Returns:
        None without a box, where the window would be most of the frame, where a point lies outside
        of it, and where the window shows no object: the whole frame is to be asked then.
    """
    size_wh = frame.ref.size_wh
    window = None if prompt.box is None else window_around(prompt.box, size_wh)
    if window is None or not all(holds(window, point) for point in prompt.points):
        return None
    x0, y0, x1, y1 = window
    features = network.encode_image(cut(frame, window))
    geometry = network.geometry
    points = points_from_prompt(moved(prompt, window), (x1 - x0, y1 - y0), geometry.image_size)
    multimask = geometry.multimask_min_points <= len(points) <= geometry.multimask_max_points
    decoded = network.decode(features, features.feat_no_memory, points=points, multimask=multimask)
    object_logit, score = float(decoded.object_logit[0]), float(decoded.score[0])
    logits = decoded.logits[0]
    if not (object_logit > 0 and np.isfinite(score) and bool(np.isfinite(logits).all())):
        return None
    mask: Mask = np.zeros((size_wh[1], size_wh[0]), np.bool_)
    mask[y0:y1, x0:x1] = logits_at_source(logits, (x1 - x0, y1 - y0)) > 0
    if not mask.any():
        return None
    return Zoomed(mask=mask, object_logit=object_logit, score=score)


def window_around(box: BoxXyxy, size_wh: tuple[int, int]) -> Window | None:
    """A window of the box's shape around it, inside the frame; None if it is most of the frame.

    Args:
        box: inside the frame, source pixels.
        size_wh: of the frame.
    """
    w, h = size_wh
    sides = max(_LEAST_PX, _SIDES * (box.x1 - box.x0)), max(_LEAST_PX, _SIDES * (box.y1 - box.y0))
    x0, y0, x1, y1 = placed(box.centre_xy, sides, size_wh)
    return None if (x1 - x0) * (y1 - y0) > _LARGEST_SHARE * w * h else (x0, y0, x1, y1)


def placed(
    centre_xy: tuple[float, float], sides: tuple[float, float], size_wh: tuple[int, int]
) -> Window:
    """A window of these sides about a centre, moved into the frame; all of a side that is longer than it.

    Args:
        centre_xy: source pixels.
        sides: width and height wanted, source pixels.
        size_wh: of the frame.
    """
    starts, ends = [], []
    for centre, side, whole in zip(centre_xy, sides, size_wh, strict=True):
        start = min(max(0.0, centre - side / 2), max(0.0, whole - side))
        starts.append(int(start))
        ends.append(min(whole, math.ceil(start + side)))
    return starts[0], starts[1], ends[0], ends[1]


def holds(window: Window, point: Point) -> bool:
    """Whether a point of the frame lies in a window."""
    x0, y0, x1, y1 = window
    return x0 <= point.x < x1 and y0 <= point.y < y1


def moved(prompt: SpatialPrompt, window: Window) -> SpatialPrompt:
    """The prompt in pixels of the window; of a mask the part inside."""
    x0, y0, x1, y1 = window
    if prompt.mask is not None:
        return SpatialPrompt(mask=rle_from_mask(mask_from_rle(prompt.mask)[y0:y1, x0:x1]))
    box = prompt.box
    return SpatialPrompt(
        box=None if box is None else BoxXyxy(box.x0 - x0, box.y0 - y0, box.x1 - x0, box.y1 - y0),
        points=tuple(point._replace(x=point.x - x0, y=point.y - y0) for point in prompt.points),
    )


def cut(frame: Frame, window: Window) -> NDArray[np.uint8]:
    """The window's pixels; of a reduced frame, to the nearest of its pixels."""
    scale_x, scale_y = frame.scale_xy
    x0, x1 = (round(x / scale_x) for x in window[::2])
    y0, y1 = (round(y / scale_y) for y in window[1::2])
    return np.ascontiguousarray(frame.image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)])
