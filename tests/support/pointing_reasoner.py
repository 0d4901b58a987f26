# SPDX-License-Identifier: Apache-2.0
"""A reasoner for the real process: points at the red square, or goes wrong when asked to."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping

from foreseg.dialogue import AnswerDone, Query, RationalePart, TargetsFound
from foreseg.frames import FrameWindow
from foreseg.history.windows import RecentWindow
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream
from tests.support.scene import box_of


class PointingReasoner:
    window_policy = RecentWindow(num_frames=3)

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        yield RationalePart(text="I look for red.")
        if "hang" in query.text:
            threading.Event().wait()
        if "signal" in query.text:
            signal.raise_signal(signal.Signals[query.text.split()[-1]])
        if "exit" in query.text:
            os._exit(3)
        if "raise" in query.text:
            msg = "no such weight"
            raise RuntimeError(msg)
        if "garbage" in query.text:
            yield "forty-two"  # type: ignore[misc]
        hoard: list[bytes] = []
        while "hoard" in query.text:
            hoard.append(b"x" * 20_000_000)
            yield RationalePart(text="more")
        keyframe = window.newest.index
        prompt = SpatialPrompt(box=box_of("red", int(keyframe)))
        yield TargetsFound(keyframe_index=keyframe, prompts=(prompt,), text="the red one")
        yield AnswerDone(tokens=4)


def make(options: Mapping[str, object]) -> PointingReasoner:
    del options
    return PointingReasoner()
