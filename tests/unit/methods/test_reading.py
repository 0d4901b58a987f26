# SPDX-License-Identifier: Apache-2.0
"""A whole completion is read as the robot reads it while it streams."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.language_models import ScriptedModel, in_turn
from tests.support.reasoners import query, window_of

from foreseg.dialogue import AnswerFailed, NoTarget, RationalePart, TargetsFound
from foreseg.language.base import Segmented
from foreseg.methods.base import AnswerStep, SegmentStep
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grammar import Form
from foreseg.methods.reading import StepReader, read_completion, reasoning_span
from foreseg.methods.seg_answers import mark_of
from foreseg.methods.veason import VeasonMethod
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.vlm import VlmReasoner

WINDOW = window_of([np.full((56, 56, 3), 40 * i, np.uint8) for i in range(4)])
ASK = query("what falls?")
ANSWER = '<answer>{"keyframe_timestamp": 12, "bbox_2d_list": [[5, 5, 50, 50]]}</answer>'
THINK = "<think>The red one rolls to the left.</think>"


def text_step() -> AnswerStep:
    step = next(VeasonMethod().plan(ASK, WINDOW))
    assert isinstance(step, AnswerStep)
    return step


def mask_step() -> SegmentStep:
    step = next(FevosMethod(FevosSettings(num_frames=4)).plan(ASK, WINDOW))
    assert isinstance(step, SegmentStep)
    return step


def segmented() -> Segmented:
    mask = np.zeros((56, 56), bool)
    mask[10:20, 10:20] = True
    return Segmented(masks=(mask,) * 4, qualities=(0.2, 0.9, 0.3, 0.1))


@pytest.mark.parametrize(
    ("text", "kept", "is_found"),
    [
        (THINK + ANSWER, True, True),
        (ANSWER + THINK, False, True),
        (ANSWER, False, True),
        (THINK, False, False),
        ("", False, False),
        (THINK + "<answer>none</answer>", True, False),
    ],
)
def test_whole_and_streamed_say_the_same(text: str, kept: bool, is_found: bool) -> None:  # noqa: FBT001
    whole = read_completion(text_step(), text)
    parts = list(
        checked_ask(VlmReasoner(VeasonMethod(), ScriptedModel(in_turn([text]))), ASK, WINDOW)
    )
    streamed = next(p for p in parts if isinstance(p, (TargetsFound, NoTarget, AnswerFailed)))
    assert type(streamed) is type(whole.verdict.part)
    assert isinstance(whole.verdict.part, TargetsFound) is is_found
    assert whole.form_kept is kept
    if isinstance(streamed, TargetsFound):
        assert isinstance(whole.verdict.part, TargetsFound)
        assert streamed.prompts == whole.verdict.part.prompts
    if text.startswith("<think>"):
        told = "".join(p.text for p in parts if isinstance(p, RationalePart))
        assert whole.rationale == THINK[7:-8]
        assert told.startswith(whole.rationale) or isinstance(streamed, AnswerFailed)


def test_masks_stand_where_their_marks_are() -> None:
    text = f"<think>It leans.</think><answer>It is {mark_of(0)}.</answer>"
    read = read_completion(mask_step(), text, [segmented()])
    assert read.form_kept
    assert isinstance(read.verdict.part, TargetsFound)
    assert read.verdict.part.keyframe_index == WINDOW.frames[1].index
    assert read.answer == f"It is {mark_of(0)}."


def test_a_model_cannot_spell_a_mark() -> None:
    reader = StepReader(mask_step())
    told = [reader.read(f"<answer>It is {mark_of(0)}.</answer>"), reader.finish()]
    assert all(piece.verdict is None for piece in told)
    assert reader.num_found == 0


def test_a_completion_without_an_answer_says_so() -> None:
    read = read_completion(text_step(), "<think>Well, well.</think>")
    assert isinstance(read.verdict.part, AnswerFailed)
    assert "no answer: '<think>Well" in read.verdict.part.reason
    assert read.answer is None


def test_the_steps_carry_their_form() -> None:
    assert text_step().form is mask_step().form is Form.THINK_FIRST


@pytest.mark.parametrize(
    ("text", "thoughts"),
    [
        (THINK + ANSWER, "The red one rolls to the left."),
        (ANSWER + "<THINK>Later.</Think>", "Later."),
        (ANSWER, ""),
        ("It rolls.</think>" + ANSWER, "It rolls."),
        ("It rolls. " + ANSWER, "It rolls. "),
        ("It rolls on and", "It rolls on and"),
        ("<think>It rolls on and", "It rolls on and"),
        ("  " + ANSWER, ""),
        ("", ""),
    ],
)
def test_the_span_of_the_thoughts(text: str, thoughts: str) -> None:
    start, end = reasoning_span(text)
    assert text[start:end] == thoughts
