# SPDX-License-Identifier: Apache-2.0
"""The stupidest trackers that could explain a result: repeat the first mask, or warp it by flow.

Both keep to the tracker's contract, so that they stand where SAM2 stands in every protocol.
Does not know: engines, episodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.frames import Frame, U8Array
from foreseg.geometry import box_from_mask
from foreseg.masks import Mask, mask_from_box, mask_from_rle, rle_from_mask
from foreseg.prompts import PointLabel, SpatialPrompt
from foreseg.tracker.base import FrameMasks, TrackedObject, TrackKey
from foreseg.tracker.sam2 import MAX_PROMPT_POINTS

_POINT_SHARE = 0.1  # of the frame's shorter side: the disk that stands for a point
_LOGIT = 10.0

Carry = Callable[["Frame", "Frame", NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    """A row's weights (H, W), 0..1, on the frame that it saw last."""

    frame: Frame
    weight: NDArray[np.float32]


class BaselineTracker:
    """Keeps a row's mask and carries it from frame to frame by a rule."""

    def __init__(self, carry: Carry, *, max_objects: int = 8) -> None:
        self._carry = carry
        self._max_objects = max_objects
        self._rows: dict[TrackKey, _Row] = {}

    @property
    def max_objects(self) -> int:
        """Rows it can hold, branches included."""
        return self._max_objects

    @property
    def keys(self) -> tuple[TrackKey, ...]:
        """Rows in use, oldest first."""
        return tuple(self._rows)

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        """Start a row with the mask itself, the filled box, or disks at the points.

        Raises:
            InputError: if the prompt does not fit the frame, or no row is free.
        """
        checked = prompt.checked(frame.ref.size_wh)
        if len(checked.points) > MAX_PROMPT_POINTS:
            msg = (
                f"a spatial prompt wants at most {MAX_PROMPT_POINTS} points,"
                f" got {len(checked.points)}"
            )
            raise InputError(msg)
        if key not in self._rows:
            self._check_room()
        weight = prompt_mask(checked, frame.ref.size_wh).astype(np.float32)
        self._rows[key] = _Row(frame=_kept(frame), weight=weight)
        return _result(key, weight)

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        """Carry these rows to `frame`, in the order given.

        Raises:
            InputError: for an unknown or repeated key.
        """
        unknown = [key for key in keys if key not in self._rows]
        if unknown or len(set(keys)) != len(keys):
            msg = f"the tracker wants known keys, each once, got {list(keys)}"
            raise InputError(msg)
        results = []
        for key in keys:
            row = self._rows[key]
            if row.frame.ref != frame.ref:
                row = _Row(frame=_kept(frame), weight=self._carried(row, frame))
                self._rows[key] = row
            results.append(_result(key, row.weight))
        labels = np.zeros(frame.ref.size_wh[::-1], dtype=np.uint8)
        for i in range(len(results), 0, -1):
            labels[mask_from_rle(results[i - 1].mask)] = i
        return FrameMasks(frame=frame.ref, objects=tuple(results), label_map=labels)

    def fork(self, source: TrackKey, target: TrackKey) -> None:
        """Copy a row to a new key."""
        row = self._row(source)
        if target in self._rows:
            msg = f"a fork wants a new key, {target!r} is in use"
            raise InputError(msg)
        self._check_room()
        self._rows[target] = row

    def promote(self, source: TrackKey, target: TrackKey) -> None:
        """Give a row another name."""
        row = self._row(source)
        self._rows = {k: r for k, r in self._rows.items() if k not in {source, target}}
        self._rows[target] = row

    def drop(self, key: TrackKey) -> None:
        """Forget a row; unknown keys are ignored."""
        self._rows.pop(key, None)

    def reset(self) -> None:
        """Forget every row."""
        self._rows.clear()

    def _row(self, key: TrackKey) -> _Row:
        if key not in self._rows:
            msg = f"a tracker wants a known key, got {key!r}; it has {list(self._rows)}"
            raise InputError(msg)
        return self._rows[key]

    def _check_room(self) -> None:
        if len(self._rows) >= self._max_objects:
            msg = f"no row is free: {self._max_objects} of {self._max_objects} objects are tracked"
            raise InputError(msg)

    def _carried(self, row: _Row, frame: Frame) -> NDArray[np.float32]:
        if row.frame.ref.size_wh != frame.ref.size_wh:
            resized: NDArray[np.float32] = cv2.resize(row.weight, frame.ref.size_wh)
            return resized
        return self._carry(row.frame, frame, row.weight)


def repeat_tracker(max_objects: int = 8) -> BaselineTracker:
    """Make a tracker that keeps the first mask for ever."""
    return BaselineTracker(lambda _before, _now, weight: weight, max_objects=max_objects)


def flow_tracker(max_objects: int = 8) -> BaselineTracker:
    """Make a tracker that warps the mask along dense optical flow (OpenCV's DIS)."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def carry(before: Frame, now: Frame, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        return warped(flow, _grey(before.image), _grey(now.image), weight)

    return BaselineTracker(carry, max_objects=max_objects)


def warped(
    flow: cv2.DISOpticalFlow, before: U8Array, now: U8Array, weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Carry weights (H, W) from one grey frame (h, w) to the next along the flow."""
    backward = flow.calc(now, before, None)  # where each pixel was
    height, width = weight.shape
    scale = (width / now.shape[1], height / now.shape[0])
    if scale != (1.0, 1.0):
        backward = cv2.resize(backward, (width, height)) * np.array(scale, dtype=np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    carried: NDArray[np.float32] = cv2.remap(
        weight, x + backward[..., 0], y + backward[..., 1], cv2.INTER_LINEAR
    )
    return carried


def _grey(image: U8Array) -> U8Array:
    grey: U8Array = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey


def _kept(frame: Frame) -> Frame:
    """Own the pixels: the history may use the frame's slot again."""
    return replace(frame, image=frame.image.copy())


def prompt_mask(prompt: SpatialPrompt, size_wh: tuple[int, int]) -> Mask:
    """Take a prompt for a mask (H, W): itself, the filled box, or disks at the points."""
    if prompt.mask is not None:
        return mask_from_rle(prompt.mask)
    if prompt.box is not None:
        return mask_from_box(prompt.box, size_wh)
    disks = np.zeros(size_wh[::-1], dtype=np.uint8)
    for point in prompt.points:
        if point.label is PointLabel.FOREGROUND:
            centre = (int(point.x), int(point.y))
            cv2.circle(disks, centre, int(_POINT_SHARE * min(size_wh)), 1, -1)
    return disks.astype(bool)


def _result(key: TrackKey, weight: NDArray[np.float32]) -> TrackedObject:
    mask = weight > 0.5
    is_visible = bool(mask.any())
    return TrackedObject(
        key=key,
        object_logit=_LOGIT if is_visible else -_LOGIT,
        score=1.0 if is_visible else 0.0,
        box=box_from_mask(mask),
        area_px=int(np.count_nonzero(mask)),
        mask=rle_from_mask(mask),
    )
