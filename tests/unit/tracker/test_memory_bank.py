# SPDX-License-Identifier: Apache-2.0
"""The memory bank against a model that keeps everything and looks up what SAM2 would."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreseg.errors import ConfigError
from foreseg.tracker.memory_bank import MemoryBank, MemoryBatch

ROWS, RECENT, POINTERS, CELLS = 4, 3, 5, 2
MOST = 2  # conditioning entries of a row: with them, two tracked ones still have a place
CHANNELS, POINTER_CHANNELS = 3, 6


def make_bank() -> MemoryBank:
    return MemoryBank(
        max_rows=ROWS,
        num_recent=RECENT,
        num_pointers=POINTERS,
        num_tokens=CELLS,
        memory_channels=CHANNELS,
        pointer_channels=POINTER_CHANNELS,
    )


def entry(value: float) -> tuple[np.ndarray, np.ndarray]:
    memory = np.full((CELLS, CHANNELS), value, np.float32)
    return memory, np.full(POINTER_CHANNELS, value, np.float32)


@dataclass
class WholeRow:
    """A row that forgets nothing: values by step, and the conditioning ones apart."""

    step: int = -1
    conditioning: dict[int, float] = field(default_factory=dict)
    recent: dict[int, float] = field(default_factory=dict)
    taken: int = 1  # slots of conditioning entries, which tracked ones lack

    def copy(self) -> WholeRow:
        return WholeRow(self.step, dict(self.conditioning), dict(self.recent), self.taken)

    def prompted(self, value: float, *, beside: bool) -> None:
        if beside and self.step in self.conditioning:  # prompted last: both describe it
            self.recent.clear()
            if len(self.conditioning) == MOST:
                self.conditioning.pop(max(self.conditioning))
            self.taken = max(self.taken, len(self.conditioning) + 1)
        else:
            self.conditioning.clear()
        self.step += 1
        self.conditioning[self.step] = value

    def seen(self, *, again: bool) -> tuple[list[tuple[int, float]], dict[int, float]]:
        """(temporal position, value) sorted, pointer age -> value, as SAM2 would collect them."""
        now = self.step + (0 if again else 1)
        fewer = self.taken - 1 + int(again)
        reach, pointer_reach = RECENT - fewer, POINTERS - 1 - fewer
        recent = {now - s: v for s, v in self.recent.items() if now > s}
        memory = [(age - 1, v) for age, v in recent.items() if age <= reach]
        memory += [(RECENT, v) for s, v in self.conditioning.items() if now > s]
        pointers = {age: v for age, v in recent.items() if age <= pointer_reach}
        pointers |= {now - s: v for s, v in self.conditioning.items() if now > s}
        return sorted(memory), pointers


def check(batch: MemoryBatch, i: int, row: WholeRow, *, again: bool) -> None:
    memory, pointers = row.seen(again=again)
    got = sorted(
        (int(batch.position[i, k]), float(batch.memory[i, k, 0, 0]))
        for k in range(1 + RECENT)
        if batch.valid[i, k]
    )
    assert got == memory
    assert int(batch.valid[i].sum()) == len(memory)
    got_pointers = {
        int(batch.pointer_age[i, k]): float(batch.pointer[i, k, 0])
        for k in range(POINTERS)
        if batch.pointer_valid[i, k]
    }
    assert got_pointers == pointers
    assert np.isfinite(batch.memory[i]).all()
    assert np.isfinite(batch.pointer[i]).all()
    assert (batch.position[i] >= 0).all()
    assert (batch.position[i] <= RECENT).all()


operations = st.lists(
    st.tuples(
        st.sampled_from(["prompt", "beside", "beside", "refine", "track", "nan", "copy", "clear"]),
        st.integers(0, ROWS - 1),
        st.integers(0, ROWS - 1),
    ),
    max_size=60,
)


@given(operations)
@settings(max_examples=200, deadline=None)
def test_bank_remembers_what_sam2_would_collect(steps: list[tuple[str, int, int]]) -> None:
    bank = make_bank()
    size = bank.num_bytes
    rows = [WholeRow() for _ in range(ROWS)]
    for value, (name, i, other) in enumerate(steps, start=1):
        row = rows[i]
        memory, pointer = entry(float(value))
        if name == "prompt" or (name == "refine" and row.step < 0):
            assert bank.write_conditioning(i, memory, pointer, same_step=False)
            row.prompted(float(value), beside=False)
        elif name == "beside":
            assert bank.write_conditioning(i, memory, pointer, same_step=False, beside=True)
            row.prompted(float(value), beside=True)
        elif name == "refine":
            assert bank.write_conditioning(i, memory, pointer, same_step=True)
            row.recent.pop(row.step, None)
            row.conditioning = {row.step: float(value)}
        elif name == "track":
            assert bank.write_recent(i, memory, pointer)
            row.step += 1
            row.recent[row.step] = float(value)
        elif name == "nan":
            memory[0, 0] = np.nan
            assert not bank.write_recent(i, memory, pointer)
            assert not bank.write_conditioning(i, memory, pointer, same_step=False)
        elif name == "copy":
            bank.copy(i, other)
            rows[other] = row.copy()
        else:
            bank.clear(i)
            rows[i] = WholeRow()
        for again in (False, True):
            batch = bank.read(range(ROWS), again=again)
            for k, each in enumerate(rows):
                check(batch, k, each, again=again)
        assert [bank.step_of(k) for k in range(ROWS)] == [each.step for each in rows]
    assert bank.num_bytes == size


def test_rows_are_read_in_the_order_asked_for() -> None:
    bank = make_bank()
    for row in range(ROWS):
        bank.write_conditioning(row, *entry(row + 1.0), same_step=False)
    for rows in ([0, 1, 2], [3, 1], [2]):
        batch = bank.read(rows)
        assert batch.memory[:, 0, 0, 0].tolist() == [row + 1.0 for row in rows]
        assert batch.pointer[:, 0, 0].tolist() == [row + 1.0 for row in rows]


def test_neighbouring_rows_are_read_without_copying() -> None:
    bank = make_bank()
    assert bank.read([1, 2]).memory.base is not None
    assert np.shares_memory(bank.read([1, 2]).memory, bank.read([2]).memory)


def test_long_stream_keeps_the_newest_and_the_conditioning_entry() -> None:
    bank = make_bank()
    bank.write_conditioning(0, *entry(-7.0), same_step=False)
    for step in range(1, 10_001):
        bank.write_recent(0, *entry(float(step)))
    batch = bank.read([0])
    by_position = dict(zip(batch.position[0].tolist(), batch.memory[0, :, 0, 0], strict=True))
    assert by_position == {RECENT: -7.0, 0: 10_000.0, 1: 9_999.0, 2: 9_998.0}
    assert float(batch.pointer_age[0, 0]) == 10_001.0


def test_other_than_newest_is_what_a_refinement_can_recall() -> None:
    bank = make_bank()
    assert not bank.has_other_than_newest(0)
    bank.write_conditioning(0, *entry(1.0), same_step=False)
    assert not bank.has_other_than_newest(0)
    bank.write_recent(0, *entry(2.0))
    assert bank.has_other_than_newest(0)


def test_sizes_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 row"):
        MemoryBank(
            max_rows=0,
            num_recent=6,
            num_pointers=16,
            num_tokens=4,
            memory_channels=64,
            pointer_channels=64,
        )
