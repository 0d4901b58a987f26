# SPDX-License-Identifier: Apache-2.0
"""Room for arrays of one shape in rows of slots, on the host or where the engines run.

Allocated once. Knows nothing of what the rows stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foreseg.engines.base import Tensor, on_host

F32 = NDArray[np.float32]


class Store(Protocol):
    """R rows of K slots for float32 arrays of one shape; zero at first."""

    @property
    def num_bytes(self) -> int:
        """Size, which never changes."""

    def write(self, row: int, slot: int, value: Tensor) -> None:
        """Set one slot."""

    def read(self, rows: Sequence[int]) -> Tensor:
        """These rows, (B, K, ...): consecutive ones as a view, others copied."""

    def copy(self, source: int, target: int) -> None:
        """Overwrite the row `target` with `source`."""

    def clear(self, row: int) -> None:
        """Set a row to zero."""


class Device(Protocol):
    """Where a bundle's engines run, if that is not the host."""

    def make_store(self, rows: int, slots: int, shape: tuple[int, ...]) -> Store:
        """Room in its memory."""

    def close(self) -> None:
        """Give everything back; allowed twice."""


StoreMaker = Callable[[int, int, tuple[int, ...]], Store]  # rows, slots, shape of an entry


class HostStore:
    """A store in a numpy array.

    Args:
        rows: R.
        slots: K.
        shape: of one entry.
    """

    def __init__(self, rows: int, slots: int, shape: tuple[int, ...]) -> None:
        self._values: F32 = np.zeros((rows, slots, *shape), np.float32)

    @property
    def num_bytes(self) -> int:
        """Size."""
        return self._values.nbytes

    def write(self, row: int, slot: int, value: Tensor) -> None:
        """Copy into one slot."""
        self._values[row, slot] = on_host(value)

    def read(self, rows: Sequence[int]) -> Tensor:
        """These rows."""
        if are_consecutive(rows):
            return self._values[rows[0] : rows[0] + len(rows)]
        return self._values[list(rows)]

    def copy(self, source: int, target: int) -> None:
        """Copy a row."""
        self._values[target] = self._values[source]

    def clear(self, row: int) -> None:
        """Set a row to zero."""
        self._values[row] = 0


def are_consecutive(rows: Sequence[int]) -> bool:
    """True if each row is the one after the row before it; at least one is wanted."""
    return all(row == rows[0] + i for i, row in enumerate(rows))
