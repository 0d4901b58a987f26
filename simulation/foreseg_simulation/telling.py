# SPDX-License-Identifier: Apache-2.0
"""Words for what moves where, and stamps of the frames that show it.

Does not know: scenes or their plans.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

NS_PER_S = 1_000_000_000
MOTION_S = 0.25  # how long a motion must have been seen before anyone can say where it leads
_HEADINGS = (
    "to the right",
    "down and to the right",
    "down",
    "down and to the left",
    "to the left",
    "up and to the left",
    "up",
    "up and to the right",
)
_SLACK = 1e-6  # of a frame: rounding of stamps


def heading_words(velocity: np.ndarray) -> str:
    """Name the direction of a velocity (2,), y downward, by eighths of a turn."""
    angle = math.atan2(float(velocity[1]), float(velocity[0]))
    return _HEADINGS[round(angle / (math.pi / 4)) % 8]


def edge_words(place: np.ndarray, size_wh: tuple[int, int]) -> str:
    """Name the edge of the view that a place (2,) is nearest to."""
    gaps = (place[0], place[1], size_wh[0] - place[0], size_wh[1] - place[1])
    return ("left", "top", "right", "bottom")[int(np.argmin(gaps))]


def listed(names: Sequence[str], last: str = "and") -> str:
    """Join names with articles: "the red star, the ball and the blue cross"."""
    words = [f"the {name}" for name in names]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"


def in_turn(names: Sequence[str]) -> str:
    """Join names as an order: "the red star, then the ball, then the red star"."""
    return ", then ".join(f"the {name}" for name in names)


def first_stamp_from(time_s: float, rate_hz: float) -> int:
    """Stamp of the first frame at or after a time."""
    return round(math.ceil(time_s * rate_hz - _SLACK) * NS_PER_S / rate_hz)


def last_stamp_before(time_s: float, rate_hz: float) -> int:
    """Stamp of the last frame before a time; of the first frame if there is none."""
    index = max(math.ceil(time_s * rate_hz - _SLACK) - 1, 0)
    return round(index * NS_PER_S / rate_hz)


def evidence(stamps: Iterable[int], now_ns: int) -> tuple[int, ...]:
    """Order stamps, without repeats and without what lies ahead, the present one included."""
    return tuple(sorted({stamp for stamp in stamps if 0 <= stamp < now_ns} | {now_ns}))
