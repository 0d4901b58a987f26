# SPDX-License-Identifier: Apache-2.0
"""What would happen if everything went on at its velocity, and words for where things are.

Does not know: physics; a body passes through another here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg_simulation.foresight import FutureTruth, Skill, Topic

from .stage import Camera, F64Array
from .world import Shot

HIT_QUESTION = "Which object will the ball hit next?"
LEAVE_QUESTION = "What will leave the view next?"
REACH_QUESTION = "Which tool will the gripper take next?"
PUSH_QUESTION = "Which object will be pushed next?"
FALL_QUESTION = "Which block will fall next?"

_HORIZON_S = 10.0
_GRID_S = np.arange(0.0, _HORIZON_S, 0.02)[:, None]
_SLOW = 0.004  # metres per second: at rest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Footprint:
    """A body from above: a segment with a radius, at a velocity. Metres, world axes (3,)."""

    instance_id: int
    start: F64Array
    end: F64Array
    radius: float
    velocity: F64Array


def disc(shot: Shot, row: int, instance_id: int, radius: float) -> Footprint:
    """Take a round body from a shot."""
    place = shot.places[row]
    return Footprint(
        instance_id=instance_id,
        start=place,
        end=place,
        radius=radius,
        velocity=shot.velocities[row],
    )


def first_touched(mover: Footprint, others: Iterable[Footprint]) -> int | None:
    """Id of what a round mover would touch first, or None; a touch of this moment counts not."""
    first, at = None, np.inf
    for other in others:
        speed = (mover.velocity - other.velocity)[:2]
        if np.linalg.norm(speed) < _SLOW:
            continue
        places = mover.start[:2] + _GRID_S * speed
        along = (other.end - other.start)[:2]
        share = np.clip(
            (places - other.start[:2]) @ along / max(float(along @ along), 1e-12), 0, 1
        )
        gaps = np.linalg.norm(other.start[:2] + share[:, None] * along - places, axis=1)
        is_near = gaps < mover.radius + other.radius
        if gaps[1] > gaps[0]:  # it goes away from what it may touch now
            is_near[: np.argmin(is_near) if is_near[0] else 0] = False
        if is_near.any() and np.argmax(is_near) < at:
            first, at = other.instance_id, int(np.argmax(is_near))
    return first


def first_leaver(camera: Camera, bodies: Iterable[Footprint]) -> int | None:
    """Id of what would leave the view first, or None; what is outside already counts not."""
    first, at = None, np.inf
    for each in bodies:
        if np.linalg.norm(each.velocity) < _SLOW:
            continue
        gone = np.ones(len(_GRID_S), dtype=bool)
        for end in (each.start, each.end):
            points = end + _GRID_S * each.velocity
            pixels = camera.project(points)
            beside = camera.project(points + each.radius * camera.axes[0])
            margin = np.linalg.norm(beside - pixels, axis=1, keepdims=True)
            size = np.array(camera.size_wh)
            gone &= ((pixels < -margin) | (pixels > size + margin)).any(axis=1)
        if gone.any() and not gone[0] and np.argmax(gone) < at:
            first, at = each.instance_id, int(np.argmax(gone))
    return first


def nothing_truth(
    question: str,
    topic: Topic,
    shot: Shot,
    *,
    event_ns: int,
    extrapolated_id: int | None,
    why: str,
) -> FutureTruth:
    """Say that nothing of the kind happens before the event; `why` is a sentence."""
    guess = "nothing would" if extrapolated_id is None else "something would"
    return FutureTruth(
        question=question,
        target_id=None,
        event_ns=event_ns,
        topic=topic,
        skill=Skill.ABSENCE,
        extrapolated_id=extrapolated_id,
        steps=(
            f"If all went on as it moves now, {guess}.",
            why,
            "So the answer is: nothing.",
        ),
        evidence_ns=(shot.stamp_ns,),
    )


def evidence(shots: Sequence[Shot], upto: int, *earlier: int) -> tuple[int, ...]:
    """Stamps of the shots at these places that are not after `upto`, and of that one."""
    places = sorted({max(0, i) for i in earlier if i <= upto} | {upto})
    return tuple(shots[i].stamp_ns for i in places)


def round_to(target: int, order: Sequence[int]) -> list[int]:
    """The round that ends before a target, which begins it: what has just been seen, the newest last."""
    at = order.index(target)
    return [*order[at:], *order[:at]]


def listed(names: Sequence[str]) -> str:
    """Write "the a, the b and the c"."""
    *most, last = (f"the {name}" for name in names)
    return f"{', '.join(most)} and {last}" if most else last


def way_in_words(camera: Camera, place: F64Array, velocity: F64Array) -> str:
    """Say where in the frame something moves, or that it rests."""
    if np.linalg.norm(velocity) < _SLOW:
        return "lies still"
    before, after = camera.project(np.stack([place, place + 0.05 * _unit(velocity)]))
    across, down = _unit(after - before)
    words = [("right", "left")[int(across < 0)]] if abs(across) > 0.38 else []
    words = [("down", "up")[int(down < 0)], *words] if abs(down) > 0.38 else words
    return (
        "moves " + " and to the ".join(words)
        if len(words) > 1
        else "moves " + (f"to the {words[0]}" if words[0] in ("left", "right") else words[0])
    )


def _unit(vector: F64Array) -> F64Array:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-12))
