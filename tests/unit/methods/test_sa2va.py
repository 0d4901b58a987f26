# SPDX-License-Identifier: Apache-2.0
"""The method of Sa2VA: its publisher's prompt to the letter, and no [SEG] is no target."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.language_models import words_of
from tests.support.reasoners import query, window_of
from tests.support.segmenting_models import saying

from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    Query,
    TargetsFound,
)
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow
from foreseg.methods.base import SegmentStep
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grounding import View
from foreseg.methods.sa2va import Sa2vaMethod, Sa2vaSettings
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg.reasoner.exchange import checked_ask
from foreseg.reasoner.vlm import VlmReasoner

WINDOW = window_of([np.full((60, 80, 3), 40 * i, np.uint8) for i in range(5)])


def step_of(question: Query, settings: Sa2vaSettings | None = None) -> SegmentStep:
    step = next(Sa2vaMethod(settings).plan(question, WINDOW))
    assert isinstance(step, SegmentStep)
    return step


def parts_of(text: str, question: Query | None = None) -> list[AnswerPart]:
    asked = question or query("what falls?")
    return list(checked_ask(VlmReasoner(Sa2vaMethod(), saying(text)), asked, WINDOW))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("the red cup", "\nPlease segment the red cup."),
        (" the red cup. ", "\nPlease segment the red cup."),
        ("Which falls?", "\n Which falls? Please respond with a segmentation mask."),
    ],
)
def test_frames_come_first_and_the_words_are_the_publishers(text: str, words: str) -> None:
    (message,) = step_of(query(text)).request.completion.messages
    assert [isinstance(part, str) for part in message.content] == [False] * 5 + [True]
    assert message.content[-1] == words


def test_a_horizon_is_added_and_nothing_is_forced() -> None:
    step = step_of(replace(query("the cup"), horizon_s=3.0))
    assert words_of(step.request.completion).endswith(" It is about the next 3 seconds.")
    assert step.request.ending is None
    assert step.request.frames == WINDOW.frames


def test_the_frames_to_decode_are_the_frames_shown() -> None:
    small = FrameWindow(
        frames=tuple(replace(f, image=f.image[::2, ::2]) for f in WINDOW.frames),
        origin_index=WINDOW.origin_index,
    )
    plan = Sa2vaMethod(Sa2vaSettings(view=View(image_side_px=64))).plan(query("x"), small)
    assert next(plan) == FramesWanted(indices=WINDOW.indices, side_px=1024)
    step = plan.send(WINDOW)
    assert isinstance(step, SegmentStep)
    (message,) = step.request.completion.messages
    assert all(part.shape[1] == 64 for part in message.content if not isinstance(part, str))
    assert [frame.image.shape[1] for frame in step.request.frames] == [80] * 5


def test_a_token_is_masks_on_every_frame() -> None:
    parts = parts_of("Sure, [SEG].")
    (found,) = (part for part in parts if isinstance(part, TargetsFound))
    assert len(found.masks_by_frame) == 5
    assert found.prompts[0].mask is not None


@pytest.mark.parametrize("text", ["Sure, it is there.", "I see a cup", "", "There is none.", "{}"])
def test_a_completion_without_the_token_is_no_target(text: str) -> None:
    parts = parts_of(text)
    assert isinstance(parts[-1], AnswerDone)
    (verdict,) = (part for part in parts if isinstance(part, NoTarget))
    assert verdict.reason


@pytest.mark.parametrize(
    "method",
    [
        FevosMethod(FevosSettings(forces_token=False)),
        VisaMethod(VisaSettings(forces_token=False, num_answers=1)),
    ],
)
def test_the_other_methods_force_nothing_where_the_folder_says_so(
    method: FevosMethod | VisaMethod,
) -> None:
    texts = ["50%"] if isinstance(method, VisaMethod) else []
    model = saying(*texts, "It is there.")
    parts = list(checked_ask(VlmReasoner(method, model), query("x"), WINDOW))
    assert any(isinstance(part, NoTarget) for part in parts)


def test_a_cut_completion_without_the_token_is_a_failure() -> None:
    model = saying("Let me look at this for a long time " * 40)
    model.cuts = True
    parts = list(checked_ask(VlmReasoner(Sa2vaMethod(), model), query("x"), WINDOW))
    assert isinstance(parts[-1], AnswerFailed)
    assert "ran out of tokens before it said [SEG]" in parts[-1].reason


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_frames wants 1 to 32, got 0"):
        Sa2vaSettings(num_frames=0)
