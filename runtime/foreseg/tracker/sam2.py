# SPDX-License-Identifier: Apache-2.0
"""The video tracker on a bundle of SAM2 or EdgeTAM: rows, prompts, steps; results at source size.

Deviations from SAM2, on purpose:
- one conditioning entry a row: a new prompt on a known key takes its place, recent memory stays;
- memory is numbered in tracker steps, not in frames (see `memory_bank`);
- memory is stored as float32 (the reference stores bfloat16).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.load import Bundle
from foreseg.errors import ConfigError, EngineError, InputError
from foreseg.frames import CameraId, Frame, FrameIndex
from foreseg.masks import Mask, mask_from_rle
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import FrameMasks, TrackedObject, TrackKey
from foreseg.tracker.memory_bank import MemoryBank
from foreseg.tracker.postprocess import label_map, logits_at_source, object_from_mask, window
from foreseg.tracker.preprocess import (
    MASK_LOGIT,
    PromptPoints,
    logits_from_mask,
    points_from_prompt,
)
from foreseg.tracker.sam2_network import Decoded, FrameFeatures, Sam2Network
from foreseg.tracker.zoom import zoomed_mask

F32 = NDArray[np.float32]
_FrameId = tuple[CameraId, int, FrameIndex]  # camera, epoch, index

MAX_PROMPT_POINTS = 16  # on one frame, a box's two corners included
_ABSENT_LOGIT = -1024.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Row:
    """A row's number in the bank, and its result on the frame that it saw last."""

    row: int
    frame: _FrameId
    result: TrackedObject
    logits: F32  # (m, m)
    points: PromptPoints | None = None  # given on this frame
    from_mask: bool = False  # the result came as a mask, exact at source size
    drawn: F32 | None = None  # (m, m), the mask that was given on this frame; clicks correct it
    zoomed: SpatialPrompt | None = (
        None  # what a window showed of this frame, if that is the result
    )


class Sam2Tracker:
    """SAM2 video segmentation of up to `max_objects` rows, all advanced in one launch.

    Args:
        bundle: of either family; the tracker does not close it.
        max_objects: rows, branches included.
        max_batch: rows in one launch of memory attention and decoder, if the engines take so many.
        feature_cache_bytes: encodings of the newest frames are kept up to this size (one always).
        zooms: a new box is segmented in a window around it (see `zoom`); its mask is the prompt.

    Raises:
        ConfigError: for numbers below 1.
        EngineError: the bundle lacks a piece.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        max_objects: int = 8,
        max_batch: int = 8,
        feature_cache_bytes: int = 64 << 20,
        zooms: bool = False,
    ) -> None:
        if min(max_objects, max_batch, feature_cache_bytes) < 1:
            msg = (
                "a tracker wants max_objects, max_batch and feature_cache_bytes of at least 1,"
                f" got {max_objects}, {max_batch} and {feature_cache_bytes}"
            )
            raise ConfigError(msg)
        self._network = Sam2Network(bundle)
        geometry = bundle.manifest.geometry
        self._geometry = geometry
        self._max_objects = max_objects
        self._max_batch = min(max_batch, bundle.max_rows or max_batch)
        self._cache_bytes = feature_cache_bytes
        self._zooms = zooms
        self._cache: OrderedDict[_FrameId, FrameFeatures] = OrderedDict()
        self._rows: dict[TrackKey, _Row] = {}
        self._bank = MemoryBank(
            max_rows=max_objects,
            num_recent=geometry.num_recent,
            num_pointers=geometry.num_pointers,
            num_tokens=geometry.memory_tokens,
            memory_channels=geometry.memory_channels,
            pointer_channels=geometry.hidden_channels,
            make_store=bundle.make_store,
        )

    @property
    def max_objects(self) -> int:
        """Rows it can hold, branches included."""
        return self._max_objects

    @property
    def keys(self) -> tuple[TrackKey, ...]:
        """Rows in use, oldest first."""
        return tuple(self._rows)

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        """Start a row on this frame, or refine it there; see `Tracker.prompt`.

        Points given on the frame that the row saw last add to those given there before, and to the
        mask that was; the decoder sees the row's memory; a box or a mask starts afresh. What a window showed is asked
        anew in a window, with the points of both. The frame becomes the row's
        conditioning frame, beside those prompted before if the row has not been tracked since.
        """
        prompt = prompt.checked(frame.ref.size_wh)
        known = self._rows.get(key)
        row = self._free_row() if known is None else known.row
        here = known if known is not None and known.frame == _frame_id(frame) else None
        before = None if here is None else here.zoomed
        if before is not None and prompt.box is None and prompt.mask is None:
            prompt = SpatialPrompt(box=before.box, points=before.points + prompt.points)
        _check_number(len(prompt.points) + (0 if prompt.box is None else 2))
        features = self._features(frame)
        zoomed = zoomed_mask(self._network, frame, prompt) if self._zooms else None
        if zoomed is not None:
            state, pointer = self._masked(frame, key, zoomed.mask, features, row)
            result = replace(state.result, object_logit=zoomed.object_logit, score=zoomed.score)
            state = replace(state, result=result, zoomed=prompt)
        elif prompt.mask is not None:
            mask = mask_from_rle(prompt.mask)
            state, pointer = self._masked(frame, key, mask, features, row)
        else:
            state, pointer = self._pointed(frame, key, prompt, features, row, here)
        memory = self._network.memorise(
            features, state.logits[None], [state.result.object_logit], prompted=True
        )
        is_another = known is not None and here is None
        if not self._bank.write_conditioning(
            row, memory[0], pointer, same_step=here is not None, beside=is_another
        ):
            msg = f"the engines gave values that are not finite for the prompt of {key!r}"
            raise EngineError(msg)
        self._rows[key] = state
        return state.result

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        """Advance these rows to `frame` by one memory step; see `Tracker.track`."""
        unknown = [key for key in keys if key not in self._rows]
        if unknown or len(set(keys)) != len(keys):
            msg = (
                f"a tracker wants known keys without repeats, got {list(keys)}, unknown {unknown}"
            )
            raise InputError(msg)
        here = _frame_id(frame)
        due = [key for key in keys if self._rows[key].frame != here]
        due.sort(key=lambda key: self._rows[key].row)  # neighbours are read without copying
        score_maps: dict[TrackKey, F32] = {}
        for start in range(0, len(due), self._max_batch):
            score_maps.update(self._advance(frame, due[start : start + self._max_batch]))
        size_wh = frame.ref.size_wh
        states = [self._rows[key] for key in keys]
        maps = [
            _score_map(state, score_maps.get(key), size_wh)
            for key, state in zip(keys, states, strict=True)
        ]
        return FrameMasks(
            frame=frame.ref,
            objects=tuple(state.result for state in states),
            label_map=label_map(maps, [state.result.box for state in states], size_wh),
        )

    def logits_of(self, key: TrackKey) -> F32:
        """Mask logits (m, m) of a row on the frame that it saw last, on the model's grid.

        Raises:
            InputError: unknown key.
        """
        return self._known(key).logits

    def fork(self, source: TrackKey, target: TrackKey) -> None:
        """Copy a row's memory to a new key.

        Raises:
            InputError: unknown source, known target, or no free row.
        """
        state = self._known(source)
        if target in self._rows:
            msg = f"a fork wants a new key, {target!r} is in use"
            raise InputError(msg)
        row = self._free_row()
        self._bank.copy(state.row, row)
        self._rows[target] = replace(state, row=row, result=replace(state.result, key=target))

    def promote(self, source: TrackKey, target: TrackKey) -> None:
        """Give `source`'s memory the name `target`; see `Tracker.promote`.

        Raises:
            InputError: unknown source.
        """
        state = self._known(source)
        if source == target:
            return
        self.drop(target)
        renamed = replace(state, result=replace(state.result, key=target))
        self._rows = {
            (target if key == source else key): (renamed if key == source else other)
            for key, other in self._rows.items()
        }

    def drop(self, key: TrackKey) -> None:
        """Forget a row; unknown keys are ignored."""
        state = self._rows.pop(key, None)
        if state is not None:
            self._bank.clear(state.row)

    def reset(self) -> None:
        """Forget every row, and the frames' encodings."""
        for key in self.keys:
            self.drop(key)
        self._cache.clear()

    def _known(self, key: TrackKey) -> _Row:
        if key not in self._rows:
            msg = f"a tracker wants a known key, got {key!r}; it has {list(self._rows)}"
            raise InputError(msg)
        return self._rows[key]

    def _free_row(self) -> int:
        used = {state.row for state in self._rows.values()}
        free = next((row for row in range(self._max_objects) if row not in used), None)
        if free is None:
            msg = f"no row is free: {self._max_objects} of {self._max_objects} objects are tracked"
            raise InputError(msg)
        return free

    def _features(self, frame: Frame) -> FrameFeatures:
        """The frame's encoding, from the cache of the newest ones if it is there."""
        key = _frame_id(frame)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        features = self._network.encode_image(frame.image)
        self._cache[key] = features
        while len(self._cache) > 1 and features.num_bytes * len(self._cache) > self._cache_bytes:
            self._cache.popitem(last=False)
        return features

    def _pointed(
        self,
        frame: Frame,
        key: TrackKey,
        prompt: SpatialPrompt,
        features: FrameFeatures,
        row: int,
        here: _Row | None,
    ) -> tuple[_Row, F32]:
        """Decode a prompt of points or a box; returns the row and its pointer."""
        points = points_from_prompt(prompt, frame.ref.size_wh, self._geometry.image_size)
        drawn = None
        if here is not None and prompt.box is None:
            if here.points is not None:
                points = here.points.joined(points)
            drawn = here.drawn
        _check_number(len(points))
        if here is not None and self._bank.has_other_than_newest(row):
            conditioned = self._network.recall(features, self._bank.read([row], again=True))
        else:
            conditioned = features.feat_no_memory
        multimask = (
            self._geometry.multimask_min_points
            <= len(points)
            <= self._geometry.multimask_max_points
        )
        decoded = self._network.decode(
            features, conditioned, points=points, mask_input=drawn, multimask=multimask
        )
        state, _ = _row_from_decoded(frame, key, row, decoded, 0)
        return replace(state, points=points, drawn=drawn), decoded.pointer[0]

    def _masked(
        self, frame: Frame, key: TrackKey, mask: Mask, features: FrameFeatures, row: int
    ) -> tuple[_Row, F32]:
        """Take an (H, W) mask as the result; the decoder only makes its pointer."""
        logits, mask_input = logits_from_mask(mask, self._geometry)
        decoded = self._network.decode(
            features, features.feat, mask_input=mask_input, multimask=True
        )
        state = _Row(
            row=row,
            frame=_frame_id(frame),
            result=object_from_mask(key, mask, object_logit=MASK_LOGIT, score=1.0),
            logits=logits,
            from_mask=True,
            drawn=logits,
        )
        return state, decoded.pointer[0]

    def _advance(self, frame: Frame, keys: Sequence[TrackKey]) -> dict[TrackKey, F32]:
        """One memory step of some rows that have not seen this frame; one launch of each graph.

        Returns:
            Logits at source size, cut to the mask's box, of the objects that are visible.
        """
        features = self._features(frame)
        rows = [self._rows[key].row for key in keys]
        conditioned = self._network.recall(features, self._bank.read(rows))
        multimask = (
            self._geometry.multimask_in_tracking and self._geometry.multimask_min_points == 0
        )
        decoded = self._network.decode(features, conditioned, multimask=multimask)
        decoded_rows = [
            _row_from_decoded(frame, key, row, decoded, i)
            for i, (key, row) in enumerate(zip(keys, rows, strict=True))
        ]
        states = [state for state, _ in decoded_rows]
        object_logits = [state.result.object_logit for state in states]
        logits = decoded.kept_logits  # as they came, unless a row of them had to be replaced
        if _ABSENT_LOGIT in object_logits:
            logits = np.stack([state.logits for state in states])
        memory = self._network.memorise(features, logits, object_logits, prompted=False)
        for i, (key, state) in enumerate(zip(keys, states, strict=True)):
            if not self._bank.write_recent(state.row, memory[i], decoded.pointer[i]):
                _log.warning(
                    "track %r: values that are not finite on frame %d; this step is not remembered",
                    key, frame.index,
                )  # fmt: skip
            self._rows[key] = state
        return {
            key: score_map
            for key, (_, score_map) in zip(keys, decoded_rows, strict=True)
            if score_map is not None
        }


def _frame_id(frame: Frame) -> _FrameId:
    return frame.ref.camera, frame.ref.epoch, frame.ref.index


def _check_number(points: int) -> None:
    if points > MAX_PROMPT_POINTS:
        msg = (
            f"a spatial prompt wants at most {MAX_PROMPT_POINTS} points on one frame"
            f" (a box counts as 2), got {points}"
        )
        raise InputError(msg)


def _row_from_decoded(
    frame: Frame, key: TrackKey, row: int, decoded: Decoded, i: int
) -> tuple[_Row, F32 | None]:
    """The i-th decoded row as a result, and its logits at source size (None: no pixel is set).

    Values that are not finite count as absent.
    """
    object_logit, score = float(decoded.object_logit[i]), float(decoded.score[i])
    logits = decoded.logits[i].copy()
    if not (np.isfinite(object_logit + score) and bool(np.isfinite(logits).all())):
        object_logit, score = _ABSENT_LOGIT, 0.0
        logits[:] = _ABSENT_LOGIT
    w, h = frame.ref.size_wh
    score_map = logits_at_source(logits, (w, h)) if object_logit > 0 else None
    mask = np.zeros((h, w), np.bool_) if score_map is None else score_map > 0
    state = _Row(
        row=row,
        frame=_frame_id(frame),
        result=object_from_mask(key, mask, object_logit=object_logit, score=score),
        logits=logits,
    )
    box = state.result.box
    if score_map is None or box is None:
        return state, None
    return state, score_map[window(box)].copy()  # the rest goes: the next row fits in its place


def _score_map(state: _Row, fresh: F32 | None, size_wh: tuple[int, int]) -> F32 | None:
    """Logits at source size in the box, where overlapping masks compete; None for an empty mask."""
    if state.result.box is None:
        return None
    if fresh is not None:
        return fresh
    here = window(state.result.box)
    if state.from_mask:
        mask = mask_from_rle(state.result.mask)[here]
        scores: F32 = np.where(mask, MASK_LOGIT, -MASK_LOGIT).astype(np.float32)
        return scores
    return logits_at_source(state.logits, size_wh)[here]
