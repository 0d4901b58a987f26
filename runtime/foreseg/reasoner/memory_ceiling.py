# SPDX-License-Identifier: Apache-2.0
"""How much memory a process may hold: looked at now and then, from outside.

A limit inside the process (RLIMIT_AS) would count what CUDA only reserves. Counts resident host
memory without shared pages; the memory of a GPU is bounded by whoever allocates there.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

MEGABYTE = 1_000_000
_PERIOD_NS = 250_000_000
_PROCESSES = Path("/proc")


def resident_bytes(pid: int) -> int | None:
    """Private resident memory of a process; None if it is gone, or the system does not tell."""
    try:
        fields = (_PROCESSES / str(pid) / "statm").read_text("ascii").split()
        resident, shared = int(fields[1]), int(fields[2])
    except (OSError, ValueError, IndexError):
        return None
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


class MemoryCeiling:
    """Judges one process after the other.

    Args:
        max_mb: megabytes (10^6 bytes) of private resident memory; 0 = no ceiling.
    """

    def __init__(self, max_mb: int) -> None:
        self._max_mb = max_mb
        self._next_look_ns = 0

    def excess(self, pid: int, now_ns: int) -> str:
        """What is too much, in words; "" while all is well or it is too early to look again."""
        if not self._max_mb or now_ns < self._next_look_ns:
            return ""
        self._next_look_ns = now_ns + _PERIOD_NS
        held = resident_bytes(pid)
        if held is None or held <= self._max_mb * MEGABYTE:
            return ""
        return f"holds {math.ceil(held / MEGABYTE)} MB of memory, its ceiling is {self._max_mb} MB"
