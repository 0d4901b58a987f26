# SPDX-License-Identifier: Apache-2.0
"""Reads values out of text that is JSON, or nearly so; says what had to be repaired.

Total: never raises, for any text, in time linear in its length. Text is data, never executed.
Does not know what the values mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

MAX_CHARS = 20_000  # of an answer: 64 targets with box and points take some 6,000
MAX_DEPTH = 12
MAX_DIGITS = 30  # of a number
MAX_VALUES = 8  # lists and objects, one after the other

_SPACE = re.compile(r"(?:[\s\ufeff]+|//[^\n]*)*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")
_WORD = re.compile(r"[^\W\d][\w-]*")
_FENCE = re.compile(r"```[\w+-]*")
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}
_ODD_WORDS: dict[str, Json] = {"none": None, "nil": None, "yes": True, "no": False, **_WORDS}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "„": "“", "«": "»"}  # noqa: RUF001 (these are meant)
_BRACKETS = {"[": "]", "{": "}", "(": ")"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A list or an object, and what had to be repaired to get it: each kind once, in order."""

    value: Json
    repairs: tuple[str, ...] = ()


def values_from_text(text: str) -> list[Reading]:
    """The lists and objects in a text, at most `MAX_VALUES`, in order; none if there are none.

    Repaired are: fences and words around, other quotes and brackets, names without quotes, commas
    and colons that lack or are too many, comments, and a missing end, up to which all is kept.
    """
    reader = _Reader(text[:MAX_CHARS])
    readings: list[Reading] = []
    while len(readings) < MAX_VALUES:
        reading = reader.next()
        if reading is None:
            break
        readings.append(reading)
    return readings


class _Ended(Exception):  # noqa: N818 (no error: what is open is closed)
    """The text is over."""


class _Reader:
    """One pass over a text. What is complete when the text ends is kept."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open: list[str] = []  # the closing brackets that are awaited
        self._repairs: dict[str, None] = {}

    def next(self) -> Reading | None:
        """The next list or object, None if there is no more."""
        starts = [at for at in (self._text.find(b, self._at) for b in "[{") if at >= 0]
        if not starts:
            return None
        self._repairs = {}
        before = self._text[self._at : min(starts)]
        if "```" in before:
            self._note("code fence")
        if _FENCE.sub("", before).strip():
            self._note("words before the value")
        self._at = min(starts)
        self._open = []
        value = self._container()
        return Reading(value=value, repairs=tuple(self._repairs))

    def _note(self, repair: str) -> None:
        self._repairs[repair] = None

    def _container(self) -> Json:
        opener = self._text[self._at]
        self._at += 1
        items: list[Json] = []
        members: dict[str, Json] = {}
        if len(self._open) >= MAX_DEPTH:
            self._note("nested too deeply")
            self._at = len(self._text)
        if opener == "(":
            self._note("round brackets")
        self._open.append(_BRACKETS[opener])
        try:
            while self._goes_on(is_first=not (items or members)):
                if opener == "{":
                    name = self._name()
                    members[name] = self._value()
                else:
                    items.append(self._value())
        except _Ended:
            self._note("missing end")
        self._open.pop()
        return members if opener == "{" else items

    def _goes_on(self, *, is_first: bool) -> bool:
        """Step to the next item; False after the container's end."""
        commas = 0
        while (here := self._peek()) in ",;]})" or not _begins(here):
            if here in ",;":
                commas += 1
            elif here == self._open[-1]:
                self._at += 1
                if commas:
                    self._note("trailing comma")
                return False
            elif here in self._open:  # the end of an outer one: ours is missing
                self._note("missing bracket")
                return False
            else:
                self._note("odd characters")
            self._at += 1
        if commas != (0 if is_first else 1):
            self._note("commas")
        return True

    def _name(self) -> str:
        here = self._peek()
        if here in _QUOTES:
            name = self._string()
        elif here in _BRACKETS:
            self._note("missing name")
            return ""
        else:
            match = _WORD.match(self._text, self._at) or _NUMBER.match(self._text, self._at)
            name = here if match is None else match[0]
            self._note("name without quotes")
            self._at += len(name)
        if self._peek() in ":=":
            self._at += 1
        else:
            self._note("missing colon")
        return name

    def _value(self) -> Json:
        here = self._peek()
        while not _begins(here) and here not in ",;]})":
            self._note("odd characters")
            self._at += 1
            here = self._peek()
        if here in _BRACKETS:
            return self._container()
        if here in _QUOTES:
            return self._string()
        match = _NUMBER.match(self._text, self._at)
        if match is not None:
            return self._number(match)
        match = _WORD.match(self._text, self._at)
        if match is not None:
            return self._word(match)
        self._note("missing value")
        if here in "+-.":  # begins no number after all
            self._at += 1
        return None

    def _number(self, match: re.Match[str]) -> Json:
        digits = match[0]
        self._at = match.end()
        if self._at >= len(self._text):
            raise _Ended  # it may be half of one, so it is none
        if len(digits) > MAX_DIGITS:
            self._note("overlong number")
            return None
        if digits[0] in "+." or digits.endswith("."):
            self._note("odd number")
        try:
            return int(digits)
        except ValueError:
            return float(digits)

    def _word(self, match: re.Match[str]) -> Json:
        self._at = match.end()
        word = match[0]
        if word in _WORDS:
            return _WORDS[word]
        self._note("word without quotes")
        return _ODD_WORDS.get(word.lower(), word)

    def _string(self) -> str:
        opener = self._text[self._at]
        closer = _QUOTES[opener]
        if opener != '"':
            self._note("other quotes")
        self._at += 1
        characters: list[str] = []
        while self._at < len(self._text):
            here = self._text[self._at]
            self._at += 1
            if here == closer:
                return _whole_characters("".join(characters))
            characters.append(self._escaped() if here == "\\" else here)
        raise _Ended

    def _escaped(self) -> str:
        here = self._text[self._at : self._at + 1]
        self._at += 1
        digits = self._text[self._at : self._at + 4]
        if here != "u" or re.fullmatch(r"[0-9a-fA-F]{4}", digits) is None:
            return _ESCAPES.get(here, here)
        self._at += 4
        return chr(int(digits, 16))

    def _peek(self) -> str:
        """The next character that is no space; raises `_Ended` where there is none."""
        match = _SPACE.match(self._text, self._at)
        if match is not None and match.end() > self._at:
            if "//" in match[0]:
                self._note("comment")
            self._at = match.end()
        if self._at >= len(self._text):
            raise _Ended
        return self._text[self._at]


def _whole_characters(text: str) -> str:
    """Join halves of surrogate pairs; a half alone becomes the replacement character."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _begins(character: str) -> bool:
    """True if a value may begin with this character."""
    return (
        character in _BRACKETS
        or character in _QUOTES
        or character in "+-._"
        or character.isalnum()
    )
