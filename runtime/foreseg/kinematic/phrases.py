# SPDX-License-Identifier: Apache-2.0
"""The small English grammar of the kinematic reasoner: a query's text becomes a request or nothing.

Strict on purpose: a query with a word that the grammar does not know is not guessed at.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from foreseg.geometry import Side


class Kind(Enum):
    """What is asked for."""

    CONTACT = "contact"  # what the subject touches next
    EXIT = "exit"  # what leaves the view first
    ARRIVAL = "arrival"  # what reaches a side first
    APPROACH = "approach"  # what moves towards the subject
    MOVING = "moving"  # what moves; with `extreme`, the fastest or slowest
    NAMED = "named"  # the subject itself


class Extreme(Enum):
    """Of the speed."""

    FASTEST = "fastest"
    SLOWEST = "slowest"


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A noun phrase: "the small red ball" has a colour, a shape and nothing unknown."""

    colour: str = ""  # one of COLOURS, "" = any
    shape: str = ""  # one of the values of SHAPES, "" = any
    unknown: str = ""  # a noun that only a person can place, such as "car"

    @property
    def is_open(self) -> bool:
        """True if it fits anything."""
        return not (self.colour or self.shape or self.unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A query as the reasoner can answer it."""

    kind: Kind
    subject: Description = Description()
    side: Side | None = None
    extreme: Extreme | None = None


MAX_CHARS = 200

COLOURS = (
    "red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink",
    "brown", "black", "white", "grey",
)  # fmt: skip
_COLOUR_WORDS = {
    **{colour: colour for colour in COLOURS},
    "gray": "grey", "violet": "purple", "magenta": "pink", "turquoise": "cyan", "teal": "cyan",
}  # fmt: skip
SHAPES = {
    "ball": "ball", "circle": "ball", "disc": "ball", "disk": "ball",
    "square": "square", "box": "square", "cube": "square", "block": "square",
    "triangle": "triangle", "star": "star", "cross": "cross", "hexagon": "hexagon",
    "arrow": "arrow", "crescent": "crescent", "moon": "crescent", "blob": "blob",
}  # fmt: skip
_THINGS = {"object", "objects", "thing", "things", "shape", "shapes", "one", "item", "items",
           "region", "regions", "target", "body", "it"}  # fmt: skip
_FILLERS = {"the", "a", "an", "this", "that", "moving", "rolling", "coloured", "colored"}
_REFUSED = {"not", "never", "no", "and", "or", "but", "after", "before", "without", "except", "if",
            "what", "which", "who", "where", "second", "third", "last", "other", "another", "two", "both", "all", "each", "to",
            "small", "big", "large", "little", "smallest", "biggest", "largest"}  # fmt: skip
_SIDES = {"left": Side.LEFT, "right": Side.RIGHT, "top": Side.TOP, "bottom": Side.BOTTOM,
          "upper": Side.TOP, "lower": Side.BOTTOM}  # fmt: skip

_WHAT = r"(?:what|who|which|(?:which|what) (?:of the )?(?P<kindof>[a-z]+(?: [a-z]+)?))"
_WILL = r"(?:will|does|is going to|is about to|would|is|can)"
_WHEN = r"(?: (?:next|first|then|soon|now|in a moment))?"
_TOUCH = (
    r"(?:hit|hits|touch|touches|strike|strikes|meet|meets|contact|contacts"
    r"|(?:make|makes) contact with|bump (?:into|against)|crash into|run into|roll (?:into|to)"
    r"|collide with|knock (?:into|over|down)|get to|arrive at|reach|reaches|land on)"
)
_CRASH = r"(?:collide|crash|bump)"
_TOUCHED = r"(?:hit|touched|struck|reached|met|contacted|bumped(?: into)?|knocked(?: over| down)?)"
_VIEW = r"(?:the )?(?:view|frame|image|picture|scene|screen|sight)"
_SIDE = r"(?:the )?(?P<side>left|right|top|bottom|upper|lower)(?:[ -]hand)?(?: (?:side|edge|border|end))?"
_MOVES = r"(?:is moving|moves|move|will move|are moving|is in motion|is travelling)"
_OF_VIEW = rf"(?: of {_VIEW})?"

_FIRST = r"(?:first |next )?"
_SUBJECT = r"(?P<subject>.+?)"
_EXTREME = r"(?P<extreme>fastest|quickest|slowest)"
_GO = r"(?:move|moves|moving|head|heads|heading|go|going|roll|rolling|come|coming)"
_APPROACH = rf"(?:{_GO} (?:towards?|to|for)|approach|approaches|approaching)"
_EDGE = rf"(?: over (?:an|the|one|its) (?:edge|side|border)(?:{_OF_VIEW})?)?"
_OUT = rf"(?:disappear|vanish|(?:go|move|roll|get) out)(?: (?:from|of|out of) {_VIEW})?{_EDGE}"
_GOES_OUT = r"(?:goes|moves|rolls|drifts|slides|gets) out"
_IN_VIEW = rf"(?: in {_VIEW})?"
_LEAVE = rf"(?:leave|exit|leaving|exiting)(?: {_VIEW})?"
_LEAVES = rf"(?:(?:leaves|exits)(?: {_VIEW})?|(?:disappears|vanishes)(?: (?:from|out of) {_VIEW})?{_EDGE})"
_REACHES = r"(?:reaches|arrives at|hits|touches|gets to|comes to)"
_REACH = r"(?:reach|arrive at|hit|touch|get to|come to)"

_SOURCES = (
    (Kind.ARRIVAL, rf"{_WHAT} {_WILL} {_FIRST}{_REACH} {_SIDE}{_OF_VIEW}{_WHEN}"),
    (Kind.EXIT, rf"{_WHAT} {_WILL} {_FIRST}(?:{_LEAVE}|{_OUT}){_WHEN}"),
    (Kind.ARRIVAL, rf"{_WHAT} {_FIRST}{_REACHES} {_SIDE}{_OF_VIEW}{_WHEN}"),
    (Kind.EXIT, rf"{_WHAT} {_FIRST}{_LEAVES}{_WHEN}"),
    (Kind.CONTACT, rf"{_WHAT} does {_SUBJECT} {_FIRST}{_TOUCH}{_WHEN}"),
    (Kind.EXIT, rf"{_WHAT} {_GOES_OUT} of {_VIEW}(?: (?:first|before any other does))?{_WHEN}"),
    (Kind.EXIT, rf"{_WHAT} {_WILL} (?:soon )?no longer be in {_VIEW}{_WHEN}"),
    (Kind.EXIT, rf"{_WHAT} {_WILL} the camera lose{_WHEN}(?: because it crosses the edge)?"),
    (Kind.MOVING, rf"{_WHAT} (?:is|is moving|is going|moves) (?:the )?{_EXTREME}"),
    (Kind.APPROACH, rf"{_WHAT} (?:{_WILL} )?{_APPROACH} {_SUBJECT}{_WHEN}"),
    (Kind.MOVING, rf"{_WHAT} {_MOVES}{_WHEN}"),
    (Kind.CONTACT, rf"{_WHAT} {_WILL} be {_TOUCHED}{_WHEN} by {_SUBJECT}{_WHEN}"),
    (Kind.CONTACT, rf"{_WHAT} {_WILL} {_SUBJECT} {_FIRST}{_TOUCH}{_WHEN}"),
    (Kind.CONTACT, rf"{_WHAT} {_WILL} {_SUBJECT} {_FIRST}{_CRASH}{_WHEN} (?:with|into){_WHEN}"),
    (Kind.CONTACT, rf"{_WHAT} is {_SUBJECT} (?:going|about) to {_FIRST}{_TOUCH}{_WHEN}"),
    (Kind.CONTACT, rf"{_WHAT} comes to be {_TOUCHED} by {_SUBJECT}(?: after this)?{_WHEN}"),
    (
        Kind.CONTACT,
        rf"{_WHAT} (?:should|must) be moved (?:away|aside) lest {_SUBJECT} {_TOUCH}(?: it)?{_WHEN}",
    ),
    (Kind.MOVING, rf"(?:the )?{_EXTREME}(?: moving)? (?:object|thing|one|shape)"),
    (Kind.MOVING, r"(?:the )?moving (?:object|thing|one|shape)"),
    (Kind.NAMED, rf"{_WHAT}{_IN_VIEW} is {_SUBJECT}{_IN_VIEW}"),
    (Kind.NAMED, rf"{_WHAT} would (?:one|you|we) call {_SUBJECT}"),
    (
        Kind.NAMED,
        rf"(?:where is |find |show(?: me)? |segment |track |point (?:out|at|to) )?{_SUBJECT}",
    ),
)
_PATTERNS = tuple((kind, re.compile(source)) for kind, source in _SOURCES)


def request_from_text(text: str) -> Request | None:
    """Read a query; None if it is not one of those that the grammar has."""
    if len(text) > MAX_CHARS:
        return None
    words = " ".join(re.sub(r"[^\w' -]+", " ", text.lower()).split())
    words = re.sub(
        r"^(?:please |in this (?:video|scene) |after what it has touched so far )", "", words
    )
    for kind, pattern in _PATTERNS:
        match = pattern.fullmatch(words)
        if match is not None:
            request = _request(kind, match)
            if request is not None:
                return request
    return None


def _request(kind: Kind, match: re.Match[str]) -> Request | None:
    groups = match.groupdict()
    asked = groups.get("kindof")
    if asked and not _is_any_thing(asked):
        return None
    side = _SIDES.get(groups.get("side") or "")
    extreme = _extreme(groups.get("extreme"))
    subject = description_from_text(groups.get("subject") or "")
    if subject is None or (kind is Kind.NAMED and (subject.is_open or subject.unknown)):
        return None
    return Request(kind=kind, subject=subject, side=side, extreme=extreme)


def _is_any_thing(words: str) -> bool:
    """True for "object" or "coloured shape": what is asked for is not narrowed."""
    return all(word in _THINGS or word in _FILLERS for word in words.split())


def _extreme(word: str | None) -> Extreme | None:
    if not word:
        return None
    return Extreme.SLOWEST if word == "slowest" else Extreme.FASTEST


def description_from_text(phrase: str) -> Description | None:
    """Read a noun phrase of at most one unknown noun; None for anything longer."""
    colour = shape = unknown = ""
    for place, word in enumerate(phrase.split()):
        if word == "that" and place:  # "the object that the ball pushes"
            return None
        if word in _FILLERS or word in _THINGS:
            continue
        if word in _COLOUR_WORDS and not colour:
            colour = _COLOUR_WORDS[word]
        elif word in SHAPES and not shape:
            shape = SHAPES[word]
        elif not unknown and word.isalpha() and word not in _REFUSED:
            unknown = word
        else:
            return None
    return Description(colour=colour, shape=shape, unknown=unknown)
