# SPDX-License-Identifier: Apache-2.0
"""Objects go behind screens, some come out again, and at last one screen begins to shrink.

Who is behind it was seen long ago; which screen it is, only now. Does not know: other acts.
"""

from __future__ import annotations

import numpy as np

from foreseg_simulation.foresight import Skill
from foreseg_simulation.telling import listed

from .asking import Ask, Band, Crossing, Part, StoryTopic, Times
from .cast import Cast, Thing, Way

HALF = (0.14, 0.15)  # of a screen: width and height
SHRINK_S = 1.0  # how long it has shrunk when the clip ends
SHRUNK = 0.9  # what is left of it then: enough to hide

_RADIUS = (0.045, 0.062)
_FAR = 0.25
_PAIR_SHARE = 0.45  # that two go at once
_STAYS = 0.6  # that a slot is a going in while somebody could come out
_EMPTY_SHARE = 0.3  # that an empty screen shrinks if there is one


def hide(rng: np.random.Generator, cast: Cast, band: Band, times: Times) -> Part:
    """Play goings and comings in the slots, and let a screen begin to shrink at the end."""
    edge = "top" if band.is_upper else "bottom"
    out_y = -0.08 if band.is_upper else 1.08
    y = band.middle + (0.02 if band.is_upper else -0.02)
    count = int(rng.integers(2, 4))
    xs = [band.aspect * (k + 1) / (count + 1) for k in range(count)]
    ways = [Way.at((x, y), HALF[1]) for x in xs]
    screens = [cast.panel(way, "screen", layer=4, stretch=HALF[0] / HALF[1]) for way in ways]
    behind: dict[int, list[tuple[Thing, float]]] = {k: [] for k in range(count)}
    came_out: dict[int, list[tuple[Thing, float, float]]] = {k: [] for k in range(count)}
    crossings: list[Crossing] = []
    for begin_s, end_s in times.slots:
        full = [k for k in range(count) if behind[k]]
        if full and rng.random() > _STAYS:
            place = int(rng.choice(full))
            thing, in_s = behind[place].pop(int(rng.integers(len(behind[place]))))
            lateral = xs[place] + float(rng.uniform(-0.2, 0.2))
            thing.way.wait(begin_s).go(end_s, (lateral, out_y), _FAR * _RADIUS[1])
            came_out[place].append((thing, in_s, begin_s + 0.5 * (end_s - begin_s)))
            crossings.append(Crossing(thing_id=thing.id, time_s=end_s, edge=edge, is_in=False))
            continue
        room = [k for k in range(count) if len(behind[k]) < 2]
        if not room:
            continue
        for number in range(1 + (rng.random() < _PAIR_SHARE)):
            room = [k for k in room if len(behind[k]) < 2]
            if not room:
                break
            place = int(rng.choice(room))
            taken = [thing.way.knots[-1][1] > xs[place] for thing, _ in behind[place]]
            side = (-1 if taken[0] else 1) if taken else (-1, 1)[int(rng.integers(2))]
            radius = float(rng.uniform(*_RADIUS))
            lateral = xs[place] + (0.0 if number == 0 else 0.1) + float(rng.uniform(-0.2, 0.15))
            way = Way.at((lateral, out_y), _FAR * radius, float(rng.uniform(-0.4, 0.4)))
            way.wait(begin_s).go(end_s, (xs[place] + side * 0.045, y), radius)
            thing = cast.shape(way)
            behind[place].append((thing, begin_s + 0.5 * (end_s - begin_s)))
            crossings.append(Crossing(thing_id=thing.id, time_s=begin_s, edge=edge, is_in=True))
    full = [k for k in range(count) if behind[k]]
    empty = [k for k in range(count) if not behind[k]]
    is_empty = not full or (bool(empty) and rng.random() < _EMPTY_SHARE)
    shrinking = int(rng.choice(empty if is_empty else full))
    gone_s = times.cut_s + float(rng.uniform(1.0, 2.5))
    place_xy = (xs[shrinking], y)
    way = ways[shrinking].wait(times.cut_s - SHRINK_S).go(times.cut_s, place_xy, SHRUNK * HALF[1])
    way.go(gone_s, place_xy, 0.0)
    asks = [_reveal(screens[shrinking], behind[shrinking], came_out[shrinking], times, gone_s)]
    for k, screen in enumerate(screens):
        if k != shrinking:
            asks.append(_behind(screen, behind[k], came_out[k], times))
        asks.append(_came_out(screen, behind[k], came_out[k], times))
    return Part(asks=asks, crossings=crossings)


def _story(
    screen: Thing,
    behind: list[tuple[Thing, float]],
    came_out: list[tuple[Thing, float, float]],
) -> tuple[str, ...]:
    steps = []
    if came_out:
        names = listed([thing.name for thing, _, _ in came_out])
        steps.append(f"Behind the {screen.name} went {names}, and came out again.")
    if behind:
        names = listed([thing.name for thing, _ in behind])
        steps.append(f"Behind the {screen.name} went {names}, and stayed.")
    return tuple(steps) or (f"Nothing went behind the {screen.name}.",)


def _reveal(
    screen: Thing,
    behind: list[tuple[Thing, float]],
    came_out: list[tuple[Thing, float, float]],
    times: Times,
    gone_s: float,
) -> Ask:
    names = listed([t.name for t, _ in behind]) if behind else "nothing"
    seen = [s for _, s in behind] + [s for _, a, b in came_out for s in (a, b)]
    return Ask(
        topic=StoryTopic.REVEAL,
        target_ids=tuple(sorted(t.id for t, _ in behind)),
        steps=(
            f"The {screen.name} begins to shrink.",
            *_story(screen, behind, came_out),
            f"So it will show {names}.",
        ),
        evidence_s=(*sorted(seen), times.cut_s),
        skill=Skill.OCCLUSION,
        event_s=gone_s,
        is_hard=bool(behind),
    )


def _behind(
    screen: Thing,
    behind: list[tuple[Thing, float]],
    came_out: list[tuple[Thing, float, float]],
    times: Times,
) -> Ask:
    names = listed([t.name for t, _ in behind]) if behind else "nothing"
    return Ask(
        topic=StoryTopic.BEHIND,
        target_ids=tuple(sorted(t.id for t, _ in behind)),
        subject=screen.name,
        steps=(*_story(screen, behind, came_out), f"So behind it is {names}."),
        evidence_s=tuple(sorted(s for _, s in behind)) or (times.cut_s,),
        skill=Skill.OCCLUSION,
    )


def _came_out(
    screen: Thing,
    behind: list[tuple[Thing, float]],
    came_out: list[tuple[Thing, float, float]],
    times: Times,
) -> Ask:
    names = listed([t.name for t, _, _ in came_out]) if came_out else "nothing"
    return Ask(
        topic=StoryTopic.CAME_OUT,
        target_ids=tuple(sorted(t.id for t, _, _ in came_out)),
        subject=screen.name,
        steps=(*_story(screen, behind, came_out), f"So {names} came out again."),
        evidence_s=tuple(sorted(s for _, a, b in came_out for s in (a, b))) or (times.cut_s,),
        skill=Skill.RECALL,
    )
