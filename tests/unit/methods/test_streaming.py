# SPDX-License-Identifier: Apache-2.0
"""A method over a language model that streams: what is told when, and what ends the generation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.support.language_models import ScriptedModel, cooperative, in_turn, words_of
from tests.support.reasoners import query, window_of

from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.vlm import VlmReasoner

WINDOW = window_of([np.full((56, 56, 3), 40 * i, np.uint8) for i in range(4)])
ANSWER = '<answer>{"keyframe_timestamp": 12, "bbox_2d_list": [[5, 5, 50, 50]]}</answer>'
THINK = "<think>" + "The red one is rolling to the left. " * 5 + "</think>"
ASK = query("what falls?")


def parts_of(
    model: ScriptedModel, question: Query = ASK, settings: VeasonSettings | None = None
) -> list[AnswerPart]:
    reasoner = VlmReasoner(VeasonMethod(settings), model)
    return list(checked_ask(reasoner, question, WINDOW))


def rationale_of(parts: list[AnswerPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, RationalePart))


def verdict_at(parts: list[AnswerPart]) -> int:
    (at,) = (i for i, p in enumerate(parts) if isinstance(p, (TargetsFound, NoTarget)))
    return at


def test_rationale_comes_first_and_then_the_targets() -> None:
    parts = parts_of(ScriptedModel(in_turn([THINK + ANSWER])))
    assert isinstance(parts[-2], TargetsFound)
    assert isinstance(parts[-1], AnswerDone)
    assert rationale_of(parts[:-2]) == THINK[7:-8]
    assert parts[-1].tokens == math.ceil(len(THINK + ANSWER) / 7)


def test_a_query_for_another_method_fails_and_names_both() -> None:
    model = ScriptedModel(in_turn([THINK + ANSWER]))
    (failed,) = parts_of(model, replace(ASK, method="visa"))
    assert failed == AnswerFailed(reason="this reasoner's method is veason, not 'visa'")
    assert model.requests == []
    assert isinstance(parts_of(model, replace(ASK, method="veason"))[-1], AnswerDone)


def test_answer_first_tells_the_targets_before_the_rationale() -> None:
    question = replace(ASK, answer_first=True, want_rationale=True)
    parts = parts_of(ScriptedModel(in_turn([ANSWER + THINK])), question)
    at = verdict_at(parts)
    assert rationale_of(parts[:at]) == ""
    assert rationale_of(parts[at:]).strip() == THINK[7:-8].strip()


def test_an_unwanted_rationale_is_not_waited_for() -> None:
    model = ScriptedModel(in_turn([ANSWER + THINK]))
    parts = parts_of(model, replace(ASK, answer_first=True))
    assert rationale_of(parts) == ""
    assert model.num_closed == 1
    assert isinstance(parts[-1], AnswerDone)
    assert parts[-1].tokens <= math.ceil(len(ANSWER) / 7) + 1


def test_a_model_that_thinks_too_long_is_asked_for_its_answer() -> None:
    endless = "<think>" + "and then again " * 400
    model = ScriptedModel(in_turn([endless, ANSWER]))
    parts = parts_of(model, replace(ASK, max_reasoning_tokens=20))
    assert isinstance(parts[verdict_at(parts)], TargetsFound)
    first, second = model.requests
    assert model.num_closed >= 1
    assert len(second.messages) == 3
    assert "</think>" in words_of(replace(second, messages=second.messages[1:2]))
    assert second.max_tokens == first.max_tokens - 20
    assert isinstance(parts[-1], AnswerDone)
    assert 20 < parts[-1].tokens < 20 + len(ANSWER)


@pytest.mark.parametrize(
    ("thoughts", "closed"),
    [
        ("<think>" + "and so on " * 90, True),
        ("and so on " * 90, True),  # the chat's template has begun it
        ("<think>So.</think>" + "and so on " * 90, False),
    ],
)
def test_thoughts_that_are_cut_short_are_closed_once(thoughts: str, closed: bool) -> None:  # noqa: FBT001
    model = ScriptedModel(in_turn([thoughts, ANSWER]))
    parts = parts_of(model, replace(ASK, max_reasoning_tokens=20))
    assert isinstance(parts[-1], AnswerDone)
    (told,) = model.requests[1].messages[1].content
    assert isinstance(told, str)
    assert told.count("</think>") == 1
    assert told.endswith("</think>") is closed


def test_a_long_rationale_after_the_answer_is_cut_at_its_budget() -> None:
    question = replace(ASK, answer_first=True, want_rationale=True, max_reasoning_tokens=20)
    model = ScriptedModel(in_turn([ANSWER + "<think>" + "and again " * 400]))
    parts = parts_of(model, question)
    assert isinstance(parts[-1], AnswerDone)
    assert len(rationale_of(parts)) < 200
    assert len(model.requests) == 1


def test_confidence_is_that_of_the_answers_tokens() -> None:
    parts = parts_of(ScriptedModel(in_turn([THINK + ANSWER]), log_probs=(math.log(0.8),)))
    found = parts[verdict_at(parts)]
    assert isinstance(found, TargetsFound)
    assert found.confidence == pytest.approx(0.8)
    unknown = parts_of(ScriptedModel(in_turn([THINK + ANSWER])))
    assert math.isnan(unknown[verdict_at(unknown)].confidence)  # type: ignore[union-attr]


def test_repairs_are_told_in_the_rationale() -> None:
    text = "<answer>```json\n{'keyframe': 11, 'boxes': [[50, 5, 5, 50],]}\n```</answer>"
    parts = parts_of(ScriptedModel(in_turn([text])))
    told = rationale_of(parts)
    for repair in ("code fence", "other quotes", "swapped corners", "keyframe 11 read as 12"):
        assert repair in told


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("<think>hm</think>", "has no answer"),
        ("<answer>the red ball</answer>", "no list or object: 'the red ball'"),
        ('<answer>{"keyframe_timestamp": 3, "bbox', "wants bbox_2d_list"),
        ("I cannot see any video.", "no list or object"),
    ],
)
def test_what_is_no_answer_fails_with_its_reason(text: str, reason: str) -> None:
    parts = parts_of(ScriptedModel(in_turn([text])))
    assert isinstance(parts[-1], AnswerFailed)
    assert reason in parts[-1].reason


def test_a_model_that_breaks_off_fails_the_answer_but_not_a_told_one() -> None:
    parts = parts_of(ScriptedModel(in_turn([THINK + ANSWER]), breaks_after=3))
    assert parts[-1] == AnswerFailed(reason="the line went dead")
    chunks = math.ceil(len(ANSWER) / 7) + 2
    question = replace(ASK, answer_first=True, want_rationale=True)
    parts = parts_of(ScriptedModel(in_turn([ANSWER + THINK]), breaks_after=chunks), question)
    assert isinstance(parts[-1], AnswerDone)
    assert "cut off: the line went dead" in rationale_of(parts)


def test_closing_the_answer_closes_the_generation() -> None:
    model = ScriptedModel(in_turn([THINK * 20 + ANSWER]))
    stream = VlmReasoner(VeasonMethod(), model).ask(ASK, WINDOW)
    next(stream)
    stream.close()
    assert model.num_closed == 1


def test_videoseg_wants_frames_and_answers_about_one_that_came() -> None:
    every = window_of([np.full((56, 56, 3), 5 * i, np.uint8) for i in range(40)])
    first = replace(every, frames=every.frames[::8])
    settings = replace(VideosegSettings.fast(), segment_share=0.1)
    reasoner = VlmReasoner(VideosegMethod(settings), ScriptedModel(cooperative))
    stream = checked_ask(reasoner, ASK, first)
    given, parts = set(first.indices), []
    part = next(stream)
    while not isinstance(part, (AnswerDone, AnswerFailed)):
        parts.append(part)
        if isinstance(part, FramesWanted):
            more = [f for f in every.frames if f.index in part.indices]
            given |= {frame.index for frame in more}
            part = stream.send(replace(every, frames=tuple(more)))
        else:
            part = next(stream)
    assert isinstance(part, AnswerDone)
    found = parts[verdict_at(parts)]
    assert isinstance(found, TargetsFound)
    assert found.keyframe_index in given
    assert "[sampler: target frame" in rationale_of(parts)


def test_a_frozen_sampler_chooses_the_frames_and_the_model_answers() -> None:
    model, sampler = ScriptedModel(cooperative), ScriptedModel(cooperative)
    reasoner = VlmReasoner(VideosegMethod(VideosegSettings.fast()), model, sampler)
    parts = list(reasoner.ask(ASK, WINDOW))  # all frames that it wants are there
    assert any(isinstance(part, TargetsFound) for part in parts)
    assert [len(m.requests) for m in (sampler, model)] == [2, 1]  # an interval and a percentage
    assert "[first, last]" in words_of(sampler.requests[0])
    assert "is the target frame" in words_of(model.requests[0])
