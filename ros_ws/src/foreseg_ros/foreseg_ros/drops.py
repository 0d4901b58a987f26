# SPDX-License-Identifier: Apache-2.0
"""Whether a camera steadily sends what has to be dropped. Counts in, a verdict out; no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from foreseg.pipeline.state import CameraState
from foreseg.telemetry import DropCause

WINDOW_LOOKS: Final = 5  # one a second
MIN_DROPS: Final = 3  # within the window; fewer are an accident
MIN_SHARE: Final = 0.1  # of the images that came
# The causes that lie in the stream itself, not in how busy or disabled we are.
STREAM_FAULTS: Final = {
    DropCause.BAD_IMAGE: "bad image",
    DropCause.STAMP_BACKWARD: "stamp not newer than the one before",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SteadyDrops:
    """What is dropped again and again."""

    cause: DropCause
    num_dropped: int
    num_came: int  # dropped ones among them

    def __str__(self) -> str:
        what = STREAM_FAULTS[self.cause]
        return f"{self.num_dropped} of the last {self.num_came} images were dropped: {what}"


class DropWatch:
    """Looks at one camera once a second."""

    def __init__(self) -> None:
        self._looks: deque[tuple[int, Mapping[DropCause, int]]] = deque(maxlen=WINDOW_LOOKS + 1)

    def look(self, camera: CameraState) -> SteadyDrops | None:
        """The fault that most drops of the last looks were for, if they are many."""
        num_taken = 0 if camera.newest is None else int(camera.newest.index) + 1
        self._looks.append((num_taken, dict(camera.dropped)))
        first_taken, first_dropped = self._looks[0]
        dropped = {
            cause: camera.dropped.get(cause, 0) - first_dropped.get(cause, 0)
            for cause in STREAM_FAULTS
        }
        num_came = num_taken - first_taken + sum(dropped.values())
        worst = max(dropped, key=lambda cause: dropped[cause])
        if dropped[worst] < max(MIN_DROPS, MIN_SHARE * num_came):
            return None
        return SteadyDrops(cause=worst, num_dropped=dropped[worst], num_came=num_came)
