# SPDX-License-Identifier: Apache-2.0
"""The camera's frames as the page needs them: a history of our own, and masks matched by stamp.

Bounded by the history, and by how many masks may wait for their other half.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import replace
from typing import Final, TypeVar

from foreseg_msgs import msg as messages

from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.frames import CameraId, Frame, FrameIndex, FrameRef, U8Array
from foreseg.history.ring import History
from foreseg.tracker.base import LabelMap
from foreseg_ros.view.seen import tracks_from_msg

MAX_FRAMES: Final = 300
MAX_WAITING: Final = 16  # halves of frames

Half = TypeVar("Half")


class FrameStore:
    """Frames by stamp, from any thread.

    Args:
        camera: for the records.
        topic: of the images, to say that none has come.
        max_bytes: of pixels.
    """

    def __init__(self, camera: CameraId, topic: str, max_bytes: int) -> None:
        self._topic = topic
        self._lock = threading.Lock()
        self._history = History(
            camera=camera, max_bytes=max_bytes, max_frames=MAX_FRAMES, sparse_frames=0
        )
        self._maps: OrderedDict[int, LabelMap] = OrderedDict()
        self._tracks: OrderedDict[int, messages.TrackArray] = OrderedDict()
        self.num_unmatched = 0  # masks whose frame, or tracks, never came

    def push(
        self, image: U8Array, stamp_ns: int, received_ns: int, frame_id: str
    ) -> PublishedMasks | None:
        """An image of the camera; the whole frame if its masks were here before it.

        Raises:
            InputError: it has another form than images here have.
        """
        with self._lock:
            self._history.push(
                image, stamp_ns=stamp_ns, received_ns=received_ns, frame_id=frame_id
            )
            return self._matched(stamp_ns)

    def add_map(self, stamp_ns: int, label_map: LabelMap) -> PublishedMasks | None:
        """A label map; the whole frame if it is complete by now."""
        with self._lock:
            self._put(self._maps, stamp_ns, label_map)
            return self._matched(stamp_ns)

    def add_tracks(self, stamp_ns: int, msg: messages.TrackArray) -> PublishedMasks | None:
        """The tracks of a frame; the whole frame if it is complete by now."""
        with self._lock:
            self._put(self._tracks, stamp_ns, msg)
            return self._matched(stamp_ns)

    def span(self) -> tuple[int | None, int | None]:
        """The oldest and the newest frame at hand."""
        with self._lock:
            newest, oldest = self._history.newest, self._history.oldest_index
        return (None if oldest is None else int(oldest), None if newest is None else newest.index)

    def copy_at(self, index: FrameIndex) -> Frame | None:
        """A frame with pixels of its own."""
        with self._lock:
            frame = self._history.get(index)
            return None if frame is None else replace(frame, image=frame.image.copy())

    def copy_of(self, stamp_ns: int) -> Frame | None:
        """Likewise, by its stamp."""
        with self._lock:
            frame = self._by_stamp(stamp_ns)
            return None if frame is None else replace(frame, image=frame.image.copy())

    def problem(self) -> str:
        """What is wrong with the images, "" if nothing."""
        return f"no image on {self._topic} yet" if self.span()[1] is None else ""

    def _put(self, halves: OrderedDict[int, Half], stamp_ns: int, half: Half) -> None:
        halves.pop(stamp_ns, None)
        halves[stamp_ns] = half
        if len(halves) > MAX_WAITING:
            halves.popitem(last=False)
            self.num_unmatched += 1

    def _matched(self, stamp_ns: int) -> PublishedMasks | None:
        label_map, msg = self._maps.get(stamp_ns), self._tracks.get(stamp_ns)
        frame = self._by_stamp(stamp_ns)
        if label_map is None or msg is None or frame is None:
            return None
        del self._maps[stamp_ns], self._tracks[stamp_ns]
        if label_map.shape != frame.image.shape[:2]:
            text = f"masks of {label_map.shape} for a frame of {frame.image.shape[:2]}"
            raise InputError(text)
        return PublishedMasks(
            frame=frame.ref,
            image=frame.image,
            label_map=label_map,
            tracks=tracks_from_msg(msg, label_map),
        )

    def _by_stamp(self, stamp_ns: int) -> Frame | None:
        refs: tuple[FrameRef, ...] = tuple(self._history.view().dense)
        ref = next((ref for ref in reversed(refs) if ref.stamp_ns == stamp_ns), None)
        return None if ref is None else self._history.get(ref.index)
