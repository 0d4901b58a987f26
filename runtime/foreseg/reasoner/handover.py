# SPDX-License-Identifier: Apache-2.0
"""One reasoner hands its question on to another, which wants frames of its own.

What the history has is not known while a question is asked: frames are wanted where the other's policy
would take them if every frame between the first and the newest one at hand were there, and the nearest
ones are sent. Does not know who hands over, nor why.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

import numpy as np

from foreseg.dialogue import AnswerPart, FramesWanted, Query, RationalePart
from foreseg.frames import FrameIndex, FrameRef, FrameWindow
from foreseg.history.windows import HistoryView, WindowPolicy
from foreseg.reasoner.base import Reasoner

MAX_FRAMES_BACK = 4096  # beyond which no policy is asked


def handed_over(
    other: Reasoner, query: Query, window: FrameWindow, why: str
) -> Generator[AnswerPart, FrameWindow | None, None]:
    """The other's answer, after a word on why it is the one that answers.

    Args:
        other: answers.
        query: as it was asked; a method that it names is the first reasoner's.
        window: as the first one was shown it, at least one frame.
        why: goes before the other's thoughts.
    """
    yield RationalePart(text=f"[{why}]\n")
    indices = wanted_by(other.window_policy, window)
    more = yield FramesWanted(indices=indices)
    own = window if more is None or not more.frames else more
    yield from other.ask(replace(query, method=""), own)


def wanted_by(policy: WindowPolicy, window: FrameWindow) -> tuple[FrameIndex, ...]:
    """Frames that a policy takes of a history in which no frame is missing.

    Stamps between the frames at hand are taken to run evenly.
    """
    indices = [int(frame.index) for frame in window.frames]
    last = indices[-1]
    span = range(max(indices[0], last - MAX_FRAMES_BACK), last + 1)
    stamps = np.interp(span, indices, [float(frame.ref.stamp_ns) for frame in window.frames])
    newest = window.newest.ref
    refs = tuple(
        FrameRef(
            camera=newest.camera,
            index=FrameIndex(index),
            epoch=newest.epoch,
            stamp_ns=round(stamp),
            received_ns=round(stamp),
            size_wh=newest.size_wh,
        )
        for index, stamp in zip(span, stamps, strict=True)
    )
    return policy.select(HistoryView(dense=refs, sparse=()))
