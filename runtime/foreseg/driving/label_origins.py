# SPDX-License-Identifier: Apache-2.0
"""From where the frame labels of a camera count: pinned when it is first asked about, at no round number.

A frame keeps its label from asking to asking, whichever query stands, and what a model has read of
earlier frames stays true. Cameras begin at different numbers, by the query that came first, as the
samples of training do, or every first asking would show nearly the same labels, by which a model can
answer without looking. Labels stay bounded: when a pin is left too far behind, a new one is set. Does
not know: frames, windows.
"""

from __future__ import annotations

import zlib

from foreseg.dialogue import QueryId
from foreseg.frames import CameraId, FrameIndex

MAX_OFFSET = 200  # of the first label, as in training


class LabelOrigins:
    """The pins of all cameras that were asked about."""

    def __init__(self) -> None:
        self._pins: dict[CameraId, FrameIndex] = {}

    def origin(
        self, camera: CameraId, query_id: QueryId, oldest: FrameIndex, newest: FrameIndex
    ) -> FrameIndex:
        """The index of label 0, which may lie before the stream began.

        Args:
            camera: whose frames are labelled.
            query_id: of the query that is asked.
            oldest: index of the oldest frame that may be shown.
            newest: of the newest.
        """
        pin = self._pins.get(camera)
        span = int(newest) - int(oldest)
        if pin is None or not int(pin) <= int(oldest) <= int(pin) + MAX_OFFSET + span:
            offset = zlib.crc32(query_id.encode()) % (MAX_OFFSET + 1)
            pin = self._pins[camera] = FrameIndex(int(oldest) - offset)
        return pin
