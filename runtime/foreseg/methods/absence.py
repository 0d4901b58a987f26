# SPDX-License-Identifier: Apache-2.0
"""What says that nothing is there: in words, or in the place where a box would stand.

Careful rather than clever: words count only if every sentence is a denial. What hedges, leaves
something out of it, or denies the pictures themselves, is none. English only.
"""

from __future__ import annotations

import math
import re

from foreseg.methods.near_json import Json

MAX_CHARS = 600  # of words that are looked at: a denial is short
BOX_NUMBERS = 4

_NONE = ("", "none", "no", "nothing", "null", "nil", "n/a", "na", "-")
_PLAIN = re.compile(
    r"(?:there (?:is|are) )?(?:no|none|nothing|null|n/?a)"
    r"(?: (?:such )?(?:target|object|match|answer)s?)?",
    re.IGNORECASE,
)
_CANNOT = r"(?:cannot|can't|can not|could not|couldn't|do not|don't|did not|didn't)"
_SENSES = r"(?:see|find|identify|detect|observe|spot|locate)"
_PICTURES = r"(?:frames?|images?|pictures?|photos?|videos?|clips?)"
_DENIAL = re.compile(
    "|".join(
        (
            r"there(?:'s| is| are| was| were) (?:no|none|nothing|not any)\b.*",
            r"(?:none|nothing|no one|nobody)\b.*",
            r"no (?!(?:the|it|this|that|i|we|a|an)\b)[\w'-]+ .*",
            rf"(?:i|we) (?:{_CANNOT} {_SENSES} (?:any|a|an|one|such|the)|{_SENSES} (?:no|nothing))\b.*",
            rf"(?:the|these) {_PICTURES} (?:(?:do|does) not (?:show|contain|have)|(?:show|contain)s? no)\b.*",
            r"(?:the|it|they)\b[\w' -]* (?:is|are) not (?:visible|present|shown|there|in view)(?: in .*)?",
        )
    ),
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:but|however|except|other|apart|besides|only|instead|rather|unless|until|if|yet|though|although"
    r"|might|may|perhaps|maybe|probably|likely|doubt|question|way|reason|need|information|evidence"
    r"|certain|certainty|sure|clear|clearly|enough|sufficient|tell|telling|know|determine|problem"
    r"|longer|more|further|others|else|answer)\b",
    re.IGNORECASE,
)
_DENIES_PICTURES = re.compile(
    rf"\b(?:no|any|none of the|none of these|an?|such|{_SENSES} the)(?: [\w'-]+)? {_PICTURES}\b",
    re.IGNORECASE,
)


def is_denial(text: str) -> bool:
    """True if words say that what is looked for is not there, and nothing besides."""
    words = " ".join(text.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    sentences = [part.strip(" '\"`*.!?;") for part in re.split(r"(?<=[.!?;])\s", words)]
    said = [sentence for sentence in sentences if sentence]
    return len(words) <= MAX_CHARS and bool(said) and all(map(_denies, said))


def is_none_word(value: Json) -> bool:
    """True for a word that stands where a thing would, and says that there is none."""
    return isinstance(value, str) and value.strip(" .").lower() in _NONE


def is_no_place(value: Json) -> bool:
    """True for what stands where a box or a list of them would, and marks nothing.

    That is null, a word such as "none", nothing at all, a box without area, or a list of these.
    """
    if value is None or is_none_word(value):
        return True
    if not isinstance(value, list):
        return value == {}
    numbers = [item for item in value if isinstance(item, (int, float)) and math.isfinite(item)]
    if len(numbers) == len(value) == BOX_NUMBERS:
        return numbers[0] == numbers[2] or numbers[1] == numbers[3]
    return all(map(is_no_place, value))


def _denies(sentence: str) -> bool:
    if _PLAIN.fullmatch(sentence):
        return True
    is_taken_back = _TAKEN_BACK.search(sentence) or _DENIES_PICTURES.search(sentence)
    return not is_taken_back and _DENIAL.fullmatch(sentence) is not None
