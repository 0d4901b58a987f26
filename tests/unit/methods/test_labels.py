# SPDX-License-Identifier: Apache-2.0
"""Labels by number and by rank; and words that tell, or do not tell, how long to think."""

from __future__ import annotations

import numpy as np
import pytest
from tests.support.language_models import labels_in, words_of
from tests.support.reasoners import query, window_of

from foreseg.dialogue import Query, QueryId, TargetsFound
from foreseg.errors import ConfigError, InputError
from foreseg.frames import FrameIndex
from foreseg.history.windows import PinnedWindow
from foreseg.methods.base import AnswerStep, Method, SegmentStep
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grounding import View
from foreseg.methods.labels import LabelForm, RankedWindow, labelled_window
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.reasoner.options import MethodOptions, labels_from_name, method_from_options

WINDOW = window_of([np.full((56, 56, 3), 40 * i, np.uint8) for i in range(4)])  # 0, 4, 8, 12
RANKED = View(image_side_px=56, labels=LabelForm.RANK)


def step_of(method: Method, question: Query | None = None) -> AnswerStep:
    step = next(method.plan(question or query("what falls?"), WINDOW))
    assert isinstance(step, AnswerStep)
    return step


def test_ranks_count_the_frames_that_are_shown() -> None:
    ranked = labelled_window(WINDOW, LabelForm.RANK)
    assert [ranked.label_of(index) for index in ranked.indices] == [0, 1, 2, 3]
    assert ranked.index_of(2) == FrameIndex(108)
    with pytest.raises(InputError, match="its own frames alone, got index 5"):
        ranked.label_of(FrameIndex(5))
    with pytest.raises(InputError, match="4 frames has no rank 4"):
        ranked.index_of(4)
    assert labelled_window(WINDOW, LabelForm.ABSOLUTE) is WINDOW


def test_a_model_of_ranks_is_asked_and_read_in_ranks() -> None:
    method = VeasonMethod(VeasonSettings(view=RANKED))
    step = step_of(method)
    assert labels_in(step.request) == [0, 1, 2, 3]
    assert "its place among them" in words_of(step.request)
    assert "the number of the frame" not in words_of(step.request)
    part = step.read('{"keyframe_timestamp": 3, "bbox_2d_list": [[4, 4, 20, 24]]}').part
    assert isinstance(part, TargetsFound)
    assert part.keyframe_index == FrameIndex(112)
    shown = method.shown(WINDOW)
    assert isinstance(shown, RankedWindow)
    frame = shown.frames[2]
    assert '"keyframe_timestamp": 2' in method.worded(shown, frame, [part.prompts[0].box])  # type: ignore[list-item]


def test_only_veason_may_be_asked_in_ranks() -> None:
    with pytest.raises(ConfigError, match="labels are absolute"):
        VideosegSettings(view=RANKED)
    with pytest.raises(ConfigError, match="are for the method veason, got fevos"):
        method_from_options(MethodOptions(method="fevos"), RANKED)
    with pytest.raises(ConfigError, match="labels wants one of absolute, rank, got 'ranks'"):
        labels_from_name("ranks")


def answer_step_of(method: VideosegMethod, question: Query) -> AnswerStep:
    return method.answer_step(question, WINDOW.newest, WINDOW.frames, WINDOW.origin_index)


@pytest.mark.parametrize("tokens", [100, 700])
def test_a_budget_is_told_or_kept_quiet(tokens: int) -> None:
    question = Query(id=QueryId("q"), text="what falls?", max_reasoning_tokens=tokens)
    view = View(image_side_px=56)
    for quiet in (True, False):
        steps = [
            step_of(VeasonMethod(VeasonSettings(view=view, tells_budget=not quiet)), question),
            answer_step_of(
                VideosegMethod(VideosegSettings(view=view, tells_budget=not quiet)), question
            ),
        ]
        for step in steps:
            is_told = f"in at most {round(tokens * 0.7)} words" in words_of(step.request)
            assert is_told is not quiet
            assert "<think>your reasoning" in words_of(step.request)
            assert step.reasoning_tokens == tokens  # kept to all the same


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "veason", "num_key_frames": 3}, "num_key_frames is for the method videoseg"),
        ({"method": "visa", "num_reference_frames": 0}, "num_reference_frames is for the method"),
        ({"method": "videoseg", "num_reference_frames": -2}, "at least -1, got 0 and -2"),
        ({"method": "videoseg", "num_key_frames": 99}, "num_key_frames wants 1 to 32, got 99"),
        ({"method": "visa", "tells_budget": False}, "tells_budget is for the methods veason and"),
        (
            {"method": "fevos", "pins_frames": True},
            "pins_frames is for the method veason, got fevos",
        ),
    ],
)
def test_an_option_of_another_method_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        method_from_options(MethodOptions(**options), View())  # type: ignore[arg-type]


def test_frames_that_stay_at_their_places_are_an_option() -> None:
    options = MethodOptions(num_frames=5, span_s=8.0, pins_frames=True)
    policy = method_from_options(options, View()).window_policy
    assert policy == PinnedWindow(num_frames=5, span_s=8.0)


def test_frames_of_the_last_request_are_an_option() -> None:
    options = MethodOptions(method="videoseg", num_key_frames=2, num_reference_frames=0)
    method = method_from_options(options, View(image_side_px=56))
    assert isinstance(method, VideosegMethod)
    plan = method.plan(query("what falls?"), WINDOW)
    next(plan)
    step = plan.send(["<answer>[4, 12]</answer>"] * 4)  # the key segment
    while not isinstance(step, AnswerStep):
        is_asked = type(step).__name__ == "SampleStep"
        step = plan.send(["<answer>100</answer>"] * 4 if is_asked else None)
    assert labels_in(step.request) == [4, 12]


def test_a_model_that_segments_may_not_be_told_its_budget_either() -> None:
    question = Query(id=QueryId("q"), text="what falls?", max_reasoning_tokens=100)
    for tells in (True, False):
        settings = FevosSettings(view=View(image_side_px=56), tells_budget=tells)
        plan = FevosMethod(settings).plan(question, WINDOW)
        step = next(plan)
        while not isinstance(step, SegmentStep):
            step = plan.send(None)
        assert ("in at most 70 words" in words_of(step.request.completion)) is tells
