# SPDX-License-Identifier: Apache-2.0
"""The loop's bounded inbox: of frames the newest are kept, users' messages are refused when full.

What the loop's own threads say is never refused: they wait until there is room, so that no
tracker result and no end of an answer is ever lost.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from foreseg.frames import CameraId, U8Array

FRAMES_PER_CAMERA = 4  # that may wait for the loop; the oldest is dropped
MAX_MESSAGES = 1024  # of other kinds that may wait

Message = TypeVar("Message")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WaitingFrame:
    """A frame that was handed over."""

    camera: CameraId
    image: U8Array
    stamp_ns: int
    frame_id: str
    received_ns: int


class Inbox(Generic[Message]):
    """Many threads put, one takes."""

    def __init__(self, max_messages: int = MAX_MESSAGES) -> None:
        self._changed = threading.Condition()
        self._frames: dict[CameraId, deque[WaitingFrame]] = {}
        self._messages: deque[Message] = deque()
        self._max_messages = max_messages
        self._is_closed = False
        self.num_refused = 0

    def put_frame(self, frame: WaitingFrame) -> int:
        """Never waits; returns how many older frames of the camera had to go."""
        with self._changed:
            waiting = self._frames.setdefault(frame.camera, deque())
            waiting.append(frame)
            dropped = max(0, len(waiting) - FRAMES_PER_CAMERA)
            for _ in range(dropped):
                waiting.popleft()
            self._changed.notify_all()
            return dropped

    def offer(self, message: Message) -> bool:
        """Never waits; False, counted, if too many messages wait or the inbox is closed."""
        with self._changed:
            if self._is_closed or len(self._messages) >= self._max_messages:
                self.num_refused += 1
                return False
            self._messages.append(message)
            self._changed.notify_all()
            return True

    def put(self, message: Message) -> None:
        """Wait for room; dropped only once the inbox is closed. Not for the thread that takes."""
        with self._changed:
            while len(self._messages) >= self._max_messages and not self._is_closed:
                self._changed.wait()
            if not self._is_closed:
                self._messages.append(message)
                self._changed.notify_all()

    def take(self, timeout_s: float) -> Message | WaitingFrame | None:
        """The next message, else the frame that waits longest, else None after the timeout."""
        with self._changed:
            if not self._messages and not any(self._frames.values()) and not self._is_closed:
                self._changed.wait(timeout_s)
            if self._messages:
                self._changed.notify_all()
                return self._messages.popleft()
            waiting = [frames for frames in self._frames.values() if frames]
            return min(waiting, key=lambda f: f[0].received_ns).popleft() if waiting else None

    def close(self) -> None:
        """Wake everybody; nothing more is taken in."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
