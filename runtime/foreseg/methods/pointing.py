# SPDX-License-Identifier: Apache-2.0
"""Answers that point: for each object a box, a point on it, and a point beside it.

Parsing takes an answer as it is said, which is what rewards count; grounding makes it prompts on a
frame, where what is broken, outside or repeated is left out. Does not know: which method asks, in
which words.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from foreseg.dialogue import NoTarget, TargetsFound
from foreseg.frames import Frame
from foreseg.geometry import BoxXyxy
from foreseg.methods.absence import BOX_NUMBERS, is_no_place
from foreseg.methods.answers import (
    has_member,
    member,
    name_of,
    nothing_from,
    says_none_in_words,
    text_from,
)
from foreseg.methods.grounding import (
    Repairs,
    UnusableAnswer,
    View,
    box_from,
    distinct_prompts,
    point_from,
)
from foreseg.methods.near_json import Json, values_from_text
from foreseg.prompts import Point, PointLabel, SpatialPrompt

ANSWER = '[{"bbox_2d": [x0, y0, x1, y1], "point_2d": [x, y], "negative_point_2d": [x, y]}, ...]'
_LIST_NAMES = ("objects", "targets", "answer", "bbox_2d_list")
_BOX_NAMES = ("bbox_2d", "bbox", "box")
_POINT_NAMES = ("point_2d", "point", "positive_point_2d", "positive_point", "central_point")
_NEGATIVE_NAMES = ("negative_point_2d", "negative_point", "negative_points")


class Part(Enum):
    """What of an answer becomes prompts; all of it is asked for in every arm."""

    BOX = "box"
    POINT = "point"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedObject:
    """An object as an answer has it, in the model's units; whatever was said stands here, fit or not."""

    box: Json = None  # None: none was said
    points: tuple[Json, ...] = ()  # on the object
    negatives: tuple[Json, ...] = ()  # beside it
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointed:
    """An answer as it is said, before anything is repaired, left out or clipped."""

    objects: tuple[PointedObject, ...] = ()  # repeated ones, too
    says_none: bool = False  # nothing fits


def parse_pointed(text: str) -> Pointed:
    """Take an answer's text as it is said; without anything that can be read it is empty."""
    for reading in values_from_text(text):
        if nothing_from(reading.value, Repairs()) is not None:
            return Pointed(says_none=True)
        try:
            items = _items(reading.value, Repairs())
        except UnusableAnswer:
            continue
        objects = tuple(_object(item, Repairs()) for item in items)
        return Pointed(objects=objects, says_none=all(map(_is_nothing, items)))
    return Pointed(says_none=says_none_in_words(text))


def targets_from(
    value: Json, repairs: Repairs, *, frame: Frame, view: View, parts: frozenset[Part]
) -> TargetsFound | NoTarget:
    """Ground one value of an answer on a frame as it was shown.

    Raises:
        UnusableAnswer: it gives no prompt.
    """
    items = _items(value, repairs)
    if all(map(_is_nothing, items)):
        how = "entries are" if items else "list is"
        return NoTarget(reason=f"the model found no object: its {how} empty")
    found = (_prompt(_object(item, repairs), frame, view, parts, repairs) for item in items)
    prompts = [prompt for prompt in found if prompt is not None]
    distinct = distinct_prompts(prompts, frame, repairs)
    return TargetsFound(
        keyframe_index=frame.index,
        prompts=distinct,
        text=text_from(value, items, len(distinct)),
    )


def worded(prompts: Sequence[SpatialPrompt], scale_xy: tuple[float, float]) -> str:
    """The answer that says these prompts, as it is read back; without any: nothing fits.

    Args:
        prompts: each with a box; of its points the first of either kind is said.
        scale_xy: from source pixels to the model's units.
    """
    if not prompts:
        return '{"no_target": "nothing in the frames fits"}'
    return json.dumps([_said(prompt, scale_xy) for prompt in prompts])


def _said(prompt: SpatialPrompt, scale_xy: tuple[float, float]) -> dict[str, Json]:
    said: dict[str, Json] = {}
    if prompt.box is not None:
        x0, y0, x1, y1 = (round(number) for number in prompt.box.scaled(scale_xy))
        said[_BOX_NAMES[0]] = [x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)]
    for names, label in (
        (_POINT_NAMES, PointLabel.FOREGROUND),
        (_NEGATIVE_NAMES, PointLabel.BACKGROUND),
    ):
        for point in [point for point in prompt.points if point.label is label][:1]:
            said[names[0]] = [round(point.x * scale_xy[0]), round(point.y * scale_xy[1])]
    return said


def _items(value: Json, repairs: Repairs) -> list[Json]:
    if isinstance(value, dict):
        listed = member(value, _LIST_NAMES)
        if has_member(value, _LIST_NAMES) and (isinstance(listed, list) or is_no_place(listed)):
            repairs.add("objects in an object")
            return listed if isinstance(listed, list) else []
        repairs.add("one object instead of a list")
        return [value]
    if not isinstance(value, list):
        msg = f"the answer wants a list of objects, got {str(value)[:60]!r}"
        raise UnusableAnswer(msg)
    return value


def _object(item: Json, repairs: Repairs) -> PointedObject:
    """An item as it is said; one without any place where it is no object at all."""
    if isinstance(item, list) and len(item) == BOX_NUMBERS:
        repairs.add("a box without its object")
        return PointedObject(box=item)
    if not isinstance(item, dict):
        return PointedObject()
    return PointedObject(
        box=member(item, _BOX_NAMES),
        points=_places(member(item, _POINT_NAMES)),
        negatives=_places(member(item, _NEGATIVE_NAMES)),
        name=name_of(item),
    )


def _prompt(
    said: PointedObject, frame: Frame, view: View, parts: frozenset[Part], repairs: Repairs
) -> SpatialPrompt | None:
    if said == PointedObject():
        repairs.add("left out what is no object with a box or a point")
        return None
    box = None if said.box is None else box_from(said.box, frame, view, repairs)
    if Part.BOX not in parts:
        box = None
    points: list[Point] = []
    for part, places, label in (
        (Part.POINT, said.points, PointLabel.FOREGROUND),
        (Part.NEGATIVE, said.negatives, PointLabel.BACKGROUND),
    ):
        for place in places if part in parts else ():
            point = point_from(place, label, frame, view, repairs)
            if point is not None and _fits(point, box, repairs):
                points.append(point)
    if box is None and not any(point.label is PointLabel.FOREGROUND for point in points):
        repairs.add("left out an object without a box or a point on it")
        return None
    return SpatialPrompt(box=box, points=tuple(points))


def _is_nothing(item: Json) -> bool:
    """True for an entry that marks nothing: its box has no area, and its point is no place or 0."""
    if not isinstance(item, dict):
        return is_no_place(item)
    box, point = member(item, _BOX_NAMES), member(item, _POINT_NAMES)
    is_said = has_member(item, _BOX_NAMES) or has_member(item, _POINT_NAMES)
    return is_said and is_no_place(box) and (is_no_place(point) or point == [0, 0])


def _places(value: Json) -> tuple[Json, ...]:
    """One point, or a list of points."""
    if value is None:
        return ()
    if isinstance(value, list) and value and all(isinstance(item, list) for item in value):
        return tuple(value)
    return (value,)


def _fits(point: Point, box: BoxXyxy | None, repairs: Repairs) -> bool:
    """False for a point on the object that lies outside the object's own box."""
    if box is None or point.label is PointLabel.BACKGROUND:
        return True
    if box.x0 <= point.x <= box.x1 and box.y0 <= point.y <= box.y1:
        return True
    repairs.add("left out a point outside its own box")
    return False
