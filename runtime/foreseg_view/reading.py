# SPDX-License-Identifier: Apache-2.0
"""What a client sends, read with a name for every fault: queries, prompts, numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Final

from foreseg.dialogue import MAX_ID_CHARS, Query, QueryId
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, CameraId
from foreseg.geometry import BoxXyxy
from foreseg.prompts import ObjectId, Point, PointLabel, SpatialPrompt
from foreseg.texts import is_utf8

MAX_POINTS: Final = 64
NUM_CORNERS: Final = 4
Fields = Mapping[str, object]


def fields_from_json(data: bytes | str, known: frozenset[str]) -> Fields:
    """An object of JSON with known members only.

    Raises:
        InputError: no JSON, no object, or a member that is not known.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        msg = "a request wants a JSON object, got none that can be read"
        raise InputError(msg) from None
    if not isinstance(found, dict):
        msg = f"a request wants a JSON object, got a {type(found).__name__}"
        raise InputError(msg)
    strange = sorted(set(found) - known)
    if strange:
        msg = f"unknown member {strange[0][:80]!r}; known are {', '.join(sorted(known))}"
        raise InputError(msg)
    return found


QUERY_FIELDS = frozenset({"text", "period_s", "horizon_s", "want_rationale"})


def query_from_fields(
    fields: Fields, query_id: QueryId, camera: CameraId = DEFAULT_CAMERA
) -> Query:
    """A query under an id.

    Raises:
        InputError: a member of another type, or out of range.
    """
    return Query(
        id=query_id,
        text=text_of(fields, "text"),
        camera=camera,
        period_s=number_of(fields, "period_s", 0.0),
        horizon_s=number_of(fields, "horizon_s", 0.0),
        want_rationale=truth_of(fields, "want_rationale", default=True),
    )


PROMPT_FIELDS = frozenset({"object_id", "stamp_ns", "box", "points"})


def prompt_from_fields(fields: Fields) -> tuple[ObjectId, SpatialPrompt, int]:
    """The object ("" = a new one), what points at it, and the frame's stamp (0 = the newest).

    Raises:
        InputError: a member of another type, too many points, or nothing that points.
    """
    object_id = text_of(fields, "object_id", "")
    if len(object_id) > MAX_ID_CHARS or not is_utf8(object_id):
        msg = f"an object_id wants at most {MAX_ID_CHARS} characters of text"
        raise InputError(msg)
    stamp = text_of(fields, "stamp_ns", "0")
    if not (stamp.isascii() and stamp.isdecimal() and len(stamp) < 20):  # noqa: PLR2004 (64 bits)
        msg = f"stamp_ns wants a whole number as text, got {stamp[:80]!r}"
        raise InputError(msg)
    points = fields.get("points", [])
    if not isinstance(points, list) or len(points) > MAX_POINTS:
        msg = f"points wants a list of at most {MAX_POINTS}"
        raise InputError(msg)
    prompt = SpatialPrompt(
        box=_box(fields.get("box")), points=tuple(_point(point) for point in points)
    )
    return ObjectId(object_id), prompt, int(stamp)


def text_of(fields: Fields, name: str, default: str | None = None) -> str:
    """A member that is text.

    Raises:
        InputError: it is missing without a default, or something else.
    """
    value = fields.get(name, default)
    if not isinstance(value, str):
        msg = f"{name} wants text, got {_shown(value)}"
        raise InputError(msg)
    return value


def number_of(fields: Fields, name: str, default: float) -> float:
    """A member that is a finite number.

    Raises:
        InputError: it is something else.
    """
    return _number(fields.get(name, default), name)


def truth_of(fields: Fields, name: str, *, default: bool) -> bool:
    """A member that is true or false.

    Raises:
        InputError: it is something else.
    """
    value = fields.get(name, default)
    if not isinstance(value, bool):
        msg = f"{name} wants true or false, got {_shown(value)}"
        raise InputError(msg)
    return value


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        msg = f"{name} wants a number, got {_shown(value)}"
        raise InputError(msg)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        msg = f"{name} wants a finite number"
        raise InputError(msg)
    return number


def _box(value: object) -> BoxXyxy | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != NUM_CORNERS:
        msg = f"box wants [x0, y0, x1, y1], got {_shown(value)}"
        raise InputError(msg)
    return BoxXyxy(*(_number(corner, "box") for corner in value))


def _point(value: object) -> Point:
    """`[x, y]` or `[x, y, label]` with the label 1 on the object, 0 not on it."""
    if not isinstance(value, list) or len(value) not in (2, 3):
        msg = f"a point wants [x, y, label], got {_shown(value)}"
        raise InputError(msg)
    x, y = _number(value[0], "a point"), _number(value[1], "a point")
    label = value[2] if len(value) == 3 else 1  # noqa: PLR2004 (with its label)
    if label not in (0, 1) or isinstance(label, bool):
        msg = f"a point's label wants 1 (on the object) or 0 (not on it), got {_shown(label)}"
        raise InputError(msg)
    return Point(x, y, PointLabel(int(label)))


def _shown(value: object) -> str:
    return "nothing" if value is None else ascii(value)[:80]
