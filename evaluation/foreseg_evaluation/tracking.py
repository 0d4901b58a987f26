# SPDX-License-Identifier: Apache-2.0
"""Tracking from the first frame: scores, and the two baselines that cost nothing.

A method gets the frames and the first true mask, and answers with a mask for every frame. The
baselines keep that first mask; a tracker prompts itself with the mask's box, so its first mask
is its own. Does not know: engines, files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .baselines import warped
from .clips import BoolArray, ObjectClip, U8Array
from .metrics import boundary_f, region_similarity

Method = Callable[[Sequence[U8Array], BoolArray], list[BoolArray]]

_HIDDEN_SHARE = 0.5  # an object is called occluded once less than this of its first area shows


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingScore:
    """One object followed by one method; means over the annotated frames, 0..1."""

    clip: str
    prompted_j: float  # on the first frame
    tracked_j: float  # on the frames after it
    tracked_f: float
    is_occluded: bool  # whether most of the object hides or leaves at some time

    @property
    def j_and_f(self) -> float:
        """Mean of J and F after the first frame."""
        return (self.tracked_j + self.tracked_f) / 2


def score_method(method: Method, clip: ObjectClip) -> TrackingScore:
    """Follow a clip's object and compare with the truth, the first frame apart."""
    first = clip.masks[0]
    if first is None:
        msg = f"clip {clip.name!r} has no mask on its first frame"
        raise ValueError(msg)
    masks = method(clip.images, first)
    js, fs, areas = [], [], []
    for truth, mask in zip(clip.masks[1:], masks[1:], strict=True):
        if truth is None:
            continue
        js.append(region_similarity(truth, mask))
        fs.append(boundary_f(truth, mask))
        areas.append(np.count_nonzero(truth))
    return TrackingScore(
        clip=clip.name,
        prompted_j=region_similarity(first, masks[0]),
        tracked_j=float(np.mean(js)),
        tracked_f=float(np.mean(fs)),
        is_occluded=bool(min(areas) < _HIDDEN_SHARE * np.count_nonzero(first)),
    )


def repeat_first_mask(images: Sequence[U8Array], first: BoolArray) -> list[BoolArray]:
    """Answer with the first mask on every frame."""
    return [first] * len(images)


def warp_by_flow(images: Sequence[U8Array], first: BoolArray) -> list[BoolArray]:
    """Carry the first mask from frame to frame along dense optical flow (OpenCV's DIS)."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    weight = first.astype(np.float32)
    previous = cv2.cvtColor(images[0], cv2.COLOR_RGB2GRAY)
    masks = [first]
    for image in images[1:]:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        weight = warped(flow, previous, grey, weight)
        masks.append(weight > 0.5)
        previous = grey
    return masks


def box_around(mask: BoolArray) -> tuple[float, float, float, float]:
    """Bound a mask by its outer pixel edges: x0, y0, x1, y1."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return (float(x), float(y), float(x + width), float(y + height))
