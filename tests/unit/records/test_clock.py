# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from foreseg.clock import ManualClock, SystemClock


def test_a_manual_clock_moves_only_when_told_to() -> None:
    clock = ManualClock(5)
    assert (clock.monotonic_ns(), clock.stamp_ns()) == (5, 5)
    assert clock.advance(7) == 12
    assert clock.monotonic_ns() == clock.stamp_ns() == 12
    assert clock.advance(0) == 12


def test_a_manual_clock_refuses_to_run_backward() -> None:
    clock = ManualClock(5)
    with pytest.raises(ValueError, match="-1 ns"):
        clock.advance(-1)
    assert clock.monotonic_ns() == 5


def test_the_system_clock_does_not_run_backward() -> None:
    clock = SystemClock()
    assert clock.monotonic_ns() <= clock.monotonic_ns()
    assert clock.stamp_ns() > 1_600_000_000 * 10**9
