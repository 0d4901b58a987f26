# SPDX-License-Identifier: Apache-2.0
"""What a text may be, so that one that grows token by token can be kept to it.

A part of a grammar tells how far it reaches in a text, and whether the text ends inside it. Does not
know tokens, nor what a text says.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

_DIGITS = re.compile(r"[0-9]*")


class TextGrammar(Protocol):
    """What a completion may say; called with all of it so far."""

    def allows(self, text: str, num_tokens: int) -> bool:
        """True if some whole completion begins with this text of so many tokens."""

    def may_end(self, text: str) -> bool:
        """True if this text is a whole completion."""


class Reach(NamedTuple):
    """How far a part reaches from its start."""

    ends: frozenset[int]  # places behind it
    is_open: bool  # the text ends before the part does


_NOT = Reach(frozenset(), is_open=False)
_INSIDE = Reach(frozenset(), is_open=True)


class Part(Protocol):
    """Some of a grammar."""

    def reach(self, text: str, start: int) -> Reach:
        """How far it reaches in a text from a place on."""


@dataclass(frozen=True, slots=True)
class Literal:
    """These very characters."""

    characters: str

    def reach(self, text: str, start: int) -> Reach:
        """To its end, or to the text's."""
        if text.startswith(self.characters, start):
            return Reach(frozenset((start + len(self.characters),)), is_open=False)
        return _INSIDE if self.characters.startswith(text[start:]) else _NOT


@dataclass(frozen=True, slots=True)
class FreeText:
    """Anything without `<`; where it is over, what is there must be followed by one at once."""

    is_over: bool = False

    def reach(self, text: str, start: int) -> Reach:
        """To the next `<`, or to the text's end."""
        at = text.find("<", start)
        if self.is_over and at < 0 and start < len(text):
            return _NOT
        end = len(text) if at < 0 else at
        return Reach(frozenset((end,)), is_open=at < 0 and not self.is_over)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of these numbers, none below 0, written without leading zeros; a range goes up in ones."""

    numbers: frozenset[int] | range

    def reach(self, text: str, start: int) -> Reach:
        """To behind its last digit; further digits may follow at the text's end."""
        match = _DIGITS.match(text, start)
        digits = match[0] if match else ""
        end = start + len(digits)
        is_plain = digits == "0" or (digits != "" and digits[0] != "0")
        is_whole = is_plain and int(digits) in self.numbers
        ends = frozenset((end,)) if is_whole else frozenset[int]()
        return Reach(ends, is_open=end == len(text) and self._may_go_on(digits))

    def _may_go_on(self, digits: str) -> bool:
        """Whether a number has these digits and more."""
        if not digits or not self.numbers:
            return bool(self.numbers)
        if digits[0] == "0":
            return False
        lowest = self.numbers[0] if isinstance(self.numbers, range) else min(self.numbers)
        highest = self.numbers[-1] if isinstance(self.numbers, range) else max(self.numbers)
        first, last = int(digits) * 10, int(digits) * 10 + 9
        while first <= highest:
            between = range(max(first, lowest), min(last, highest) + 1)
            if isinstance(self.numbers, range):
                if between:
                    return True
            elif any(number in between for number in self.numbers):
                return True
            first, last = first * 10, last * 10 + 9
        return False


@dataclass(frozen=True, slots=True)
class BoxPart:
    """`[x0, y0, x1, y1]` of whole numbers, within a size and no smaller than another."""

    size_wh: tuple[int, int]
    least_wh: tuple[int, int] = (1, 1)

    def reach(self, text: str, start: int) -> Reach:
        """To behind its bracket."""
        least, at = [0, 0], start
        for side in range(4):
            before = Literal(", " if side else "[").reach(text, at)
            if not before.ends:
                return before
            own = self.least_wh[side % 2]
            limit = self.size_wh[side % 2] - (own if side < 2 else 0)  # noqa: PLR2004 (a corner has two)
            number = OneOf(range(least[side % 2], limit + 1)).reach(text, min(before.ends))
            if not number.ends:
                return number
            (end,) = number.ends
            if end == len(text):
                return _INSIDE
            least[side % 2], at = int(text[min(before.ends) : end]) + own, end
        return Literal("]").reach(text, at)


@dataclass(frozen=True, slots=True)
class InTurn:
    """One part after the other."""

    parts: Sequence[Part]

    def reach(self, text: str, start: int) -> Reach:
        """To behind the last."""
        starts, is_open = frozenset((start,)), False
        for part in self.parts:
            found = [part.reach(text, place) for place in starts]
            starts = frozenset(end for reach in found for end in reach.ends)
            is_open = is_open or any(reach.is_open for reach in found)
        return Reach(starts, is_open)


@dataclass(frozen=True, slots=True)
class Either:
    """Any of these parts."""

    parts: Sequence[Part]

    def reach(self, text: str, start: int) -> Reach:
        """As far as each."""
        found = [part.reach(text, start) for part in self.parts]
        ends = frozenset(end for reach in found for end in reach.ends)
        return Reach(ends, any(reach.is_open for reach in found))


@dataclass(frozen=True, slots=True)
class Listed:
    """A part once or more often, `, ` between."""

    part: Part
    most: int

    def reach(self, text: str, start: int) -> Reach:
        """To behind each of them."""
        separator = Literal(", ")
        ends: frozenset[int] = frozenset()
        starts, is_open = frozenset((start,)), False
        for number in range(self.most):
            step = InTurn((separator, self.part)) if number else self.part
            found = [step.reach(text, place) for place in starts]
            starts = frozenset(end for reach in found for end in reach.ends)
            is_open = is_open or any(reach.is_open for reach in found)
            ends |= starts
        return Reach(ends, is_open)
