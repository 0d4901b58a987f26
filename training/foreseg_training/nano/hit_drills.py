# SPDX-License-Identifier: Apache-2.0
"""What befell what, drilled without pictures: from a ball's places among things that stand to those that it hit, in order.

A ball that turns beside a thing has hit it, one that turns at an edge has not, and the turn lies between two places that
are said. The words are those of `tracks`. Does not know: recordings, methods.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from .drill_scene import (
    BALL,
    EDGE_PX,
    Drill,
    Standing,
    draw_labels,
    draw_names,
    draw_standing,
    marks_of,
    nearly,
    places_of,
    rounded,
    twins,
)
from .tracks import add_touch, before_words, here_words, step_words, way_words

_HITS = (1, 1, 2, 2, 3)  # of a way
_TOUCH_PX = (17.0, 23.0)  # of middles, when a ball hits
_CLEAR_PX = 5.0  # more than a touch: a ball that only passes
_EDGE_TURNS = 0.3  # probability of one before a hit
_RESTS, _REST_SHARE = (
    0.25,
    0.25,
)  # probability that a ball lies still at the end, for what share of its places
_FREE_PX = (12.0, 70.0)  # of the way after the last hit
_TRIES = 60
Point = tuple[float, float]


def draw_hits(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    *,
    num_places: int = 12,
    num_standing: int = 4,
) -> Drill:
    """Draw a line such as `Here: [20, 69] the star [20, 69], [63, 45] the ball [90, 60]. The ball: 6[90, 60], ..., 72[63, 45]. It moves right 7 up 6. Before: [20, 69] the star. `.

    To be said are the turns, what was hit, where its track shows it and after it, and the step.

    Args:
        rng: of everything.
        size_wh: of the frames in whose pixels places are said.
        num_places: of the ball, evenly in time.
        num_standing: things, at most, of which some are hit.

    Raises:
        ValueError: the frame is too small for them.
    """
    for _ in range(_TRIES):
        names = [name for name in draw_names(rng, num_standing + 1) if name != BALL]
        things = twins(rng, draw_standing(rng, size_wh, names[:num_standing], []))
        way, hits = _way(rng, size_wh, things)
        if hits:
            break
    else:
        msg = f"a frame of {size_wh[0]} x {size_wh[1]} has no room for a ball and things"
        raise ValueError(msg)
    rests = _REST_SHARE if rng.random() < _RESTS else 0.0
    at_px, places = _places_on(way, num_places, rests)
    last, first = rounded(places[-1]), rounded(places[0])
    stood = [(place, name, nearly(rng, place)) for place, name in things]
    text = here_words(sorted([*stood, (last, BALL, first)], key=lambda thing: thing[:2]))
    touched: dict[int, str] = {}
    befallen = [(nearly(rng, things[n][0]), things[n][1]) for n, _ in hits]
    for (where, name), (_, corner) in zip(befallen, hits, strict=True):
        after = int(np.searchsorted(at_px, _along(way)[corner]))
        add_touch(touched, after, num_places, where, name)
    began = len(text)
    labels = draw_labels(rng, num_places)
    track = f"The {BALL}: {way_words(places_of(places, size_wh), labels, touched)}. "
    marks = [(began + first, began + end) for first, end in marks_of(track)]
    text += track
    said = step_words(rounded(places[-2]), last) + before_words(befallen)
    return Drill(text=text + said, said=(*marks, (len(text), len(text + said))))


def _way(
    rng: np.random.Generator, size_wh: tuple[int, int], things: Sequence[Standing]
) -> tuple[list[Point], list[tuple[int, int]]]:
    """Corners of a way that leads from thing to thing and past all others; and which are hit, each at which corner."""
    free = _free_point(rng, size_wh, things)
    if free is None:
        return [], []
    way, hits = [free], list[tuple[int, int]]()
    for _ in range(int(rng.choice(_HITS))):
        for _ in range(_TRIES):
            number = int(rng.integers(len(things)))
            last = [n for n, _ in hits[-1:]]
            if number in last:
                continue
            via = [_edge_point(rng, size_wh)] if rng.random() < _EDGE_TURNS else []
            before = via[-1] if via else way[-1]
            touch = _towards(things[number][0], before, float(rng.uniform(*_TOUCH_PX)))
            more = [*via, touch]
            if _is_clear([way[-1], *more], things, {number, *last}) and _is_in(more, size_wh):
                way += more
                hits.append((number, len(way) - 1))
                break
    if not hits:
        return [], []
    for _ in range(_TRIES):
        angle, length = rng.uniform(0, 2 * math.pi), rng.uniform(*_FREE_PX)
        end = (way[-1][0] + length * math.cos(angle), way[-1][1] + length * math.sin(angle))
        hit = hits[-1][0]
        is_away = math.dist(end, things[hit][0]) > math.dist(way[-1], things[hit][0])
        if is_away and _is_in([end], size_wh) and _is_clear([way[-1], end], things, {hit}):
            way.append(end)
            break
    return way, hits


def _free_point(
    rng: np.random.Generator, size_wh: tuple[int, int], things: Sequence[Standing]
) -> Point | None:
    for _ in range(_TRIES):
        x, y = rng.uniform(EDGE_PX, np.array(size_wh) - EDGE_PX)
        if all(math.dist((x, y), place) > _TOUCH_PX[1] + _CLEAR_PX for place, _ in things):
            return float(x), float(y)
    return None


def _edge_point(rng: np.random.Generator, size_wh: tuple[int, int]) -> Point:
    """Where the middle of a ball is that touches an edge."""
    side = int(rng.integers(4))
    along = rng.uniform(EDGE_PX, size_wh[1 - side % 2] - EDGE_PX)  # left, top, right, bottom
    near = EDGE_PX - 2
    across = near if side < 2 else size_wh[side % 2] - near
    return (across, float(along)) if side % 2 == 0 else (float(along), across)


def _towards(thing: tuple[int, int], before: Point, away: float) -> Point:
    """The point so far from a thing, on the straight way to it."""
    length = max(1.0, math.dist(thing, before))
    return (
        thing[0] + (before[0] - thing[0]) * away / length,
        thing[1] + (before[1] - thing[1]) * away / length,
    )


def _is_in(points: Sequence[Point], size_wh: tuple[int, int]) -> bool:
    least = EDGE_PX - 3
    return all(
        least <= x <= size_wh[0] - least and least <= y <= size_wh[1] - least for x, y in points
    )


def _is_clear(way: Sequence[Point], things: Sequence[Standing], but: set[int]) -> bool:
    """Whether a way touches none of the things but some."""
    for number, (place, _) in enumerate(things):
        least = _TOUCH_PX[0] - 1 if number in but else _TOUCH_PX[1] + _CLEAR_PX
        for (x0, y0), (x1, y1) in itertools.pairwise(way):
            length = (x1 - x0) ** 2 + (y1 - y0) ** 2
            share = ((place[0] - x0) * (x1 - x0) + (place[1] - y0) * (y1 - y0)) / max(length, 1e-9)
            share = min(1.0, max(0.0, share))
            if math.dist(place, (x0 + share * (x1 - x0), y0 + share * (y1 - y0))) < least:
                return False
    return True


def _along(way: Sequence[Point]) -> np.ndarray:
    """How far along it each corner is."""
    steps = np.linalg.norm(np.diff(np.array(way), axis=0), axis=1)
    return np.concatenate([[0.0], steps.cumsum()])


def _places_on(
    way: Sequence[Point], count: int, rests: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """So many places, evenly along a way, of which the last share rests at its end; and how far along each is."""
    ends, along = np.array(way), _along(way)
    num_moving = max(2, round(count * (1 - rests)))
    at_px = np.concatenate(
        [np.linspace(0, along[-1], num_moving), np.full(count - num_moving, along[-1])]
    )
    return at_px, [
        np.array([np.interp(a, along, ends[:, 0]), np.interp(a, along, ends[:, 1])]) for a in at_px
    ]
