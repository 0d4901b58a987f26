# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from dataclasses import replace

import pytest

from foreseg.dialogue import (
    MAX_ID_CHARS,
    MAX_QUERY_CHARS,
    MAX_QUERY_S,
    Answer,
    AnswerStatus,
    Query,
    QueryId,
)
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA

ID = QueryId("q1")


def test_a_query_of_a_hundred_thousand_characters_is_refused() -> None:
    with pytest.raises(InputError, match=r"at most 2000 characters, got 100000"):
        Query(id=ID, text="a" * 100_000)
    assert Query(id=ID, text="a" * MAX_QUERY_CHARS).text


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_query_without_words_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="wants some text"):
        Query(id=ID, text=text)


@pytest.mark.parametrize("name", ["text", "id", "method", "camera"])
def test_text_that_utf8_cannot_carry_is_refused(name: str) -> None:
    with pytest.raises(
        InputError, match=rf"{name} wants text that UTF-8 can carry, got 'a.udcff'"
    ):
        replace(Query(id=ID, text="what next?"), **{name: "a\udcff"})


@pytest.mark.parametrize("name", ["horizon_s", "period_s"])
def test_seconds_are_bounded(name: str) -> None:
    whole = replace(Query(id=ID, text="what next?"), **{name: MAX_QUERY_S})
    assert getattr(whole, name) == MAX_QUERY_S
    with pytest.raises(InputError, match=f"{name} wants at most 604800 s, got 4e"):
        replace(whole, **{name: 4e8})


@pytest.mark.parametrize("length", [0, MAX_ID_CHARS + 1])
def test_an_id_has_a_bounded_length(length: int) -> None:
    with pytest.raises(InputError, match=f"got {length}"):
        Query(id=QueryId("x" * length), text="what next?")


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["period_s", "horizon_s"])
def test_seconds_are_finite_and_not_negative(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        Query(id=ID, text="what next?", **{name: value})


def test_reasoning_tokens_are_not_negative() -> None:
    with pytest.raises(InputError, match="max_reasoning_tokens"):
        Query(id=ID, text="what next?", max_reasoning_tokens=-1)


def test_an_answer_starts_with_nothing_known() -> None:
    answer = Answer(
        query_id=ID, query_text="?", camera=DEFAULT_CAMERA, status=AnswerStatus.NO_TARGET
    )
    assert math.isnan(answer.confidence)
    assert answer.keyframe_index is None
    assert answer.prompts == ()
