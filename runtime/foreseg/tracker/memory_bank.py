# SPDX-License-Identifier: Apache-2.0
"""A tracker's memory: a fixed number of rows, each with a fixed number of entries.

A row holds one conditioning entry (slot 0: the frame that was last prompted) and the newest
`num_recent` tracked ones, likewise one conditioning pointer and the newest others. Where several
frames were prompted one after the other, none tracked between, each has a conditioning entry, in the place
of a tracked one: the graphs see as many entries as ever, and what was tracked before is forgotten. All of them stand at SAM2's one position for such frames. Entries are
numbered in *tracker steps* of their own row, not in frames: SAM2 learns positions r = 1, 2, ... of
consecutively *processed* frames, so a hop over a hundred frames is one step and leaves no gap.
Nothing is allocated after construction, except the batches that `read` returns.

The maps, megabytes each, lie in a store, which may be a device's memory. Pointers (a kilobyte) and
all bookkeeping stay on the host, where they can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Tensor, on_host
from foreseg.engines.store import HostStore, StoreMaker, are_consecutive
from foreseg.errors import ConfigError

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

_EMPTY = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MemoryBatch:
    """What some rows remember, as the memory attention wants it; B rows, K slots, P pointers."""

    memory: Tensor  # (B, K, L, Cm) float32; finite everywhere, also where not valid
    position: I32  # (B, K) row of the table of temporal positions; K - 1 = conditioning entry
    valid: F32  # (B, K) 1 or 0
    pointer: F32  # (B, P, C)
    pointer_age: F32  # (B, P) steps back from the step to come, >= 1 where valid
    pointer_valid: F32  # (B, P) 1 or 0


class MemoryBank:
    """Rows of memory; the caller names rows by number, 0 to `max_rows` - 1.

    Args:
        max_rows: rows, branches included.
        num_recent: tracked entries a row keeps besides the conditioning one.
        num_pointers: object pointers a row keeps, the conditioning one included.
        num_tokens: L, cells of a memory map.
        memory_channels: Cm.
        pointer_channels: C.
        make_store: of the maps; the bundle's, so that they lie where its engines run.
    """

    def __init__(
        self,
        *,
        max_rows: int,
        num_recent: int,
        num_pointers: int,
        num_tokens: int,
        memory_channels: int,
        pointer_channels: int,
        make_store: StoreMaker = HostStore,
    ) -> None:
        if min(max_rows, num_recent, num_pointers - 1, num_tokens) < 1:
            msg = (
                "a memory bank wants at least 1 row, 1 recent entry and 2 pointers,"
                f" got {max_rows}, {num_recent} and {num_pointers}"
            )
            raise ConfigError(msg)
        slots = 1 + num_recent
        self._num_recent = num_recent
        self._num_recent_pointers = num_pointers - 1
        self._maps = make_store(max_rows, slots, (num_tokens, memory_channels))
        self._pointer: F32 = np.zeros((max_rows, num_pointers, pointer_channels), np.float32)
        self._memory_step: I64 = np.full((max_rows, slots), _EMPTY, np.int64)
        self._pointer_step: I64 = np.full((max_rows, num_pointers), _EMPTY, np.int64)
        self._step: I64 = np.full(max_rows, _EMPTY, np.int64)
        self._num_conditioning: I64 = np.ones(max_rows, np.int64)  # slots kept for such entries

    @property
    def max_conditioning(self) -> int:
        """Conditioning entries that a row can hold: two tracked ones still have a place."""
        return max(1, min(self._num_recent, self._num_recent_pointers) - 1)

    @property
    def max_rows(self) -> int:
        """Rows it holds."""
        return int(self._step.size)

    @property
    def num_bytes(self) -> int:
        """Size, which never changes."""
        arrays = (
            *(self._pointer, self._memory_step, self._pointer_step),
            *(self._step, self._num_conditioning),
        )
        return self._maps.num_bytes + sum(array.nbytes for array in arrays)

    def step_of(self, row: int) -> int:
        """The newest step of a row; -1 if it remembers nothing."""
        return int(self._step[row])

    def has_other_than_newest(self, row: int) -> bool:
        """True if the row remembers anything besides its newest step."""
        steps = self._memory_step[row]
        return bool(((steps != _EMPTY) & (steps != self._step[row])).any())

    def write_conditioning(
        self,
        row: int,
        memory: Tensor,
        pointer: F32,
        *,
        same_step: bool,
        beside: bool = False,
    ) -> bool:
        """Set the conditioning entry: (L, Cm) and (C,). Tracked entries stay, unless it is one beside another.

        Args:
            row: which.
            memory: encoded map of the prompted frame.
            pointer: object pointer there.
            same_step: the prompt refines the newest step instead of making a new one.
            beside: of a row that has not been tracked since it was prompted: keep what it was prompted
                with, too. Beyond `max_conditioning` the last of them gives way.

        Returns:
            False, with nothing changed, if a value is not finite.
        """
        if not _finite(on_host(memory), pointer):
            return False
        step = int(self._step[row]) + (0 if same_step and self._step[row] != _EMPTY else 1)
        for steps in (self._memory_step[row], self._pointer_step[row]):
            steps[1:][steps[1:] == step] = _EMPTY  # the refined step is remembered once
        place = self._conditioning_place(row, beside=beside)
        self._put(row, step, place, place, memory, pointer)
        return True

    def write_recent(self, row: int, memory: Tensor, pointer: F32) -> bool:
        """Add the entry of a new step, over the oldest one; see `write_conditioning`.

        A step whose values are not finite is skipped: the row keeps what it had. A map in a
        device's memory is not looked at: that would be a transfer for each step.
        """
        if not _finite(memory, pointer):
            return False
        step = int(self._step[row]) + 1
        kept = int(self._num_conditioning[row])
        slot = kept + step % (1 + self._num_recent - kept)
        pointer_slot = kept + step % (1 + self._num_recent_pointers - kept)
        self._put(row, step, slot, pointer_slot, memory, pointer)
        return True

    def read(self, rows: Sequence[int], *, again: bool = False) -> MemoryBatch:
        """What these rows remember; rows may be of different ages.

        Args:
            rows: in the order wanted, at least one.
            again: seen from their newest step, which is left out, instead of from the next one;
                the oldest entry has made room for it, so the reach is shorter by one.
        """
        index = _index(rows)
        shorter = 1 if again else 0
        now = self._step[index, None] + 1 - shorter
        age = now - self._memory_step[index]
        taken = self._num_conditioning[index, None]
        kept = (self._memory_step[index] != _EMPTY) & (age >= 1)
        prompted = np.arange(age.shape[1]) < taken
        in_reach = prompted | (age <= 1 + self._num_recent - taken - shorter)
        position = np.clip(age - 1, 0, self._num_recent - 1)
        position[prompted] = self._num_recent
        pointer_age = now - self._pointer_step[index]
        pointer_kept = (self._pointer_step[index] != _EMPTY) & (pointer_age >= 1)
        pointer_in_reach = pointer_age <= 1 + self._num_recent_pointers - taken - shorter
        pointer_in_reach |= np.arange(pointer_age.shape[1]) < taken
        pointer_valid = pointer_kept & pointer_in_reach
        return MemoryBatch(
            memory=self._maps.read(rows),
            position=position.astype(np.int32),
            valid=(kept & in_reach).astype(np.float32),
            pointer=self._pointer[index],
            pointer_age=np.where(pointer_valid, pointer_age, 1).astype(np.float32),
            pointer_valid=pointer_valid.astype(np.float32),
        )

    def copy(self, source: int, target: int) -> None:
        """Overwrite the row `target` with `source`."""
        self._maps.copy(source, target)
        self._pointer[target] = self._pointer[source]
        self._memory_step[target] = self._memory_step[source]
        self._pointer_step[target] = self._pointer_step[source]
        self._step[target] = self._step[source]
        self._num_conditioning[target] = self._num_conditioning[source]

    def clear(self, row: int) -> None:
        """Forget a row; its arrays become zero, so that no stale value lives on."""
        self._maps.clear(row)
        self._pointer[row] = 0
        self._memory_step[row] = _EMPTY
        self._pointer_step[row] = _EMPTY
        self._step[row] = _EMPTY
        self._num_conditioning[row] = 1

    def _conditioning_place(self, row: int, *, beside: bool) -> int:
        """The slot of a conditioning entry; those that it replaces are forgotten.

        Slots once taken from tracked entries are not given back before the row is cleared: these
        lie where they are.
        """
        taken = int(self._num_conditioning[row])
        prompted = self._memory_step[row, :taken]
        if beside and self._step[row] != _EMPTY and (prompted == self._step[row]).any():
            self._memory_step[row, taken:] = _EMPTY  # they were tracked from other prompts
            self._pointer_step[row, taken:] = _EMPTY
            free = np.flatnonzero(self._memory_step[row, :taken] == _EMPTY)
            place = int(free[0]) if free.size else min(taken, self.max_conditioning - 1)
            self._num_conditioning[row] = max(taken, place + 1)
            return place
        for steps in (self._memory_step[row], self._pointer_step[row]):
            steps[1:taken] = _EMPTY
        return 0

    def _put(
        self, row: int, step: int, slot: int, pointer_slot: int, memory: Tensor, pointer: F32
    ) -> None:
        self._maps.write(row, slot, memory)
        self._pointer[row, pointer_slot] = pointer
        self._memory_step[row, slot] = step
        self._pointer_step[row, pointer_slot] = step
        self._step[row] = step


def _finite(memory: Tensor, pointer: F32) -> bool:
    maps_are = not isinstance(memory, np.ndarray) or bool(np.isfinite(memory).all())
    return maps_are and bool(np.isfinite(pointer).all())


def _index(rows: Sequence[int]) -> slice[int, int, None] | list[int]:
    """A slice where the rows are consecutive: then reading copies nothing."""
    if are_consecutive(rows):
        return slice(rows[0], rows[0] + len(rows))
    return list(rows)
