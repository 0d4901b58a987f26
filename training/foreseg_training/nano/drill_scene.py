# SPDX-License-Identifier: Apache-2.0
"""What drills are drawn of: names, things that stand, and places in whole pixels. Does not know: models, words."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tracks import given_of

_FORMS = ("square", "star", "cross", "hexagon", "triangle", "mug", "can", "duck", "cube", "bottle")
_COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "pink", "cyan")
BALL = "ball"  # which the edges of the view send back, as in most scenes; all else goes out
_BALLS = 0.5  # of the things
_TRIES = 20
_TWINS = 0.2  # of the lines
EDGE_PX, APART_PX, TOUCH_PX = (
    10.0,
    24.0,
    22.0,
)  # of middles: from the edges, from each other, of a ball and what it hits
_FIRST_LABEL, _LABEL_STEP = 250, 12  # of the frames of a line's places, at most
Standing = tuple[tuple[int, int], str]  # a place, and the name of what is there


@dataclass(frozen=True, slots=True, kw_only=True)
class Drill:
    """A line, and which of its letters are to be said by the model: from each first to before each second."""

    text: str
    said: tuple[tuple[int, int], ...]


def draw_names(rng: np.random.Generator, count: int) -> list[str]:
    """As many names, all different; the first ones may be the ball's."""
    numbers = rng.choice(len(_COLOURS) * len(_FORMS), size=count, replace=False)
    names = [f"{_COLOURS[n % len(_COLOURS)]} {_FORMS[n // len(_COLOURS)]}" for n in numbers]
    return [BALL, *names[1:]] if rng.random() < _BALLS else names


def nearly(rng: np.random.Generator, place: tuple[int, int]) -> tuple[int, int]:
    """Where a thing that stands was before: mostly there to the pixel."""
    x, y = place + rng.choice([-1, 0, 1], size=2, p=[0.1, 0.8, 0.1])
    return int(max(x, 0)), int(max(y, 0))


def draw_standing(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    names: list[str],
    moving: list[np.ndarray],
) -> list[Standing]:
    """Places for things that stand, apart from each other and from what moves."""
    taken, found = [*moving], []
    for name in names:
        for _ in range(_TRIES):
            place = rng.uniform(EDGE_PX, np.array(size_wh) - EDGE_PX)
            if all(math.dist(place, other) > APART_PX for other in taken):
                taken.append(place)
                found.append((rounded(place), name))
                break
    return found


def twins(rng: np.random.Generator, things: list[Standing]) -> list[Standing]:
    """The same things, of which two are sometimes named alike but for their sides, as a scene's are."""
    if len(things) < 2 or rng.random() >= _TWINS:
        return things
    pair = sorted(things[:2])
    if pair[0][0][0] == pair[1][0][0]:
        return things
    name = things[0][1]
    return [(pair[0][0], f"left {name}"), (pair[1][0], f"right {name}"), *things[2:]]


def is_seen(place: np.ndarray, size_wh: tuple[int, int]) -> bool:
    """Whether a place is in the frame."""
    return bool((place >= 0).all() and (place <= size_wh).all())


def rounded(place: np.ndarray) -> tuple[int, int]:
    """A place in whole pixels."""
    return round(float(place[0])), round(float(place[1]))


def places_of(way: Sequence[np.ndarray], size_wh: tuple[int, int]) -> list[tuple[int, int] | None]:
    """A way in whole pixels; None where it is out of the frame."""
    return [rounded(place) if is_seen(place, size_wh) else None for place in way]


def draw_labels(rng: np.random.Generator, count: int) -> list[int]:
    """Labels of frames that are evenly apart."""
    first, step = rng.integers(_FIRST_LABEL + 1), rng.integers(1, _LABEL_STEP + 1)
    return [int(first + n * step) for n in range(count)]


def marks_of(track: str) -> list[tuple[int, int]]:
    """Where the letters are, after each place, that tell whether a way has turned, and what was touched (`way_words`)."""
    places = given_of(track)[1:]  # behind the name
    ends = [
        (end, first) for (_, end), (first, _) in itertools.pairwise([*places, (len(track), 0)])
    ]
    return [(end, end + len(track[end:first].rstrip("0123456789"))) for end, first in ends]
