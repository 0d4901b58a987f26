# SPDX-License-Identifier: Apache-2.0
"""The history against a plain model, with every invariant checked after every operation."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from foreseg.errors import ConfigError, InputError
from foreseg.frames import CameraId, Frame, FrameIndex
from foreseg.history.ring import History
from foreseg.history.windows import UniformWindow

SIZES_WH = ((4, 3), (6, 4), (3, 9))
HOLDERS = ("query-1", "query-2", "job-1")
SPARSE_MAX_SIDE_PX = 4
SPARSE_PERIOD_NS = 100
NUM_LONG_STREAM = 100_000
MAX_GROWTH_BLOCKS = 500  # of Python's memory in 50,000 frames: caches of the interpreter


def _image(index: int, size_wh: tuple[int, int]) -> np.ndarray:
    """One colour per frame, so that its mean is itself."""
    colour = (index % 251, index * 7 % 251, index * 31 % 251)
    return np.full((size_wh[1], size_wh[0], 3), colour, dtype=np.uint8)


class HistoryMachine(RuleBasedStateMachine):
    """Model: sizes of all frames ever pushed, and who holds what."""

    @initialize(
        max_frames=st.integers(2, 12),
        max_bytes=st.integers(1, 500),
        sparse_frames=st.integers(0, 5),
        max_held=st.integers(0, 8),
    )
    def start(self, max_frames: int, max_bytes: int, sparse_frames: int, max_held: int) -> None:
        self.limits = (max_frames, max_bytes, sparse_frames, max_held)
        self.history = History(
            camera=CameraId("c"),
            max_bytes=max_bytes,
            max_frames=max_frames,
            sparse_hz=1e9 / SPARSE_PERIOD_NS,
            sparse_frames=sparse_frames,
            sparse_max_side_px=SPARSE_MAX_SIDE_PX,
            max_held_frames=max_held,
        )
        self.sizes: list[tuple[int, int]] = []
        self.stamps: list[int] = []
        self.epochs: list[int] = []
        self.holds: dict[str, dict[int, Frame]] = {}

    @rule(size=st.sampled_from(SIZES_WH), step_ns=st.integers(-20, 150), strided=st.booleans())
    def push_size(self, size: tuple[int, int], step_ns: int, strided: bool) -> None:  # noqa: FBT001
        self._push(size, step_ns, strided=strided)

    @rule(num=st.integers(1, 10), step_ns=st.integers(0, 60))
    def push_many(self, num: int, step_ns: int) -> None:
        size = self.sizes[-1] if self.sizes else SIZES_WH[0]
        for _ in range(num):
            self._push(size, step_ns, strided=False)

    @rule(
        holder=st.sampled_from(HOLDERS),
        ages=st.lists(st.integers(-1, 30), max_size=6),
    )
    def hold(self, holder: str, ages: list[int]) -> None:
        wanted = [FrameIndex(len(self.sizes) - age) for age in ages]
        before = self.history.counters
        at_hand = {index for index in wanted if self.history.get(index) is not None}
        frames = self.history.hold(holder, wanted)
        after = self.history.counters
        indices = [frame.index for frame in frames]
        assert indices == sorted(set(indices))
        assert set(indices) <= at_hand
        assert after.missed_holds - before.missed_holds == len(set(wanted) - at_hand)
        assert after.refused_holds - before.refused_holds == len(at_hand) - len(indices)
        held_before = {i for frames in self.holds.values() for i in frames}
        assert at_hand & held_before <= set(indices), "held once is held for everyone"
        self.holds.setdefault(holder, {}).update({int(f.index): f for f in frames})

    @rule(holder=st.sampled_from((*HOLDERS, "nobody")))
    def release(self, holder: str) -> None:
        self.history.release(holder)
        self.holds.pop(holder, None)

    @rule(num_frames=st.integers(1, 9))
    def windows_hold_what_they_select(self, num_frames: int) -> None:
        view = self.history.view()
        for index in UniformWindow(num_frames=num_frames).select(view):
            assert self.history.get(index) is not None

    @invariant()
    def dense_is_a_contiguous_tail_of_one_epoch(self) -> None:
        dense = self.history.view().dense
        num = len(self.sizes)
        assert [ref.index for ref in dense] == list(range(num - len(dense), num))
        assert self.history.next_index == num
        assert self.history.oldest_index == (dense[0].index if dense else None)
        assert bool(dense) == bool(num)
        assert {ref.epoch for ref in dense} <= set(self.epochs[-1:])
        for ref in dense:
            assert ref.size_wh == self.sizes[ref.index]
            assert ref.stamp_ns == self.stamps[ref.index]

    @invariant()
    def sparse_is_ascending_and_bounded(self) -> None:
        sparse = [ref.index for ref in self.history.view().sparse]
        assert sparse == sorted(set(sparse))
        assert len(sparse) <= self.limits[2]

    @invariant()
    def readable_frames_have_their_own_pixels(self) -> None:
        view = self.history.view()
        readable = {int(ref.index) for ref in (*view.dense, *view.sparse)}
        readable |= {index for frames in self.holds.values() for index in frames}
        for index in range(-1, len(self.sizes) + 1):
            frame = self.history.get(FrameIndex(index))
            assert (frame is not None) == (index in readable)
            if frame is None:
                continue
            assert frame.index == index
            assert frame.ref.size_wh == self.sizes[index]
            assert not frame.image.flags.writeable
            h, w = frame.image.shape[:2]
            assert (frame.image == _image(index, (w, h))).all()

    @invariant()
    def dense_frames_have_full_size(self) -> None:
        for ref in self.history.view().dense:
            frame = self.history.get(ref.index)
            assert frame is not None
            assert frame.scale_xy == (1.0, 1.0)

    @invariant()
    def held_pixels_do_not_change(self) -> None:
        for frames in self.holds.values():
            for index, frame in frames.items():
                h, w = frame.image.shape[:2]
                assert (frame.image == _image(index, (w, h))).all()
                assert self.history.get(FrameIndex(index)) is frame

    @invariant()
    def bytes_are_exact_and_bounded(self) -> None:
        max_frames, max_bytes, sparse_frames, max_held = self.limits
        counters = self.history.counters
        held = {index: frame for frames in self.holds.values() for index, frame in frames.items()}
        assert counters.held == len(held) <= max_held
        view = self.history.view()
        assert counters.pushed == len(self.sizes) == counters.evicted + len(view.dense)
        for tier, bytes_now in (
            (self.history._dense, counters.dense_bytes),
            (self.history._sparse, counters.sparse_bytes),
        ):
            slots = {id(e.slot): e.slot for e in tier._entries.values()}
            owned = [e for owner, e in self.history._held.values() if owner is tier]
            slots.update({id(e.slot): e.slot for e in owned})
            num_used = len(slots)
            slots.update({id(slot): slot for slot in tier._free})
            assert len(slots) == num_used + len(tier._free), "a free slot is in use"
            assert bytes_now == sum(slot.pixels.nbytes for slot in slots.values())
        if self.sizes:
            least = 2 * self.sizes[-1][0] * self.sizes[-1][1] * 3
            largest = max(w * h * 3 for w, h in SIZES_WH)
            assert counters.dense_bytes <= max(max_bytes, largest) + least
            assert len(view.dense) <= max_frames
            side = SPARSE_MAX_SIDE_PX**2 * 3
            assert counters.sparse_bytes <= (sparse_frames + 2) * side

    def _push(self, size: tuple[int, int], step_ns: int, *, strided: bool) -> None:
        index = len(self.sizes)
        stamp_ns = (self.stamps[-1] if self.stamps else 1000) + step_ns
        is_new_size = not self.sizes or self.sizes[-1] != size
        image = _image(index, size)
        if strided:
            image = np.ascontiguousarray(image.transpose(1, 0, 2)).transpose(1, 0, 2)[:, ::-1]
        frame = self.history.push(image, stamp_ns=stamp_ns, received_ns=index, frame_id="f")
        image[:] = 255  # the history has its own copy
        self.sizes.append(size)
        self.stamps.append(stamp_ns)
        self.epochs.append((self.epochs[-1] if self.epochs else -1) + is_new_size)
        assert frame.index == index
        assert frame.ref.epoch == self.epochs[-1] == self.history.counters.epochs - 1
        assert self.history.newest is frame


HistoryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_history_keeps_its_promises = HistoryMachine.TestCase


def test_a_hundred_thousand_frames_leave_no_growth() -> None:
    history = History(
        camera=CameraId("c"), max_bytes=200_000, max_frames=64, sparse_max_side_px=16
    )
    image = np.zeros((32, 32, 3), dtype=np.uint8)
    sizes = []
    for i in range(NUM_LONG_STREAM):
        history.push(image, stamp_ns=10**15 + i * 33_333_333, received_ns=10**15 + i)
        if i % 1000 == 0:
            history.release("query")
            history.hold("query", [FrameIndex(i), FrameIndex(max(0, i - 40))])
        if i in (NUM_LONG_STREAM // 2, NUM_LONG_STREAM - 1):
            gc.collect()
            sizes.append((sys.getallocatedblocks(), history.counters.bytes))
    assert sizes[1][1] == sizes[0][1]
    assert sizes[1][0] - sizes[0][0] < MAX_GROWTH_BLOCKS


def test_a_reduced_frame_is_the_mean_of_its_blocks_and_knows_its_scale() -> None:
    history = History(camera=CameraId("c"), max_bytes=1, max_frames=2, sparse_max_side_px=4)
    image = np.arange(6 * 8 * 3, dtype=np.uint8).reshape(6, 8, 3)
    for i in range(3):
        history.push(image, stamp_ns=i, received_ns=0)
    frame = history.get(FrameIndex(0))
    assert frame is not None
    assert frame.image.shape == (3, 4, 3)
    assert frame.scale_xy == (2.0, 2.0)
    blocks = image.reshape(3, 2, 4, 2, 3).astype(np.int64).sum(axis=(1, 3)) // 4
    assert (frame.image == blocks).all()


@pytest.mark.parametrize("size_wh", [(449, 1), (1, 449), (1345, 701), (1920, 1080), (5, 9000)])
def test_odd_sizes_are_reduced_below_the_bound(size_wh: tuple[int, int]) -> None:
    history = History(camera=CameraId("c"), max_bytes=1, max_frames=2)
    for i in range(3):
        history.push(_image(7, size_wh), stamp_ns=i, received_ns=0)
    frame = history.get(FrameIndex(0))
    assert frame is not None
    height, width = frame.image.shape[:2]
    assert max(height, width) <= 448
    assert (frame.image == _image(7, (width, height))).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), dtype=np.uint8),
        np.zeros((4, 4, 4), dtype=np.uint8),
        np.zeros((4, 4, 3), dtype=np.uint16),
        np.zeros((0, 4, 3), dtype=np.uint8),
    ],
)
def test_a_refused_image_changes_nothing(image: np.ndarray) -> None:
    history = History(camera=CameraId("c"), max_bytes=1000, max_frames=4)
    with pytest.raises(InputError, match="a history wants images"):
        history.push(image, stamp_ns=0, received_ns=0)
    assert history.counters.pushed == history.counters.bytes == 0
    assert history.newest is None
    assert history.oldest_index is None


def test_a_bound_that_cannot_work_is_refused_with_its_value() -> None:
    for name, value in (("max_bytes", 0), ("max_frames", 1), ("sparse_hz", 0.0)):
        arguments = {"max_bytes": 100, "max_frames": 4, name: value}
        with pytest.raises(ConfigError, match=name):
            History(camera=CameraId("c"), **arguments)
