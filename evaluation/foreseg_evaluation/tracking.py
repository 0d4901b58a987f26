# SPDX-License-Identifier: Apache-2.0
"""Tracking from the first frame: scores, and the baselines that cost nothing.

A method gets the frames and the first true mask, and answers with a mask for every frame. The
baselines keep that first mask, or the ellipse in its box; a tracker prompts itself as a person
would, so its first mask is its own. Does not know: engines, files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .absence import SLIVER_SHARE
from .baselines import warped
from .clips import BoolArray, ObjectClip, U8Array
from .metrics import boundary_f, region_similarity
from .prompt_forms import ellipse_in_box

_HIDDEN_SHARE = 0.5  # an object is called occluded once less than this of its first area shows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Followed:
    """What a method says of every frame."""

    masks: Sequence[BoolArray]
    object_logits: Sequence[float] | None = None  # above 0: visible; None: it does not say


Method = Callable[[Sequence[U8Array], BoolArray], Followed]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingScore:
    """One object followed by one method; means over the annotated frames, 0..1.

    Frames are the annotated ones after the first; `presence` is one entry for each on which the
    object is away or at least a sliver of it shows.
    """

    clip: str
    prompted_j: float  # on the first frame
    tracked_j: float  # on the frames after it
    tracked_f: float
    is_occluded: bool  # whether most of the object hides or leaves at some time
    presence: tuple[tuple[float, bool], ...] = ()  # object logit, whether it is visible

    @property
    def j_and_f(self) -> float:
        """Mean of J and F after the first frame."""
        return (self.tracked_j + self.tracked_f) / 2


def score_method(method: Method, clip: ObjectClip) -> TrackingScore:
    """Follow a clip's object and compare with the truth, the first frame apart.

    Raises:
        ValueError: no mask on the first frame, or on none after it.
    """
    first = clip.masks[0]
    if first is None or all(mask is None for mask in clip.masks[1:]):
        msg = f"clip {clip.name!r} wants a mask on its first frame and on another"
        raise ValueError(msg)
    said = method(clip.images, first)
    logits = said.object_logits
    js, fs, areas, presence = [], [], [], []
    for t, (truth, mask) in enumerate(zip(clip.masks, said.masks, strict=True)):
        if truth is None or t == 0:
            continue
        js.append(region_similarity(truth, mask))
        fs.append(boundary_f(truth, mask))
        area = np.count_nonzero(truth)
        areas.append(area)
        if logits is not None and (area == 0 or area >= SLIVER_SHARE * truth.size):
            presence.append((float(logits[t]), bool(area)))
    return TrackingScore(
        clip=clip.name,
        prompted_j=region_similarity(first, said.masks[0]),
        tracked_j=float(np.mean(js)),
        tracked_f=float(np.mean(fs)),
        is_occluded=bool(min(areas) < _HIDDEN_SHARE * np.count_nonzero(first)),
        presence=tuple(presence),
    )


def repeat_first_mask(images: Sequence[U8Array], first: BoolArray) -> Followed:
    """Answer with the first mask on every frame."""
    return Followed(masks=[first] * len(images))


def repeat_ellipse(images: Sequence[U8Array], first: BoolArray) -> Followed:
    """Answer with the ellipse that fills the first mask's box: what a box alone says."""
    return Followed(masks=[ellipse_in_box(first)] * len(images))


def warp_by_flow(images: Sequence[U8Array], first: BoolArray) -> Followed:
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
    return Followed(masks=masks)
