# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreseg.texts import MAX_REASON_CHARS, first_names, is_utf8, reason_from_error, utf8_text


@given(st.text(st.characters(codec=None)))
def test_any_text_becomes_one_that_utf8_carries_and_good_text_stays(text: str) -> None:
    carried = utf8_text(text)
    assert carried.encode().decode() == carried
    assert len(carried) == len(text)
    assert is_utf8(text) is (carried == text)


def test_half_a_character_is_a_question_mark() -> None:
    assert utf8_text("a\udcff\ud83db") == "a??b"
    assert not is_utf8("a\udcff")
    assert is_utf8("\U0001f600 größer 物体")


class Silent(Exception):  # noqa: N818 (named for what it does)
    def __str__(self) -> str:
        msg = "no words"
        raise RuntimeError(msg)


def test_every_exception_has_a_reason_that_can_be_sent() -> None:
    assert reason_from_error(KeyError("x")) == "KeyError: 'x'"
    assert reason_from_error(EOFError()) == "EOFError"
    assert reason_from_error(OSError("a\udcff")) == "OSError: a?"
    assert reason_from_error(Silent()) == "Silent: unprintable (RuntimeError)"
    assert len(reason_from_error(ValueError("x" * 10_000))) == MAX_REASON_CHARS


def test_the_first_names_are_told_and_how_many_more_there_are() -> None:
    assert first_names([]) == ""
    assert first_names(["a", "b"], most=2) == "a, b"
    assert first_names(["a", "b", "c", "d"], most=2) == "a, b and 2 more"
