# SPDX-License-Identifier: Apache-2.0
"""Two streams side by side by their stamps: what comes late waits for what comes later. No clock."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

Asking = TypeVar("Asking")
Wanted = TypeVar("Wanted")


class StampPairs(Generic[Asking, Wanted]):
    """Gives each item that asks the wanted one of the nearest stamp, of those near enough.

    Both kinds are kept, some of each, and may come in either order; a wanted one may serve several.
    """

    def __init__(self, *, tolerance_ns: int, max_asking: int, max_wanted: int) -> None:
        self._tolerance_ns = tolerance_ns
        self._asking: deque[tuple[int, Asking]] = deque()
        self._wanted: deque[tuple[int, Wanted]] = deque(maxlen=max_wanted)
        self._max_asking = max_asking
        self.num_paired = 0
        self.num_missed = 0  # that asked in vain

    def ask(self, stamp_ns: int, item: Asking) -> Wanted | None:
        """What is wanted for an item, or None: then it waits, and the one that waits longest leaves."""
        best = min(self._wanted, key=lambda kept: abs(kept[0] - stamp_ns), default=None)
        if best is not None and abs(best[0] - stamp_ns) <= self._tolerance_ns:
            self.num_paired += 1
            return best[1]
        self._asking.append((stamp_ns, item))
        if len(self._asking) > self._max_asking:
            self._asking.popleft()
            self.num_missed += 1
        return None

    def offer(self, stamp_ns: int, item: Wanted) -> list[Asking]:
        """Those that waited for this one; those that are older than it have waited in vain."""
        self._wanted.append((stamp_ns, item))
        served, left = [], deque[tuple[int, Asking]]()
        for stamp_asked_ns, asking in self._asking:
            if abs(stamp_asked_ns - stamp_ns) <= self._tolerance_ns:
                served.append(asking)
            elif stamp_asked_ns > stamp_ns:
                left.append((stamp_asked_ns, asking))
            else:
                self.num_missed += 1
        self._asking = left
        self.num_paired += len(served)
        return served
