# SPDX-License-Identifier: Apache-2.0
"""The tracker's contract: rows of memory under keys, prompted and advanced frame by frame.

A *key* names one row of memory. A published object has one key; while an answer catches up it has
a second one (its branch). A tracker knows nothing of queries, threads or publishing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

import numpy as np
from numpy.typing import NDArray

from foreseg.frames import Frame, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle
from foreseg.prompts import SpatialPrompt

TrackKey = NewType("TrackKey", str)
LabelMap = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedObject:
    """One row's result on one frame; array-free, so that it can stand in a trace."""

    key: TrackKey
    object_logit: float  # > 0: visible
    score: float  # predicted mask IoU in [0, 1]
    box: BoxXyxy | None  # source pixels; None if the mask is empty
    area_px: int
    mask: MaskRle  # source size, before overlaps are resolved


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameMasks:
    """All rows' masks on one frame."""

    frame: FrameRef
    objects: tuple[TrackedObject, ...]
    label_map: LabelMap  # (H, W) source size; 0 background, i + 1 = objects[i]; higher logit wins


class Tracker(Protocol):
    """Contract suite: tests/contract/test_tracker.py."""

    @property
    def max_objects(self) -> int:
        """Rows it can hold, branches included."""

    @property
    def keys(self) -> tuple[TrackKey, ...]:
        """Rows in use, oldest first."""

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        """Start a row on this frame, or refine it there; other rows are untouched.

        A row may be prompted on several frames before it is tracked: they describe it together.

        Raises:
            InputError: if the prompt does not fit the frame, or no row is free.
        """

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        """Advance these rows to `frame` by one memory step (any distance), in the order given.

        A row that was prompted or tracked on this very frame keeps that result.

        Raises:
            InputError: for an unknown key.
        """

    def fork(self, source: TrackKey, target: TrackKey) -> None:
        """Copy a row's memory to a new key."""

    def promote(self, source: TrackKey, target: TrackKey) -> None:
        """Give `source`'s memory the name `target` (replacing that row); `source` is gone."""

    def drop(self, key: TrackKey) -> None:
        """Forget a row; unknown keys are ignored."""

    def reset(self) -> None:
        """Forget every row."""
