# SPDX-License-Identifier: Apache-2.0
"""Objects gather on two shelves, touching each other; then one shelf begins to tilt.

All that stands on it will fall, at its lower end first; at times nothing stands on it. Does not
know: other acts.
"""

from __future__ import annotations

import math

import numpy as np

from foreseg_simulation.foresight import Skill
from foreseg_simulation.telling import listed

from .asking import Ask, Band, Crossing, Part, StoryTopic, Times
from .cast import Cast, Place, Thing, Way

TILT_S = 0.9  # how long it has tilted when the clip ends
TILT_RAD = 0.13

_HALF = 0.25  # of a shelf's length
_RADIUS = 0.052
_SPACING = 1.75 * _RADIUS  # they touch
_NUM_FALLING = (0, 0, 1, 2, 2, 2, 3, 3, 4)
_STEEP_RAD = 0.65
_TWIN_SHARE = 0.5
_FAR = 0.25
_STAND = 0.07 * _HALF + 0.85 * _RADIUS  # of a middle above the shelf's


def gather(rng: np.random.Generator, cast: Cast, band: Band, times: Times) -> Part:
    """Let callers come and go in the slots, others stay in the finale, and a shelf tilt."""
    y = band.top + 0.68 * (band.bottom - band.top)
    xs = (0.27 * band.aspect, 0.73 * band.aspect)
    ways = [Way.at((x, y), _HALF) for x in xs]
    shelves = [cast.bar(way, "shelf", layer=1) for way in ways]
    edges = ("left", "right")
    crossings: list[Crossing] = []
    for begin_s, end_s in times.slots:
        side = int(rng.integers(2))
        way = _arrival(xs[side], y, float(rng.uniform(-1.5, 1.5)), side, band.aspect, begin_s, 1.2)
        there = way.knots[-1]
        way.wait(end_s - 1.1).go(end_s - 0.6, (there[1], there[2] - 0.12))
        way.go(end_s, (_outside(side, band.aspect), there[2] - 0.12), _FAR * _RADIUS)
        thing = cast.shape(way, layer=3)
        for time_s, is_in in ((begin_s, True), (end_s, False)):
            crossings.append(
                Crossing(thing_id=thing.id, time_s=time_s, edge=edges[side], is_in=is_in)
            )
    tilting = int(rng.integers(2))
    counts = [0, 0]
    counts[tilting] = int(rng.choice(_NUM_FALLING))
    counts[1 - tilting] = int(rng.integers(1, 4))
    start_s = max(times.finale_s, times.cut_s - float(rng.uniform(3.4, 6.5)))
    standing: list[list[Thing]] = [[], []]
    for side in (0, 1):
        twin_at = int(rng.integers(1, 4)) if rng.random() < _TWIN_SHARE else 0
        for k in range(counts[side]):
            place = k - (counts[side] - 1) / 2
            inward = counts[side] - 1 - k if side == 0 else k  # the farthest comes first
            come_s = start_s + 0.12 * inward
            way = _arrival(xs[side], y, place, side, band.aspect, come_s, 1.3)
            if k and k == twin_at:
                before = standing[side][-1]
                word = "right"
                thing = cast.shape(way, layer=3, word=word, like=before)
            else:
                has_twin = k + 1 == twin_at and k + 1 < counts[side]
                thing = cast.shape(way, layer=3, word="left" if has_twin else "")
            standing[side].append(thing)
            crossings.append(
                Crossing(thing_id=thing.id, time_s=come_s, edge=edges[side], is_in=True)
            )
    sign = (-1, 1)[int(rng.integers(2))]  # 1: its right end goes down
    fall_s = times.cut_s + float(rng.uniform(0.5, 1.5))
    middle = (xs[tilting], y)
    bar = ways[tilting].wait(times.cut_s - TILT_S)
    bar.go(times.cut_s, middle, angle=sign * TILT_RAD).go(fall_s, middle, angle=sign * _STEEP_RAD)
    fallers = standing[tilting]
    for k, thing in enumerate(fallers):
        rank = len(fallers) - 1 - k if sign > 0 else k
        _fall(thing.way, middle, k - (len(fallers) - 1) / 2, sign, rank, times.cut_s, fall_s)
    asks = _asks(shelves[tilting], fallers, sign, times, fall_s)
    return Part(asks=asks, crossings=crossings)


def _arrival(
    shelf_x: float, y: float, place: float, side: int, aspect: float, begin_s: float, for_s: float
) -> Way:
    """Come over the nearer edge, above the others, and step down to a place on the shelf."""
    x, stand = shelf_x + place * _SPACING, y - _STAND
    way = Way.at((_outside(side, aspect), stand - 0.12), _FAR * _RADIUS).wait(begin_s)
    return way.go(begin_s + 0.75 * for_s, (x, stand - 0.12), _RADIUS).go(
        begin_s + for_s, (x, stand)
    )


def _outside(side: int, aspect: float) -> float:
    return -1.3 * _RADIUS if side == 0 else aspect + 1.3 * _RADIUS


def _fall(
    way: Way, middle: Place, place: float, sign: int, rank: int, cut_s: float, fall_s: float
) -> None:
    """Tilt with the shelf, slide off its lower end, and drop."""
    along = place * _SPACING

    def on(offset: float, angle: float) -> Place:
        c, s = math.cos(angle), math.sin(angle)
        return (middle[0] + offset * c + _STAND * s, middle[1] + offset * s - _STAND * c)

    tilt, steep = sign * TILT_RAD, sign * _STEEP_RAD
    way.wait(cut_s - TILT_S).go(cut_s, on(along, tilt), angle=tilt)
    off_s = fall_s + 0.25 * (rank + 1)
    way.go(fall_s, on(along, steep), angle=steep)
    end = on(sign * (_HALF + _RADIUS), steep)
    way.go(off_s, end).go(off_s + 0.5, (end[0] + sign * 0.05, end[1] + 0.3))


def _asks(shelf: Thing, fallers: list[Thing], sign: int, times: Times, fall_s: float) -> list[Ask]:
    low = "right" if sign > 0 else "left"
    tilts = f"The {shelf.name} begins to tilt, its {low} end goes down."
    seen_s = (times.cut_s - TILT_S - 0.2, times.cut_s)
    if not fallers:
        steps = (tilts, "Nothing stands on it.", "So nothing will fall.")
        return [
            Ask(
                topic=topic,
                target_ids=(),
                steps=steps,
                evidence_s=seen_s,
                skill=Skill.BALANCE,
                event_s=fall_s,
            )
            for topic in (StoryTopic.FALL_ALL, StoryTopic.FALL_FIRST)
        ]
    names = listed([thing.name for thing in fallers])
    stand = f"On it, from left to right, stand {names}."
    first = fallers[-1] if sign > 0 else fallers[0]
    everything = Ask(
        topic=StoryTopic.FALL_ALL,
        target_ids=tuple(sorted(thing.id for thing in fallers)),
        steps=(tilts, stand, f"So {names} will fall."),
        evidence_s=seen_s,
        skill=Skill.BALANCE,
        event_s=fall_s + 0.25,
    )
    one = Ask(
        topic=StoryTopic.FALL_FIRST,
        target_ids=(first.id,),
        steps=(
            tilts,
            stand,
            f"At the lower end is the {first.name}.",
            f"So the {first.name} will fall first.",
        ),
        evidence_s=seen_s,
        skill=Skill.BALANCE,
        event_s=fall_s + 0.25,
        is_hard=len(fallers) > 1,
    )
    return [everything, one]
