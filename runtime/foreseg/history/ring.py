# SPDX-License-Identifier: Apache-2.0
"""The frames of one camera: a dense ring of the last seconds, and a sparse tier over minutes.

Frames are addressed by absolute index. Both tiers copy into slots that are allocated once and
used again; what is read is a read-only view of a slot, valid until the frame is evicted, unless it
is held. One thread owns a history (the loop); others may read the pixels of *held* frames only.

Bounds. The dense tier has at most `max_frames` slots and `max_bytes` bytes (but at least two slots
of the current size, even where these are larger), held frames included: a held frame that leaves the ring keeps its
slot, and the ring is shorter by one until it is released; holds leave the ring at least a quarter
of the slots. The sparse tier comes on top: at most `sparse_frames` slots of a longer side of at
most `sparse_max_side_px`. It knows nothing of queries: a holder is only a name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import ConfigError, InputError
from foreseg.frames import CameraId, Frame, FrameIndex, FrameRef, U8Array
from foreseg.history.slots import MIN_SLOTS, Shape, SlotEntry, SlotRing
from foreseg.history.windows import HistoryView

NS_PER_S = 1_000_000_000
MAX_TAPS = 3  # pixels of a block that are averaged per axis; 3 x 3 x 255 fits 16 bits


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCounters:
    """What happened since the start, and what is in memory now."""

    pushed: int
    evicted: int  # frames that left the dense ring
    epochs: int  # sizes seen, one after the other
    refused_holds: int  # frames that were at hand but over the bound on held frames
    missed_holds: int  # frames that were no longer at hand
    held: int  # distinct frames held now
    dense_bytes: int  # pixels allocated now, held frames included
    sparse_bytes: int

    @property
    def bytes(self) -> int:
        """All pixels allocated now."""
        return self.dense_bytes + self.sparse_bytes


class History:
    """Dense ring, sparse tier and holds of one camera.

    Args:
        camera: goes into every `FrameRef`.
        max_bytes: pixels of the dense tier, held frames included.
        max_frames: likewise in frames; at least 2.
        sparse_hz: rate of the sparse tier in stamp time.
        sparse_frames: frames of the sparse tier; 0 switches it off.
        sparse_max_side_px: longer side of a sparse frame.
        max_held_frames: distinct frames that may be held at once.

    Raises:
        ConfigError: for a bound that cannot work.
    """

    def __init__(
        self,
        *,
        camera: CameraId,
        max_bytes: int,
        max_frames: int,
        sparse_hz: float = 1.0,
        sparse_frames: int = 120,
        sparse_max_side_px: int = 448,
        max_held_frames: int = 64,
    ) -> None:
        for name, value, least in (
            ("max_bytes", max_bytes, 1),
            ("max_frames", max_frames, MIN_SLOTS),
            ("sparse_frames", sparse_frames, 0),
            ("sparse_max_side_px", sparse_max_side_px, 1),
            ("max_held_frames", max_held_frames, 0),
        ):
            if value < least:
                msg = f"a history wants {name} of at least {least}, got {value}"
                raise ConfigError(msg)
        if not sparse_hz > 0:
            msg = f"a history wants a sparse_hz above 0, got {sparse_hz}"
            raise ConfigError(msg)
        self._camera = camera
        self._dense = SlotRing(max_frames=max_frames, max_bytes=max_bytes)
        self._sparse = SlotRing(
            max_frames=sparse_frames, max_bytes=sparse_frames * sparse_max_side_px**2 * 3
        )
        self._reducer = _Reducer(sparse_max_side_px)
        self._has_sparse = sparse_frames > 0
        self._sparse_period_ns = round(NS_PER_S / sparse_hz)
        self._last_sparse_stamp_ns: int | None = None
        self._max_held_frames = max_held_frames
        self._held: dict[FrameIndex, tuple[SlotRing, SlotEntry]] = {}
        self._newest: Frame | None = None
        self._next_index = 0
        self._epoch = -1
        self._num_refused = 0
        self._num_missed = 0

    @property
    def newest(self) -> Frame | None:
        """The frame pushed last."""
        return self._newest

    @property
    def oldest_index(self) -> FrameIndex | None:
        """The oldest frame of the dense ring."""
        return self._dense.order[0] if self._dense.order else None

    @property
    def next_index(self) -> FrameIndex:
        """The index that the next push gives: frames pushed so far."""
        return FrameIndex(self._next_index)

    @property
    def counters(self) -> HistoryCounters:
        """A snapshot for diagnostics."""
        return HistoryCounters(
            pushed=self._next_index,
            evicted=self._dense.num_evicted,
            epochs=self._epoch + 1,
            refused_holds=self._num_refused,
            missed_holds=self._num_missed,
            held=len(self._held),
            dense_bytes=self._dense.num_bytes,
            sparse_bytes=self._sparse.num_bytes,
        )

    def push(
        self, image: U8Array, *, stamp_ns: int, received_ns: int, frame_id: str = ""
    ) -> Frame:
        """Copy an image (H, W, 3) uint8 RGB, any strides, in as the newest frame.

        A change of size starts a new epoch: the dense ring starts anew, held and sparse frames of
        the old size stay. Stamps may run backward; whoever minds refuses them before.

        Raises:
            InputError: for an image of another form, or without pixels; nothing is changed.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:  # noqa: PLR2004
            msg = (
                "a history wants images (H, W, 3) uint8 with at least one pixel,"
                f" got {image.shape} {image.dtype}"
            )
            raise InputError(msg)
        if image.shape != self._dense.shape:
            self._start_epoch(image.shape)
        slot = self._dense.take_slot()
        np.copyto(slot.pixels, image)
        ref = FrameRef(
            camera=self._camera,
            index=FrameIndex(self._next_index),
            epoch=self._epoch,
            stamp_ns=stamp_ns,
            received_ns=received_ns,
            size_wh=(image.shape[1], image.shape[0]),
            frame_id=frame_id,
        )
        frame = Frame(ref=ref, image=slot.view)
        self._dense.append(frame, slot)
        self._newest = frame
        self._next_index += 1
        if self._has_sparse:
            self._thin_out(frame)
        return frame

    def get(self, index: FrameIndex) -> Frame | None:
        """The frame at full size if at hand, else reduced, else None (evicted, or not yet here).

        Its pixels are valid until the frame is evicted, or released if it is held.
        """
        found = self._find(index)
        return None if found is None else found[1].frame

    def hold(self, holder: str, indices: Sequence[FrameIndex]) -> tuple[Frame, ...]:
        """Keep frames valid until `release`; a holder may hold more, time after time.

        Returns:
            Those that are at hand and within the bound (the newer ones first in line), oldest
            first, without repeats. The others are counted: evicted ones as missed, those over
            the bound as refused.
        """
        frames: list[Frame] = []
        for index in sorted(set(indices), reverse=True):
            found = self._find(index)
            if found is None:
                self._num_missed += 1
                continue
            tier, entry = found
            if index not in self._held:
                if not self._may_hold(tier, entry):
                    self._num_refused += 1
                    continue
                self._held[index] = found
            entry.holders |= {holder}
            frames.append(entry.frame)
        return tuple(reversed(frames))

    def release(self, holder: str) -> None:
        """Let go of everything that `holder` holds; an unknown holder is ignored."""
        for index, (tier, entry) in tuple(self._held.items()):
            entry.holders -= {holder}
            if entry.holders:
                continue
            del self._held[index]
            if not entry.is_in_ring:
                tier.give_back(entry.slot)

    def nearest(self, index: FrameIndex, oldest: FrameIndex) -> FrameIndex | None:
        """The frame at hand, from `oldest` on, that is nearest to an index; the newer of two."""
        at_hand = {*self._dense.order, *self._sparse.order, *self._held}
        return min(
            (other for other in at_hand if other >= oldest),
            key=lambda other: (abs(other - index), -other),
            default=None,
        )

    def view(self) -> HistoryView:
        """What a window policy may choose from."""
        return HistoryView(dense=self._dense.refs(), sparse=self._sparse.refs())

    def _find(self, index: FrameIndex) -> tuple[SlotRing, SlotEntry] | None:
        entry = self._dense.get(index)
        if entry is not None:
            return self._dense, entry
        held = self._held.get(index)
        if held is not None:
            return held
        entry = self._sparse.get(index)
        return None if entry is None else (self._sparse, entry)

    def _may_hold(self, tier: SlotRing, entry: SlotEntry) -> bool:
        if len(self._held) >= self._max_held_frames:
            return False
        held = [other.slot for owner, other in self._held.values() if owner is tier]
        held.append(entry.slot)
        foreign = [slot for slot in held if slot.view.shape != tier.shape]
        return len(held) - len(foreign) <= tier.max_held(foreign)

    def _start_epoch(self, shape: Shape) -> None:
        self._epoch += 1
        self._dense.clear()
        self._dense.use_shape(shape)
        self._dense.reserve()
        self._reducer.use_shape(shape)
        self._sparse.use_shape(self._reducer.reduced_shape)
        self._last_sparse_stamp_ns = None

    def _thin_out(self, frame: Frame) -> None:
        """Copy every frame that is due, reduced, into the sparse tier."""
        stamp_ns, last_ns = frame.ref.stamp_ns, self._last_sparse_stamp_ns
        if last_ns is not None and 0 <= stamp_ns - last_ns < self._sparse_period_ns:
            return
        slot = self._sparse.take_slot()
        self._reducer.reduce(frame.image, slot.pixels)
        self._sparse.append(Frame(ref=frame.ref, image=slot.view), slot)
        self._last_sparse_stamp_ns = stamp_ns


class _Reducer:
    """Makes an image smaller by a whole factor k, without allocating.

    A pixel is the mean over its block of k x k, or of a grid of 3 x 3 in it where k is larger.
    """

    def __init__(self, max_side_px: int) -> None:
        self._max_side_px = max_side_px
        self._factor = 1
        self._row_sums: NDArray[np.uint16] = np.zeros((0, 0, 3), dtype=np.uint16)
        self._sums: NDArray[np.uint16] = np.zeros((0, 0, 3), dtype=np.uint16)
        self.reduced_shape: Shape = (0, 0, 3)

    def use_shape(self, shape: Shape) -> None:
        """Take images (H, W, 3) of this shape from now on."""
        height, width, _ = shape
        self._factor = -(-max(height, width) // self._max_side_px)
        h, w = max(1, height // self._factor), max(1, width // self._factor)
        self._row_sums = np.zeros((h, width, 3), dtype=np.uint16)
        self._sums = np.zeros((h, w, 3), dtype=np.uint16)
        self.reduced_shape = (h, w, 3)

    def reduce(self, image: U8Array, out: U8Array) -> None:
        """Write the reduced image to `out`; what does not divide is cut off evenly all around."""
        if self._factor == 1:
            np.copyto(out, image)
            return
        (h, w, _), k = self.reduced_shape, self._factor
        rows = _taps(image.shape[0], h, k)
        columns = _taps(image.shape[1], w, k)
        np.copyto(self._row_sums, image[rows[0] :: k][:h])
        for i in rows[1:]:
            np.add(self._row_sums, image[i::k][:h], out=self._row_sums)
        for c in range(3):  # a plane at a time: numpy's inner loop is along the row then
            plane, sums = self._sums[:, :, c], self._row_sums[:, :, c]
            np.copyto(plane, sums[:, columns[0] :: k][:, :w])
            for i in columns[1:]:
                np.add(plane, sums[:, i::k][:, :w], out=plane)
        np.floor_divide(self._sums, len(rows) * len(columns), out=out, casting="unsafe")


def _taps(length: int, num_blocks: int, factor: int) -> tuple[int, ...]:
    """Up to `MAX_TAPS` pixels of the first block, from its first to its last."""
    block = min(factor, length)
    first = (length - num_blocks * block) // 2
    num = min(block, MAX_TAPS)
    return tuple(first + round(i * (block - 1) / max(1, num - 1)) for i in range(num))
