# SPDX-License-Identifier: Apache-2.0
"""The method of FeVOS-R1, and what both [SEG] methods make of a completion and its masks."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from tests.support.language_models import labels_in, words_of
from tests.support.reasoners import query, window_of
from tests.support.segmenting_models import Painter, ScriptedSegmenter, box_mask, saying

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
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameWindow
from foreseg.masks import Mask, mask_from_rle, rle_area
from foreseg.methods.base import SegmentStep
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grammar import Form
from foreseg.methods.seg_answers import forced_ending, mark_of, read_targets
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.vlm import VlmReasoner

WINDOW = window_of([np.full((60, 80, 3), 40 * i, np.uint8) for i in range(5)])
ASK = query("what falls?")
THINK = "<think>" + "It leans over the edge. " * 6 + "</think>"
ONE = "<answer>It is [SEG].</answer>"


def parts_of(model: ScriptedSegmenter, question: Query = ASK) -> list[AnswerPart]:
    return list(checked_ask(VlmReasoner(FevosMethod(), model), question, WINDOW))


def rationale_of(parts: list[AnswerPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, RationalePart))


def found_in(parts: list[AnswerPart]) -> TargetsFound:
    assert isinstance(parts[-1], AnswerDone), parts[-1]
    (found,) = (part for part in parts if isinstance(part, TargetsFound))
    return found


def best_at(rank: int, quality: float = 0.9) -> Painter:
    """A mask on every frame, judged best on one of them."""

    def paint(frame: Frame, number: int) -> tuple[Mask, float]:
        is_best = frame.index == WINDOW.frames[rank].index
        mask = box_mask(frame, 5 * rank, number, 5 * rank + 10, number + 10)
        return mask, quality if is_best else 0.3

    return paint


def test_five_labelled_frames_are_shown_and_each_is_decoded() -> None:
    step = next(FevosMethod().plan(ASK, WINDOW))
    assert isinstance(step, SegmentStep)
    assert labels_in(step.request.completion) == [0, 4, 8, 12, 16]
    assert step.request.frames == WINDOW.frames
    assert FevosMethod().window_policy.num_frames == 5  # type: ignore[attr-defined]
    words = words_of(step.request.completion)
    assert words.index("<think>") < words.index("<answer>It is [SEG].</answer>")


def test_rationale_streams_and_the_best_frame_becomes_the_keyframe() -> None:
    parts = parts_of(saying(THINK + ONE, paint=best_at(2)))
    found = found_in(parts)
    assert rationale_of(parts) == THINK[7:-8]
    assert sum(isinstance(part, RationalePart) for part in parts) > 1
    assert found.keyframe_index == WINDOW.frames[2].index
    mask = found.prompts[0].mask
    assert mask is not None
    assert np.array_equal(mask_from_rle(mask), box_mask(WINDOW.frames[2], 10, 0, 20, 10))


def test_frames_that_came_small_are_wanted_at_the_size_at_which_they_are_decoded() -> None:
    small = FrameWindow(
        frames=tuple(replace(f, image=f.image[::2, ::2]) for f in WINDOW.frames),
        origin_index=WINDOW.origin_index,
    )
    plan = FevosMethod(FevosSettings(decode_side_px=64)).plan(ASK, small)
    wanted = next(plan)
    assert wanted == FramesWanted(indices=WINDOW.indices, side_px=64)
    some = FrameWindow(frames=WINDOW.frames[1:3], origin_index=WINDOW.origin_index)
    step = plan.send(some)
    assert isinstance(step, SegmentStep)
    sides = [frame.image.shape[1] for frame in step.request.frames]
    assert sides == [40, 80, 80, 40, 40]  # the others are at hand in no larger size
    assert isinstance(
        next(FevosMethod(FevosSettings(decode_side_px=40)).plan(ASK, small)), SegmentStep
    )


def test_the_masks_of_all_frames_are_handed_on_as_unions() -> None:
    def paint(frame: Frame, number: int) -> tuple[Mask, float]:
        side = 0 if frame.index == WINDOW.frames[1].index else 10
        return box_mask(frame, 20 * number, 0, 20 * number + side, side), 0.9

    found = found_in(parts_of(saying("<answer>They are [SEG] and [SEG].</answer>", paint=paint)))
    assert [each.frame_index for each in found.masks_by_frame] == list(WINDOW.indices)
    assert [rle_area(each.mask) for each in found.masks_by_frame] == [200, 0, 200, 200, 200]


def test_one_token_is_asked_for_whatever_the_number_of_objects() -> None:
    step = next(FevosMethod().plan(ASK, WINDOW))
    assert isinstance(step, SegmentStep)
    words = words_of(step.request.completion)
    assert "[SEG] stands for all the objects that answer the query, together." in words
    assert "[SEG] and [SEG]" not in words


def test_several_tokens_are_several_objects_on_one_keyframe() -> None:
    found = found_in(parts_of(saying("<answer>They are [SEG], [SEG] and [SEG].</answer>")))
    assert len(found.prompts) == 3
    assert len({prompt.mask for prompt in found.prompts}) == 3


def test_answer_first_is_told_before_its_rationale_and_ends_without_a_wish_for_it() -> None:
    question = replace(ASK, answer_first=True, want_rationale=True)
    parts = parts_of(saying(ONE + THINK), question)
    at = next(i for i, part in enumerate(parts) if isinstance(part, TargetsFound))
    assert rationale_of(parts[:at]) == ""
    assert rationale_of(parts[at:]).strip() == THINK[7:-8].strip()
    model = saying(ONE + THINK)
    assert rationale_of(parts_of(model, replace(ASK, answer_first=True))) == ""
    assert model.num_closed == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<think>I cannot",
        THINK + "<answer>the red ball</answer>",
        THINK + "<answer>the red",
        "I would say: the ball.",
        "<think>It is \ue0000\ue001.</think>",  # a mark that the model itself spells
        "[ SEG ] <seg>",
    ],
)
def test_a_completion_without_the_token_gets_it_and_that_is_a_repair(text: str) -> None:
    parts = parts_of(saying(text))
    assert found_in(parts).keyframe_index == WINDOW.newest.index
    assert "read with repairs: [SEG] was not said but forced" in rationale_of(parts)
    assert "\ue000" not in rationale_of(parts)


@pytest.mark.parametrize(
    "text",
    [
        '<think>hm</think><answer>{"no_target": "the table is empty"}</answer>',
        "<answer>There is no target.</answer>",
        "<think>Or [SEG]?</think><answer>none</answer>",
        "nothing",
    ],
)
def test_no_target_is_an_answer_and_nothing_is_forced(text: str) -> None:
    parts = parts_of(saying(text))
    assert isinstance(parts[-1], AnswerDone)
    (verdict,) = (part for part in parts if isinstance(part, NoTarget))
    assert verdict.reason
    assert not any(isinstance(part, TargetsFound) for part in parts)


def test_a_token_in_the_thoughts_counts_only_if_there_is_no_other() -> None:
    def paint(frame: Frame, number: int) -> tuple[Mask, float]:
        return box_mask(frame, 10 * number, 0, 10 * number + 5, 5), 0.5

    found = found_in(parts_of(saying(f"<think>not [SEG]</think>{ONE}", paint=paint)))
    (prompt,) = found.prompts
    assert prompt.mask is not None
    assert np.flatnonzero(mask_from_rle(prompt.mask).any(axis=0))[0] == 10
    parts = parts_of(saying("<think>so it is [SEG]</think>", paint=paint))
    assert len(found_in(parts).prompts) == 1
    assert "[SEG] outside of the answer" in rationale_of(parts)


def test_masks_without_a_pixel_are_no_target_or_left_out() -> None:
    def second_only(frame: Frame, number: int) -> tuple[Mask, float]:
        side = 10 if number == 1 and frame.index == WINDOW.frames[1].index else 0
        return box_mask(frame, 0, 0, side, side), 0.9

    parts = parts_of(saying("<answer>They are [SEG] and [SEG].</answer>", paint=second_only))
    found = found_in(parts)
    assert found.keyframe_index == WINDOW.frames[1].index
    assert len(found.prompts) == 1
    assert "without a pixel on the keyframe" in rationale_of(parts)
    parts = parts_of(saying(ONE, paint=second_only))
    (verdict,) = (part for part in parts if isinstance(part, NoTarget))
    assert "draws it on no frame" in verdict.reason


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("It is [SEG].", "1 object"),
        ("Yes, they are [SEG] and [SEG].", "2 objects"),
        ("The red cup [SEG] will fall", "The red cup will fall"),
        ("[SEG]", "1 object"),
    ],
)
def test_an_answer_says_in_words_what_it_found(answer: str, words: str) -> None:
    assert found_in(parts_of(saying(f"<answer>{answer}</answer>"))).text == words


def test_confidence_is_that_of_the_words_times_that_of_the_masks() -> None:
    model = saying(THINK + ONE, paint=best_at(1, quality=0.5))
    model.log_probs = (math.log(0.8),)
    assert found_in(parts_of(model)).confidence == pytest.approx(0.4)
    assert found_in(parts_of(saying(ONE, paint=best_at(1)))).confidence == pytest.approx(0.9)


def test_a_flood_of_tokens_is_cut_at_the_most_targets() -> None:
    model = saying("<answer>" + "[SEG]" * 500)
    found = found_in(parts_of(model))
    assert len(found.prompts) <= 64
    assert model.num_closed == 1


def test_thoughts_are_bounded_by_the_request_and_a_rationale_after_by_its_budget() -> None:
    model = saying(ONE + "<think>" + "and again " * 400)
    question = replace(ASK, answer_first=True, want_rationale=True, max_reasoning_tokens=20)
    parts = parts_of(model, question)
    assert model.segmented[0].completion.max_tokens == 20 + FevosSettings().answer_tokens
    assert isinstance(parts[-1], AnswerDone)
    assert len(rationale_of(parts)) < 200


def test_closing_the_answer_closes_the_generation() -> None:
    model = saying(THINK * 20 + ONE)
    stream = VlmReasoner(FevosMethod(), model).ask(ASK, WINDOW)
    next(stream)
    stream.close()
    assert model.num_closed == 1


def test_reading_is_refused_without_any_mask() -> None:
    verdict = read_targets(f"It is {mark_of(0)}.", [], frames=WINDOW.frames)
    assert isinstance(verdict.part, AnswerFailed)


def test_the_ending_closes_what_is_open() -> None:
    assert forced_ending("<think>so") == "</think>\n<answer>It is [SEG].</answer>"
    assert forced_ending("<think>so</think>") == "\n<answer>It is [SEG].</answer>"
    assert forced_ending("<think>so</think><answer>The") == " It is [SEG].</answer>"
    assert forced_ending("<answer>none</answer>") == ""
    bare = partial(forced_ending, form=Form.BARE, said="Yes, it is [SEG].")
    assert bare("") == "Yes, it is [SEG]."
    assert bare("Yes, I can.") == " Yes, it is [SEG]."
    assert bare("There is no such object.") == ""


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_frames wants 1 to 32, got 33"):
        FevosSettings(num_frames=33)
    with pytest.raises(ConfigError, match="decode_side_px wants 16 to 4096, got 8"):
        FevosSettings(decode_side_px=8)
