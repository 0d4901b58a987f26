# SPDX-License-Identifier: Apache-2.0
"""Visitors come from afar over one edge, grow, and leave over another one, some with company.

Company makes a box ambiguous: a ring around another shape, or twins that touch. Does not know:
other acts, though it asks about all crossings of the view's edges.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import Skill
from foreseg_simulation.telling import listed

from .asking import Ask, Crossing, Part, StoryTopic, Times
from .cast import Cast, Place, Thing, Way

EDGES = ("left", "right", "top", "bottom")
LAYER = 6

_FAR = 0.22  # of its radius: how small a visitor is when it comes
_RADIUS = (0.08, 0.16)
_SMALL_RADIUS = (0.042, 0.06)  # under 1 % of the frame
_SMALL_SHARE = 0.35
_COMPANY = (0.35, 0.25)  # shares of a ring around another shape, and of touching twins
_TOGETHER_S = 0.05
_MANY = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """The way of a visit's middle: from beyond an edge, to a place, and out over another edge."""

    times_s: tuple[float, float, float]
    come: tuple[Place, Place]  # a place on the edge, and the direction out
    middle: Place
    go: tuple[Place, Place]
    radius: float
    angle: float

    def way(self, shift: float, scale: float) -> Way:
        """A visitor's way: beside the middle one by `shift` radii, `scale` times its size."""

        def beside(place: Place, direction: Place, size: float) -> Place:
            gap = 2.4 * size
            return (
                place[0] + direction[0] * gap + shift * size,
                place[1] + direction[1] * gap,
            )

        far, near = _FAR * self.radius, self.radius
        way = Way.at(beside(*self.come, far), far * scale, self.angle).wait(self.times_s[0])
        way.go(self.times_s[1], beside(self.middle, (0, 0), near), near * scale)
        return way.wait(self.times_s[1] + 0.3).go(self.times_s[2], beside(*self.go, near))


def visit(rng: np.random.Generator, cast: Cast, times: Times, aspect: float) -> Part:
    """Let one visit, or two that touch, play in each slot."""
    asks: list[Ask] = []
    crossings: list[Crossing] = []
    for begin_s, end_s in times.slots:
        come, go = (str(e) for e in rng.permutation(EDGES)[:2])
        small = rng.random() < _SMALL_SHARE
        planned = _Visit(
            times_s=(begin_s, begin_s + 0.45 * (end_s - begin_s), end_s),
            radius=float(rng.uniform(*(_SMALL_RADIUS if small else _RADIUS))),
            middle=(float(rng.uniform(0.25, 0.75) * aspect), float(rng.uniform(0.25, 0.75))),
            come=_beyond(come, float(rng.uniform(0.2, 0.8)), aspect),
            go=_beyond(go, float(rng.uniform(0.2, 0.8)), aspect),
            angle=float(rng.uniform(-0.5, 0.5)),
        )
        group = _company(rng, cast, planned)
        crossings += [
            Crossing(thing_id=thing.id, time_s=time_s, edge=edge, is_in=is_in)
            for thing in group
            for time_s, edge, is_in in ((begin_s, come, True), (end_s, go, False))
        ]
        if len(group) == 2:
            seen_s = (begin_s + 0.2 * (end_s - begin_s), planned.times_s[1])
            asks += [_came_with(a, b, seen_s) for a, b in (group, group[::-1])]
    return Part(asks=asks, crossings=crossings)


def _company(rng: np.random.Generator, cast: Cast, planned: _Visit) -> list[Thing]:
    """A ring around another shape, twins that touch, or one alone."""
    company = rng.random()
    if company < _COMPANY[0] and cast.has_holed:
        around = cast.shape(planned.way(0, 1), layer=LAYER, is_holed=True)
        return [around, cast.shape(planned.way(0, 0.52), layer=LAYER + 1, is_holed=False)]
    if _COMPANY[0] <= company < sum(_COMPANY):
        one = cast.shape(planned.way(-0.85, 1), layer=LAYER, word="left")
        return [one, cast.shape(planned.way(0.85, 1), layer=LAYER, word="right", like=one)]
    return [cast.shape(planned.way(0, 1), layer=LAYER)]


def crossing_asks(
    rng: np.random.Generator,
    crossings: Sequence[Crossing],
    names: Mapping[int, str],
    finale_s: float,
) -> list[Ask]:
    """Ask who came and went over which edges, by all acts of a story; at times it was nobody."""
    ins = {c.thing_id: c for c in crossings if c.is_in}
    outs = {c.thing_id: c for c in crossings if not c.is_in}
    asks = []
    pairs: dict[tuple[str, str], list[int]] = {(a, b): [] for a in EDGES for b in EDGES if a != b}
    for thing_id in sorted(ins.keys() & outs.keys()):
        pairs.setdefault((ins[thing_id].edge, outs[thing_id].edge), []).append(thing_id)
    for number in rng.permutation(len(pairs))[: 2 * _MANY]:
        (a, b), found = list(pairs.items())[number]
        if len(found) > _MANY:
            continue
        told = _told(found, names, ins, outs)
        evidence = sorted({t for i in found for t in _seen_s(ins[i], outs[i])})
        asks.append(
            Ask(
                topic=StoryTopic.CAME_AND_WENT,
                target_ids=tuple(found),
                fill={"a": a, "b": b},
                steps=(*told, _so(f"came from the {a} and went out {b}", found, names)),
                evidence_s=tuple(evidence) or (finale_s,),
                skill=Skill.RECALL,
            )
        )
    for edge in EDGES:
        found = sorted(i for i, c in outs.items() if c.edge == edge)
        if len(found) <= _MANY:
            asks.append(
                Ask(
                    topic=StoryTopic.WENT_OUT,
                    target_ids=tuple(found),
                    fill={"b": edge},
                    steps=(
                        *_told(found, names, ins, outs),
                        _so(f"went out over the {edge} edge", found, names),
                    ),
                    evidence_s=tuple(sorted({outs[i].time_s - 0.4 for i in found})) or (finale_s,),
                    skill=Skill.RECALL,
                )
            )
    return asks + _in_turn(ins, names, finale_s)


def _in_turn(ins: Mapping[int, Crossing], names: Mapping[int, str], finale_s: float) -> list[Ask]:
    """Ask what came after each that came, before the finale."""
    groups: list[list[Crossing]] = []
    for crossing in sorted(ins.values(), key=lambda c: c.time_s):
        if crossing.time_s >= finale_s:
            break
        if groups and crossing.time_s - groups[-1][0].time_s < _TOGETHER_S:
            groups[-1].append(crossing)
        else:
            groups.append([crossing])
    asks = []
    for group, after in itertools.pairwise(groups):
        subject = names[group[0].thing_id]
        found = tuple(sorted(c.thing_id for c in after))
        came = listed([names[i] for i in found])
        asks.append(
            Ask(
                topic=StoryTopic.CAME_AFTER,
                target_ids=found,
                subject=subject,
                steps=(
                    f"The {subject} came in over the {group[0].edge} edge.",
                    f"Nothing came until {came} came in over the {after[0].edge} edge.",
                    f"So after the {subject} came {came}.",
                ),
                evidence_s=(group[0].time_s + 0.8, after[0].time_s + 0.8),
                skill=Skill.RECALL,
            )
        )
    return asks


def _came_with(one: Thing, other: Thing, seen_s: tuple[float, float]) -> Ask:
    return Ask(
        topic=StoryTopic.CAME_WITH,
        target_ids=(other.id,),
        subject=one.name,
        steps=(
            f"The {one.name} came into the view.",
            f"The {other.name} touched it all the way.",
            f"So what came with the {one.name} is the {other.name}.",
        ),
        evidence_s=seen_s,
        skill=Skill.RECALL,
    )


def _told(
    ids: Sequence[int],
    names: Mapping[int, str],
    ins: Mapping[int, Crossing],
    outs: Mapping[int, Crossing],
) -> tuple[str, ...]:
    if not ids:
        return ("Every object that came and went took another way.",)
    return tuple(
        f"The {names[i]} came in over the {ins[i].edge} edge and went out over the {outs[i].edge}."
        for i in ids
    )


def _so(what: str, ids: Sequence[int], names: Mapping[int, str]) -> str:
    return f"So {listed([names[i] for i in ids]) if ids else 'nothing'} {what}."


def _seen_s(come: Crossing, go: Crossing) -> tuple[float, float]:
    return come.time_s + 0.8, max(come.time_s + 0.8, go.time_s - 0.5)


def _beyond(edge: str, along: float, aspect: float) -> tuple[Place, Place]:
    """A place on an edge, and the direction that leads out over it."""
    return {
        "left": ((0.0, along), (-1.0, 0.0)),
        "right": ((aspect, along), (1.0, 0.0)),
        "top": ((along * aspect, 0.0), (0.0, -1.0)),
        "bottom": ((along * aspect, 1.0), (0.0, 1.0)),
    }[edge]
