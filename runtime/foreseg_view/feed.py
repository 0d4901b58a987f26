# SPDX-License-Identifier: Apache-2.0
"""Frames of a camera as they come, of a file at its own rate, over and over, into a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable

from foreseg.clock import Clock, SystemClock
from foreseg.driving.worker import Worker
from foreseg.errors import StreamError
from foreseg.frames import DEFAULT_CAMERA
from foreseg.media.sources import (
    DEFAULT_RATE_HZ,
    CameraSource,
    Source,
    SourceFrame,
    SourceGap,
    SourceLost,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.step import STAMP_RESTART_NS

NS = 1_000_000_000
MAX_WAIT_NS = 60 * NS  # at the end of a file, for answers that are under way
LOOK_S = 0.1
MAX_LAG_NS = NS // 2  # a file that is read too slowly is played later, never faster


class Feed:
    """Reads a source into a worker until it is stopped.

    Args:
        source: what is read.
        worker: gets the frames.
        tell: takes what the user should know of the source in a sentence, "" = all is well.
        stopping: ends `run`.
        clock: for a file's pace.
    """

    def __init__(
        self,
        source: Source,
        worker: Worker,
        tell: Callable[[str], None],
        stopping: threading.Event,
        *,
        clock: Clock | None = None,
    ) -> None:
        self._source = source
        self._worker = worker
        self._tell = tell
        self._stopping = stopping
        self._clock = clock or SystemClock()
        self._is_told = False
        self.num_passes = 0

    def run(self) -> None:
        """Until stopped; a camera is waited for, a file begins anew at its end.

        Raises:
            StreamError: a file gives no frame.
        """
        if isinstance(self._source, CameraSource):
            self._run_camera()
            return
        step_ns = round(NS / (self._source.rate_hz or DEFAULT_RATE_HZ))
        offset_ns = 0
        while not self._stopping.is_set():
            first_ns, last_ns = self._play_once(offset_ns)
            self.num_passes += 1
            if first_ns is None:
                msg = f"{self._source.name} gives no frame"
                raise StreamError(msg)
            if first_ns == last_ns:  # an image: there is nothing to begin anew
                self._stopping.wait()
                return
            self._stopping.wait(step_ns / NS)
            self._let_answers_come()
            length_ns = last_ns - first_ns
            if length_ns < 2 * STAMP_RESTART_NS:  # too short to be seen as a stream begun anew
                offset_ns += length_ns + step_ns

    def _run_camera(self) -> None:
        for item in self._source:
            if isinstance(item, SourceLost):
                self._say(f"{item.reason}; again in {item.retry_in_s:.1f} s")
            elif isinstance(item, SourceFrame):
                self._say("")
                self._worker.submit_frame(DEFAULT_CAMERA, item.image, item.stamp_ns)
            if self._stopping.is_set():
                return

    def _play_once(self, offset_ns: int) -> tuple[int | None, int]:
        """The stamps of the first and the last frame, as the file has them."""
        first_ns: int | None = None
        last_ns, began_ns = 0, self._clock.monotonic_ns()
        for item in self._source:
            if isinstance(item, SourceGap):
                self._say(item.reason)
            if not isinstance(item, SourceFrame):
                continue
            first_ns = item.stamp_ns if first_ns is None else first_ns
            last_ns = item.stamp_ns
            due_ns = began_ns + last_ns - first_ns
            late_ns = self._clock.monotonic_ns() - due_ns
            if late_ns > MAX_LAG_NS:
                began_ns += late_ns
            if self._stopping.wait(max(0, -late_ns) / NS):
                break
            self._worker.submit_frame(DEFAULT_CAMERA, item.image, last_ns + offset_ns)
        return first_ns, last_ns

    def _let_answers_come(self) -> None:
        """At the end of a file, wait for what is under way: as it begins anew, that is dropped."""
        end_ns = self._clock.monotonic_ns() + MAX_WAIT_NS
        while is_busy(self._worker.snapshot().state) and self._clock.monotonic_ns() < end_ns:
            if self._stopping.wait(LOOK_S):
                return

    def _say(self, words: str) -> None:
        if words or self._is_told:
            self._is_told = bool(words)
            self._tell(words)


def is_busy(state: State) -> bool:
    """Whether something that a user wants is under way."""
    is_unasked = state.reasoner_up and any(not entry.num_asked for entry in state.queries)
    is_catching_up = any(camera.catch_ups for camera in state.cameras.values())
    return bool(is_unasked or state.asking or state.arrivals or is_catching_up)
