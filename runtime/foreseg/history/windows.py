# SPDX-License-Identifier: Apache-2.0
"""Window policies: which frames of the history one reasoner call gets.

Pure functions of a `HistoryView`; knows nothing of pixels, of queries, or of who asks. Time is the
sensors' stamps, read as elapsed time: a stamp that runs backward counts as a step of zero, so
that a reset clock neither breaks a window nor empties it.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from foreseg.errors import ConfigError
from foreseg.frames import FrameIndex, FrameRef

NS_PER_S = 1_000_000_000
_MAX_STRETCH_BITS = 64  # 2^64 ns are 585 years


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryView:
    """What a history can give now, without pixels.

    Both tiers are oldest first, ascending in index. A frame may stand in both (full size in
    `dense`, reduced in `sparse`); what lies between two sparse frames is gone once `dense` moved on.
    """

    dense: tuple[FrameRef, ...]  # full rate, full size, indices without gaps
    sparse: tuple[FrameRef, ...]  # about 1 fps over minutes, reduced size

    @property
    def timeline(self) -> tuple[FrameRef, ...]:
        """Every frame once, oldest first."""
        refs = {ref.index: ref for ref in self.sparse}
        refs.update((ref.index, ref) for ref in self.dense)
        return tuple(refs[index] for index in sorted(refs))

    def since_restart(self) -> HistoryView:
        """What came since stamps last ran backward, as where a bag begins anew."""
        timeline = self.timeline
        begin = max(
            (
                i
                for i in range(1, len(timeline))
                if timeline[i].stamp_ns < timeline[i - 1].stamp_ns
            ),
            default=0,
        )
        if not begin:
            return self
        first = timeline[begin].index
        return HistoryView(
            dense=tuple(ref for ref in self.dense if ref.index >= first),
            sparse=tuple(ref for ref in self.sparse if ref.index >= first),
        )


class WindowPolicy(Protocol):
    """Picks the frames of one reasoner call. Property suite: tests/property/test_windows.py."""

    def select(self, view: HistoryView) -> tuple[FrameIndex, ...]:
        """Indices of the view, oldest first, no repeats; () only if the view is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UniformWindow:
    """Frames evenly over the last `span_s` seconds (None: over all there is), newest included.

    Where the history is too thin for even spacing (its sparse part), the widest gaps that can be
    filled are filled, so that a window is never shorter than it must be.
    """

    num_frames: int
    span_s: float | None = None

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)
        if self.span_s is not None:
            _check_seconds("span_s", self.span_s)

    def select(self, view: HistoryView) -> tuple[FrameIndex, ...]:
        """Indices evenly over the span."""
        refs = view.timeline
        times_ns = _elapsed_ns(refs)
        start = 0
        if refs and self.span_s is not None:
            start = bisect.bisect_left(times_ns, times_ns[-1] - round(self.span_s * NS_PER_S))
        ranks = _even_ranks(times_ns[start:], self.num_frames)
        return tuple(refs[start + rank].index for rank in ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedWindow:
    """Frames at places in time that stay: the last of each stretch of 2^k ns by the stamps.

    k is the smallest that lets the last `span_s` seconds (None: all there is) keep to `num_frames`, so
    these are half of them at least. The others stand in the two newest stretches, at halves, quarters and
    so on (at a low rate anywhere): a prompt that tells how many it has tells the same next time. The newest
    frame is in; of an earlier stretch one of the sparse tier is shown, where there is one: it
    lasts. So the next window begins as this one does, until k grows or the oldest stretch has left.
    """

    num_frames: int
    span_s: float | None = None

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)
        if self.span_s is not None:
            _check_seconds("span_s", self.span_s)

    def select(self, view: HistoryView) -> tuple[FrameIndex, ...]:
        """Indices of one frame of each stretch, and of more in the newest two."""
        refs = view.timeline
        if not refs:
            return ()
        times_ns = [refs[0].stamp_ns + elapsed_ns for elapsed_ns in _elapsed_ns(refs)]
        start, last_ns = 0, times_ns[-1]
        if self.span_s is not None:
            start = bisect.bisect_left(times_ns, last_ns - round(self.span_s * NS_PER_S))
        sizes = range(_MAX_STRETCH_BITS)
        bits = next(
            (k for k in sizes if (last_ns >> k) - (times_ns[start] >> k) < self.num_frames), 0
        )
        lasting = {ref.index for ref in view.sparse}
        is_lasting = [ref.index in lasting for ref in refs]
        ranks = set(_stretch_ranks(times_ns, is_lasting, start, bits)[-self.num_frames :])
        tail = bisect.bisect_left(times_ns, ((last_ns >> bits) - 1) << bits, start)
        while bits and len(ranks) < self.num_frames:
            bits -= 1
            parts = _stretch_ranks(times_ns, is_lasting, tail, bits)
            new = [rank for rank in reversed(parts) if rank not in ranks]
            ranks.update(new[: self.num_frames - len(ranks)])
        rest = [rank for rank in reversed(range(start, len(refs))) if rank not in ranks]
        ranks.update(rest[: self.num_frames - len(ranks)])
        return tuple(refs[rank].index for rank in sorted(ranks))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentWindow:
    """The newest frame and those `stride_s`, 2 `stride_s`, ... before it, at full rate.

    A stride of 0 takes every frame. Fewer than `num_frames` where the dense tier is shorter.
    """

    num_frames: int
    stride_s: float = 0.0

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)
        _check_seconds("stride_s", self.stride_s)

    def select(self, view: HistoryView) -> tuple[FrameIndex, ...]:
        """Indices at the stride, counted back from the newest frame."""
        refs = view.dense or view.sparse
        if not refs:
            return ()
        times_ns = _elapsed_ns(refs)
        stride_ns = self.stride_s * NS_PER_S
        ranks = [len(refs) - 1]
        for step in range(1, self.num_frames):
            target_ns = times_ns[-1] - step * stride_ns
            if ranks[-1] == 0 or target_ns < times_ns[0] - stride_ns / 2:
                break
            ranks.append(min(_nearest_rank(times_ns, target_ns), ranks[-1] - 1))
        return tuple(refs[rank].index for rank in reversed(ranks))


@dataclass(frozen=True, slots=True, kw_only=True)
class GlobalLocalWindow:
    """As in VISA: half the frames evenly over the whole span, half contiguous around `centre`.

    `centre` None means the newest frame; a centre that has left the history means its nearest
    neighbour there. For an odd number the extra frame is a global one.
    """

    num_frames: int
    centre: FrameIndex | None = None

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)

    def select(self, view: HistoryView) -> tuple[FrameIndex, ...]:
        """Indices of the local block and of the even ones around it."""
        refs = view.timeline
        if not refs:
            return ()
        indices = [int(ref.index) for ref in refs]
        centre = len(refs) - 1
        if self.centre is not None:
            centre = _nearest_rank(indices, int(self.centre))
        num_local = min(self.num_frames // 2, len(refs))
        start = min(max(0, centre - num_local // 2), len(refs) - num_local)
        local = range(start, start + num_local)
        ranks = _even_ranks(_elapsed_ns(refs), self.num_frames, taken=local)
        return tuple(refs[rank].index for rank in ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalWindow:
    """Contiguous frames around `centre`; None and a centre that is gone as in `GlobalLocalWindow`."""

    num_frames: int
    centre: FrameIndex | None = None

    def __post_init__(self) -> None:
        _check_num_frames(self.num_frames)

    def select(self, view: HistoryView) -> tuple[FrameIndex, ...]:
        """Indices of the block, shifted to lie within the view."""
        refs = view.timeline
        if not refs:
            return ()
        centre = len(refs) - 1
        if self.centre is not None:
            centre = _nearest_rank([int(ref.index) for ref in refs], int(self.centre))
        num_local = min(self.num_frames, len(refs))
        start = min(max(0, centre - num_local // 2), len(refs) - num_local)
        return tuple(ref.index for ref in refs[start : start + num_local])


def _check_num_frames(num_frames: int) -> None:
    if num_frames < 1:
        msg = f"a window wants num_frames of at least 1, got {num_frames}"
        raise ConfigError(msg)


def _check_seconds(name: str, value: float) -> None:
    if not math.isfinite(value) or value < 0:
        msg = f"a window wants a finite {name} of at least 0 seconds, got {value}"
        raise ConfigError(msg)


def _elapsed_ns(refs: Sequence[FrameRef]) -> list[int]:
    """Time since the first frame, not decreasing: a backward step counts as none."""
    times_ns: list[int] = []
    elapsed_ns = 0
    for i, ref in enumerate(refs):
        if i:
            elapsed_ns += max(0, ref.stamp_ns - refs[i - 1].stamp_ns)
        times_ns.append(elapsed_ns)
    return times_ns


def _stretch_ranks(
    times_ns: Sequence[int], is_lasting: Sequence[bool], start: int, bits: int
) -> list[int]:
    """From `start` on, the last position of each stretch of 2^bits ns; a lasting one, but at the end."""
    ranks: dict[int, int] = {}
    for rank in range(start, len(times_ns)):
        held = ranks.get(times_ns[rank] >> bits)
        if held is None or is_lasting[rank] or not is_lasting[held]:
            ranks[times_ns[rank] >> bits] = rank
    return [*list(ranks.values())[:-1], len(times_ns) - 1]


def _nearest_rank(values: Sequence[int], target: float) -> int:
    """The position in ascending `values` that is nearest to `target`; the later of two equals."""
    after = bisect.bisect_left(values, target)
    if after == len(values):
        return after - 1
    if after and target - values[after - 1] < values[after] - target:
        return after - 1
    return after


def _even_ranks(
    times_ns: Sequence[int], num_frames: int, taken: Sequence[int] = ()
) -> tuple[int, ...]:
    """Up to `num_frames` distinct positions: the `taken` ones, the others evenly in time."""
    if not times_ns:
        return ()
    wanted = min(num_frames, len(times_ns))
    num_even = wanted - len(taken)
    picked = set(taken)
    if num_even > 0:
        picked.add(len(times_ns) - 1)  # the newest, also among frames of one stamp
    for i in range(num_even - 1):
        share = i / (num_even - 1)
        picked.add(_nearest_rank(times_ns, times_ns[-1] * share + times_ns[0] * (1 - share)))
    ranks = sorted(picked)
    while len(ranks) < wanted:  # some targets fell on one frame: fill the widest gaps there are
        bisect.insort(ranks, _rank_in_widest_gap(times_ns, ranks))
    return tuple(ranks)


def _rank_in_widest_gap(times_ns: Sequence[int], ranks: Sequence[int]) -> int:
    """The unpicked position that lies farthest, in time, from its picked neighbours."""
    best_rank, best_distance = -1, -1
    edges = [-1, *ranks, len(times_ns)]
    for left, right in itertools.pairwise(edges):
        if right - left < 2:  # noqa: PLR2004 (nothing between two neighbours)
            continue
        if left < 0:
            rank, distance = 0, times_ns[right] - times_ns[0]
        elif right == len(times_ns):
            rank, distance = right - 1, times_ns[-1] - times_ns[left]
        else:
            middle = (times_ns[left] + times_ns[right]) / 2
            rank = min(max(_nearest_rank(times_ns, middle), left + 1), right - 1)
            distance = min(times_ns[rank] - times_ns[left], times_ns[right] - times_ns[rank])
        if distance >= best_distance:
            best_rank, best_distance = rank, distance
    return best_rank
