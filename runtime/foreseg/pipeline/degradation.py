# SPDX-License-Identifier: Apache-2.0
"""What is given up, and in which order, when the machine runs short of memory or gets too hot.

Pure: told how the machine is, says on which rung of the ladder we stand. Does not know how that
is measured (`machine`) nor how a rung is lived up to (`asking`, `scheduler`, `tracking`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from foreseg.config import DegradationConfig

NS = 1_000_000_000
_EASY_SHARE = 1.5  # so many times the least memory is easy again
_EASY_BELOW_C = 5.0  # so far below the limit it is cool again


class Rung(IntEnum):
    """Each includes those before it."""

    NORMAL = 0
    FEWER_TOKENS = 1  # a question may think less
    LONGER_PERIODS = 2  # standing queries are asked less often
    SLOWER_TRACKER = 3  # frames are tracked at a lower rate
    HELD_MASKS = 4  # nothing is tracked: the last masks are published again, marked UNCERTAIN


class Strain(IntEnum):
    """How a machine is."""

    EASY = 0  # well inside all limits
    STEADY = 1  # inside them: nothing changes
    HIGH = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineReadings:
    """What was measured; None = this machine does not tell."""

    available_memory_share: float | None = None  # of all host memory; a Jetson's GPU shares it
    temperature_c: float | None = None  # of the hottest zone, or GPU
    is_gpu_throttled: bool | None = None  # its clocks are held down by heat or power


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """Where we stand, since when, and why."""

    rung: Rung = Rung.NORMAL
    reason: str = ""  # of the last step; "" on the ground
    since_ns: int | None = None  # the last step, or the first reading of the present strain
    strain: Strain = Strain.STEADY


def strain_of(readings: MachineReadings, config: DegradationConfig) -> tuple[Strain, str]:
    """How the machine is, and what says so ("" unless it is HIGH)."""
    share, heat = readings.available_memory_share, readings.temperature_c
    complaints = []
    if share is not None and share < config.min_memory_share:
        complaints.append(
            f"{share:.1%} of the memory is left, wanted {config.min_memory_share:.1%}"
        )
    if heat is not None and heat > config.max_temperature_c:
        complaints.append(f"{heat:.0f} degrees C, limit {config.max_temperature_c:.0f}")
    if readings.is_gpu_throttled:
        complaints.append("the GPU is throttled")
    if complaints:
        return Strain.HIGH, "; ".join(complaints)
    is_easy = (share is None or share >= _EASY_SHARE * config.min_memory_share) and (
        heat is None or heat <= config.max_temperature_c - _EASY_BELOW_C
    )
    return (Strain.EASY if is_easy else Strain.STEADY), ""


def climbed(
    ladder: Ladder, readings: MachineReadings, at_ns: int, config: DegradationConfig
) -> Ladder:
    """The ladder after a measurement at the monotonic time `at_ns`.

    One rung up after each `climb_s` of HIGH strain, one down after each `recover_s` of EASY.
    """
    strain, reason = strain_of(readings, config)
    if strain is not ladder.strain or ladder.since_ns is None:
        return replace(ladder, strain=strain, since_ns=at_ns)
    waited_s = (at_ns - ladder.since_ns) / NS
    if strain is Strain.HIGH and waited_s >= config.climb_s and ladder.rung < config.max_rung:
        return replace(ladder, rung=Rung(ladder.rung + 1), reason=reason, since_ns=at_ns)
    if strain is Strain.EASY and waited_s >= config.recover_s and ladder.rung > Rung.NORMAL:
        rung = Rung(ladder.rung - 1)
        return replace(ladder, rung=rung, reason=ladder.reason if rung else "", since_ns=at_ns)
    return ladder
