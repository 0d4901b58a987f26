# SPDX-License-Identifier: Apache-2.0
"""Numbers of a grammar over text: a range is read as fast as it is written down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from foreseg.language.text_grammar import OneOf


@given(
    low=st.integers(0, 300),
    count=st.integers(0, 300),
    text=st.text(alphabet="0123456789,", max_size=4),
)
def test_a_range_reads_as_the_set_of_its_numbers_does(low: int, count: int, text: str) -> None:
    numbers = range(low, low + count)
    whole = {str(number) for number in numbers}
    digits = text.split(",", maxsplit=1)[0]
    reach = OneOf(numbers).reach(text, 0)
    assert reach == OneOf(frozenset(numbers)).reach(text, 0)
    assert reach.ends == (frozenset((len(digits),)) if digits in whole else frozenset())
    goes_on = any(n.startswith(digits) and n != digits for n in whole)
    assert reach.is_open == (len(digits) == len(text) and goes_on)
