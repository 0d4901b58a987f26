# SPDX-License-Identifier: Apache-2.0
"""From where the frame labels of a query count: pinned when it is first asked, at no round number.

While a query stands, a frame keeps its label from asking to asking, and what a model has read of
earlier frames stays true. Queries begin at different numbers, as the samples of training do, or every
first asking would show nearly the same labels, by which a model can answer without looking. Labels
stay bounded: when a pin is left too far behind, a new one is set. Does not know: frames, windows.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict

from foreseg.dialogue import QueryId
from foreseg.frames import CameraId, FrameIndex

MAX_OFFSET = 200  # of the first label, as in training
MAX_PINS = 256  # queries; the one that was not asked for longest is forgotten


class LabelOrigins:
    """The pins of all queries that were asked lately."""

    def __init__(self) -> None:
        self._pins: OrderedDict[tuple[CameraId, QueryId], FrameIndex] = OrderedDict()

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
        key = (camera, query_id)
        pin = self._pins.pop(key, None)
        span = int(newest) - int(oldest)
        if pin is None or not int(pin) <= int(oldest) <= int(pin) + MAX_OFFSET + span:
            offset = zlib.crc32(query_id.encode()) % (MAX_OFFSET + 1)
            pin = FrameIndex(int(oldest) - offset)
        self._pins[key] = pin
        if len(self._pins) > MAX_PINS:
            self._pins.popitem(last=False)
        return pin
