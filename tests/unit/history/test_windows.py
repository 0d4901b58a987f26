# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from foreseg.errors import ConfigError
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameRef
from foreseg.history.windows import (
    GlobalLocalWindow,
    HistoryView,
    PinnedWindow,
    RecentWindow,
    UniformWindow,
    WindowPolicy,
)

RATE_HZ = 30


def _ref(index: int, stamp_ns: int | None = None) -> FrameRef:
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index * 1_000_000_000 // RATE_HZ if stamp_ns is None else stamp_ns,
        received_ns=0,
        size_wh=(4, 4),
    )


def _view() -> HistoryView:
    """Twelve seconds at 30 Hz: one frame a second, and the last two seconds in full."""
    return HistoryView(
        dense=tuple(_ref(i) for i in range(300, 360)),
        sparse=tuple(_ref(i) for i in range(0, 360, 30)),
    )


def test_a_frame_of_both_tiers_stands_once_in_the_timeline() -> None:
    indices = [ref.index for ref in _view().timeline]
    assert indices == [*range(0, 300, 30), *range(300, 360)]


def test_a_view_since_a_restart_has_nothing_of_the_stream_before() -> None:
    assert _view().since_restart() == _view()
    assert HistoryView(dense=(), sparse=()).since_restart().timeline == ()
    second = 1_000_000_000
    old = [_ref(i, (40 + i) * second) for i in range(10)]
    again = [_ref(10 + i, (35 + i) * second) for i in range(10)]
    third = [_ref(20 + i, i * second // 30) for i in range(30)]
    looped = HistoryView(dense=tuple(again[5:]), sparse=tuple(old + again))
    assert looped.since_restart().timeline == tuple(again)
    twice = HistoryView(dense=tuple(third), sparse=(*old, *again, third[0]))
    assert twice.since_restart() == HistoryView(dense=tuple(third), sparse=(third[0],))
    just_now = HistoryView(dense=(*again, third[0]), sparse=tuple(old))
    assert just_now.since_restart().timeline == (third[0],)


def test_a_uniform_window_spans_minutes_and_ends_with_the_newest_frame() -> None:
    assert UniformWindow(num_frames=5).select(_view()) == (0, 90, 180, 270, 359)
    assert UniformWindow(num_frames=1).select(_view()) == (359,)


def test_a_uniform_window_keeps_to_its_span() -> None:
    picked = UniformWindow(num_frames=4, span_s=1.0).select(_view())
    assert picked == (329, 339, 349, 359)
    assert UniformWindow(num_frames=4, span_s=0.0).select(_view()) == (359,)


def test_where_the_history_is_thin_the_fillable_gaps_are_filled() -> None:
    picked = UniformWindow(num_frames=16).select(_view())
    assert len(picked) == 16
    assert set(range(0, 330, 30)) <= set(picked)


def _stream(seconds: float) -> HistoryView:
    """What a history of ten seconds in full and a minute at 1 Hz has after so many seconds."""
    num_frames = round(seconds * RATE_HZ)
    first, oldest = max(0, num_frames - 10 * RATE_HZ), max(0, num_frames - 60 * RATE_HZ)
    sparse = range(-(-oldest // RATE_HZ) * RATE_HZ, num_frames, RATE_HZ)
    return HistoryView(
        dense=tuple(map(_ref, range(first, num_frames))), sparse=tuple(map(_ref, sparse))
    )


def _num_kept(policy: WindowPolicy, seconds: float) -> int:
    """With how many of its frames the window two seconds later begins, too."""
    before, now = policy.select(_stream(seconds)), policy.select(_stream(seconds + 2))
    pairs = enumerate(zip(before, now, strict=False))
    return next((i for i, (one, other) in pairs if one != other), len(before))


def test_pinned_frames_stay_from_asking_to_asking() -> None:
    pinned, even = PinnedWindow(num_frames=12), UniformWindow(num_frames=12)
    times = range(2, 180, 2)
    windows = [pinned.select(_stream(seconds)) for seconds in times]
    assert {len(window) for window in windows} == {12}
    shown = 12 * len(windows)
    assert sum(_num_kept(pinned, seconds) for seconds in times) > 0.4 * shown
    assert sum(_num_kept(even, seconds) for seconds in times) < 0.2 * shown


def test_a_pinned_window_is_full_at_a_low_rate_too() -> None:
    second = 1_000_000_000
    for count in range(13, 60):
        refs = tuple(_ref(i, i * second // 6) for i in range(count))
        assert len(PinnedWindow(num_frames=12).select(HistoryView(dense=refs, sparse=()))) == 12


def test_one_pinned_frame_is_the_newest() -> None:
    assert PinnedWindow(num_frames=1).select(_view()) == (359,)


def test_a_recent_window_steps_back_at_its_stride() -> None:
    assert RecentWindow(num_frames=4, stride_s=0.1).select(_view()) == (350, 353, 356, 359)
    assert RecentWindow(num_frames=3).select(_view()) == (357, 358, 359)


def test_a_recent_window_stops_where_the_dense_tier_does() -> None:
    picked = RecentWindow(num_frames=30, stride_s=0.5).select(_view())
    assert picked[0] == 300
    assert len(picked) == 5


def test_a_global_local_window_has_a_contiguous_block_around_its_centre() -> None:
    picked = GlobalLocalWindow(num_frames=8, centre=FrameIndex(330)).select(_view())
    assert set(range(328, 332)) <= set(picked)
    assert {0, 359} <= set(picked)
    newest = GlobalLocalWindow(num_frames=8).select(_view())
    assert set(range(356, 360)) <= set(newest)


def test_an_evicted_centre_means_its_neighbour() -> None:
    picked = GlobalLocalWindow(num_frames=4, centre=FrameIndex(31)).select(_view())
    assert 30 in picked


@pytest.mark.parametrize(
    "policy",
    [
        UniformWindow(num_frames=4),
        UniformWindow(num_frames=4, span_s=0.5),
        RecentWindow(num_frames=4, stride_s=0.1),
        GlobalLocalWindow(num_frames=4),
    ],
)
def test_nothing_comes_of_an_empty_history(
    policy: UniformWindow | RecentWindow | GlobalLocalWindow,
) -> None:
    assert policy.select(HistoryView(dense=(), sparse=())) == ()


def test_a_clock_that_was_reset_does_not_empty_the_window() -> None:
    stamps = [10**18 + i * 33_000_000 for i in range(30)] + [i * 33_000_000 for i in range(30)]
    view = HistoryView(dense=tuple(_ref(i, s) for i, s in enumerate(stamps)), sparse=())
    assert UniformWindow(num_frames=3).select(view) == (0, 29, 59)
    assert RecentWindow(num_frames=2, stride_s=0.33).select(view) == (49, 59)


@pytest.mark.parametrize("num_frames", [0, -3])
def test_a_window_has_at_least_one_frame(num_frames: int) -> None:
    for policy in (UniformWindow, RecentWindow, GlobalLocalWindow):
        with pytest.raises(ConfigError, match=f"got {num_frames}"):
            policy(num_frames=num_frames)


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_span_and_a_stride_are_finite(seconds: float) -> None:
    with pytest.raises(ConfigError, match="span_s"):
        UniformWindow(num_frames=2, span_s=seconds)
    with pytest.raises(ConfigError, match="stride_s"):
        RecentWindow(num_frames=2, stride_s=seconds)
