# SPDX-License-Identifier: Apache-2.0
"""What the [SEG] methods have in common: marks in a text for its tokens, and targets from masks.

One token stands for an expression: its mask is the union of all that the expression means. Answers
with several tokens are read, too, each a target, for some datasets' answers name several objects.
A token is no text: in what is read, a mark with the number of its masks stands in its place, and
nothing that a model spells can look like one. Does not know how masks are decoded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from foreseg.dialogue import (
    Abstained,
    AnswerFailed,
    NoTarget,
    ObservedMask,
    TargetsFound,
)
from foreseg.errors import ConfigError
from foreseg.frames import Frame
from foreseg.language.base import Segmented
from foreseg.masks import rle_from_mask
from foreseg.methods.answers import (
    MAX_TEXT_CHARS,
    format_words,
    text_from,
    verdict_from,
)
from foreseg.methods.base import Verdict
from foreseg.methods.grammar import CompletionReader, Form
from foreseg.methods.grounding import Repairs, UnusableAnswer, distinct_prompts
from foreseg.methods.near_json import Json
from foreseg.prompts import SpatialPrompt

TOKEN = "[SEG]"  # noqa: S105 (of a vocabulary)
_OPEN, _CLOSE = "\ue000", "\ue001"  # for private use
_MARK = re.compile(f"{_OPEN}([0-9]{{1,6}}){_CLOSE}")
_SENTENCE = re.compile(r"\b(?:yes|sure|it is|they are|and)\b|\W", re.IGNORECASE)  # says no name
_NO_SUCH = "There is no such object."
_UNMARKED = dict.fromkeys(map(ord, (_OPEN, _CLOSE)))


def check_decode_side(side_px: int) -> None:
    """Refuse a size at which no frame can travel.

    Raises:
        ConfigError: it is none.
    """
    if not 16 <= side_px <= 4096:  # noqa: PLR2004
        msg = f"decode_side_px wants 16 to 4096, got {side_px}"
        raise ConfigError(msg)


def mark_of(number: int) -> str:
    """What stands for the token whose masks have this number."""
    return f"{_OPEN}{number}{_CLOSE}"


def marks_in(text: str) -> tuple[int, ...]:
    """The numbers of the masks whose marks stand in a text, each once, in order."""
    return tuple(dict.fromkeys(int(digits) for digits in _MARK.findall(text)))


def none_words(form: Form) -> str:
    """What an answer says where nothing fits, as models learn it."""
    return _NO_SUCH if form is Form.BARE else '{"no_target": "nothing in the frames fits"}'


def without_marks(text: str) -> str:
    """A model's own text, in which nothing can be taken for a mark."""
    return text.translate(_UNMARKED)


def spelled(text: str) -> str:
    """Text for people: tokens in place of marks."""
    return _MARK.sub(TOKEN, text)


def sentence(num_targets: int = 1) -> str:
    """An answer's words, with so many tokens: one, unless a dataset's answer names several."""
    if num_targets == 1:
        return f"It is {TOKEN}."
    return f"They are {', '.join([TOKEN] * (num_targets - 1))} and {TOKEN}."


def reply_words(form: Form, reasoning_tokens: int, *, tells_budget: bool = True) -> str:
    """How a completion is to look; arguments as of `format_words`."""
    words = format_words(form, reasoning_tokens, sentence(), tells_budget=tells_budget)
    return f"{words}\n{TOKEN} stands for all the objects that answer the query, together."


def says_none(answer: str) -> bool:
    """True if an answer without a token says that nothing fits."""
    return isinstance(_words_verdict(answer).part, NoTarget)


def forced_ending(text: str, *, form: Form = Form.THINK_FIRST, said: str = sentence()) -> str:
    """What is to follow a completion without a token: the answer, unless it says that there is none.

    Args:
        text: so far.
        form: that was asked for.
        said: an answer with the token.
    """
    reader = CompletionReader()
    answer = reader.feed(text).answer
    is_in_answer = reader.is_in_answer
    answer = reader.finish().answer if answer is None else answer
    if isinstance(_words_verdict(answer or "").part, (NoTarget, Abstained)):
        return ""
    if form is Form.BARE:
        return f" {said}" if text else said
    if is_in_answer:
        return f" {said}</answer>"
    is_thinking = text.rfind("<think>") > text.rfind("</think>")
    return f"{'</think>' if is_thinking else ''}\n<answer>{said}</answer>"


def read_targets(
    text: str, found: Sequence[Segmented], *, frames: Sequence[Frame], forces_token: bool = True
) -> Verdict:
    """Targets from the marks in an answer's text; from all masks so far if it has no mark.

    The keyframe is the frame on which the targets' masks are judged best; on it an object without
    a pixel is left out. No pixel on any frame is no target.

    Args:
        text: of the answer, with marks.
        found: all masks so far.
        frames: on which they were decoded.
        forces_token: False: an answer of a model that said no token says that there is no target.
    """
    repairs = Repairs()
    numbers = marks_in(text)
    targets = [found[number] for number in numbers if number < len(found)]
    if not targets:
        words = _words_verdict(text)
        if not found and isinstance(words.part, AnswerFailed) and not forces_token:
            said = " ".join(text.split())[:60]
            return Verdict(part=NoTarget(reason=f"the model says no {TOKEN}: {said!r}"))
        if isinstance(words.part, (NoTarget, Abstained)) or not found:
            return words
        targets = list(found)
    if any(target.is_forced for target in targets):
        repairs.add(f"{TOKEN} was not said but forced")
    elif not numbers:
        repairs.add(f"{TOKEN} outside of the answer")
    try:
        part = _targets_on(targets, frames, repairs)
    except UnusableAnswer as error:
        return Verdict(part=AnswerFailed(reason=str(error)), repairs=repairs.notes)
    if isinstance(part, TargetsFound):
        part = replace(part, text=_words_of(text, len(part.prompts)))
    return Verdict(part=part, repairs=repairs.notes)


def _targets_on(
    targets: Sequence[Segmented], frames: Sequence[Frame], repairs: Repairs
) -> TargetsFound | NoTarget:
    scores = [fmean(_score(target, i) for target in targets) for i in range(len(frames))]
    best = max(range(len(frames)), key=lambda i: (scores[i], i))  # the newest of equals
    kept = [target for target in targets if target.masks[best].any()]
    if not kept:
        return NoTarget(reason="the model names an object, but draws it on no frame")
    if len(kept) < len(targets):
        repairs.add("left out objects without a pixel on the keyframe")
    prompts = [SpatialPrompt(mask=rle_from_mask(target.masks[best])) for target in kept]
    return TargetsFound(
        keyframe_index=frames[best].index,
        prompts=distinct_prompts(prompts, frames[best], repairs),
        confidence=fmean(target.qualities[best] for target in kept),
        masks_by_frame=_drawn(targets, frames) if len(frames) > 1 else (),
        num_drawn=len(targets),
    )


def _drawn(targets: Sequence[Segmented], frames: Sequence[Frame]) -> tuple[ObservedMask, ...]:
    """The union of the targets' masks on each frame."""
    return tuple(
        ObservedMask(
            frame_index=frame.index,
            mask=rle_from_mask(np.any([target.masks[i] for target in targets], axis=0)),
        )
        for i, frame in enumerate(frames)
    )


def _words_of(text: str, num_targets: int) -> str:
    """The answer in words where it has more than tokens, else how many targets there are."""
    words = " ".join(_MARK.sub(" ", text).split())
    if not _SENTENCE.sub("", words):
        return text_from(None, (), num_targets)
    return words[:MAX_TEXT_CHARS]


def _score(target: Segmented, frame: int) -> float:
    """At least a little where there is any pixel, so that drawn beats not drawn."""
    return max(target.qualities[frame], 1e-6) if target.masks[frame].any() else 0.0


def _words_verdict(text: str) -> Verdict:
    """An answer without a token: no target, or a failure that says what it was."""
    return verdict_from(text, _refused)


def _refused(value: Json, _repairs: Repairs) -> TargetsFound | NoTarget:
    if value == []:
        return NoTarget(reason="the model found no object: its list is empty")
    msg = f"the answer has no {TOKEN}: {str(value)[:60]!r}"
    raise UnusableAnswer(msg)
