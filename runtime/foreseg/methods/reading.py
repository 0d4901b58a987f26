# SPDX-License-Identifier: Apache-2.0
"""Reading the last completion of a plan: rationale, answer and verdict, whole or as it streams.

One reader for the robot, for rewards and for evaluation. Does not know models, clocks or queries.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from foreseg.dialogue import AnswerFailed
from foreseg.language.base import Segmented
from foreseg.methods.base import AnswerStep, SegmentStep, Verdict
from foreseg.methods.grammar import CompletionReader, Form, Piece
from foreseg.methods.seg_answers import mark_of, spelled, without_marks

LastStep = AnswerStep | SegmentStep

_OPEN = re.compile(r"<(think|answer)>|</think>", re.IGNORECASE | re.ASCII)
_CLOSE_THOUGHT = re.compile(r"</think>", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What some more of a completion amounts to."""

    rationale: str = ""  # as people read it
    answer: str | None = None  # the text between the answer's tags, once
    verdict: Verdict | None = None  # what it says, once


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A whole completion, read as the robot reads it."""

    rationale: str
    answer: str | None
    verdict: Verdict  # without an answer it says so
    form_kept: bool  # exactly the form that was asked for
    reasoning_span: tuple[int, int]  # characters of the thoughts, without their tags


class StepReader:
    """Reads the completion of one last step, piece by piece; any cutting gives the same."""

    def __init__(self, step: LastStep, found: Sequence[Segmented] = ()) -> None:
        """Read for a step; `found` are masks whose marks stand in the text already."""
        self._step = step
        self._reader = CompletionReader()
        self._found: list[Segmented] = list(found)
        self._has_verdict = False

    @property
    def text(self) -> str:
        """The completion so far, with marks for masks."""
        return self._reader.text

    @property
    def has_answer(self) -> bool:
        """True once an answer is closed."""
        return self._reader.has_answer

    @property
    def is_in_answer(self) -> bool:
        """True between the answer's tags."""
        return self._reader.is_in_answer

    @property
    def is_full(self) -> bool:
        """True once no more is read."""
        return self._reader.is_full

    @property
    def num_found(self) -> int:
        """Masks so far."""
        return len(self._found)

    def read(self, item: str | Segmented) -> Told:
        """Read some more: a model's text, in which nothing is a mark, or a token's masks."""
        if isinstance(item, Segmented):
            self._found.append(item)
            return self._told(self._reader.feed(mark_of(len(self._found) - 1)))
        text = item if isinstance(self._step, AnswerStep) else without_marks(item)
        return self._told(self._reader.feed(text))

    def read_marked(self, text: str) -> Told:
        """Read text in which marks stand for the masks that were given at the beginning."""
        return self._told(self._reader.feed(text))

    def finish(self) -> Told:
        """Read what was held back; masks without an answer are one, and so is unforced silence."""
        last = self._reader.finish()
        if last.answer is None and not self._has_verdict and (self._found or self._may_be_silent):
            last = replace(last, answer="")
        return self._told(last, is_end=True)

    @property
    def _may_be_silent(self) -> bool:
        return isinstance(self._step, SegmentStep) and self._step.request.ending is None

    def _told(self, piece: Piece, *, is_end: bool = False) -> Told:
        rationale = spelled(piece.rationale)
        if piece.answer is None or self._has_verdict:
            return Told(rationale=rationale)
        if isinstance(self._step, AnswerStep):
            verdict = self._step.read(piece.answer)
        else:
            verdict = self._step.read(piece.answer, self._found)
            if isinstance(verdict.part, AnswerFailed) and not is_end:
                return Told(rationale=rationale)  # the token may still come
        self._has_verdict = True
        return Told(rationale=rationale, answer=piece.answer, verdict=verdict)


def read_completion(step: LastStep, text: str, found: Sequence[Segmented] = ()) -> Completion:
    """Read a whole completion, as the robot would have as it streamed.

    Args:
        step: that it completes.
        text: with marks (`seg_answers.mark_of`) where the tokens of a [SEG] method are.
        found: what each token was decoded to, by the number in its mark.
    """
    reader = StepReader(step, found)
    pieces = (reader.read_marked(text), reader.finish())
    told = next((piece for piece in pieces if piece.verdict is not None), Told())
    return Completion(
        rationale="".join(piece.rationale for piece in pieces),
        answer=told.answer,
        verdict=told.verdict or no_answer(text),
        form_kept=step.form.matches(text),
        reasoning_span=(0, 0) if step.form is Form.BARE else reasoning_span(text),
    )


def no_answer(text: str) -> Verdict:
    """What to say of a completion without an answer."""
    said = spelled(text).strip()
    told = f": {said[:120]!r}" if said else "; it is empty"
    return Verdict(part=AnswerFailed(reason=f"the completion has no answer{told}"))


def reasoning_span(text: str) -> tuple[int, int]:
    """Where the thoughts of a completion stand, without their tags; equal ends where there are none.

    What precedes `</think>` or an answer is thought, too: some chat templates open it themselves.
    """
    first = _OPEN.search(text)
    if first is None:
        return 0, len(text)
    if first[0].lower() == "<think>":
        start = first.end()
    elif text[: first.start()].strip():
        return 0, first.start()
    else:
        later = re.compile("<think>", re.IGNORECASE | re.ASCII).search(text, first.end())
        if later is None:
            return first.start(), first.start()
        start = later.end()
    end = _CLOSE_THOUGHT.search(text, start)
    return start, end.start() if end else len(text)
