# SPDX-License-Identifier: Apache-2.0
"""VideoSeg-R1's lessons: what is asked, what is right, and that the truth earns every mark."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="frames are shown through OpenCV")
pytest.importorskip("torch", reason="rows are for torch's trainers")
pytest.importorskip("PIL", reason="rows carry Pillow's pictures")
pytest.importorskip("scipy", reason="boxes are matched with SciPy")

from tests.support.episodes import Squares, make_episode
from tests.support.language_models import words_of

from foreseg.config import TrackerConfig
from foreseg.errors import ConfigError, InputError
from foreseg.language.base import LanguageRequest
from foreseg.methods.grounding import Coordinates, View
from foreseg.methods.labels import LabelForm
from foreseg.methods.segments import Segment
from foreseg_evaluation.episode import Episode, QuestionKind, TruthSpan
from foreseg_training.sampler_samples import SamplerDrawer
from foreseg_training.samples import Filtered
from foreseg_training.tracking import TrackingHere, write_videos
from foreseg_training.vlm.lesson import Lesson
from foreseg_training.vlm.lessons import lessons_of
from foreseg_training.vlm.recipe import Recipe, read_recipe
from foreseg_training.vlm.rows import lesson_row, taught_row

VIEW = View(image_side_px=112)
MOVING = make_episode(name="moving/0", media=Squares(step=3))
BOTH = make_episode(name="both/0", spans=(TruthSpan(first=0, end=20, object_ids=("red", "blue")),))
NOTHING = make_episode(name="nothing/0", kind=QuestionKind.NO_TARGET)
EPISODES = (MOVING, BOTH, NOTHING)
WEIGHTS = {"format": 1.0, "accuracy": 1.0, "repetition": 1.0, "negative": 1.0}


def recipe_of(stage: str = "grpo", **changes: object) -> Recipe:
    values = {"method": "videoseg", "form": "answer-only", "tells_budget": False, **changes}
    return Recipe(stage=stage, reward_weights=WEIGHTS if stage == "grpo" else {}, **values)  # type: ignore[arg-type]


def drawn(
    recipe: Recipe, *episodes: Episode, view: View = VIEW, has_completions: bool = True
) -> list[Lesson]:
    lessons = lessons_of(recipe, view)
    given = episodes or EPISODES
    return list(lessons.draw(given, Filtered(), has_completions=has_completions))


def said_in(lesson: Lesson) -> str:
    return words_of(LanguageRequest(messages=tuple(lesson.messages), max_tokens=1))


@pytest.mark.parametrize("view", [VIEW, replace(VIEW, coordinates=Coordinates.MILLI)])
def test_the_true_completion_earns_every_mark(view: View) -> None:
    for seed in range(4):
        recipe = recipe_of(any_target_share=0.0, seed=seed)
        lessons = lessons_of(recipe, view)
        for lesson in drawn(recipe, view=view):
            scores = lessons.scores(lesson.completion(), lesson.columns, None)
            is_none = lesson.id.startswith("nothing")
            assert scores["accuracy"] == 3
            assert scores["videoseg"] == (7 if is_none else 8)
            assert (scores["negative"] is None) is is_none


def test_what_is_asked_is_the_robots_last_request() -> None:
    (lesson,) = drawn(recipe_of(num_key_frames=3, num_reference_frames=2, label_offset=0), MOVING)
    words = said_in(lesson)
    label = re.search(r"The frame <(\d+)> is the target frame", words)
    assert label
    assert f"\n<{label[1]}>\n" in words
    assert "<answer>" in words
    assert "<think>" not in words
    images = [part for m in lesson.messages for part in m.content if not isinstance(part, str)]
    assert 5 <= len(images) <= 6
    assert images[0].shape[1] <= 112
    row = taught_row(lesson, {"<|im_end|>"})
    assert set(row) == {"id", "prompt", "images", "completion"}
    assert row["completion"][0]["content"][0]["text"].startswith('<answer>[{"bbox_2d"')
    assert set(lesson_row(lesson, ())) == {"id", "prompt", "images", "truth"}


def test_thoughts_are_taught_where_the_form_has_them() -> None:
    own = replace(MOVING, question=replace(MOVING.question, rationale="It moves on."))
    (lesson,) = drawn(recipe_of("sft", form="think-first", any_target_share=0.0), own)
    assert lesson.completion().startswith("<think>It moves on.</think>")
    silent = replace(MOVING, question=replace(MOVING.question, rationale=""))
    assert drawn(recipe_of("sft", form="think-first"), silent) == []
    assert len(drawn(recipe_of("sft"), silent)) == 1
    broken = replace(MOVING, question=replace(MOVING.question, rationale="a </think> inside"))
    with pytest.raises(InputError, match=r"moving/0.*does not keep its form"):
        drawn(recipe_of("sft", form="think-first", any_target_share=0.0), broken)


def test_objects_that_the_model_cannot_tell_apart_are_left_out_and_counted() -> None:
    filtered = Filtered()
    recipe = recipe_of(any_target_share=0.0)
    tiny = View(image_side_px=16, patch_px=16)  # a pixel and a half for each square
    kept = list(lessons_of(recipe, tiny).draw([BOTH], filtered, has_completions=False))
    assert len(kept) + filtered.reasons["whose truth is lost in the model's own pixels"] == 1


def test_the_sampler_is_asked_both_of_its_questions() -> None:
    lessons = drawn(recipe_of("sft", trains="sampler", num_frames=6), MOVING, NOTHING)
    assert [lesson.id for lesson in lessons] == [
        "moving/0"
    ] * 2  # it has nothing to find in nothing
    interval, percent = lessons
    assert "[first, last]" in said_in(interval)
    assert re.fullmatch(r"<answer>\[\d+, \d+\]</answer>", interval.completion())
    assert "as a percentage" in said_in(percent)
    assert re.fullmatch(r"<answer>\d+%</answer>", percent.completion())
    assert len(drawn(recipe_of("sft", trains="both"), *EPISODES)) == 3 + 2 * 2


def test_what_the_sampler_learns_leads_to_the_frame() -> None:
    """Its percentage, through the robot's own arithmetic, is a frame of its interval."""
    for seed in range(30):
        drawer = SamplerDrawer(num_frames=40, label_stride=1 + seed % 3)
        (sample,) = drawer.draw([MOVING], seed, Filtered())
        first, last = sample.interval
        labels = [sample.window.label_of(index) for index in sample.window.indices]
        assert {first, last} <= set(labels)
        label, _ = Segment(labels[0], labels[-1]).target([f"<answer>{sample.percent}%</answer>"])
        gap = labels[1] - labels[0] if len(labels) > 1 else 1
        assert first - gap <= label <= last + gap


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trains": "sampler"}, "trains wants answer in the stage grpo, got sampler"),
        ({"method": "fevos", "tells_budget": True}, "on answers in text, fevos is not"),
        ({"trains": "nothing"}, "trains wants one of answer, sampler, both"),
        ({"labels": "ranks"}, "labels wants one of absolute, rank"),
        ({"segment_share": 1.5}, "segment_share wants 0 to 1"),
        ({"length_beta": -0.1}, "length_beta wants 0 to 1"),
        ({"num_key_frames": 0}, "num_key_frames wants 1 to 32"),
    ],
)
def test_recipes_that_cannot_be_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lessons_of(recipe_of(**changes), VIEW)


def test_ranks_are_refused_where_intervals_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="labels by rank are for the method veason"):
        lessons_of(recipe_of(), replace(VIEW, labels=LabelForm.RANK))


def test_veason_is_taught_in_ranks_by_the_same_truth() -> None:
    recipe = Recipe(stage="grpo", labels="rank", num_frames=5, reward_weights={"keyframe": 1.0})
    lessons = lessons_of(recipe, replace(VIEW, labels=LabelForm.RANK))
    for lesson in lessons.draw([MOVING, BOTH], Filtered(), has_completions=False):
        scores = lessons.scores(lesson.completion(), lesson.columns, None)
        assert scores["spatial"] == pytest.approx(1, abs=0.1)
        assert scores["keyframe"] is not None
        assert scores["keyframe"] > 0.5
        assert re.search(r'"keyframe_timestamp": [0-4],', lesson.completion())


@pytest.mark.parametrize("name", ["grpo", "sft", "sampler-sft"])
def test_the_shipped_recipes_are_whole_and_have_a_tiny_of_each(name: str) -> None:
    for tiny in ("", "-tiny"):
        recipe = read_recipe(f"videoseg-{name}{tiny}")
        assert recipe.method == "videoseg"
        assert recipe.stage == name.rpartition("-")[2]
        lessons_of(recipe, VIEW)
    paper = read_recipe(f"videoseg-{name}")
    if name == "grpo":
        assert (paper.batch_size, paper.num_generations, paper.learning_rate) == (16, 8, 1e-6)
        assert paper.reward_weights == {**WEIGHTS, "mask": 0}


def test_the_true_prompt_gives_the_true_mask_by_the_shipped_tracker(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the nano tracker runs on ONNX Runtime")
    recipe = replace(recipe_of(any_target_share=0.0), reward_weights={**WEIGHTS, "mask": 1.0})
    videos = write_videos(tmp_path / "videos.pickle", [MOVING])
    tracking = TrackingHere(videos, TrackerConfig())
    lessons = lessons_of(recipe, VIEW)
    (lesson,) = lessons.draw([MOVING], Filtered(), has_completions=False)
    assert lessons.scores(lesson.completion(), lesson.columns, tracking)["mask"] == 1
    wrong = '<answer>[{"bbox_2d": [80, 5, 100, 15], "point_2d": [90, 10]}]</answer>'
    assert lessons.scores(wrong, lesson.columns, tracking)["mask"] == 0
