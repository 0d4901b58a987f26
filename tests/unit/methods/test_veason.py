# SPDX-License-Identifier: Apache-2.0
"""The method of Veason-R1: what the model is shown and told, and what its answers become."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.support.language_models import ScriptedModel, in_turn, words_of
from tests.support.reasoners import query, window_of

from foreseg.dialogue import Abstained, AnswerFailed, NoTarget, Query, QueryId, TargetsFound
from foreseg.errors import ConfigError
from foreseg.geometry import BoxXyxy
from foreseg.methods.base import AnswerStep, Verdict
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Coordinates, View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg.reasoner.vlm import VlmReasoner

SIZE_WH = (560, 420)
WINDOW = window_of([np.full((420, 560, 3), 40 * i, np.uint8) for i in range(4)])  # 0, 4, 8, 12
EXACT = View(image_side_px=280)  # 280 x 210: the model counts in 280 x 224


def read(text: str, view: View = EXACT) -> Verdict:
    method = VeasonMethod(VeasonSettings(view=view))
    return method.read(text, view.shown(WINDOW))


def found(text: str, view: View = EXACT) -> TargetsFound:
    part = read(text, view).part
    assert isinstance(part, TargetsFound), part
    return part


def boxes(part: TargetsFound) -> list[BoxXyxy | None]:
    return [prompt.box for prompt in part.prompts]


def step_of(question: Query, settings: VeasonSettings | None = None) -> AnswerStep:
    step = next(VeasonMethod(settings).plan(question, WINDOW))
    assert isinstance(step, AnswerStep)
    return step


def test_each_frame_stands_after_its_label_with_the_gaps_kept() -> None:
    content = step_of(query("what falls?")).request.messages[0].content
    labels = [item for item in content[1:-1] if isinstance(item, str)]
    images = [item for item in content if not isinstance(item, str)]
    assert labels == ["<0>", "<4>", "<8>", "<12>"]
    assert [int(image[0, 0, 0]) for image in images] == [0, 40, 80, 120]
    assert isinstance(content[1], str)
    assert images[0].shape == (336, 448, 3)


@pytest.mark.parametrize("answer_first", [False, True])
def test_the_template_asks_in_the_order_of_the_query(answer_first: bool) -> None:  # noqa: FBT001
    question = Query(id=QueryId("q"), text="what falls?", answer_first=answer_first)
    words = words_of(step_of(question).request)
    shown = words[words.index("exactly this form:") + 18 : words.index("\nIf nothing")]
    form = Form.ANSWER_FIRST if answer_first else Form.THINK_FIRST
    assert form.matches(shown)
    assert "what falls?" in words


def test_what_is_shown_does_not_change_what_is_asked() -> None:
    asked = [
        words_of(step_of(Query(id=QueryId("q"), text="?", want_rationale=wanted)).request)
        for wanted in (False, True)
    ]
    assert asked[0] == asked[1]


def test_a_model_that_knows_one_form_is_asked_in_it() -> None:
    first, only = (
        next(VeasonMethod(VeasonSettings(form=form)).plan(query("what falls?"), WINDOW))
        for form in (Form.ANSWER_FIRST, Form.ANSWER_ONLY)
    )
    assert isinstance(first, AnswerStep)
    assert isinstance(only, AnswerStep)
    assert words_of(first.request).index("<answer>") < words_of(first.request).index("<think>")
    assert "<think>" not in words_of(only.request)
    assert only.request.max_tokens < first.request.max_tokens


def test_a_wish_that_the_model_was_not_trained_for_is_refused_with_the_way_out() -> None:
    question = Query(id=QueryId("q"), text="what falls?", answer_first=True)
    model = ScriptedModel(in_turn(["<answer>{}</answer>"]))
    reasoner = VlmReasoner(VeasonMethod(VeasonSettings(form=Form.THINK_FIRST)), model)
    (part,) = list(reasoner.ask(question, WINDOW))
    assert isinstance(part, AnswerFailed)
    assert "trained think-first" in part.reason
    assert not model.requests


def test_a_querys_budget_bounds_the_request() -> None:
    step = step_of(Query(id=QueryId("q"), text="what falls?", max_reasoning_tokens=50))
    assert step.reasoning_tokens == 50
    assert step.request.max_tokens == 50 + VeasonSettings().answer_tokens
    assert "35 words" in words_of(step.request)


def test_pixels_are_those_of_the_frame_as_the_processor_resizes_it() -> None:
    part = found('{"keyframe_timestamp": 4, "bbox_2d_list": [[28, 112, 140, 224]]}')
    assert part.keyframe_index == 104
    assert boxes(part) == [BoxXyxy(56, 210, 280, 420)]  # of 280 x 224, to 560 x 420


def test_milli_coordinates_count_over_each_side() -> None:
    view = View(coordinates=Coordinates.MILLI)
    part = found('{"keyframe_timestamp": 0, "bbox_2d_list": [[0, 500, 250, 1000]]}', view)
    assert boxes(part) == [BoxXyxy(0, 210, 140, 420)]


def test_several_boxes_are_several_targets_each_once() -> None:
    text = '{"keyframe_timestamp": 8, "bbox_2d_list": [[0,0,28,28],[56,56,84,84],[0,0,28,28]]}'
    verdict = read(text)
    assert isinstance(verdict.part, TargetsFound)
    assert len(verdict.part.prompts) == 2
    assert any("repeated" in note for note in verdict.repairs)


@pytest.mark.parametrize(
    ("label", "index", "is_repaired"),
    [("8", 108, False), ('"<8>"', 108, False), ('"frame 8"', 108, True), ("9", 108, True)],
)
def test_a_keyframe_that_is_clearly_meant_is_taken(
    label: str,
    index: int,
    is_repaired: bool,  # noqa: FBT001
) -> None:
    verdict = read(f'{{"keyframe": {label}, "boxes": [[0, 0, 50, 50]]}}')
    assert isinstance(verdict.part, TargetsFound)
    assert verdict.part.keyframe_index == index
    assert bool(verdict.repairs) is is_repaired


@pytest.mark.parametrize("label", ["6", "14", "-2", "1000", "null", '"the last"', "true", "[1,2]"])
def test_a_keyframe_that_was_not_shown_is_refused_with_the_labels(label: str) -> None:
    part = read(f'{{"keyframe_timestamp": {label}, "bbox_2d_list": [[0, 0, 50, 50]]}}').part
    assert isinstance(part, AnswerFailed)
    assert "0, 4, 8, 12" in part.reason


def test_swapped_corners_are_put_right_and_edges_clipped_with_a_record() -> None:
    verdict = read('{"keyframe_timestamp": 0, "bbox_2d_list": [[140, 252, -28, 0]]}')
    assert isinstance(verdict.part, TargetsFound)
    assert boxes(verdict.part) == [BoxXyxy(0, 0, 280, 420)]
    assert verdict.repairs == ("swapped corners", "clipped a box to the frame")


def test_what_is_no_box_is_left_out_and_the_others_kept() -> None:
    listed = '[[1,2,3],["a",0,9,9],[285,0,300,50],[0,0,56,56],[5,5,5,5],null]'
    verdict = read(f'{{"keyframe_timestamp": 0, "bbox_2d_list": {listed}}}')
    assert isinstance(verdict.part, TargetsFound)
    assert boxes(verdict.part) == [BoxXyxy(0, 0, 112, 105)]
    assert len(verdict.repairs) == 2


def test_without_any_usable_box_the_answer_fails_and_says_why() -> None:
    verdict = read('{"keyframe_timestamp": 0, "bbox_2d_list": [[285, 0, 300, 50]]}')
    assert isinstance(verdict.part, AnswerFailed)
    assert "can be used" in verdict.part.reason
    assert verdict.repairs == ("left out a box that is empty or outside the frame",)


@pytest.mark.parametrize(
    ("coordinates", "box", "expected"),
    [
        (Coordinates.PIXELS, "[100, 100, 309, 200]", "280 x 224 in pixels"),
        (Coordinates.PIXELS, "[676, 522, 764, 678]", "is it milli?"),
        (Coordinates.PIXELS, "[-40, 0, 50, 50]", "[-40, 0, 50, 50] leaves the frame"),
        (Coordinates.PIXELS, "[0.22, 0.2, 0.36, 0.48]", "lies within 0 to 1"),
        (Coordinates.MILLI, "[100, 100, 1021, 200]", "is it pixels?"),
        (Coordinates.MILLI, "[0, 0, 0.5, 1]", "lies within 0 to 1"),
    ],
)
def test_numbers_of_another_unit_are_refused_and_the_option_named(
    coordinates: Coordinates, box: str, expected: str
) -> None:
    listed = f"[[0, 0, 56, 56], {box}]"  # of an answer in other units no box means what it seems
    text = f'{{"keyframe_timestamp": 0, "bbox_2d_list": {listed}}}'
    part = read(text, replace(EXACT, coordinates=coordinates)).part
    assert isinstance(part, AnswerFailed)
    assert expected in part.reason


@pytest.mark.parametrize(
    ("coordinates", "box"),
    [(Coordinates.PIXELS, [0, 0, 308, 252]), (Coordinates.MILLI, [-20, 0, 1020, 1000])],
)
def test_numbers_a_little_outside_are_clipped(coordinates: Coordinates, box: list[int]) -> None:
    text = f'{{"keyframe_timestamp": 0, "bbox_2d_list": [{box}]}}'
    assert boxes(found(text, replace(EXACT, coordinates=coordinates))) == [BoxXyxy(0, 0, 560, 420)]


@pytest.mark.parametrize(
    "text",
    [
        '{"no_target": "nothing moves"}',
        "{'no_target': true, 'reason': 'nothing moves'}",
        '{"keyframe_timestamp": 4, "bbox_2d_list": []}',
        '{"keyframe_timestamp": 4, "bbox_2d_list": null}',
        '{"keyframe_timestamp": 4, "bbox_2d": null, "label": "none"}',
        '{"keyframe_timestamp": 4, "bbox_2d_list": [null]}',
        '{"keyframe_timestamp": 4, "bbox_2d_list": [[], [0, 0, 0, 0]]}',
        '{"keyframe_timestamp": 4, "bbox_2d_list": [{"bbox_2d": "none", "label": "cup"}]}',
        '{"keyframe_timestamp": null, "bbox_2d_list": [[0, 0, 0, 0]]}',
        '{"no_target": "none"}',
        '{"no_target": "none", "bbox_2d_list": [[0, 0, 0, 0]]}',
        '{"no_target": "N/A", "text": "nothing here"}',
        "None.",
        "There are none.",
        "no target",
        "null",
    ],
)
def test_no_target_is_an_answer(text: str) -> None:
    part = read(text).part
    assert isinstance(part, NoTarget)
    if "moves" in text:
        assert part.reason == "nothing moves"


@pytest.mark.parametrize("said", ['"none"', '"N/A"', '""', "false", "null", '"no"'])
def test_no_target_with_a_word_for_none_keeps_the_targets_beside_it(said: str) -> None:
    text = f'{{"no_target": {said}, "keyframe_timestamp": 4, "bbox_2d_list": [[0, 0, 56, 56]]}}'
    assert boxes(found(text)) == [BoxXyxy(0, 0, 112, 105)]


def test_no_target_with_a_reason_wins_over_targets_beside_it() -> None:
    text = '{"no_target": "it is gone", "keyframe_timestamp": 4, "bbox_2d_list": [[0, 0, 56, 56]]}'
    verdict = read(text)
    assert verdict.part == NoTarget(reason="it is gone")
    assert verdict.repairs == ("no target, beside something else",)


@pytest.mark.parametrize(
    "text",
    [
        '{"abstain": "too dark"}',
        '{"keyframe_timestamp": 4, "bbox_2d_list": [[0, 0, 9, 9]], "abstain": true}',
        "I cannot tell.",
        "unknown",
    ],
)
def test_abstaining_is_its_own_answer(text: str) -> None:
    part = read(text).part
    assert isinstance(part, Abstained)
    if "dark" in text:
        assert part.reason == "too dark"
    assert not isinstance(read(text.replace("abstain", "no_target")).part, AnswerFailed)


@pytest.mark.parametrize("rest", ["[70, 70, 9", "[70, 70, 90, 9", "[70, 70, 90, 99.", ""])
def test_a_cut_answer_keeps_its_whole_boxes(rest: str) -> None:
    verdict = read(f'{{"keyframe_timestamp": 0, "bbox_2d_list": [[0, 0, 56, 56], {rest}')
    assert isinstance(verdict.part, TargetsFound)
    assert len(verdict.part.prompts) == 1
    assert "missing end" in verdict.repairs


def test_settings_out_of_range_are_refused_with_the_value() -> None:
    with pytest.raises(ConfigError, match="65"):
        VeasonSettings(num_frames=65)
    with pytest.raises(ConfigError, match="9999"):
        View(image_side_px=9999)


@pytest.mark.parametrize(
    "text",
    [
        (
            '{"keyframe_timestamp": 4, "bbox_2d_list": [{"bbox_2d": [0,0,28,28], "label": "cup"},'
            ' {"bbox_2d": [56,56,84,84], "label": "can"}]}'
        ),
        (
            '[{"keyframe": 4, "bbox_2d": [0,0,28,28], "label": "cup"},'
            ' {"bbox_2d": [56,56,84,84], "label": "can"},'
            ' {"keyframe": 8, "bbox_2d": [5,5,50,50], "label": "pan"}]'
        ),
    ],
)
def test_boxes_in_objects_are_read_with_their_names(text: str) -> None:
    part = found(text)
    assert int(part.keyframe_index) == int(WINDOW.index_of(4))
    assert [box.x0 for box in boxes(part) if box is not None] == [0, 112]
    assert part.text == "cup, can"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"keyframe_timestamp": 4, "bbox_2d_list": [[0,0,28,28],[56,56,84,84]]}', "2 objects"),
        ('{"keyframe": 4, "boxes": [[0,0,28,28]], "Label": " the red\\n cup "}', "the red cup"),
        ('{"keyframe": 4, "boxes": [[0,0,28,28]], "text": 7}', "1 object"),
    ],
)
def test_an_answer_says_in_words_what_it_found(text: str, words: str) -> None:
    assert found(text).text == words


def test_an_answers_words_are_bounded() -> None:
    name = "cup " * 2_000
    text = f'{{"keyframe": 4, "boxes": [[0,0,28,28]], "name": "{name}"}}'
    assert len(found(text).text) == 1_000
