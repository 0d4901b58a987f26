# SPDX-License-Identifier: Apache-2.0
"""A ring of frames over a pool of slots that are allocated once and used again.

One eviction path, exact accounting of bytes. A frame that is held when it leaves the ring keeps
its slot; the ring is shorter by one until the slot is given back. Knows nothing of why a frame is
held, or of time. Private to `history`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.frames import Frame, FrameIndex, FrameRef, U8Array

MIN_SLOTS = 2
RING_SHARE = 4  # one slot in so many stays with the ring, however much is held
Shape = tuple[int, ...]


class Slot:
    """Room for one image (H, W, 3): to write, and the one read-only view that frames share."""

    __slots__ = ("pixels", "view")

    def __init__(self, shape: Shape) -> None:
        self.pixels: U8Array = np.empty(shape, dtype=np.uint8)
        self.view: U8Array = self.pixels.view()
        self.view.flags.writeable = False


@dataclass(slots=True, eq=False)
class SlotEntry:
    """A frame and the slot it lies in."""

    frame: Frame
    slot: Slot
    is_in_ring: bool = True
    holders: frozenset[str] = frozenset()


class SlotRing:
    """A ring of frames over a pool of slots, with one eviction path (`_evict_oldest`)."""

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._least = min(MIN_SLOTS, max_frames)  # of the current shape, whatever the bounds say
        self._shape: Shape = (0, 0, 3)
        self._entries: dict[FrameIndex, SlotEntry] = {}
        self._order: deque[FrameIndex] = deque()
        self._free: list[Slot] = []  # all of the current shape
        self._num_slots: dict[Shape, int] = {}
        self._num_all_slots = 0
        self.num_bytes = 0
        self.num_evicted = 0

    @property
    def order(self) -> deque[FrameIndex]:
        """Indices in the ring, oldest first; for reading."""
        return self._order

    def get(self, index: FrameIndex) -> SlotEntry | None:
        """The entry in the ring."""
        return self._entries.get(index)

    def refs(self) -> tuple[FrameRef, ...]:
        """Frames in the ring, oldest first."""
        return tuple(self._entries[index].frame.ref for index in self._order)

    def clear(self) -> None:
        """Evict every frame; held ones keep their slots."""
        while self._order:
            self._evict_oldest()

    def use_shape(self, shape: Shape) -> None:
        """Take slots of this shape from now on."""
        self._shape = shape
        for slot in self._free:
            self._forget(slot)
        self._free = []

    def reserve(self) -> None:
        """Allocate every slot that fits; the system lends the memory as it is first written."""
        while self._fits() or self._is_short():
            self._free.append(self._allocate())

    def take_slot(self) -> Slot:
        """A slot to write, the oldest frame's if no other is free."""
        while not self._free:
            if self._fits() or self._is_short() or not self._order:
                return self._allocate()
            self._evict_oldest()
        return self._free.pop()

    def append(self, frame: Frame, slot: Slot) -> None:
        """Add the newest frame, which lies in a taken slot."""
        self._entries[frame.index] = SlotEntry(frame=frame, slot=slot)
        self._order.append(frame.index)

    def give_back(self, slot: Slot) -> None:
        """Return the slot of a frame that is neither in the ring nor held."""
        if slot.view.shape == self._shape:
            self._free.append(slot)
        else:
            self._forget(slot)

    def max_held(self, foreign: Sequence[Slot]) -> int:
        """How many slots of the current shape may be held, next to held ones of other shapes."""
        foreign_bytes = sum(slot.view.nbytes for slot in foreign)
        by_bytes = (self._max_bytes - foreign_bytes) // bytes_of(self._shape)
        capacity = min(self._max_frames - len(foreign), by_bytes)
        if not foreign:
            capacity = max(self._least, capacity)
        return max(0, capacity - max(1, capacity // RING_SHARE))

    @property
    def shape(self) -> Shape:
        """Shape of the current slots."""
        return self._shape

    def _fits(self) -> bool:
        if self._num_all_slots >= self._max_frames:
            return False
        return self.num_bytes + bytes_of(self._shape) <= self._max_bytes

    def _is_short(self) -> bool:
        num_slots = self._num_slots.get(self._shape, 0)
        return max(num_slots, len(self._order)) < self._least

    def _allocate(self) -> Slot:
        slot = Slot(self._shape)
        self._num_slots[self._shape] = self._num_slots.get(self._shape, 0) + 1
        self._num_all_slots += 1
        self.num_bytes += slot.view.nbytes
        return slot

    def _forget(self, slot: Slot) -> None:
        shape = slot.view.shape
        self._num_slots[shape] -= 1
        if not self._num_slots[shape]:
            del self._num_slots[shape]
        self._num_all_slots -= 1
        self.num_bytes -= slot.view.nbytes

    def _evict_oldest(self) -> None:
        entry = self._entries.pop(self._order.popleft())
        entry.is_in_ring = False
        self.num_evicted += 1
        if not entry.holders:
            self.give_back(entry.slot)


def bytes_of(shape: Shape) -> int:
    """Bytes of a uint8 image (H, W, C)."""
    height, width, channels = shape
    return height * width * channels
