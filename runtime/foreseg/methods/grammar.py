# SPDX-License-Identifier: Apache-2.0
"""The grammar of a completion: `<think>..</think>` and `<answer>..</answer>`, in either order.

A completion is read as it streams; any cutting into chunks gives the same rationale and answer.
Does not know what an answer says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

MAX_COMPLETION_CHARS = 60_000

_TAG = re.compile(r"<(/?)(think|answer)>", re.IGNORECASE | re.ASCII)
_TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_LONGEST_TAG = max(map(len, _TAGS))
_BARE_THOUGHT = re.compile(
    r"\s*<think>\s*((?:```\w*\s*)?[\[{].*[\]}](?:\s*```)?)\s*</think>\s*",
    re.DOTALL | re.IGNORECASE,
)
_THINK, _ANSWER = r"\s*<think>(.*)</think>", r"\s*<answer>(.*)</answer>"


class Form(Enum):
    """What a template asks a completion to hold, and in which order."""

    THINK_FIRST = "think-first"
    ANSWER_FIRST = "answer-first"
    ANSWER_ONLY = "answer-only"
    BARE = "bare"  # the answer without its tags, as VISA has it

    @property
    def has_rationale(self) -> bool:
        """True if there are thoughts beside the answer."""
        return self in (Form.THINK_FIRST, Form.ANSWER_FIRST)

    def put(self, rationale: str, answer: str) -> str:
        """Two pieces of text as the form has them."""
        if self is Form.BARE:
            return answer.removeprefix("<answer>").removesuffix("</answer>")
        if self is Form.ANSWER_ONLY:
            return answer
        pieces = (rationale, answer) if self is Form.THINK_FIRST else (answer, rationale)
        return "\n".join(pieces)

    def matches(self, completion: str) -> bool:
        """True if a completion keeps to this form exactly."""
        match = _FORMS[self].fullmatch(completion)
        return match is not None and not any(_TAG.search(part) for part in match.groups())


_FORMS = {
    Form.THINK_FIRST: re.compile(rf"{_THINK}{_ANSWER}\s*", re.DOTALL),
    Form.ANSWER_FIRST: re.compile(rf"{_ANSWER}{_THINK}\s*", re.DOTALL),
    Form.ANSWER_ONLY: re.compile(rf"{_ANSWER}\s*", re.DOTALL),
    Form.BARE: re.compile(r"\s*(\S.*)", re.DOTALL),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What some more text of a completion brought."""

    rationale: str = ""
    answer: str | None = None  # the whole text of the answer, once, when it is closed


class _Place(Enum):
    """Where in the grammar the text stands."""

    LOOSE = "loose"  # between the parts
    THINK = "think"
    ANSWER = "answer"


class CompletionReader:
    """Reads one completion chunk by chunk.

    Loose text before `</think>` (some chat templates open it themselves) or before an answer is
    rationale, too, and so is all that follows the answer. Inside `<think>`, `<answer>` is talk.
    """

    def __init__(self) -> None:
        self._place = _Place.LOOSE
        self._waiting = ""  # what may be the beginning of a tag
        self._loose: list[str] = []
        self._answer: list[str] = []
        self._all: list[str] = []
        self._num_chars = 0
        self._has_answer = False

    @property
    def has_answer(self) -> bool:
        """True once an answer is closed."""
        return self._has_answer

    @property
    def is_full(self) -> bool:
        """True once `MAX_COMPLETION_CHARS` are read; what follows is ignored."""
        return self._num_chars >= MAX_COMPLETION_CHARS

    @property
    def is_in_answer(self) -> bool:
        """True between `<answer>` and `</answer>`."""
        return self._place is _Place.ANSWER

    @property
    def text(self) -> str:
        """The completion so far."""
        return "".join(self._all)

    def feed(self, text: str) -> Piece:
        """Read some more."""
        text = text[: MAX_COMPLETION_CHARS - self._num_chars]
        self._num_chars += len(text)
        self._all.append(text)
        return self._read(self._waiting + text, is_end=False)

    def finish(self) -> Piece:
        """Read what was held back. An answer that was never closed is given as far as it goes.

        Without any answer in its place: the last one opened inside the rationale, else the text
        outside of the rationale, else the thoughts if they are a bare value, else None.
        """
        last = self._read(self._waiting, is_end=True)
        if self._has_answer:
            return last
        if self._place is _Place.ANSWER:
            return Piece(rationale=last.rationale, answer="".join(self._answer))
        loose = "".join(self._loose)
        answer = _last_answer(self.text) or (loose if loose.strip() else None)
        if answer is None:
            bare = _BARE_THOUGHT.fullmatch(self.text)  # some servers take all for thoughts
            answer = None if bare is None else bare[1]
        return Piece(rationale=last.rationale, answer=answer)

    def _read(self, text: str, *, is_end: bool) -> Piece:
        rationale: list[str] = []
        answer: str | None = None
        at = 0
        for tag in _TAG.finditer(text):
            self._take(text[at : tag.start()], rationale)
            at = tag.end()
            closed = self._turn(tag, rationale)
            answer = closed if answer is None else answer
        keep = len(text) if is_end else _possible_tag_start(text, at)
        self._take(text[at:keep], rationale)
        self._waiting = text[keep:]
        return Piece(rationale="".join(rationale), answer=answer)

    def _take(self, text: str, rationale: list[str]) -> None:
        if self._place is _Place.ANSWER:
            self._answer.append(text)
        elif self._place is _Place.THINK or self._has_answer:
            rationale.append(text)
        else:
            self._loose.append(text)

    def _turn(self, tag: re.Match[str], rationale: list[str]) -> str | None:
        """Act on a tag; the answer's text if it closes the first answer that says something."""
        is_end, name = bool(tag[1]), tag[2].lower()
        if self._place is _Place.THINK:
            if is_end and name == "think":
                self._place = _Place.LOOSE
            else:
                rationale.append(tag[0])
        elif self._place is _Place.ANSWER:
            if not (is_end and name == "answer"):
                self._answer.append(tag[0])
                return None
            self._place = _Place.LOOSE
            answer, self._answer = "".join(self._answer), []
            if any(character.isalnum() or character in "[{" for character in answer):
                self._has_answer = True
                self._own_up(rationale)
                return answer
        elif name == "think":
            if is_end:  # what was said so far was the rationale
                self._own_up(rationale)
            else:
                self._place = _Place.THINK
        elif not is_end and not self._has_answer:
            self._place = _Place.ANSWER
        return None

    def _own_up(self, rationale: list[str]) -> None:
        """Loose text turns out to have been rationale."""
        loose = "".join(self._loose)
        self._loose = []
        if loose.strip():
            rationale.append(loose)


def answer_of(completion: str) -> str | None:
    """The text of a whole completion's answer; None: there is none."""
    reader = CompletionReader()
    answer = reader.feed(completion).answer
    return reader.finish().answer if answer is None else answer


def _last_answer(text: str) -> str | None:
    """What follows the last `<answer>`, up to the next tag."""
    tags = list(_TAG.finditer(text))
    for number in range(len(tags) - 1, -1, -1):
        if tags[number][0].lower() == "<answer>":
            end = tags[number + 1].start() if number + 1 < len(tags) else len(text)
            return text[tags[number].end() : end]
    return None


def _possible_tag_start(text: str, start: int) -> int:
    """Where the end of a text may be the beginning of a tag; its length where it is none."""
    at = text.rfind("<", max(start, len(text) - _LONGEST_TAG + 1))
    if at < 0:
        return len(text)
    end = text[at:].lower()
    return at if any(tag.startswith(end) for tag in _TAGS) else len(text)
