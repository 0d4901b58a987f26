# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import pytest

from foreseg.errors import ConfigError
from foreseg.telemetry import DropCause, StageTimer

MS = 1_000_000


def test_a_timer_without_values_knows_nothing() -> None:
    summary = StageTimer().summary()
    assert summary.count == summary.window == 0
    assert math.isnan(summary.p50_ms)
    assert math.isnan(summary.p99_ms)


def test_quantiles_are_values_that_occurred() -> None:
    timer = StageTimer(window=200)
    for ms in range(100, 0, -1):
        timer.add(ms * MS)
    summary = timer.summary()
    assert (summary.p50_ms, summary.p99_ms, summary.max_ms) == (50, 99, 100)
    timer = StageTimer()
    timer.add(7 * MS)
    assert timer.summary().p50_ms == timer.summary().p99_ms == 7


def test_only_the_last_values_are_remembered() -> None:
    timer = StageTimer(window=4)
    for ms in (1000, 1000, 1000, 1, 2, 3, 4):
        timer.add(ms * MS)
    summary = timer.summary()
    assert (summary.count, summary.window) == (7, 4)
    assert (summary.p50_ms, summary.max_ms) == (2, 4)


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="got 0"):
        StageTimer(window=0)


def test_causes_have_distinct_names_for_the_summary() -> None:
    names = [cause.value for cause in DropCause]
    assert len(set(names)) == len(names)
    assert all(name.isidentifier() and name.islower() for name in names)
