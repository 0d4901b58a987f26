# SPDX-License-Identifier: Apache-2.0
"""What has one colour turns back at a post, everything else passes it; then several come at once.

The rule was seen long ago, who is on the way is seen now. Does not know: other acts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import Skill
from foreseg_simulation.telling import listed

from .asking import Ask, Band, Crossing, Part, StoryTopic, Times
from .cast import Cast, Thing, Way

_RADIUS = (0.042, 0.056)
_FAR = 0.25
_POST_HALF = 0.21
_REACHED = (0.28, 0.36)  # of the view's width when the clip ends
_ON_THE_WAY_S = (2.2, 3.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Road:
    """A way over the view with a post in its middle, and who turns back there."""

    band: Band
    from_left: bool
    rule: str  # the colour that turns back

    @property
    def edges(self) -> tuple[str, str]:
        """Where movers come from, and where those that pass leave."""
        return ("left", "right") if self.from_left else ("right", "left")

    def x_at(self, share: float) -> float:
        """A place on the way: 0 is the edge of coming, 1 the other one."""
        return self.band.aspect * (share if self.from_left else 1 - share)

    def turn_x(self, radius: float) -> float:
        """Where one of a radius touches the post."""
        return self.x_at(0.5) - (radius if self.from_left else -radius)

    def thing(self, cast: Cast, way: Way, *, turns: bool) -> Thing:
        """A mover of the colour that its behaviour wants."""
        if turns:
            return cast.shape(way, layer=3, colour=self.rule)
        return cast.shape(way, layer=3, not_colour=self.rule)


def pass_or_turn(rng: np.random.Generator, cast: Cast, band: Band, times: Times) -> Part:
    """Show the rule in the slots, one mover each, and let two to four come in the finale."""
    from_left = bool(rng.random() < 0.5)
    rule, post_colour = cast.colours(2)
    road = _Road(band=band, from_left=from_left, rule=rule)
    spot = Way.at((band.aspect / 2, band.middle), _POST_HALF, np.pi / 2)
    post = cast.bar(spot, "post", layer=1, colour=post_colour)
    crossings: list[Crossing] = []
    shown: list[tuple[Thing, float, bool]] = []
    for number, (begin_s, end_s) in enumerate(times.slots):
        turns = number == 0 or (number > 1 and bool(rng.random() < 0.5))
        thing = _show(rng, cast, road, (begin_s, end_s), turns=turns)
        shown.append((thing, (begin_s + end_s) / 2, turns))
        out = road.edges[0] if turns else road.edges[1]
        crossings += [
            Crossing(thing_id=thing.id, time_s=begin_s, edge=road.edges[0], is_in=True),
            Crossing(thing_id=thing.id, time_s=end_s, edge=out, is_in=False),
        ]
    count = int(rng.integers(2, 5))
    num_turning = int(rng.integers(0, count + 1))
    rows = np.linspace(band.top + 0.07, band.bottom - 0.07, count)
    turning = [bool(i < num_turning) for i in rng.permutation(count)]
    movers: list[tuple[Thing, bool]] = []
    event_s = np.inf
    for y, turns in zip(rows.tolist(), turning, strict=True):
        thing, come_s, post_s = _come(rng, cast, road, y, times, turns=turns)
        event_s = min(event_s, post_s)
        movers.append((thing, turns))
        crossings.append(
            Crossing(thing_id=thing.id, time_s=come_s, edge=road.edges[0], is_in=True)
        )
    asks = _asks(post, rule, shown, movers, road.edges[1], times, float(event_s))
    return Part(asks=asks, crossings=crossings)


def _show(
    rng: np.random.Generator,
    cast: Cast,
    road: _Road,
    slot: tuple[float, float],
    *,
    turns: bool,
) -> Thing:
    """Let one mover turn back, or pass."""
    radius = float(rng.uniform(*_RADIUS))
    y = float(rng.uniform(road.band.top + 0.1, road.band.bottom - 0.1))
    way = Way.at((road.x_at(-0.06), y), _FAR * radius).wait(slot[0])
    if turns:
        way.go(sum(slot) / 2, (road.turn_x(radius), y), radius).go(slot[1], (road.x_at(-0.06), y))
    else:
        way.go(slot[1], (road.x_at(1.06), y), radius)
    return road.thing(cast, way, turns=turns)


def _come(
    rng: np.random.Generator, cast: Cast, road: _Road, y: float, times: Times, *, turns: bool
) -> tuple[Thing, float, float]:
    """Let one mover be on its way when the clip ends; also when it came, and is at the post."""
    radius = float(rng.uniform(*_RADIUS))
    come_s = max(times.finale_s, times.cut_s - float(rng.uniform(*_ON_THE_WAY_S)))
    reached = float(rng.uniform(*_REACHED))
    pace = (times.cut_s - come_s) / (reached + 0.06)  # seconds for the whole width
    way = Way.at((road.x_at(-0.06), y), _FAR * radius).wait(come_s)
    way.go(times.cut_s, (road.x_at(reached), y), radius)
    post_s = times.cut_s + (0.5 - reached) * pace
    if turns:
        way.go(post_s, (road.turn_x(radius), y)).go(post_s + 0.56 * pace, (road.x_at(-0.06), y))
    else:
        way.go(times.cut_s + (1.06 - reached) * pace, (road.x_at(1.06), y))
    return road.thing(cast, way, turns=turns), come_s, post_s


def _asks(
    post: Thing,
    rule: str,
    shown: list[tuple[Thing, float, bool]],
    movers: list[tuple[Thing, bool]],
    edge: str,
    times: Times,
    event_s: float,
) -> list[Ask]:
    turned = listed([thing.name for thing, _, turns in shown if turns])
    passed = [thing.name for thing, _, turns in shown if not turns]
    past = f"Before, {turned} turned back at the {post.name}"
    past += f", and {listed(passed)} passed it." if passed else "."
    now = f"Now {listed([thing.name for thing, _ in movers])} are on the way to it."
    asks = []
    for topic, wanted in ((StoryTopic.LEAVE_ALL, False), (StoryTopic.TURN_BACK, True)):
        found = [thing for thing, turns in movers if turns is wanted]
        names = listed([thing.name for thing in found]) if found else "nothing"
        verb = "turn back" if wanted else f"leave over the {edge} edge"
        others = any(turns is not wanted for _, turns in movers)
        asks.append(
            Ask(
                topic=topic,
                target_ids=tuple(sorted(thing.id for thing in found)),
                subject=post.name if wanted else "",
                fill={"b": edge},
                steps=(past, f"So what is {rule} turns back.", now, f"So {names} will {verb}."),
                evidence_s=(*sorted(s for _, s, _ in shown), times.cut_s - 0.6, times.cut_s),
                skill=Skill.HABIT,
                event_s=event_s,
                is_hard=others if not wanted else bool(found),
            )
        )
    return asks
