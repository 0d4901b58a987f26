# SPDX-License-Identifier: Apache-2.0
"""What clients send: read whole, or refused with the name of what is wrong."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreseg.dialogue import QueryId
from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.prompts import Point, PointLabel
from foreseg_view.reading import (
    PROMPT_FIELDS,
    QUERY_FIELDS,
    fields_from_json,
    prompt_from_fields,
    query_from_fields,
)

ID = QueryId("view-1")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)


def test_a_query_is_read_whole() -> None:
    fields = fields_from_json(
        b'{"text": "what falls?", "period_s": 2, "horizon_s": 3.5, "want_rationale": false}',
        QUERY_FIELDS,
    )
    query = query_from_fields(fields, ID)
    assert (query.text, query.period_s, query.horizon_s) == ("what falls?", 2.0, 3.5)
    assert not query.want_rationale
    assert query_from_fields({"text": "x"}, ID).want_rationale


def test_a_prompt_is_read_whole() -> None:
    fields = {
        "object_id": "object-1",
        "stamp_ns": "1764410000000000123",
        "box": [1, 2.5, 30, 40],
        "points": [[5, 6], [7, 8.5, 0], [9, 10, 1]],
    }
    object_id, prompt, stamp_ns = prompt_from_fields(fields)
    assert object_id == "object-1"
    assert stamp_ns == 1764410000000000123, "more than a float of JavaScript holds"
    assert prompt.box == BoxXyxy(1, 2.5, 30, 40)
    assert prompt.points == (
        Point(5, 6),
        Point(7, 8.5, PointLabel.BACKGROUND),
        Point(9, 10),
    )
    assert prompt_from_fields({"points": [[0, 0]]})[2] == 0


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "text wants text, got nothing"),
        ({"text": ["x"]}, "text wants text"),
        ({"text": " "}, "a query wants some text"),
        ({"text": "x" * 2001}, "2000 characters, got 2001"),
        ({"text": "x", "period_s": "2"}, "period_s wants a number, got '2'"),
        ({"text": "x", "period_s": True}, "period_s wants a number"),
        ({"text": "x", "period_s": -1}, "period_s wants a finite number >= 0"),
        ({"text": "x", "horizon_s": float("nan")}, "horizon_s wants a finite number"),
        ({"text": "x", "horizon_s": 10**400}, "horizon_s wants a finite number"),
        ({"text": "x", "want_rationale": 1}, "want_rationale wants true or false"),
        ({"text": "\ud800"}, "UTF-8"),
    ],
)
def test_a_faulty_query_is_refused_by_name(fields: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        query_from_fields(fields, ID)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "got none of them"),
        ({"object_id": 4, "points": [[0, 0]]}, "object_id wants text"),
        ({"object_id": "x" * 129, "points": [[0, 0]]}, "object_id wants at most"),
        ({"stamp_ns": 12, "points": [[0, 0]]}, "stamp_ns wants text"),
        ({"stamp_ns": "-1", "points": [[0, 0]]}, "stamp_ns wants a whole number"),
        ({"stamp_ns": "9" * 20, "points": [[0, 0]]}, "stamp_ns wants a whole number"),
        ({"stamp_ns": "²", "points": [[0, 0]]}, "stamp_ns wants a whole number"),
        ({"box": [1, 2, 3]}, "box wants"),
        ({"box": {"x": 1}}, "box wants"),
        ({"box": [1, 2, 3, None]}, "box wants a number"),
        ({"points": [[0, 0]] * 65}, "at most 64"),
        ({"points": "all"}, "points wants a list"),
        ({"points": [[1]]}, "a point wants"),
        ({"points": [[1, 2, 3]]}, "label wants"),
        ({"points": [[1, 2, True]]}, "label wants"),
        ({"points": [[1, 2, []]]}, "label wants"),
    ],
)
def test_a_faulty_prompt_is_refused_by_name(fields: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        prompt_from_fields(fields)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "none that can be read"),
        (b"\xff", "none that can be read"),
        (b"[" * 100_000, "none that can be read"),
        (b"[1]", "got a list"),
        (b'{"txet": "x"}', "unknown member 'txet'; known are horizon_s"),
    ],
)
def test_no_object_of_json_is_refused(data: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told):
        fields_from_json(data, QUERY_FIELDS)


@given(st.dictionaries(st.sampled_from(sorted(PROMPT_FIELDS | QUERY_FIELDS)), JSON))
def test_whatever_comes_is_read_or_refused(fields: dict[str, object]) -> None:
    data = json.dumps(fields)
    with suppress(InputError):
        query_from_fields(fields_from_json(data, QUERY_FIELDS), ID)
    with suppress(InputError):
        prompt_from_fields(fields_from_json(data, PROMPT_FIELDS))
