# SPDX-License-Identifier: Apache-2.0
"""A question is handed on with the frames that the other reasoner would have taken itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.reasoners import query

from foreseg.dialogue import AnswerDone, AnswerFailed, FramesWanted, RationalePart
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.history.windows import HistoryView, RecentWindow, UniformWindow, WindowPolicy
from foreseg.kinematic.reasoner import KinematicReasoner
from foreseg.reasoner.handover import MAX_FRAMES_BACK, handed_over, wanted_by

_BLACK = np.zeros((24, 32, 3), np.uint8)


def _refs(first: int, count: int, rate_hz: float) -> list[FrameRef]:
    return [
        FrameRef(
            camera=DEFAULT_CAMERA, index=FrameIndex(first + i), epoch=2,
            stamp_ns=round(1e9 * (5 + i / rate_hz)), received_ns=i, size_wh=(32, 24),
        )
        for i in range(count)
    ]  # fmt: skip


def _window(refs: list[FrameRef]) -> FrameWindow:
    frames = tuple(Frame(ref=ref, image=_BLACK) for ref in refs)
    return FrameWindow(frames=frames, origin_index=FrameIndex(0))


@given(
    first=st.integers(0, 10_000),
    count=st.integers(2, 300),
    rate_hz=st.sampled_from((5.0, 15.0, 30.0)),
    policy=st.one_of(
        st.builds(RecentWindow, num_frames=st.integers(1, 16), stride_s=st.floats(0, 1)),
        st.builds(UniformWindow, num_frames=st.integers(1, 16), span_s=st.floats(0.1, 20)),
    ),
)
def test_what_is_wanted_is_what_the_policy_takes_of_the_whole_history(
    first: int, count: int, rate_hz: float, policy: WindowPolicy
) -> None:
    refs = _refs(first, count, rate_hz)
    shown = _window([refs[0], *refs[count // 2 : -1 : 7], refs[-1]])
    whole = policy.select(HistoryView(dense=tuple(refs), sparse=()))
    found = wanted_by(policy, shown)
    assert abs(len(found) - len(whole)) <= 1  # a frame may lie at the very edge of a span,
    assert found[-1] == whole[-1]
    assert all(np.abs(np.subtract(whole, index)).min() <= 1 for index in found)  # or half way


def test_a_long_history_is_not_gone_through() -> None:
    refs = _refs(0, 2, 1.0)
    far = replace(refs[1], index=FrameIndex(10**9))
    found = wanted_by(UniformWindow(num_frames=4), _window([refs[0], far]))
    assert found[0] == 10**9 - MAX_FRAMES_BACK


@pytest.mark.parametrize("is_sent", [True, False])
def test_the_other_answers_after_a_word_why(*, is_sent: bool) -> None:
    refs = _refs(0, 60, 20.0)
    other = KinematicReasoner()
    asked = replace(query("what moves?"), method="veason")
    stream = handed_over(other, asked, _window([refs[0], refs[-1]]), "nothing here is familiar")
    said = [next(stream), next(stream)]
    assert said[0] == RationalePart(text="[nothing here is familiar]\n")
    assert isinstance(said[1], FramesWanted)
    assert said[1].indices == other.window_policy.select(HistoryView(dense=tuple(refs), sparse=()))
    part = stream.send(_window([refs[i] for i in said[1].indices]) if is_sent else None)
    rest = [part, *stream]
    assert isinstance(rest[-1], AnswerDone)
    assert not any(isinstance(p, AnswerFailed) for p in rest)
