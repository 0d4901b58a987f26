# SPDX-License-Identifier: Apache-2.0
"""The reasoner that is a method of the papers over a language model that sees frames.

Carries out the method's plan and reads its completion as it streams: targets are told when the
answer closes, whatever follows. Does not know which method or which model.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    Query,
    RationalePart,
)
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow
from foreseg.history.windows import WindowPolicy
from foreseg.language.base import (
    Chunk,
    LanguageModel,
    LanguageModelError,
    LanguageRequest,
    Message,
    Role,
    SegmentingModel,
    SegmentStream,
)
from foreseg.methods.answer_grammar import CompletionGrammar
from foreseg.methods.base import AnswerStep, Method, SampleStep, SegmentingMethod, SegmentStep
from foreseg.methods.grammar import MAX_COMPLETION_CHARS, Form
from foreseg.methods.grounding import MAX_TARGETS, UnusableAnswer
from foreseg.methods.reading import LastStep, StepReader, Told, no_answer
from foreseg.methods.seg_answers import TOKEN
from foreseg.reasoner.base import AnswerStream

RATIONALE_CHARS = 80  # come together in one part
CHUNKS_PER_SIGN = 16  # of life, where there is nothing to tell
HURRY = "The time to think is over. Reply with the <answer> alone."

_LOG = logging.getLogger(__name__)

_Parts = Generator[AnswerPart, FrameWindow | None, None]


class VlmReasoner:
    """A method and a language model; keeps nothing between askings.

    Args:
        method: its plan is carried out.
        model: answers.
        sampler: completes what the plan asks before that; None: `model`, too. VideoSeg-R1's and
            VISA's are never trained.
        caution: what its user should know of its answers.

    Raises:
        ConfigError: the method wants masks, which this model cannot give.
    """

    def __init__(
        self,
        method: Method,
        model: LanguageModel,
        sampler: LanguageModel | None = None,
        *,
        caution: str = "",
    ) -> None:
        if isinstance(method, SegmentingMethod) and not isinstance(model, SegmentingModel):
            msg = (
                f"{type(method).__name__} wants a model that decodes [SEG] tokens to masks, got"
                f" {type(model).__name__}: take transformers:FILE with a folder made for it, or"
                " another method"
            )
            raise ConfigError(msg)
        self.caution = caution
        self._method = method
        self._model = model
        self._sampler = model if sampler is None else sampler

    @property
    def window_policy(self) -> WindowPolicy:
        """The method's."""
        return self._method.window_policy

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Answer by the method's plan; what the language model cannot do is `AnswerFailed`."""
        if query.method not in ("", self._method.name):
            reason = f"this reasoner's method is {self._method.name}, not {query.method[:60]!r}"
            yield AnswerFailed(reason=reason)
            return
        if not window.frames:
            yield Abstained(reason="no frames yet")
            yield AnswerDone()
            return
        asking = _Asking(self._model, self._sampler, query)
        with closing(self._method.plan(query, window)) as plan:
            sent: list[str] | FrameWindow | None = None
            try:
                while True:
                    step = plan.send(sent)
                    sent = None
                    if isinstance(step, SampleStep):
                        sent = yield from asking.sampled(step.request)
                    elif isinstance(step, (AnswerStep, SegmentStep)):
                        yield from asking.answered(step)
                        return
                    else:
                        more = yield step
                        sent = more if isinstance(step, FramesWanted) else None
            except (LanguageModelError, UnusableAnswer) as error:
                yield AnswerFailed(reason=str(error))


class _Asking:
    """The completions of one asking, and what they add up to."""

    def __init__(self, model: LanguageModel, sampler: LanguageModel, query: Query) -> None:
        self._model = model
        self._sampler = sampler
        self._query = query
        self._tokens = 0
        self._has_verdict = False
        self._thought_tokens = 0
        self._is_cut = False  # the last completion, when its tokens were used up
        self._answer_log_probs: list[float] = []
        self._rationale = ""  # not told yet
        self._silent_chunks = 0

    def sampled(
        self, request: LanguageRequest
    ) -> Generator[AnswerPart, FrameWindow | None, list[str]]:
        """The whole texts of a request's completions; signs of life meanwhile."""
        texts = [""] * request.num_samples
        with closing(self._sampler.generate(request)) as stream:
            for chunk in stream:
                self._tokens += chunk.num_tokens
                if 0 <= chunk.sample < len(texts):
                    text = texts[chunk.sample] + chunk.text
                    texts[chunk.sample] = text[:MAX_COMPLETION_CHARS]
                yield from self._sign_of_life(chunk)
        return texts

    def answered(self, step: LastStep) -> _Parts:
        """The parts of the last completion, to the end of the answer stream."""
        reader = StepReader(step)
        try:
            yield from self._streamed(self._opened(step), step, reader)
            if isinstance(step, AnswerStep) and self._is_over_budget(step, reader):
                stream = self._model.generate(_hurried(step, reader))
                reader, self._thought_tokens, self._is_cut = StepReader(step), 0, False
                yield from self._streamed(stream, step, reader)
            if not self._has_verdict:
                _check_end(step, reader, is_cut=self._is_cut)
                yield from self._told(reader.finish())
        except LanguageModelError as error:
            if not self._has_verdict:
                raise
            _LOG.warning("the rationale was cut off: %s", error)
            self._rationale += f"\n[cut off: {error}]"
        if self._has_verdict:
            yield from self._flushed()
            yield AnswerDone(tokens=max(0, self._tokens))
            return
        failed = no_answer(reader.text).part
        assert isinstance(failed, AnswerFailed)  # noqa: S101 (as `no_answer` makes it)
        yield AnswerFailed(reason=self._with_its_end(failed.reason))

    def _opened(self, step: LastStep) -> SegmentStream:
        if isinstance(step, AnswerStep):
            return self._model.generate(step.request)
        assert isinstance(self._model, SegmentingModel)  # noqa: S101 (as the reasoner has seen to)
        return self._model.segment(step.request)

    def _streamed(self, stream: SegmentStream, step: LastStep, reader: StepReader) -> _Parts:
        """Read a completion until it ends, or until no more of it is wanted."""
        with closing(stream):
            for item in stream:
                was_in_answer = reader.is_in_answer or step.form is Form.BARE
                told = reader.read(item.text if isinstance(item, Chunk) else item)
                chunk = item if isinstance(item, Chunk) else Chunk()
                self._tokens += chunk.num_tokens
                self._is_cut = self._is_cut or chunk.is_cut
                if was_in_answer or reader.is_in_answer:
                    self._answer_log_probs += chunk.log_probs
                else:
                    self._thought_tokens += chunk.num_tokens
                yield from self._told(told)
                yield from self._sign_of_life(chunk)
                if self._is_enough(step, reader):
                    return

    def _is_enough(self, step: LastStep, reader: StepReader) -> bool:
        if self._has_verdict and not self._query.want_rationale:
            return True
        if isinstance(step, SegmentStep) and not self._has_verdict:
            return reader.num_found >= MAX_TARGETS  # the model itself ends it, with its ending
        is_over = self._thought_tokens > step.reasoning_tokens
        return reader.is_full or (is_over and (self._has_verdict or not reader.is_in_answer))

    def _is_over_budget(self, step: AnswerStep, reader: StepReader) -> bool:
        is_over = self._is_cut or self._thought_tokens > step.reasoning_tokens
        return is_over and not reader.has_answer and not reader.is_in_answer

    def _told(self, told: Told) -> _Parts:
        """Tell what some more of a completion amounts to."""
        self._rationale += told.rationale
        if len(self._rationale) >= RATIONALE_CHARS:
            yield from self._flushed()
        verdict = told.verdict
        if verdict is None:
            return
        repairs = ", ".join(verdict.repairs)
        if repairs:
            _LOG.info("the answer to query %s was read with repairs: %s", self._query.id, repairs)
        if isinstance(verdict.part, AnswerFailed):
            more = f" (repaired: {repairs})" if repairs else ""
            raise UnusableAnswer(self._with_its_end(verdict.part.reason + more))
        if repairs:
            self._rationale += f"\n[read with repairs: {repairs}]\n"
        yield from self._flushed()
        self._has_verdict = True
        part = verdict.part
        if not isinstance(part, Abstained):
            confidence = _confidence(self._answer_log_probs, part.confidence)
            part = replace(part, confidence=confidence)
        yield part

    def _with_its_end(self, reason: str) -> str:
        return f"the model ran out of tokens: {reason}" if self._is_cut else reason

    def _flushed(self) -> _Parts:
        if self._rationale:
            part, self._rationale = RationalePart(text=self._rationale), ""
            self._silent_chunks = 0
            yield part

    def _sign_of_life(self, chunk: Chunk) -> _Parts:
        """An empty part now and then: its receiver may be waiting to cancel."""
        self._silent_chunks += 1
        if not chunk.num_tokens or self._silent_chunks >= CHUNKS_PER_SIGN:
            self._silent_chunks = 0
            yield RationalePart(text="")


def _check_end(step: LastStep, reader: StepReader, *, is_cut: bool) -> None:
    """Where nothing is forced a cut completion without the token says nothing at all.

    Raises:
        UnusableAnswer: it is one.
    """
    forces = isinstance(step, AnswerStep) or step.request.ending is not None
    if is_cut and not forces and not reader.num_found:
        msg = f"the model ran out of tokens before it said {TOKEN}: {reader.text[:80]!r}"
        raise UnusableAnswer(msg)


def _hurried(step: AnswerStep, reader: StepReader) -> LanguageRequest:
    """Ask for the answer after the thoughts so far: a model that thinks too long is cut short."""
    text = reader.text
    is_open = text.rfind("</think>") <= text.rfind("<think>")  # a chat template may have begun it
    closing_tag = "</think>" if is_open else ""
    thoughts = Message(role=Role.ASSISTANT, content=(text + closing_tag,))
    hurry = Message(role=Role.USER, content=(HURRY,))
    grammar = step.request.grammar
    if isinstance(grammar, CompletionGrammar):
        grammar = replace(grammar, form=Form.ANSWER_ONLY)
    return replace(
        step.request,
        grammar=grammar,
        messages=(*step.request.messages, thoughts, hurry),
        max_tokens=max(1, step.request.max_tokens - step.reasoning_tokens),
    )


def _confidence(log_probs: list[float], quality: float) -> float:
    """The geometric mean of the answer's token probabilities, times its masks' quality.

    Either may be NaN: not known.
    """
    known = [] if math.isnan(quality) else [quality]
    mean = math.fsum(log_probs) / len(log_probs) if log_probs else math.nan
    if math.isfinite(mean):
        known.append(math.exp(min(0.0, mean)))
    return min(1.0, math.prod(known)) if known else math.nan
