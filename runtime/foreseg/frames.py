# SPDX-License-Identifier: Apache-2.0
"""Frames, their absolute indices, and the windows of frames that a reasoner sees.

Knows nothing of where frames are kept (`history`) or which are chosen (`windows`).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NewType

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError

FrameIndex = NewType("FrameIndex", int)
CameraId = NewType("CameraId", str)
U8Array = NDArray[np.uint8]

DEFAULT_CAMERA = CameraId("camera")


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameRef:
    """A frame without its pixels: what the pipeline, the trace and the messages need."""

    camera: CameraId
    index: FrameIndex  # frames accepted since the stream began, from 0, never reused
    epoch: int  # counts changes of resolution, from 0
    stamp_ns: int  # sensor stamp, as the message header has it
    received_ns: int  # monotonic time of arrival
    size_wh: tuple[int, int]  # source pixels
    frame_id: str = ""  # the header's coordinate frame


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """A frame with pixels; `image` may be smaller than `ref.size_wh` (a reduced copy)."""

    ref: FrameRef
    image: U8Array  # (h, w, 3) RGB, read-only

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:  # noqa: PLR2004 (RGB)
            msg = (
                "a frame wants an image (H, W, 3) uint8 in RGB,"
                f" got {self.image.shape} {self.image.dtype}"
            )
            raise InputError(msg)
        if 0 in self.image.shape:
            msg = f"a frame wants at least one pixel, got an image of shape {self.image.shape}"
            raise InputError(msg)

    @property
    def index(self) -> FrameIndex:
        """The absolute index."""
        return self.ref.index

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Factors from pixels of `image` to source pixels."""
        return (
            self.ref.size_wh[0] / self.image.shape[1],
            self.ref.size_wh[1] / self.image.shape[0],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameWindow:
    """The frames of one reasoner call, oldest first.

    A *frame label* is what a language model reads and says: the distance from `origin_index`,
    gaps kept, never a rank.
    """

    frames: tuple[Frame, ...]
    origin_index: FrameIndex

    def __post_init__(self) -> None:
        indices = [frame.index for frame in self.frames]
        if any(a >= b for a, b in itertools.pairwise(indices)):
            msg = f"a window wants frames oldest first without repeats, got indices {indices}"
            raise InputError(msg)
        if indices and indices[0] < self.origin_index:
            msg = f"a window's origin {self.origin_index} is after its first frame {indices[0]}"
            raise InputError(msg)

    @property
    def indices(self) -> tuple[FrameIndex, ...]:
        """Absolute indices, oldest first."""
        return tuple(frame.index for frame in self.frames)

    @property
    def newest(self) -> Frame:
        """The last frame."""
        return self.frames[-1]

    def label_of(self, index: FrameIndex) -> int:
        """The label of an absolute index."""
        return int(index) - int(self.origin_index)

    def index_of(self, label: int) -> FrameIndex:
        """The absolute index of a label."""
        return FrameIndex(int(self.origin_index) + label)

    def get(self, index: FrameIndex) -> Frame | None:
        """The frame with this index, or None if the window does not have it."""
        return next((frame for frame in self.frames if frame.index == index), None)
