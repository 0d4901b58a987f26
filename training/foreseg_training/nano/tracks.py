# SPDX-License-Identifier: Apache-2.0
"""Where what moves was, frame by frame, in words, and where it will be: the first things that a thought says.

A word such as "left" teaches a small model nothing about motion until it can see places; places said one
after the other teach it to follow a thing, and the rest of the thought may read them. What can be reckoned
is said step by step: how far a thing went last, then one place ahead after the other, each as far on in time as the last two
were apart. Does not know: models, questions.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from foreseg_simulation.foresight import Topic
from foreseg_simulation.questions import PastEvent
from foreseg_simulation.recording import Shot

THOUGHTS = 4  # which way of saying what was seen this is: raised when the words change
MAX_MOVERS = 4
MAX_PLACES = 24  # of all movers together
MAX_AHEAD = 10  # places of each of these
MAX_MOVERS_AHEAD = 2
MAX_EVENTS = 8  # the last ones
MAX_HERE = 8
NEAR_PX = 40.0  # of middles, in the pixels in which places are said: a thing that touches another, and a step
_TRACK = re.compile(r"The [a-z ]+: \d+\[")
_GIVEN = re.compile(r"The [a-z ]+: (?=\d+\[)|(?<=\d)\[[^\]]*")
_LEAST_TURN_PX, _TURN_SHARE = (
    4.0,
    0.5,
)  # of a step's change: in those pixels, and of the longer step
_TOUCHES = (
    Topic.HIT,
    Topic.PUSH,
    Topic.KNOCK,
    Topic.REACH,
)  # which something else does that moves
_LEAST_WAY = 0.03  # of the frame's diagonal, between two places of a thing that moves


def told_shots(
    shots: Sequence[Shot], names: Mapping[int, str], size_wh: tuple[int, int]
) -> Sequence[Shot]:
    """The frames on which places are said, evenly back from the last one: the fewer things move, the more.

    Args:
        shots: as shown, oldest first.
        names: of objects, by instance id.
        size_wh: of the shots, pixels.
    """
    movers = _movers(shots, names, size_wh)[:MAX_MOVERS]
    stride = max(1, math.ceil(len(shots) * len(movers) / MAX_PLACES))
    return shots[::-1][::stride][::-1]


def tracks_of(
    shots: Sequence[Shot],
    names: Mapping[int, str],
    size_wh: tuple[int, int],
    scale_xy: tuple[float, float],
    labels: Sequence[int],
    places: Sequence[int] = (),
    events: Sequence[PastEvent] = (),
) -> str:
    """Sentences such as `The ball: 30[81, 42], 36[75, 40], 42[69, 38]. It moves left 6 up 2. `, as `way_words` writes places.

    Places are centres of boxes, of the things that moved farthest, came or went, on `told_shots`; in the order of
    `here_of`, then those that the last frame does not show. What one of them touched is said where its track shows it.

    Args:
        shots: as shown, oldest first.
        names: of objects, by instance id.
        size_wh: of the shots, pixels.
        scale_xy: from there to the pixels in which places are said.
        labels: of each shot, as the prompt shows it.
        places: of each shot, its number in the recording; for events.
        events: of the recording.
    """
    told = told_shots(shots, names, size_wh)
    label_of = {id(shot): label for shot, label in zip(shots, labels, strict=True)}
    labelled = [label_of[id(shot)] for shot in told]
    movers = _movers(shots, names, size_wh)[:MAX_MOVERS]
    here = [i for _, i in _seen(shots[-1], names, scale_xy) if i in movers]
    touched: dict[int, dict[int, str]] = {i: {} for i in movers}
    for event, first, where in _seen_events(shots, places, events, names, scale_xy):
        found = _toucher(event, shots[first].stamp_ns, told, movers, where, scale_xy)
        if found is not None:
            by, after = found
            add_touch(touched[by], after, len(told), where, names[event.target_id])
    return "".join(
        f"The {names[i]}: {way_words([_place(shot, i, scale_xy) for shot in told], labelled, touched[i])}. "
        + step_words(*(_place(shot, i, scale_xy) for shot in (told[0], *told)[-2:]))
        for i in (*here, *(i for i in movers if i not in here))
    )


def _toucher(
    event: PastEvent,
    stamp_ns: int,
    told: Sequence[Shot],
    movers: Sequence[int],
    where: tuple[int, int],
    scale_xy: tuple[float, float],
) -> tuple[int, int] | None:
    """Of the movers the one that was nearest to what was touched, and its first place after that; None: none was near."""
    if event.topic not in _TOUCHES:
        return None
    after = bisect.bisect_left([shot.stamp_ns for shot in told], stamp_ns)
    ways = [
        (math.dist(place, where), i)
        for shot in told[max(0, after - 1) : after + 1]
        for i in movers
        if i != event.target_id and (place := _place(shot, i, scale_xy))
    ]
    away, by = min(ways, default=(math.inf, 0))
    return (by, after) if away <= NEAR_PX else None


def here_of(
    shots: Sequence[Shot],
    names: Mapping[int, str],
    scale_xy: tuple[float, float],
) -> str:
    """Sentences such as `Here: [20, 11] the cup [20, 11], [81, 42] the ball [9, 40]. Gone: [60, 8] the cube. `.

    All that the last frame shows, from left to right, each with where the first frame has it; then what only the first one
    shows. They come before any choice of what is told, so that no mistake of that can spoil them, and whoever must choose
    what moved reads it off them (docs/log.md).

    Args:
        shots: as shown, oldest first.
        names: of objects, by instance id.
        scale_xy: from the shots' pixels to those in which places are said.
    """
    here = _seen(shots[-1], names, scale_xy)
    ids = {i for _, i in here}
    things = [(place, names[i], _place(shots[0], i, scale_xy)) for place, i in here]
    gone = [(place, names[i]) for place, i in _seen(shots[0], names, scale_xy) if i not in ids]
    return here_words(things) + gone_words(gone)


def here_words(
    things: Sequence[tuple[tuple[int, int], str, tuple[int, int] | None]],
) -> str:
    """The sentence of places, names and places before, of the first `MAX_HERE`; "" of none."""
    listed = ", ".join(
        f"{place_words(place)} the {name} {place_words(before)}"
        for place, name, before in things[:MAX_HERE]
    )
    return f"Here: {listed}. " if listed else ""


def near_words(
    place: tuple[int, int] | None, things: Sequence[tuple[tuple[int, int], str]]
) -> str:
    """The sentence of the thing nearest to a place, `Near it: [122, 22] the cup. `; "" of none within `NEAR_PX`, or no place."""
    if place is None or not things:
        return ""
    away, where, name = min((math.dist(place, where), where, name) for where, name in things)
    return f"Near it: {place_words(where)} the {name}. " if away <= NEAR_PX else ""


def at_words(places: Sequence[tuple[int, int]]) -> str:
    """A thought's last sentence, ` At [122, 22].`: where on the keyframe that is which was found; "" of nothing."""
    return f" At {', '.join(map(place_words, places))}." if places else ""


def gone_words(things: Sequence[tuple[tuple[int, int], str]]) -> str:
    """The sentence of what is no more seen, and where it was, of the first `MAX_HERE`; "" of none."""
    listed = ", ".join(f"{place_words(place)} the {name}" for place, name in things[:MAX_HERE])
    return f"Gone: {listed}. " if listed else ""


def _seen(
    shot: Shot, names: Mapping[int, str], scale_xy: tuple[float, float]
) -> list[tuple[tuple[int, int], int]]:
    """Places on a frame, from left to right, and what is there."""
    places = {i: _place(shot, i, scale_xy) for i in names}
    return sorted((place, i) for i, place in places.items() if place is not None)


def events_of(
    shots: Sequence[Shot],
    places: Sequence[int],
    events: Sequence[PastEvent],
    names: Mapping[int, str],
    scale_xy: tuple[float, float],
) -> str:
    """Sentences such as `At first: [81, 42] the red cross. Before: [20, 11] the cup. `: what something befell, in order, where it was.

    What befell just as the first frame was taken comes first: no question about the past counts it, but an order that repeats
    itself may begin with it (a clip begins where its evidence does).

    Args:
        shots: as shown, oldest first.
        places: of each, its number in the recording.
        events: of the recording.
        names: of objects, by instance id.
        scale_xy: from the shots' pixels to those in which places are said.
    """
    first = [
        (_place(shots[0], event.target_id, scale_xy), names[event.target_id])
        for event in events
        if event.position == places[0] and event.target_id in names
    ]
    found = _seen_events(shots, places, events, names, scale_xy)
    return at_first_words(first) + before_words(
        [(where, names[event.target_id]) for event, _, where in found]
    )


def _seen_events(
    shots: Sequence[Shot],
    places: Sequence[int],
    events: Sequence[PastEvent],
    names: Mapping[int, str],
    scale_xy: tuple[float, float],
) -> list[tuple[PastEvent, int, tuple[int, int]]]:
    """Those between the first and the last shot, each with its first shot after it, and where that or the one before has it."""
    found = []
    for event in events:
        if not places[0] < event.position <= places[-1] or event.target_id not in names:
            continue
        first = bisect.bisect_left(places, event.position)
        both = (_place(shots[n], event.target_id, scale_xy) for n in (first, first - 1))
        where = next((place for place in both if place), None)
        if where is not None:
            found.append((event, first, where))
    return found


def before_words(things: Sequence[tuple[tuple[int, int] | None, str]]) -> str:
    """The sentence of what was befallen, of the last `MAX_EVENTS`; "" of nothing."""
    listed = ", ".join(f"{place_words(place)} the {name}" for place, name in things[-MAX_EVENTS:])
    return f"Before: {listed}. " if listed else ""


def at_first_words(things: Sequence[tuple[tuple[int, int] | None, str]]) -> str:
    """The sentence of what was befallen as the first frame was taken; "" of nothing."""
    listed = ", ".join(f"{place_words(place)} the {name}" for place, name in things)
    return f"At first: {listed}. " if listed else ""


def ahead_of(
    told: Sequence[Shot],
    later: Sequence[Shot],
    names: Mapping[int, str],
    size_wh: tuple[int, int],
    scale_xy: tuple[float, float],
) -> str:
    """Sentences such as `Ahead, the ball: [63, 36], [57, 34]. Near it: [40, 31] the cup. `: what moves on, as far apart in time as the last two of `told`.

    And what the last frame shows nearest to where it then is: whoever must say what is hit reads it there (docs/log.md).

    Args:
        told: `told_shots`; two at least, or nothing is said.
        later: frames after them up to the event, oldest first; none: "".
        names: of objects, by instance id.
        size_wh: of the shots, pixels.
        scale_xy: from there to the pixels in which places are said.
    """
    if len(told) < 2 or not later:
        return ""
    last, step_ns = told[-1].stamp_ns, told[-1].stamp_ns - told[-2].stamp_ns
    ahead = _every(later, last, step_ns)[:MAX_AHEAD]
    movers = [i for i in _movers([told[-1], *later], names, size_wh) if _goes(told, i)]
    if not ahead:
        return ""
    here = _seen(told[-1], names, scale_xy)[:MAX_HERE]
    return "".join(
        f"Ahead, the {names[i]}: {', '.join(place_words(_place(shot, i, scale_xy)) for shot in ahead)}. "
        + near_words(
            _place(ahead[-1], i, scale_xy), [(place, names[j]) for place, j in here if j != i]
        )
        for i in movers[:MAX_MOVERS_AHEAD]
    )


def _every(later: Sequence[Shot], start_ns: int, step_ns: int) -> list[Shot]:
    """The frames that are a step, two steps, ... after the start, to half a frame."""
    slack_ns = (later[0].stamp_ns - start_ns) / 2
    found: list[Shot] = []
    for shot in later:
        if shot.stamp_ns >= start_ns + (len(found) + 1) * step_ns - slack_ns:
            found.append(shot)
    return found


def _goes(told: Sequence[Shot], instance_id: int) -> bool:
    """Whether a thing moved between the last two frames on which it is told."""
    before, last = told[-2:]
    if instance_id not in before.objects or instance_id not in last.objects:
        return False
    return _centre(before, instance_id) != _centre(last, instance_id)


def step_words(before: tuple[int, int] | None, last: tuple[int, int] | None) -> str:
    """A sentence such as `It moves left 6 up 2. `: how far from one place to the next; "" where one is not seen."""
    if before is None or last is None:
        return ""
    dx, dy = last[0] - before[0], last[1] - before[1]
    words = [f" {'right' if dx > 0 else 'left'} {abs(dx)}"] if dx else []
    words += [f" {'down' if dy > 0 else 'up'} {abs(dy)}"] if dy else []
    return f"It moves{''.join(words)}. " if words else "It lies still. "


def _movers(
    shots: Sequence[Shot], names: Mapping[int, str], size_wh: tuple[int, int]
) -> list[int]:
    """What moved, came or went, the farthest first."""
    least = _LEAST_WAY * math.hypot(*size_wh)
    ways = {i: _way(shots, i) for i in names}
    ends = shots[0].objects, shots[-1].objects
    movers = [i for i in names if ways[i] > least or (i in ends[0]) != (i in ends[1])]
    return sorted(movers, key=lambda i: (-ways[i], i))


def _centre(shot: Shot, instance_id: int) -> tuple[float, float]:
    x0, y0, x1, y1 = shot.objects[instance_id].box_xyxy
    return (x0 + x1) / 2, (y0 + y1) / 2


def _way(shots: Sequence[Shot], instance_id: int) -> float:
    """The farthest that a thing was from where it was first seen."""
    places = [_centre(shot, instance_id) for shot in shots if instance_id in shot.objects]
    return max((math.dist(places[0], place) for place in places), default=0.0)


def _place(shot: Shot, instance_id: int, scale_xy: tuple[float, float]) -> tuple[int, int] | None:
    if instance_id not in shot.objects:
        return None
    x, y = _centre(shot, instance_id)
    return round(x * scale_xy[0]), round(y * scale_xy[1])


def way_words(
    places: Sequence[tuple[int, int] | None],
    labels: Sequence[int],
    touched: Mapping[int, str] = MappingProxyType({}),
) -> str:
    """`30[81, 42], 36[75, 40]; 42[69, 48]`: places one after the other, empty brackets where a thing cannot be seen.

    Before each stands its frame's label: without it whoever goes on has to count where places repeat, and is soon a frame
    too far (docs/log.md). A semicolon follows the place from which it can be told that the thing turned, set out or stopped, and words such as
    `: [80, 50] the cup` a place from which it can be told what it touched: whoever must say what befell reads it off there,
    and need not search all of a way (docs/log.md). A turn is never told of the last place.

    Args:
        places: oldest first.
        labels: of their frames.
        touched: such words, by the place's number.
    """
    words = [
        f"{label}{place_words(place)}{touched.get(n, '')}"
        for n, (label, place) in enumerate(zip(labels, places, strict=True))
    ]
    for n in range(len(places) - 1):
        words[n] += "; " if n in touched or _has_turned(places[: n + 1]) else ", "
    return "".join(words)


def add_touch(
    touched: dict[int, str], after: int, count: int, place: tuple[int, int], name: str
) -> None:
    """Add words for `way_words`: what was touched is said a place later, where the way back shows, or with the last one.

    Args:
        touched: words by the place's number; changed in place.
        after: number of the first place after the touch.
        count: of the track's places.
        place: where it was touched.
        name: what was touched.
    """
    shown = min(after + 1, count - 1)
    touched[shown] = f"{touched.get(shown, '')}: {place_words(place)} the {name}"


def here_and_tracks(seen: str) -> tuple[str, str]:
    """The beginning of a thought, parted where its first track begins, if there is one."""
    found = _TRACK.search(seen)
    at = len(seen) if found is None else found.start()
    return seen[:at], seen[at:]


def given_of(tracks: str) -> list[tuple[int, int]]:
    """Where the letters of tracks are that only frames can tell: whose they are, and all places but of what was touched.

    The bracket after a place is none of them: what comes after it may be in one token with it.
    """
    return [found.span() for found in _GIVEN.finditer(tracks)]


def _has_turned(places: Sequence[tuple[int, int] | None]) -> bool:
    """Whether the last of three steps' ends lies off where going on would have led, by half a step and more."""
    before, at, now = (*places[-3:], None, None, None)[:3]
    if before is None or at is None or now is None:
        return False
    was = at[0] - before[0], at[1] - before[1]
    steps = was, (now[0] - at[0], now[1] - at[1])
    longest = max(math.hypot(*step) for step in steps)
    return math.dist(*steps) > max(_LEAST_TURN_PX, _TURN_SHARE * longest)


def place_words(place: tuple[int, int] | None) -> str:
    """`[81, 42]`, empty brackets of what is not seen."""
    return "[]" if place is None else f"[{place[0]}, {place[1]}]"
