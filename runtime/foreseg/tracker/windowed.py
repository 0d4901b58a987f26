# SPDX-License-Identifier: Apache-2.0
"""A tracker that follows each object in a square window of its own, for models of few pixels.

The window goes where the object was last, and grows while it is not seen, up to the whole frame.
Inside it everything is the wrapped tracker's: it is handed the window as a frame. One object costs
little more than without windows; several share no encoding any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.frames import CameraId, Frame, FrameIndex
from foreseg.geometry import BoxXyxy, box_from_mask
from foreseg.masks import Mask, mask_from_rle
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import FrameMasks, TrackedObject, TrackKey
from foreseg.tracker.postprocess import label_map, logits_at_source, object_from_mask, window
from foreseg.tracker.sam2 import Sam2Tracker
from foreseg.tracker.zoom import Window, cut, holds, moved, placed

F32 = NDArray[np.float32]
_FrameId = tuple[CameraId, int, FrameIndex]

SIDES = 3.0  # of the window, in the longer side of the object's box
_LEAST_PX = 32.0
_FASTEST = 1.1  # a window's side changes at most so much a step: the memory holds the old scale
SEARCH = 1.2  # it grows so much a step while the object is not seen
_LEAST_LOGIT = 1e-3  # of a pixel that is in a mask


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """Where a row was seen last, and what was seen."""

    frame: _FrameId
    window: Window  # source pixels
    centre_xy: tuple[float, float]  # of the next window
    size_wh: tuple[float, float]
    result: TrackedObject  # at source size


class WindowedTracker:
    """`Tracker` over a `Sam2Tracker`, whose rows it owns: nobody else prompts or tracks them."""

    def __init__(self, inner: Sam2Tracker) -> None:
        self._inner = inner
        self._views: dict[TrackKey, _View] = {}

    @property
    def max_objects(self) -> int:
        """Rows it can hold, branches included."""
        return self._inner.max_objects

    @property
    def keys(self) -> tuple[TrackKey, ...]:
        """Rows in use, oldest first."""
        return self._inner.keys

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        """Start a row in a window around what is prompted, or refine it; see `Tracker.prompt`.

        Without a box or a mask the window is the whole frame, and narrows as the row is tracked.
        """
        prompt = prompt.checked(frame.ref.size_wh)
        known = self._views.get(key)
        whole: Window = (0, 0, *frame.ref.size_wh)
        box = prompt.box if prompt.mask is None else box_from_mask(mask_from_rle(prompt.mask))
        here = known if known is not None and known.frame == _frame_id(frame) else None
        if box is not None:
            place = placed(box.centre_xy, _wanted(box, whole), frame.ref.size_wh)
        else:
            place = whole if here is None else here.window
        if not all(holds(place, point) for point in prompt.points):
            place = whole
        tracked = self._inner.prompt(_seen(frame, place), key, moved(prompt, place))
        self._views[key] = self._view(frame, key, place, tracked, None)
        return self._views[key].result

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        """Advance these rows to `frame`, each in its window; see `Tracker.track`."""
        unknown = [key for key in keys if key not in self._views]
        if unknown or len(set(keys)) != len(keys):
            msg = (
                f"a tracker wants known keys without repeats, got {list(keys)}, unknown {unknown}"
            )
            raise InputError(msg)
        for key in keys:
            view = self._views[key]
            if view.frame != _frame_id(frame):
                place = placed(view.centre_xy, view.size_wh, frame.ref.size_wh)
                tracked = self._inner.track(_seen(frame, place), [key]).objects[0]
                self._views[key] = self._view(frame, key, place, tracked, view)
        views = [self._views[key] for key in keys]
        maps = [self._scores(key, view) for key, view in zip(keys, views, strict=True)]
        size_wh = frame.ref.size_wh
        return FrameMasks(
            frame=frame.ref,
            objects=tuple(view.result for view in views),
            label_map=label_map(maps, [view.result.box for view in views], size_wh),
        )

    def fork(self, source: TrackKey, target: TrackKey) -> None:
        """Copy a row's memory, and its window, to a new key."""
        self._inner.fork(source, target)
        view = self._views[source]
        self._views[target] = replace(view, result=replace(view.result, key=target))

    def promote(self, source: TrackKey, target: TrackKey) -> None:
        """Give `source`'s row the name `target`; see `Tracker.promote`."""
        self._inner.promote(source, target)
        if source != target:
            view = self._views.pop(source)
            self._views[target] = replace(view, result=replace(view.result, key=target))

    def drop(self, key: TrackKey) -> None:
        """Forget a row; unknown keys are ignored."""
        self._inner.drop(key)
        self._views.pop(key, None)

    def reset(self) -> None:
        """Forget every row."""
        self._inner.reset()
        self._views.clear()

    def _view(
        self,
        frame: Frame,
        key: TrackKey,
        place: Window,
        tracked: TrackedObject,
        before: _View | None,
    ) -> _View:
        """What the window's result is at source size, and where to look next."""
        w, h = frame.ref.size_wh
        x0, y0, x1, y1 = place
        mask: Mask = np.zeros((h, w), np.bool_)
        mask[y0:y1, x0:x1] = mask_from_rle(tracked.mask)
        result = object_from_mask(
            key, mask, object_logit=tracked.object_logit, score=tracked.score
        )
        size_wh = (float(x1 - x0), float(y1 - y0)) if before is None else before.size_wh
        if result.box is None:
            centre_xy = ((x0 + x1) / 2, (y0 + y1) / 2)
            size_wh = (min(float(w), SEARCH * size_wh[0]), min(float(h), SEARCH * size_wh[1]))
        else:
            centre_xy = result.box.centre_xy
            wanted = _wanted(result.box, (0, 0, w, h))
            size_wh = (towards(size_wh[0], wanted[0]), towards(size_wh[1], wanted[1]))
        return _View(
            frame=_frame_id(frame), window=place, centre_xy=centre_xy, size_wh=size_wh,
            result=result,
        )  # fmt: skip

    def _scores(self, key: TrackKey, view: _View) -> F32 | None:
        """Logits in the result's box, where overlapping masks compete; None for an empty mask."""
        if view.result.box is None:
            return None
        x0, y0, x1, y1 = view.window
        width, height = view.result.mask.width, view.result.mask.height
        scores: F32 = np.zeros((height, width), np.float32)
        scores[y0:y1, x0:x1] = logits_at_source(self._inner.logits_of(key), (x1 - x0, y1 - y0))
        here = window(view.result.box)
        mask = mask_from_rle(view.result.mask)[here]
        inside: F32 = np.where(mask, np.maximum(scores[here], _LEAST_LOGIT), -1).astype(np.float32)
        return inside


def _frame_id(frame: Frame) -> _FrameId:
    return frame.ref.camera, frame.ref.epoch, frame.ref.index


def _wanted(box: BoxXyxy, whole: Window) -> tuple[float, float]:
    """Width and height of the window that suits a box: square, where the frame has room."""
    side = max(_LEAST_PX, SIDES * max(box.width, box.height))
    return min(float(whole[2]), side), min(float(whole[3]), side)


def towards(side: float, wanted: float) -> float:
    """The side of a window after a step, pixels: the wanted one, or as near as one step may go."""
    return side * min(_FASTEST, max(1 / _FASTEST, wanted / side))


def _seen(frame: Frame, place: Window) -> Frame:
    """The window as a frame; its camera's name has the window, for encodings are kept by name."""
    x0, y0, x1, y1 = place
    camera = CameraId(f"{frame.ref.camera} {x0},{y0},{x1},{y1}")
    ref = replace(frame.ref, camera=camera, size_wh=(x1 - x0, y1 - y0))
    return Frame(ref=ref, image=cut(frame, place))
