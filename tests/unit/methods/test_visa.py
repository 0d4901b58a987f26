# SPDX-License-Identifier: Apache-2.0
"""The method of VISA: how it finds its target frame, what it shows, and what it makes of tokens."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.support.language_models import ScriptedModel, in_turn, words_of
from tests.support.reasoners import query, window_of
from tests.support.segmenting_models import ScriptedSegmenter, saying

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
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.language.base import LanguageRequest
from foreseg.methods.base import SampleStep, SegmentStep, Step
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.visa import References, TargetFrame, VisaMethod, VisaSettings
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.vlm import VlmReasoner

NUM_FRAMES = 101
_FILM = window_of([np.full((28, 56, 3), 2 * i, np.uint8) for i in range(NUM_FRAMES)])
FILM = tuple(
    replace(frame, ref=replace(frame.ref, index=FrameIndex(500 + i)))
    for i, frame in enumerate(_FILM.frames)
)
VIEW = View(image_side_px=28)
ASK = query("what falls?")


def frames_at(*labels: int) -> FrameWindow:
    """A window of the film, whose frames are numbered without gaps here."""
    return FrameWindow(frames=tuple(FILM[n] for n in labels), origin_index=FrameIndex(500))


FIRST = frames_at(*range(0, NUM_FRAMES, 10))


def shown_in(request: LanguageRequest) -> list[int]:
    """The numbers of the frames that a request shows: each is as bright as twice its number."""
    images = (part for part in request.messages[0].content if not isinstance(part, str))
    return [int(image[0, 0, 0]) // 2 for image in images]


def played(
    answers: list[str],
    question: Query = ASK,
    gone: frozenset[int] = frozenset(),
    form: Form | None = Form.BARE,
) -> list[Step]:
    """The steps of a plan whose sampler gets these answers."""
    plan = VisaMethod(VisaSettings(view=VIEW, form=form)).plan(question, FIRST)
    steps: list[Step] = [next(plan)]
    while not isinstance(steps[-1], SegmentStep):
        sent: list[str] | FrameWindow | None = None
        if isinstance(steps[-1], SampleStep):
            sent = answers
        elif isinstance(steps[-1], FramesWanted):
            labels = [int(index) - 500 for index in steps[-1].indices]
            sent = frames_at(*(label for label in labels if label not in gone))
        steps.append(plan.send(sent))
    return steps


def last_of(steps: list[Step]) -> SegmentStep:
    assert isinstance(steps[-1], SegmentStep)
    return steps[-1]


def test_ten_percentages_are_averaged_and_nonsense_is_left_out() -> None:
    answers = ["<answer>20%</answer>", "40", "0.6", "maybe 10 or 20", "<answer>-5</answer>", "?"]
    steps = played(answers)
    sampling = steps[0]
    assert isinstance(sampling, SampleStep)
    assert sampling.request.num_samples == 10
    assert sampling.request.temperature > 0
    note = next(step.text for step in steps if isinstance(step, RationalePart))
    assert note == "[sampler: target frame <40>, 3 of 6 answers]\n"
    assert [int(frame.index) for frame in last_of(steps).request.frames] == [540]


def test_a_sampler_that_says_nothing_useful_leaves_the_newest_frame() -> None:
    steps = played(["no idea"] * 10)
    assert "the newest frame is taken" in repr(steps)
    assert [int(frame.index) for frame in last_of(steps).request.frames] == [600]


def test_the_target_comes_first_and_then_global_and_local_references() -> None:
    step = last_of(played(["45%"] * 10))
    labels = shown_in(step.request.completion)
    assert labels[0] == 45
    assert labels[1:] == sorted(labels[1:])
    assert len(labels) == len(set(labels)) == 13  # twelve beside it
    assert {42, 43, 44, 46, 47, 48} < set(labels)
    others = sorted(set(labels) - set(range(42, 48)))
    assert others[0] == 0
    assert others[-1] == 100
    assert max(b - a for a, b in pairwise(others)) <= 30


def test_the_words_are_the_papers_to_the_letter() -> None:
    def said(text: str, **more: float) -> tuple[str, str]:
        steps = played(["45%"], replace(ASK, text=text, **more))  # type: ignore[arg-type]
        sampling = steps[0]
        assert isinstance(sampling, SampleStep)
        return words_of(sampling.request), words_of(last_of(steps).request.completion)

    sampler, question = said("red car in front")
    assert sampler == (
        "To find red car in front, which percentage mark of the video should I check? Please"
        " respond with a number between 0% and 100%."
    )
    assert question == "Can you segment the red car in front?"
    assert said("The red car.")[1] == "Can you segment the red car?"
    assert said("the")[1] == "Can you segment the the?"
    assert said("a {brace}?")[1] == "Can you segment the a {brace}?"
    assert said("what falls?", horizon_s=2.5)[1] == (
        "Can you segment the what falls? It is about the next 2.5 seconds."
    )
    assert VisaMethod().sentence() == "Yes, it is [SEG]."


@pytest.mark.parametrize(
    ("said", "is_found", "is_forced"),
    [
        ("Yes, it is [SEG].", True, False),
        ("<answer>Yes, it is [SEG].</answer>", True, False),
        ("", True, True),
        ("Yes, I can.", True, True),
        ("There is no such object.", False, False),
    ],
)
def test_the_papers_bare_answer_is_read(said: str, is_found: bool, is_forced: bool) -> None:  # noqa: FBT001
    parts = asked(saying("45%", "47%", said), FIRST)
    (verdict,) = (part for part in parts if isinstance(part, (TargetsFound, NoTarget)))
    assert isinstance(verdict, TargetsFound) is is_found
    told = "".join(part.text for part in parts if isinstance(part, RationalePart))
    assert ("not said but forced" in told) is is_forced
    assert "Yes" not in told or said == "Yes, I can."


def test_only_frames_that_are_not_at_hand_are_wanted() -> None:
    wanted = [step for step in played(["50%"] * 10) if isinstance(step, FramesWanted)]
    (indices,) = (step.indices for step in wanted)
    assert [int(index) - 500 for index in indices] == [47, 48, 49, 51, 52, 53]


def test_a_target_frame_that_is_gone_gives_way_to_its_neighbour() -> None:
    step = last_of(played(["46%"] * 10, gone=frozenset(range(41, 50))))
    assert [int(frame.index) for frame in step.request.frames] == [550]


def test_the_mask_is_decoded_at_full_size_though_less_is_shown() -> None:
    step = last_of(played(["45%"] * 10))
    assert step.request.frames[0].image.shape == (28, 56, 3)
    shown = next(p for p in step.request.completion.messages[0].content if not isinstance(p, str))
    assert shown.shape == (14, 28, 3)


def test_the_target_frame_is_wanted_large_and_the_others_are_not() -> None:
    small = FrameWindow(
        frames=tuple(replace(f, image=f.image[::2, ::2]) for f in FIRST.frames),
        origin_index=FIRST.origin_index,
    )
    plan = VisaMethod(VisaSettings(view=VIEW, target=TargetFrame.FIRST)).plan(ASK, small)
    wanted = [next(plan)]
    while isinstance(wanted[-1], FramesWanted) and not wanted[-1].side_px:
        wanted.append(plan.send(None))
    assert wanted[-1] == FramesWanted(indices=(FILM[0].index,), side_px=1024)
    step = plan.send(frames_at(0))
    assert isinstance(step, SegmentStep)
    assert step.request.frames == frames_at(0).frames


def test_one_frame_needs_no_sampler() -> None:
    step = next(VisaMethod().plan(ASK, frames_at(7)))
    assert isinstance(step, SegmentStep)
    assert shown_in(step.request.completion) == [7]


def test_the_form_is_the_papers_whatever_is_to_be_shown_unless_a_setting_says_otherwise() -> None:
    plain = last_of(played(["45%"]))
    assert plain.form is Form.BARE
    assert "<" not in words_of(plain.request.completion)
    shown = last_of(played(["45%"], replace(ASK, want_rationale=True)))
    assert words_of(shown.request.completion) == words_of(plain.request.completion)
    for form, is_answer_first in ((Form.THINK_FIRST, False), (Form.ANSWER_FIRST, True)):
        step = last_of(played(["45%"], form=form))
        words = words_of(step.request.completion)
        assert (words.index("<answer>") < words.index("<think>")) is is_answer_first
        assert step.request.completion.max_tokens > plain.request.completion.max_tokens


def asked(model: ScriptedSegmenter, window: FrameWindow) -> list[AnswerPart]:
    settings = VisaSettings(num_answers=2, view=VIEW)
    parts: list[AnswerPart] = []
    stream = checked_ask(VlmReasoner(VisaMethod(settings), model), ASK, window)
    part = next(stream)
    while not isinstance(part, (AnswerDone, AnswerFailed)):
        parts.append(part)
        more = None
        if isinstance(part, FramesWanted):
            more = frames_at(*(int(index) - 500 for index in part.indices))
        part = stream.send(more)
    return [*parts, part]


def test_a_whole_asking_gives_a_mask_prompt_in_source_pixels() -> None:
    model = saying("45%", "47%", "<answer>They are [SEG] and [SEG].</answer>")
    parts = asked(model, FIRST)
    (found,) = (part for part in parts if isinstance(part, TargetsFound))
    assert found.keyframe_index == 546
    assert len(found.prompts) == 2
    for prompt in found.prompts:
        assert prompt.mask is not None
        assert (prompt.mask.width, prompt.mask.height) == (56, 28)
    assert isinstance(parts[-1], AnswerDone)


def test_a_model_that_cannot_segment_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"VisaMethod wants a model that decodes \[SEG\]"):
        VlmReasoner(VisaMethod(), ScriptedModel(in_turn([])))


def labels_of_arm(**arm: object) -> list[int]:
    settings = replace(VisaSettings(view=VIEW), **arm)
    plan = VisaMethod(settings).plan(ASK, FIRST)
    step = next(plan)
    while not isinstance(step, SegmentStep):
        sent: list[str] | FrameWindow | None = ["45%"] if isinstance(step, SampleStep) else None
        if isinstance(step, FramesWanted):
            sent = frames_at(*(int(index) - 500 for index in step.indices))
        step = plan.send(sent)
    return shown_in(step.request.completion)


def test_the_arms_of_the_papers_tables() -> None:
    assert labels_of_arm(num_reference_frames=0) == [45]
    local = labels_of_arm(references=References.LOCAL, num_reference_frames=6)
    assert local == [45, 42, 43, 44, 46, 47, 48]
    spread = labels_of_arm(references=References.GLOBAL, num_reference_frames=5)
    assert spread == [45, 0, 20, 50, 70, 100]
    first = labels_of_arm(target=TargetFrame.FIRST, num_reference_frames=4)
    assert first[:3] == [0, 1, 2]


def test_the_first_frame_is_taken_unasked() -> None:
    settings = VisaSettings(view=VIEW, target=TargetFrame.FIRST, num_reference_frames=0)
    step = next(VisaMethod(settings).plan(ASK, FIRST))
    assert isinstance(step, SegmentStep)
    assert shown_in(step.request.completion) == [0]


@pytest.mark.parametrize("name", ["num_answers", "num_reference_frames", "num_sampler_frames"])
def test_settings_that_cannot_work_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} wants . to"):
        VisaSettings(**{name: -1})
