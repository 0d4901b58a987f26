# SPDX-License-Identifier: Apache-2.0
"""VideoSeg-R1's reward over completions: values by hand, and what does not pay."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy", reason="boxes are matched with SciPy")

from foreseg.errors import ConfigError
from foreseg.masks import mask_from_box, rle_from_mask
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg_training.tracking import Tracked, TrackTask
from foreseg_training.vlm.rewards_masked import prompt_from_rows
from foreseg_training.vlm.rewards_videoseg import PointedTruth, VideosegRewards
from foreseg_training.vlm.thoughts import ThoughtCounter

PAPER = {"format": 1.0, "accuracy": 1.0, "repetition": 1.0, "negative": 1.0}
SIZE_WH = (420.0, 210.0)  # of the frame in the model's units: x counts twice, y four times
BOX, CENTER, BESIDE = [100, 50, 150, 100], [125, 75], [160, 75]  # 20 px beyond the box, of 840
NAN = math.nan
EASY, HARD = 2.0, 9.0  # 32 tokens; 96


def truth_of(difficulty: float = HARD, *, is_none: bool = False) -> PointedTruth:
    mask = np.zeros((84, 168), bool)  # source pixels
    mask[20:40, 40:60] = True
    return PointedTruth(
        size_wh=SIZE_WH,
        boxes=[] if is_none else [[200, 200, 300, 400]],
        centers=[] if is_none else [[250, 300]],
        masks=[] if is_none else [rle_from_mask(mask)],
        difficulty=difficulty,
    )


def rewards(form: Form = Form.THINK_FIRST, **changes: Any) -> VideosegRewards:
    method = VideosegMethod(VideosegSettings(view=View(image_side_px=420), form=form))
    values = {"weights": PAPER, "length_beta": 0.01, "counter": ThoughtCounter(), **changes}
    return VideosegRewards(method, form, **values)


def said(*objects: object, thought: str = "The cup is left.") -> str:
    return f"<think>{thought}</think><answer>{json.dumps(list(objects))}</answer>"


def item(**changes: object) -> dict[str, object]:
    return {"bbox_2d": BOX, "point_2d": CENTER, "negative_point_2d": BESIDE, **changes}


def parts_of(text: str, truth: PointedTruth | None = None, **changes: Any) -> dict[str, Any]:
    scored = rewards(**changes).scored(text, (truth or truth_of()).to_json())
    return {**scored.parts, "length": scored.length, "total": scored.total}


def test_the_truth_has_every_mark() -> None:
    parts = parts_of(said(item()))
    assert parts["format"] == 3
    assert parts["accuracy"] == 3
    assert (parts["repetition"], parts["negative"], parts["length"]) == (1, 1, 1)
    assert parts["total"] == 8


def test_a_truth_survives_its_column() -> None:
    truth = truth_of()
    again = PointedTruth.from_json(truth.to_json())
    assert again == truth
    assert int(again.on_frame().sum()) == 100 * 200


@pytest.mark.parametrize(
    ("objects", "changed"),
    [
        ([item(point_2d=[125])], {"format": 2, "accuracy": 2}),
        ([item(point_2d=[CENTER, CENTER])], {"format": 2, "accuracy": 2}),  # one is asked for
        ([item(bbox_2d=[100, 50, 150])], {"format": 2, "accuracy": 0}),  # no point in no box
        ([item(bbox_2d=["100", 50, 150, 100])], {"format": 2, "accuracy": 0}),
        ([item(), item()], {"accuracy": 1.5}),  # one right of two
        ([item(), "a cup"], {"format": 2, "accuracy": 1.5, "negative": 0.5}),
        ([item(negative_point_2d=[125, 75])], {"negative": 0}),  # on the target
        ([item(negative_point_2d=[172, 75])], {"negative": 0}),  # 44 px away
        ([item(negative_point_2d=None)], {"negative": 0}),
        ([item(negative_point_2d=[BESIDE, [0, 0]])], {"negative": 0.5}),
        ([item(point_2d=[135, 75])], {}),  # 20 px off
        ([item(point_2d=[141, 75])], {"accuracy": 2}),  # 32 px off
        ([item(bbox_2d=[104, 54, 154, 104])], {"accuracy": 2}),  # 8 and 16 px off: 12 on average
        ([], {"format": 1, "accuracy": 0, "negative": 0}),
    ],
)
def test_what_is_wrong_costs_its_part(objects: list[object], changed: dict[str, float]) -> None:
    parts = parts_of(said(*objects))
    wanted = {"format": 3, "accuracy": 3, "repetition": 1, "negative": 1, **changed}
    assert {name: parts[name] for name in wanted} == wanted


def test_another_form_and_repeated_sentences_cost_a_mark_each() -> None:
    assert parts_of(said(item()), form=Form.ANSWER_FIRST)["format"] == 2
    assert parts_of(said(item(), thought="It is red. It is red. It is red."))["repetition"] == 0
    only = f"<answer>{json.dumps([item()])}</answer>"
    assert parts_of(only, form=Form.ANSWER_ONLY)["total"] == 8  # the arm without thoughts


def test_thoughts_beyond_what_a_sample_is_worth_cost_all_parts() -> None:
    """21 words are 30 tokens, 63 are 90, by the rule for words."""
    words = ". ".join(f"word {i} {i}" for i in range(21))  # 63
    assert parts_of(said(item(), thought=words))["length"] == 1
    easy = parts_of(said(item(), thought=words), truth_of(EASY))
    assert easy["length"] == pytest.approx(1 - 0.01 * (90 - 32))
    assert easy["total"] == pytest.approx(8 * easy["length"])
    assert parts_of(said(item(), thought=words), truth_of(EASY), length_beta=0.0)["length"] == 1


def test_where_nothing_fits_saying_so_is_worth_most() -> None:
    none = truth_of(is_none=True)
    right = "<think>No cup.</think><answer>[]</answer>"
    parts = parts_of(right, none)
    assert (parts["format"], parts["accuracy"], parts["negative"]) == (3, 3, None)
    assert parts["total"] == 7
    assert parts_of(said(item()), none)["total"] == 4
    nothing = "<think>No cup.</think><answer>perhaps</answer>"
    assert parts_of(nothing, none)["total"] == 2  # an answer that cannot be read is no answer
    zeros = said({"bbox_2d": [0, 0, 0, 0], "point_2d": [0, 0]})
    assert parts_of(zeros, none)["accuracy"] == 0
    assert parts_of("", none)["total"] == 1  # it repeats nothing


def test_the_function_hands_on_its_parts() -> None:
    metrics: dict[str, float] = {}
    columns: dict[str, list[Any]] = {}
    functions, weights = rewards().functions()
    none = truth_of(is_none=True).to_json()
    scores = functions[0](
        [[{"role": "assistant", "content": said(item())}], said(item())],
        truth=[truth_of().to_json(), none],
        log_metric=metrics.__setitem__,
        log_extra=columns.__setitem__,
        trainer_state=None,
    )
    assert (scores, weights) == ([8, 4], [1.0])
    assert metrics["parts/accuracy"] == 1.5
    assert metrics["parts/negative"] == 1  # of those to which it applies
    assert metrics["parts/thought_tokens"] == 6
    assert columns["negative"] == [1, None]
    assert columns["format"] == [3, 3]


@pytest.mark.parametrize("weights", [{}, {"format": 0.0}, {"keyframe": 1.0}])
def test_a_part_that_is_none_is_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="reward_weights want some of format, accuracy"):
        rewards(weights=weights)


PIECES = ["<think>", "The ", "cup", " is", " left", ".", "</think>", "<answer>", "[]", "</answer>"]


def test_thoughts_are_counted_in_the_completions_own_tokens() -> None:
    counter = ThoughtCounter(lambda ids: "".join(PIECES[i] for i in ids if i >= 0))
    ids = [*range(len(PIECES)), -1]  # -1: a special token, which is no text
    text = "".join(PIECES)
    start, end = text.index("The"), text.index("</think>")
    assert counter.count(text, (start, end), ids) == 5
    assert counter.count(text, (0, len("<think>")), ids) == 1
    assert counter.count(text, (0, len(text)), ids) == len(PIECES)
    assert counter.count(text, (start + 1, start + 2), ids) == 1  # within a token
    assert counter.count(text, (start, start), ids) == 0
    assert counter.count(text, (start, end), None) == round(4 / 0.7)


class BoxesAsMasks:
    """A tracker to whom an object is its whole box; gives up prompts without a negative point."""

    def __init__(self) -> None:
        self.tasks: list[TrackTask] = []

    def run(self, tasks: Sequence[TrackTask]) -> list[Tracked | None]:
        self.tasks += tasks
        return [self._mask(task) for task in tasks]

    def _mask(self, task: TrackTask) -> Tracked | None:
        (prompt,) = task.prompts
        if len(prompt.points) < 2 or prompt.box is None:
            return None
        return (rle_from_mask(mask_from_box(prompt.box, task.size_wh)),)


def masked(*texts: str, truth: PointedTruth | None = None) -> list[float | None]:
    columns: dict[str, list[Any]] = {}
    made = rewards(weights={**PAPER, "mask": 1.0}, tracking=BoxesAsMasks())
    true = (truth or replace(truth_of(), video="clip", position=3)).to_json()
    made.videoseg(list(texts), truth=[true] * len(texts), log_extra=columns.__setitem__)
    return columns["mask"]


def test_masks_count_where_a_recipe_wants_them() -> None:
    half = item(bbox_2d=[100, 50, 124, 100])
    assert masked(said(item()), said(item(), item()), said(half)) == [1, 0.5, 0]
    assert masked(said(item()), said(), said("a cup")) == [1, 0, 0]
    made = rewards(weights={**PAPER, "mask": 2.0}, tracking=BoxesAsMasks())
    assert made.scored(said(item()), truth_of().to_json()).total == 10


def test_a_prompt_is_handed_to_the_tracker_in_source_pixels() -> None:
    tracking = BoxesAsMasks()
    true = replace(truth_of(), video="clip", position=3)
    rewards(weights={"mask": 1.0}, tracking=tracking).scored(said(item()), true.to_json())
    (task,) = tracking.tasks
    assert (task.video, task.positions, task.size_wh) == ("clip", (3,), (168, 84))
    (prompt,) = task.prompts
    assert prompt.box is not None
    assert tuple(prompt.box) == (40, 20, 60, 40)
    assert [tuple(point[:2]) for point in prompt.points] == [(50, 30), (64, 30)]


def test_masks_that_cannot_be_made_take_the_part_from_their_whole_prompt() -> None:
    without = item(negative_point_2d=None)
    assert masked(said(item()), said(without)) == [None, None]
    assert masked(said(item()), truth=truth_of(is_none=True)) == [None]


@pytest.mark.parametrize(
    ("box", "points"),
    [([NAN] * 4, []), ([3, 3, 3, 9], []), ([200, 5, 220, 9], []), ([NAN] * 4, [[200.0, 1.0]])],
)
def test_what_marks_nothing_of_a_frame_is_no_prompt(
    box: list[float], points: list[list[float]]
) -> None:
    assert prompt_from_rows(box, points, [[1.0, 1.0]], (168, 84)) is None


def test_a_weight_for_masks_wants_a_tracker() -> None:
    with pytest.raises(ConfigError, match=r"the reward mask \(weight 1\.0\) wants a tracker"):
        rewards(weights={"mask": 1.0})
