# SPDX-License-Identifier: Apache-2.0
"""A tracker of real pixels without a model: an object is its colour. Deterministic and strict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.frames import Frame
from foreseg.geometry import box_from_mask
from foreseg.masks import Mask, mask_from_rle, rle_from_mask
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import FrameMasks, LabelMap, TrackedObject, TrackKey

Colour = NDArray[np.float64]
MAX_DISTANCE = 20.0  # of a pixel's colour from the object's, per channel
MIN_AREA_PX = 4


class ColourTracker:
    """A row is the mean colour of what its prompt met; its mask is where that colour is now."""

    def __init__(self, max_objects: int) -> None:
        self._max_objects = max_objects
        self._colours: dict[TrackKey, Colour] = {}

    @property
    def max_objects(self) -> int:
        return self._max_objects

    @property
    def keys(self) -> tuple[TrackKey, ...]:
        return tuple(self._colours)

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        if key not in self._colours and len(self._colours) >= self._max_objects:
            msg = f"no row is free: {self._max_objects} are in use"
            raise InputError(msg)
        self._colours[key] = _colour_at(frame, prompt.checked(frame.ref.size_wh))
        return self._seen(frame, key)

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        unknown = set(keys) - set(self._colours)
        if unknown or len(set(keys)) != len(keys):
            msg = f"unknown or repeated keys: got {list(keys)}, known are {list(self._colours)}"
            raise InputError(msg)
        objects = tuple(self._seen(frame, key) for key in keys)
        width, height = frame.ref.size_wh
        label_map: LabelMap = np.zeros((height, width), np.uint8)
        for number, item in sorted(enumerate(objects, start=1), key=lambda entry: entry[1].score):
            label_map[mask_from_rle(item.mask)] = number
        return FrameMasks(frame=frame.ref, objects=objects, label_map=label_map)

    def fork(self, source: TrackKey, target: TrackKey) -> None:
        if target in self._colours or len(self._colours) >= self._max_objects:
            msg = f"no free row for {target!r}"
            raise InputError(msg)
        self._colours[target] = self._colours[source]

    def promote(self, source: TrackKey, target: TrackKey) -> None:
        self._colours[target] = self._colours.pop(source)

    def drop(self, key: TrackKey) -> None:
        self._colours.pop(key, None)

    def reset(self) -> None:
        self._colours.clear()

    def _seen(self, frame: Frame, key: TrackKey) -> TrackedObject:
        mask = _where(frame, self._colours[key])
        area = int(np.count_nonzero(mask))
        is_visible = area >= MIN_AREA_PX
        mask = mask if is_visible else np.zeros_like(mask)
        return TrackedObject(
            key=key,
            object_logit=5.0 if is_visible else -5.0,
            score=0.9 if is_visible else 0.1,
            box=box_from_mask(mask),
            area_px=area if is_visible else 0,
            mask=rle_from_mask(mask),
        )


def _full_size(frame: Frame) -> Frame:
    """A reduced frame blown up to its source size."""
    width, height = frame.ref.size_wh
    rows = np.arange(height) * frame.image.shape[0] // height
    columns = np.arange(width) * frame.image.shape[1] // width
    return replace(frame, image=frame.image[rows][:, columns])


def _colour_at(frame: Frame, prompt: SpatialPrompt) -> Colour:
    image = _full_size(frame).image
    if prompt.mask is not None:
        pixels = image[mask_from_rle(prompt.mask)]
    elif prompt.box is not None:
        x, y = (int(v) for v in prompt.box.centre_xy)
        pixels = image[y - 1 : y + 2, x - 1 : x + 2].reshape(-1, 3)
    else:
        pixels = np.array([image[int(p.y), int(p.x)] for p in prompt.points])
    colour: Colour = np.median(pixels, axis=0)
    return colour


def _where(frame: Frame, colour: Colour) -> Mask:
    distance = np.abs(_full_size(frame).image.astype(np.int16) - colour)
    mask: Mask = (distance < MAX_DISTANCE).all(axis=2)
    return mask
