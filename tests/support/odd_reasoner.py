# SPDX-License-Identifier: Apache-2.0
"""A reasoner for real nodes: points at the middle of the newest frame, and says odd things of it.

`text` of a query says which: half a character, too many tokens, numpy's numbers; or to be slow.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from foreseg.dialogue import AnswerDone, AnswerPart, Query, RationalePart, TargetsFound
from foreseg.frames import FrameWindow
from foreseg.geometry import BoxXyxy
from foreseg.history.windows import RecentWindow
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream

SLOW_S = 2.0
HALF = "half a \ud83d smile"


class OddReasoner:
    window_policy = RecentWindow(num_frames=3)

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        width, height = window.newest.ref.size_wh
        corners = np.array([width / 4, height / 4, width * 3 / 4, height * 3 / 4], np.float32)
        yield RationalePart(text=HALF if "half" in query.text else "I look at the middle.")
        if "slow" in query.text:
            threading.Event().wait(SLOW_S)
        found: AnswerPart = TargetsFound(
            keyframe_index=window.newest.index,
            prompts=(SpatialPrompt(box=BoxXyxy(*corners)),),
            text=HALF if "half" in query.text else "the middle",
            confidence=np.float32(0.5),  # type: ignore[arg-type]
        )
        yield found
        tokens = {"many": 2**70, "negative": -5}
        yield AnswerDone(tokens=next((n for word, n in tokens.items() if word in query.text), 4))


def make(options: Mapping[str, object]) -> OddReasoner:
    del options
    return OddReasoner()
