# SPDX-License-Identifier: Apache-2.0
"""Text ends at the first stop string, however it comes in pieces."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from foreseg.language.stop_strings import StopStrings

END = "<|end|>"


def told(pieces: list[str], strings: tuple[str, ...]) -> tuple[str, bool]:
    stop = StopStrings(strings)
    text = "".join(stop.feed(piece) for piece in pieces)
    return text + stop.finish(), stop.is_over


@given(
    st.text(alphabet="ab<|end>", max_size=30),
    st.sampled_from([(END,), (END, "ab"), ("aab",), ()]),
    st.lists(st.integers(0, 30), max_size=6),
)
def test_any_cutting_ends_at_the_first_stop_string(
    text: str, strings: tuple[str, ...], cuts: list[int]
) -> None:
    at = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(at)]
    found = [place for string in strings if (place := text.find(string)) >= 0]
    said, is_over = told(pieces, strings)
    assert is_over == bool(found)
    if not found:
        assert said == text
    elif len(strings) == 1:
        assert said == text[: found[0]]
    else:  # with several, the one that is complete first
        assert text.startswith(said)
        assert text[len(said) :].startswith(strings)


def test_nothing_waits_where_nothing_can_begin_one() -> None:
    stop = StopStrings((END,))
    assert stop.feed("Sure, <") == "Sure, "
    assert stop.feed("b>") == "<b>"
    assert stop.feed("<|en") == ""
    assert stop.finish() == "<|en"


def test_nothing_follows_a_stop_string() -> None:
    stop = StopStrings((END,))
    assert stop.feed(f"so{END}and more") == "so"
    assert stop.feed("more") == ""
    assert stop.finish() == ""
