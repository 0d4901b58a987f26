# SPDX-License-Identifier: Apache-2.0
"""The state at its start, and measured rates."""

from __future__ import annotations

import pytest

from foreseg.config import Config, TrackerConfig
from foreseg.frames import CameraId
from foreseg.pipeline.state import CameraState, State, running_mean
from foreseg.pipeline.tracks import LabelPool


def test_the_start_knows_its_cameras_and_nothing_else() -> None:
    config = Config(tracker=TrackerConfig(max_tracks=3))
    state = State.start(config, (CameraId("left"), CameraId("right")))
    assert set(state.cameras) == {"left", "right"}
    assert all(c.labels.size == 3 and c.newest is None for c in state.cameras.values())
    assert (state.queries, state.asking, state.running, state.enabled) == ((), None, None, True)


def test_what_is_not_measured_is_thought_to_be_30_hz() -> None:
    rates = CameraState(camera=CameraId("c"), labels=LabelPool(size=1)).rates
    assert (rates.camera_hz, rates.live_hz, rates.branch_hz) == pytest.approx((30, 30, 30))


def test_a_branch_step_that_was_not_measured_takes_as_long_as_a_live_one() -> None:
    state = CameraState(camera=CameraId("c"), labels=LabelPool(size=1), live_step_ns=1e7)
    assert state.rates.branch_hz == pytest.approx(100)


def test_a_running_mean_starts_at_its_first_value_and_follows() -> None:
    assert running_mean(0.0, 5.0) == 5.0
    mean = 5.0
    for _ in range(100):
        mean = running_mean(mean, 1.0)
    assert mean == pytest.approx(1.0, abs=1e-3)
