# SPDX-License-Identifier: Apache-2.0
"""How often each picture is written, so that a video lasts as long as its stream."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
import pytest

from foreseg.media.pace import MAX_PAUSE_S, NS, Pace


def times_of(stamps_s: Sequence[float], rate_hz: float) -> list[int]:
    pace = Pace(rate_hz)
    stamps = [round(s * NS) for s in stamps_s]
    return [pace.times(a, b) for a, b in pairwise(stamps)] + [pace.times(stamps[-1], None)]


@pytest.mark.parametrize("rate_hz", [7.5, 30.0, 30000 / 1001])
def test_a_regular_stream_gets_one_picture_a_frame(rate_hz: float) -> None:
    assert times_of([i / rate_hz for i in range(500)], rate_hz) == [1] * 500


def test_jitter_less_than_a_picture_changes_nothing() -> None:
    jitter = np.random.default_rng(3).uniform(-0.012, 0.012, 300)
    assert times_of([i / 30 + j for i, j in enumerate(jitter, start=1)], 30) == [1] * 300


@pytest.mark.parametrize("gap_s", [0.1, 1 / 45, 1 / 300])
def test_a_stream_of_another_rate_lasts_as_long_as_it_does(gap_s: float) -> None:
    times = times_of([i * gap_s for i in range(1000)], 30)
    assert sum(times) / 30 == pytest.approx(1000 * gap_s, abs=3 / 30)


def test_a_rate_that_changes_is_followed() -> None:
    gaps = [1 / 30] * 60 + [1 / 12] * 60 + [1 / 30] * 60
    stamps = [0.0, *accumulate(gaps)]
    times = times_of(stamps, 30)
    assert times[:60] == [1] * 60
    assert sum(times) / 30 == pytest.approx(stamps[-1], abs=3 / 30)
    assert max(times) <= 4


def test_a_pause_is_shown_but_not_for_ever() -> None:
    assert times_of([0.0, 3.0, 3.1], 10) == [30, 1, 1]
    times = times_of([0.0, 3600.0, 3600.1, 3600.2], 10)
    assert times == [round(MAX_PAUSE_S * 10), 1, 1, 1]


def test_a_stream_that_begins_anew_goes_on_from_there() -> None:
    assert times_of([5.0, 5.1, 0.0, 0.1, 0.2], 10) == [1, 1, 1, 1, 1]
