# SPDX-License-Identifier: Apache-2.0
"""What every window policy promises, over any history, also with stamps that run backward."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameRef
from foreseg.history.windows import (
    GlobalLocalWindow,
    HistoryView,
    PinnedWindow,
    RecentWindow,
    UniformWindow,
    WindowPolicy,
)


@st.composite
def views(draw: st.DrawFn, *, backward: bool = True) -> HistoryView:
    """A dense tail behind sparse frames; some frames are in both."""
    first, num_dense = draw(st.integers(0, 200)), draw(st.integers(0, 40))
    sparse = draw(st.sets(st.integers(0, first + num_dense), max_size=20))
    indices = sorted(sparse | set(range(first, first + num_dense)))
    stamp_ns, refs = draw(st.integers(-(10**18), 10**18)), {}
    for index in indices:
        stamp_ns += draw(st.integers(-(10**9) if backward else 1, 10**9))
        refs[index] = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(index),
            epoch=0,
            stamp_ns=stamp_ns,
            received_ns=0,
            size_wh=(2, 2),
        )
    return HistoryView(
        dense=tuple(refs[i] for i in range(first, first + num_dense)),
        sparse=tuple(refs[i] for i in sorted(sparse)),
    )


counts = st.integers(1, 30)
seconds = st.floats(0, 20)
uniform = st.builds(UniformWindow, num_frames=counts, span_s=st.one_of(st.none(), seconds))
pinned = st.builds(PinnedWindow, num_frames=counts, span_s=st.one_of(st.none(), seconds))
recent = st.builds(RecentWindow, num_frames=counts, stride_s=seconds)
global_local = st.builds(
    GlobalLocalWindow,
    num_frames=counts,
    centre=st.one_of(st.none(), st.integers(0, 300).map(FrameIndex)),
)


@given(views(), st.one_of(uniform, pinned, recent, global_local))
def test_a_window_is_a_bounded_ordered_part_of_the_view(
    view: HistoryView, policy: WindowPolicy
) -> None:
    picked = policy.select(view)
    at_hand = [ref.index for ref in view.timeline]
    assert list(picked) == sorted(set(picked))
    assert set(picked) <= set(at_hand)
    assert len(picked) <= policy.num_frames  # type: ignore[attr-defined]
    assert bool(picked) == bool(at_hand)
    assert policy.select(view) == picked, "the same view gives the same window"


@given(views(), st.one_of(uniform, pinned, st.builds(GlobalLocalWindow, num_frames=counts)))
def test_the_newest_frame_is_in(view: HistoryView, policy: WindowPolicy) -> None:
    picked = policy.select(view)
    assert not picked or picked[-1] == view.timeline[-1].index


@given(views(), counts)
def test_a_window_over_everything_is_never_shorter_than_it_must_be(
    view: HistoryView, num_frames: int
) -> None:
    for make in (UniformWindow, PinnedWindow, GlobalLocalWindow):
        policy: WindowPolicy = make(num_frames=num_frames)
        assert len(policy.select(view)) == min(num_frames, len(view.timeline))


@given(views(backward=False), counts, seconds)
def test_a_window_of_a_span_keeps_to_it(view: HistoryView, num_frames: int, span_s: float) -> None:
    for policy in (UniformWindow, PinnedWindow):
        picked = set(policy(num_frames=num_frames, span_s=span_s).select(view))
        chosen = [ref.stamp_ns for ref in view.timeline if ref.index in picked]
        if chosen:
            assert chosen[-1] - chosen[0] <= span_s * 1e9 + 1


@given(views(backward=False), counts)
def test_a_recent_window_with_no_stride_is_the_tail(view: HistoryView, num_frames: int) -> None:
    tail = (view.dense or view.sparse)[-num_frames:]
    assert RecentWindow(num_frames=num_frames).select(view) == tuple(ref.index for ref in tail)
