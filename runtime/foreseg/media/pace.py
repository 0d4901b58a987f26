# SPDX-License-Identifier: Apache-2.0
"""Keeps a video of constant rate in step with a stream whose frames come at any rate. Pure."""

from __future__ import annotations

NS = 1_000_000_000
SLACK = 1.0  # pictures; jitter up to so much leaves every frame its one
MAX_PAUSE_S = 10.0  # a longer pause of the stream is shown so long


class Pace:
    """Says how often to write each picture.

    Once, as a rule: more often where the stream pauses or leaves frames out, not at all where
    frames come faster than the video's rate.
    """

    def __init__(self, rate_hz: float) -> None:
        """`rate_hz` is the video's, above 0."""
        self._rate_hz = rate_hz
        self._origin_ns: int | None = None
        self._num_written = 0

    def times(self, stamp_ns: int, next_ns: int | None) -> int:
        """How often to write the picture of a frame.

        Args:
            stamp_ns: the frame's sensor stamp.
            next_ns: the next one's; None for the last frame. At or before `stamp_ns`: a stream
                that begins anew.

        Returns:
            A number >= 0, of pictures.
        """
        if self._origin_ns is None:
            self._origin_ns = stamp_ns
        if next_ns is None or next_ns <= stamp_ns:
            self._origin_ns = next_ns
            self._num_written = 0
            return 1
        due = (next_ns - self._origin_ns) / NS * self._rate_hz
        lag = due - self._num_written - 1
        times = 1
        if lag > SLACK:
            times += round(lag)
        elif lag < -SLACK:
            times = 0
        most = max(1, round(MAX_PAUSE_S * self._rate_hz))
        if times > most:
            times, self._origin_ns, self._num_written = most, next_ns, -most
        self._num_written += times
        return times
