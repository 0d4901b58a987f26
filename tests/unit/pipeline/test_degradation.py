# SPDX-License-Identifier: Apache-2.0
"""The ladder: when it is climbed, when it is left; and what a machine tells of itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreseg.config import DegradationConfig
from foreseg.driving.machine import Machine, this_machine
from foreseg.pipeline.degradation import (
    NS,
    Ladder,
    MachineReadings,
    Rung,
    Strain,
    climbed,
    strain_of,
)

CONFIG = DegradationConfig(climb_s=5.0, recover_s=30.0)
SHORT = MachineReadings(available_memory_share=0.01)
FINE = MachineReadings(available_memory_share=0.5, temperature_c=60.0)
BETWEEN = MachineReadings(available_memory_share=0.06, temperature_c=60.0)


def after(
    readings: list[tuple[int, MachineReadings]], config: DegradationConfig = CONFIG
) -> list[Rung]:
    ladder, rungs = Ladder(), []
    for second, reading in readings:
        ladder = climbed(ladder, reading, second * NS, config)
        rungs.append(ladder.rung)
    return rungs


def test_strain_climbs_one_rung_per_wait_and_ease_comes_down_again_slower() -> None:
    rungs = after([(t, SHORT) for t in range(31)] + [(t, FINE) for t in range(31, 152)])
    assert [rungs.index(Rung(i)) for i in range(1, 5)] == [5, 10, 15, 20]
    assert max(rungs) == Rung.HELD_MASKS
    down = rungs[31:]
    assert [down.index(Rung(i)) for i in (3, 2, 1, 0)] == [30, 60, 90, 120]


def test_a_moment_of_strain_changes_nothing_and_between_the_limits_nothing_moves() -> None:
    flickering = [(t, SHORT if t % 4 else FINE) for t in range(100)]
    assert set(after(flickering)) == {Rung.NORMAL}
    up = [(t, SHORT) for t in range(6)]
    assert set(after([*up, *[(t, BETWEEN) for t in range(6, 500)]])[5:]) == {Rung.FEWER_TOKENS}


def test_the_highest_rung_is_the_operators() -> None:
    none = DegradationConfig(max_rung=0, climb_s=0.1)
    assert set(after([(t, SHORT) for t in range(50)], none)) == {Rung.NORMAL}
    two = DegradationConfig(max_rung=2, climb_s=0.1)
    assert after([(t, SHORT) for t in range(50)], two)[-1] == Rung.LONGER_PERIODS


@pytest.mark.parametrize(
    ("readings", "strain", "words"),
    [
        (MachineReadings(), Strain.EASY, ""),
        (SHORT, Strain.HIGH, "1.0% of the memory is left, wanted 5.0%"),
        (MachineReadings(temperature_c=96.0), Strain.HIGH, "96 degrees C, limit 95"),
        (MachineReadings(temperature_c=93.0), Strain.STEADY, ""),
        (MachineReadings(is_gpu_throttled=True), Strain.HIGH, "the GPU is throttled"),
        (MachineReadings(is_gpu_throttled=False), Strain.EASY, ""),
    ],
)
def test_what_is_strain(readings: MachineReadings, strain: Strain, words: str) -> None:
    assert strain_of(readings, CONFIG) == (strain, words)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.one_of(st.none(), st.floats(0, 1))),
        max_size=60,
    )
)
def test_any_readings_move_at_most_one_rung_at_a_time_and_never_out_of_bounds(
    steps: list[tuple[int, float | None]],
) -> None:
    ladder, at_ns = Ladder(), 0
    for wait_s, share in steps:
        at_ns += wait_s * NS
        was = ladder.rung
        ladder = climbed(ladder, MachineReadings(available_memory_share=share), at_ns, CONFIG)
        assert abs(ladder.rung - was) <= 1
        assert (ladder.rung == Rung.NORMAL) <= (ladder.reason == "")


def test_a_machine_reads_memory_and_its_hottest_plausible_zone(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  250 kB\n", "ascii")
    for i, text in enumerate(("45000\n", "71500\n", "-273200\n", "broken", "999999\n")):
        (tmp_path / f"thermal_zone{i}").mkdir()
        (tmp_path / f"thermal_zone{i}" / "temp").write_text(text, "ascii")
    readings = Machine(memory_file=memory, thermal_folder=tmp_path).read()
    assert readings == MachineReadings(available_memory_share=0.25, temperature_c=71.5)


def test_a_machine_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    assert (
        Machine(memory_file=tmp_path / "no", thermal_folder=tmp_path).read() == MachineReadings()
    )


def test_this_machine_tells_its_memory() -> None:
    share = this_machine().read().available_memory_share
    assert share is not None
    assert 0 < share < 1
    assert math.isfinite(share)


class Nvml:
    """A double of the library: codes other than 0 are errors."""

    def __init__(self, *, reasons: int = 0, heat_c: int = 0, init_code: int = 0) -> None:
        self.reasons, self.heat_c, self.init_code = reasons, heat_c, init_code

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.init_code

    def nvmlDeviceGetHandleByIndex_v2(self, _index: int, _handle: Any) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetTemperature(self, _gpu: object, sensor: int, value: Any) -> int:  # noqa: N802
        assert sensor == 0
        value._obj.value = self.heat_c
        return 0

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, _gpu: object, value: Any) -> int:  # noqa: N802
        value._obj.value = self.reasons
        return 0


@pytest.mark.parametrize(
    ("reasons", "is_throttled"),
    [(0, False), (0x1, False), (0x4, False), (0x20, True), (0x40, True), (0x8 | 0x1, True)],
)
def test_a_gpu_tells_heat_and_throttling(
    tmp_path: Path, reasons: int, *, is_throttled: bool
) -> None:
    library: Any = Nvml(reasons=reasons, heat_c=83)
    machine = Machine(memory_file=tmp_path / "no", thermal_folder=tmp_path, nvml=library)
    readings = machine.read()
    assert readings == MachineReadings(temperature_c=83.0, is_gpu_throttled=is_throttled)


def test_a_driver_without_a_gpu_is_no_error(tmp_path: Path) -> None:
    library: Any = Nvml(init_code=9)
    machine = Machine(memory_file=tmp_path / "no", thermal_folder=tmp_path, nvml=library)
    assert machine.read() == MachineReadings()
