# SPDX-License-Identifier: Apache-2.0
"""When a dead reasoner process is started again: pure, driven by the times it is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from foreseg.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """An exponential back-off, forgotten once a process has been well for a while.

    A value: `after_death` returns the next one.
    """

    first_s: float = 0.5  # wait after the first death
    longest_s: float = 30.0
    healthy_s: float = 60.0  # ready for so long: earlier deaths are forgotten
    deaths: int = 0  # in a row

    def __post_init__(self) -> None:
        if not 0 < self.first_s <= self.longest_s or self.healthy_s < 0:
            msg = (
                "a restart policy wants 0 < first_s <= longest_s and healthy_s >= 0, got"
                f" {self.first_s}, {self.longest_s} and {self.healthy_s}"
            )
            raise ConfigError(msg)

    @property
    def wait_ns(self) -> int:
        """How long to wait before the next start: 0 before any death."""
        if self.deaths == 0:
            return 0
        doublings = min(self.deaths - 1, 62)
        return round(min(self.first_s * 2.0**doublings, self.longest_s) * 1e9)

    def after_death(self, *, ready_ns: int | None, died_ns: int) -> RestartPolicy:
        """The policy after one more death.

        Args:
            ready_ns: when the process became ready (monotonic), or None if it never did.
            died_ns: when it died, on the same clock.
        """
        was_well = ready_ns is not None and died_ns - ready_ns >= self.healthy_s * 1e9
        return replace(self, deaths=1 if was_well else self.deaths + 1)
