# SPDX-License-Identifier: Apache-2.0
"""What the client saw of one part: frames and masks, packed as they come, in bounded memory.

Packing happens on a thread of its own, so that the callbacks that measure latencies return at
once. Knows nothing of ROS.
"""

from __future__ import annotations

import queue
import threading
import zlib
from dataclasses import dataclass, field

import numpy as np

from foreseg.frames import U8Array
from foreseg.pipeline.tracks import TrackState
from foreseg.tracker.base import LabelMap

MAX_WAITING = 64
JPEG_QUALITY = 92


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTrack:
    """One entry of ~/tracks."""

    object_id: str
    query_ids: tuple[str, ...]
    index: int
    state: TrackState
    answer_age_s: float
    catching_up: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenAnswer:
    """One answer with the question, in stamps of the camera's clock."""

    query: str
    status: str
    text: str
    reason: str
    keyframe_index: int
    keyframe_stamp_ns: int
    box: tuple[float, ...] | None  # of the first prompt, pixels of the keyframe
    object_ids: tuple[str, ...]
    asked_stamp_ns: int
    answered_stamp_ns: int
    latency_s: float
    rationale: str = ""  # the chain of thought, where the reasoner has one

    @property
    def is_ok(self) -> bool:
        """True if it named a target."""
        return self.status == "OK"

    @property
    def words(self) -> str:
        """The answer, or why there is none."""
        return (
            self.text if self.is_ok else f"{self.status.lower().replace('_', ' ')}: {self.reason}"
        )


@dataclass(slots=True, kw_only=True)
class Recording:
    """Everything of one part, by header stamp."""

    frames: dict[int, bytes] = field(default_factory=dict)  # JPEG
    masks: dict[int, tuple[bytes, tuple[int, int], str]] = field(default_factory=dict)
    tracks: dict[int, tuple[SeenTrack, ...]] = field(default_factory=dict)
    latencies_ns: dict[int, int] = field(default_factory=dict)  # from stamp to masks received
    answers: list[SeenAnswer] = field(default_factory=list)  # replies of ~/ask
    num_published_answers: int = 0  # on ~/answers
    asked: list[tuple[int, str]] = field(default_factory=list)  # (stamp, question)
    num_unpacked: int = 0

    def image(self, stamp_ns: int) -> U8Array | None:
        """A frame as RGB."""
        import cv2

        data = self.frames.get(stamp_ns)
        if data is None:
            return None
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if bgr is None:
            return None
        return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)

    def label_map(self, stamp_ns: int) -> LabelMap:
        """The masks of a stamp."""
        data, shape, kind = self.masks[stamp_ns]
        return np.frombuffer(zlib.decompress(data), np.dtype(kind)).reshape(shape)


class Recorder:
    """Takes arrays from callbacks and packs them into a recording."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._waiting: queue.Queue[tuple[str, int, LabelMap] | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._pack, name="recorder", daemon=True)
        self._thread.start()

    def take(self, kind: str, stamp_ns: int, pixels: LabelMap) -> None:
        """A `frame` (H, W, 3) or `masks` (H, W); never waits."""
        try:
            self._waiting.put_nowait((kind, stamp_ns, pixels))
        except queue.Full:
            self.recording.num_unpacked += 1

    def close(self) -> None:
        """Pack what waits and stop."""
        self._waiting.put(None)
        self._thread.join()

    def _pack(self) -> None:
        import cv2

        while (item := self._waiting.get()) is not None:
            kind, stamp_ns, pixels = item
            if kind == "masks":
                shape = (pixels.shape[0], pixels.shape[1])
                packed = zlib.compress(pixels.tobytes(), 1)
                self.recording.masks[stamp_ns] = (packed, shape, pixels.dtype.str)
                continue
            bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
            is_done, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            if is_done:
                self.recording.frames[stamp_ns] = data.tobytes()
