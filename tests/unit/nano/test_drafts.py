# SPDX-License-Identifier: Apache-2.0
"""Guesses of what comes next: what followed before, numbers for one another, and bounds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from foreseg.nano.drafts import MOST, Drafts

IS_NUMBER = np.arange(30) >= 20  # tokens 20 to 29 are numbers


def taught(*texts: list[int], max_entries: int = 1000) -> Drafts:
    drafts = Drafts(IS_NUMBER, max_entries=max_entries)
    for text in texts:
        for end, token in enumerate(text):
            drafts.learn(text[:end], token)
    return drafts


def test_what_was_said_once_is_guessed_again() -> None:
    drafts = taught([1, 2, 3, 4, 5, 6, 7, 8])
    assert drafts.guess([1, 2, 3]) == [4, 5, 6, 7]
    assert drafts.guess([1, 2, 3], 2) == [4, 5]
    assert drafts.guess([9, 2, 3]) == [4, 5, 6, 7]  # two tokens are enough
    assert drafts.guess([3]) == drafts.guess([]) == drafts.guess([5, 9]) == []
    assert drafts.guess([1, 2, 3], 0) == []


def test_the_newest_is_what_counts() -> None:
    drafts = taught([1, 2, 3, 4], [1, 2, 3, 5])
    assert drafts.guess([1, 2, 3], 1) == [5]


def test_any_number_leads_on_but_which_one_comes_is_told_by_the_same_ones_alone() -> None:
    drafts = taught([1, 20, 2, 21, 3])
    assert drafts.guess([1, 25, 2]) == []  # a number would come: which one is not known
    assert drafts.guess([5, 27, 2, 28]) == [3]
    assert drafts.guess([1, 20, 2]) == [21, 3]  # the very same beginning


@given(st.lists(st.integers(0, 29), max_size=200), st.integers(1, 40))
def test_it_never_holds_or_guesses_more_than_it_may(text: list[int], max_entries: int) -> None:
    drafts = taught(text, max_entries=max_entries)
    assert len(drafts) <= max_entries
    assert len(drafts.guess(text)) <= MOST
