# SPDX-License-Identifier: Apache-2.0
"""Samples: what is drawn of an episode, what is left out, and that the truth survives the words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="frames are shown through OpenCV")
pytest.importorskip("torch", reason="rows are for torch's trainers")
pytest.importorskip("PIL", reason="rows carry Pillow's pictures")
from hypothesis import given, settings
from hypothesis import strategies as st

from foreseg.errors import ConfigError, InputError
from foreseg.geometry import BoxXyxy
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Coordinates, View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg_evaluation.episode import Episode, Evidence, Question, QuestionKind, TruthSpan
from foreseg_training.negatives import is_foreign
from foreseg_training.samples import Filtered, Sample, SampleDrawer
from foreseg_training.vlm.lessons_veason import VeasonLessons
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rewards_veason import Truth, VeasonRewards, truth_of
from foreseg_training.vlm.rows import completion_of, drawer_of, taught_row

SIZE_WH = (112, 84)


class Slide:
    """A square that grows while it slides; nothing is drawn before frame 4."""

    def image(self, position: int) -> np.ndarray:
        return np.full((SIZE_WH[1], SIZE_WH[0], 3), 10 * position, np.uint8)

    def mask(self, object_id: str, position: int) -> np.ndarray | None:
        mask = np.zeros(SIZE_WH[::-1], bool)
        if object_id == "square" and position >= 4:
            mask[20 : 24 + position, 10 + position : 20 + 2 * position] = True
        return mask

    def void(self, position: int) -> None:
        del position

    def foreground(self, position: int) -> None:
        del position


def episode(
    *, targets: tuple[str, ...] = ("square",), num_frames: int = 20, **changes: object
) -> Episode:
    question = Question(
        text="what grows?", kind=QuestionKind.FORESIGHT, rationale="It grows.", answer="the square"
    )
    positions = tuple(range(num_frames))
    made = Episode(
        id="clip/0", video="clip", frame_names=tuple(map(str, positions)), question=question,
        object_ids=("square",), spans=(TruthSpan(first=0, end=num_frames, object_ids=targets),),
        annotated=positions, scored=positions, size_wh=SIZE_WH, media=Slide(),
    )  # fmt: skip
    return replace(made, **changes)


def samples(*episodes: Episode, drawer: SampleDrawer | None = None, seed: int = 0) -> list[Sample]:
    return list((drawer or SampleDrawer()).draw(episodes, seed, Filtered()))


def method(form: Form = Form.THINK_FIRST, view: View | None = None) -> VeasonMethod:
    return VeasonMethod(VeasonSettings(form=form, view=view or View(image_side_px=112)))


def test_the_pseudo_keyframe_is_among_the_frames_and_of_the_five_largest() -> None:
    for seed in range(30):
        (sample,) = samples(episode(), seed=seed)
        assert sample.keyframe in sample.window.indices
        position = int(sample.keyframe or 0) - int(sample.window.frames[0].index) % 1
        label = sample.window.label_of(sample.keyframe or sample.window.newest.index)
        assert sample.areas_by_label[label] >= (24 + 15 - 20) * (10 + 15)
        assert len(sample.window.frames) <= 8
        assert position >= 15
        gaps = np.diff([int(i) for i in sample.window.indices])
        assert len(set(gaps.tolist())) == 1


def test_labels_do_not_always_start_at_nought_and_equal_seeds_draw_equal_samples() -> None:
    starts = {samples(episode(), seed=seed)[0].window.frames[0].index for seed in range(20)}
    assert len(starts) > 10
    once, again = (samples(episode(), seed=3)[0] for _ in range(2))
    assert once.window.indices == again.window.indices
    fixed = samples(episode(), drawer=SampleDrawer(label_offset=0))[0]
    assert fixed.window.frames[0].index < 3


def test_a_sample_says_where_its_frames_are_from() -> None:
    drawer = SampleDrawer(num_frames=5, label_offset=50, label_stride=3)
    for seed in range(4):
        sample = next(drawer.draw([episode()], seed, Filtered()))
        assert sample.source == "clip/0"
        assert list(sample.positions) == [frame.index for frame in sample.window.frames]
        for frame in sample.window.frames:
            assert frame.image[0, 0, 0] == 10 * sample.positions[frame.index]


def test_a_question_without_a_target_is_kept() -> None:
    (sample,) = samples(episode(targets=()))
    assert sample.keyframe is None
    assert set(sample.areas_px.values()) == {0.0}
    assert '"no_target"' in completion_of(method(), sample)


def test_what_is_left_out_is_counted() -> None:
    no_thought = replace(episode().question, rationale=" ")
    span = TruthSpan(first=0, end=5, object_ids=())
    filtered = Filtered()
    drawer = SampleDrawer(needs_rationale=True)
    kept = list(
        drawer.draw(
            [
                episode(),
                episode(question=None),
                episode(question=no_thought),
                episode(spans=(span, span)),
                episode(spans=()),
                episode(annotated=()),
            ],
            0,
            filtered,
        )
    )
    assert len(kept) == 1
    assert filtered.reasons == {
        "without a question": 1,
        "without a chain of thought": 1,
        "with several truths": 1,
        "with no truth": 1,
        "without annotated frames": 1,
    }


@pytest.mark.parametrize(
    "bad",
    [{"num_frames": 1}, {"label_offset": -1}, {"label_stride": 0}, {"negative_share": 1.0}],
)
def test_numbers_that_cannot_be_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        SampleDrawer(**bad)


def test_boxes_are_those_of_the_targets_that_are_seen() -> None:
    (sample,) = samples(episode(), drawer=SampleDrawer(label_offset=0, num_frames=20))
    by_label = {sample.window.label_of(i): boxes for i, boxes in sample.boxes.items()}
    early = next(label for label in by_label if label < 4)
    assert by_label[early] == ()
    late = max(by_label)
    assert by_label[late] == (BoxXyxy(10 + late, 20, 20 + 2 * late, 24 + late),)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("coordinates", Coordinates)
def test_the_true_completion_gets_every_reward(form: Form, coordinates: Coordinates) -> None:
    asked = method(form, View(image_side_px=112, coordinates=coordinates))
    rewards = VeasonRewards(asked, form)
    for seed in range(8):
        (sample,) = samples(episode(), seed=seed)
        text, truth = completion_of(asked, sample), truth_of(asked, sample).to_json()
        largest = max(sample.areas_px.values())
        assert sample.keyframe is not None
        assert rewards.format([text]) == [2.0]
        assert rewards.keyframe([text], [truth]) == [sample.areas_px[sample.keyframe] / largest]
        (overlap,) = rewards.spatial([text], [truth])
        assert overlap is not None
        assert overlap > 0.9  # the answer's numbers are whole
        assert rewards.no_target([text], [truth]) == [1.0]


def test_rewards_see_what_is_wrong() -> None:
    (sample,) = samples(episode(), drawer=SampleDrawer(label_offset=0), seed=1)
    asked = method()
    rewards, truth = VeasonRewards(asked, Form.THINK_FIRST), truth_of(asked, sample).to_json()
    text = completion_of(asked, sample)
    said = text.replace("[[", "[[0, 0, 5, 5], [1, 2], [")  # two more, one of them broken
    (overlap,), (full,) = rewards.spatial([said], [truth]), rewards.spatial([text], [truth])
    assert full is not None
    assert overlap == pytest.approx(full / 3)
    assert rewards.format([said]) == [1 + 2 / 3]
    nowhere = '<think>x</think><answer>{"keyframe_timestamp": 999, "bbox_2d_list": [[1, 2, 3, 4]]}</answer>'
    assert rewards.keyframe([nowhere], [truth]) == rewards.spatial([nowhere], [truth]) == [0.0]
    silent = [[{"role": "assistant", "content": "I do not know"}]]
    assert rewards.format(silent) == rewards.keyframe(silent, [truth]) == [0.0]
    none = '<think>x</think><answer>{"no_target": "gone"}</answer>'
    assert rewards.no_target([none], [truth]) == [0.0]
    assert rewards.keyframe([none], [truth]) == [0.0]


def test_rewards_do_not_apply_by_the_prompt_alone() -> None:
    (sample,) = samples(episode(targets=()))
    asked = method()
    rewards, truth = VeasonRewards(asked, Form.THINK_FIRST), truth_of(asked, sample).to_json()
    for text in (completion_of(asked, sample), "nonsense", "<answer>[[1, 2, 3, 4]]</answer>"):
        assert rewards.keyframe([text], [truth]) == rewards.spatial([text], [truth]) == [None]


def test_where_nothing_fits_saying_so_is_worth_more_than_a_box_and_elsewhere_less() -> None:
    none = '<think>x</think><answer>{"no_target": "gone"}</answer>'
    box = '<think>x</think><answer>{"keyframe_timestamp": 999, "bbox_2d_list": [[1, 2, 3, 4]]}</answer>'
    weights = dict.fromkeys(("format", "keyframe", "spatial", "no_target"), 1.0)
    functions, _ = VeasonRewards(method(), Form.THINK_FIRST).functions(weights)
    for targets, wanted in (((), (3, 2)), (None, (2, 3))):
        (sample,) = samples(episode() if targets is None else episode(targets=targets))
        truths = [truth_of(method(), sample).to_json()] * 2
        scores = [f(completions=[none, box], truth=truths) for f in functions]
        totals = [sum(each[i] or 0 for each in scores) for i in range(2)]
        assert tuple(totals) == wanted


@pytest.mark.parametrize("weights", [{}, {"format": 0.0}, {"beauty": 1.0}])
def test_reward_weights_that_mean_nothing_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="reward_weights"):
        VeasonRewards(method(), Form.THINK_FIRST).functions(weights)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 90), st.integers(0, 60), st.integers(4, 22), st.integers(4, 22))
def test_what_is_worded_is_read_back(x: int, y: int, width: int, height: int) -> None:
    (sample,) = samples(episode(), drawer=SampleDrawer(label_offset=7))
    asked = method(view=View(image_side_px=112, coordinates=Coordinates.MILLI))
    shown = asked.shown(sample.window)
    box = BoxXyxy(x, y, x + width, y + height)
    text = asked.worded(shown, shown.frames[2], [box])
    parsed, found = asked.parse(text), asked.read(text, shown).part
    assert parsed.keyframe == shown.label_of(shown.frames[2].index)
    assert found.prompts[0].box is not None
    assert max(abs(a - b) for a, b in zip(found.prompts[0].box, box, strict=True)) < 0.2


def test_a_row_has_each_image_after_its_label() -> None:
    recipe = Recipe(stage="sft", num_frames=8)
    (sample,) = drawer_of(recipe).draw([episode()], recipe.seed, Filtered())
    lessons = VeasonLessons(recipe, method())
    (lesson,) = lessons.draw([episode()], Filtered(), has_completions=True)
    row = taught_row(lesson, {"<|im_end|>"})
    blocks = row["prompt"][0]["content"]
    kinds = [block["type"] for block in blocks]
    assert kinds.count("image") == len(row["images"]) == len(sample.window.frames)
    labels = [blocks[i - 1]["text"] for i, kind in enumerate(kinds) if kind == "image"]
    assert labels == [f"<{sample.window.label_of(i)}>" for i in sample.window.indices]
    assert row["completion"][0]["content"][0]["text"].startswith("<think>It grows.</think>")


def test_a_truth_that_the_robot_would_not_read_is_refused_by_name() -> None:
    (sample,) = samples(episode())
    with pytest.raises(InputError, match=r"clip/0.*not read as the truth"):
        completion_of(method(), replace(sample, rationale="a </think> inside"))


def test_truth_survives_a_column_of_text() -> None:
    truth = Truth(areas={3: 1.5, 12: 0.0}, boxes={3: [[1, 2, 3, 4]], 12: []})
    assert Truth.from_json(truth.to_json()) == truth


def test_only_frames_whose_truth_is_known_are_shown() -> None:
    annotated = tuple(range(1, 25, 4))  # as SA-V: every fourth frame
    span = TruthSpan(first=0, end=18, object_ids=("square",))
    made = episode(num_frames=25, annotated=annotated, spans=(span,))
    known = {1, 5, 9, 13, 17}
    for seed in range(20):
        drawer = SampleDrawer(label_offset=0, num_frames=3)
        (sample,) = samples(made, drawer=drawer, seed=seed)
        shown = {int(i) for i in sample.window.indices}
        assert shown <= known
        assert 1 <= len(shown) <= 3
        assert int(sample.keyframe or 0) in shown - {1}
        assert set(sample.areas_px) == set(sample.window.indices)
        assert all(area == made.truth(int(p)).sum() for p, area in sample.areas_px.items())


def test_a_video_without_a_judged_frame_is_left_out_by_name() -> None:
    filtered = Filtered()
    span = TruthSpan(first=8, end=12, object_ids=("square",))
    made = episode(annotated=(0, 4), spans=(span,))
    assert list(SampleDrawer().draw([made], 0, filtered)) == []
    assert "annotated frame in the time of their truth" in str(filtered)


def test_an_image_is_a_video_of_one_frame() -> None:
    media = Still()
    (sample,) = samples(episode(num_frames=1, media=media))
    (frame,) = sample.window.frames
    assert sample.keyframe == frame.index
    assert sample.boxes[frame.index] == (BoxXyxy(10, 20, 30, 40),)
    assert truth_of(method(), sample).has_target
    assert str(sample.window.label_of(frame.index)) in completion_of(method(), sample)


class Still(Slide):
    def mask(self, object_id: str, position: int) -> np.ndarray | None:
        del object_id, position
        mask = np.zeros(SIZE_WH[::-1], bool)
        mask[20:40, 10:30] = True
        return mask


def test_neighbouring_labels_may_be_apart() -> None:
    drawer = SampleDrawer(label_offset=0, label_stride=5, num_frames=20)
    gaps = set()
    for seed in range(20):
        (sample,) = samples(episode(), drawer=drawer, seed=seed)
        apart = set(np.diff([int(i) for i in sample.window.indices]).tolist())
        assert len(apart) == 1
        gaps |= apart
        assert sample.keyframe in sample.areas_px
        assert max(sample.areas_px.values()) > 0
        assert '"keyframe_timestamp"' in completion_of(method(), sample)
    assert gaps >= {2, 6, 10}  # 20 frames at a stride of 2


def test_a_chain_about_one_frame_makes_that_the_keyframe() -> None:
    evidence = Evidence(keyframe=9, is_about_keyframe=True)
    about = replace(episode().question, evidence=evidence, rating=6.4)
    for seed in range(5):
        drawer = SampleDrawer(label_offset=0, num_frames=4)
        (sample,) = samples(episode(question=about), drawer=drawer, seed=seed)
        assert sample.keyframe == 9
        assert sample.difficulty == 6.4
    for other in (
        Evidence(keyframe=2, is_about_keyframe=True),  # nothing is to be seen on it: it errs
        Evidence(keyframe=9),  # the simulation's chains are about no one frame
    ):
        loose = replace(about, evidence=other)
        (sample,) = samples(episode(question=loose), drawer=SampleDrawer(label_offset=0))
        assert sample.keyframe is not None
        assert sample.keyframe >= 15


def named(video: str, text: str, *names: str, **changes: object) -> Episode:
    question = Question(text=text, kind=QuestionKind.DESCRIPTIVE)
    return episode(
        id=f"{video}/0", video=video, question=question,
        object_names={str(i): name for i, name in enumerate(names)}, **changes,
    )  # fmt: skip


def test_another_clips_question_has_no_target_here() -> None:
    stars = named("a", "Where is the red star?", "red star", "ball")
    left = named("b", "Where is the left red star?", "left red star", "right red star")
    cross = named("c", "Where is the blue cross?", "blue cross", "ball")
    vague = named("d", "What will leave the view next?", "green square")
    none = named("e", "Where is the pink star?", "red star", targets=())
    clips = [stars, left, cross, vague, none]
    foreign = {(i.video, o.video) for i in clips for o in clips if is_foreign(i, o)}
    assert foreign == {
        ("a", "c"), ("b", "c"), ("d", "c"), ("e", "c"),
        ("c", "a"), ("d", "a"), ("c", "b"), ("d", "b"),
    }  # fmt: skip
    drawer = SampleDrawer(negative_share=0.5)
    for seed in range(20):
        filtered = Filtered()
        drawn = list(drawer.draw(clips, seed, filtered))
        assert len(drawn) == 5
        for sample in drawn:
            here, _, there = sample.id.partition(" asked ")
            if there:
                assert (here[0], there[0]) in foreign
                assert sample.keyframe is None
                assert not any(sample.boxes.values())
                assert '"no_target"' in completion_of(method(), sample)
        assert filtered.drawn.total() >= 5


def test_without_names_a_foreign_question_is_assumed_to_have_no_target() -> None:
    one, other = (named(video, f"the {video}") for video in ("cat", "dog"))
    same = named("owl", "the cat")
    absent = named("elk", "the elk", targets=())
    assert is_foreign(one, other)
    assert not is_foreign(one, same)
    assert not is_foreign(one, absent)  # what is absent there may be here


def test_a_share_of_negatives_changes_no_other_sample() -> None:
    clips = [named(str(i), f"Where is the {n}?", n) for i, n in enumerate(("cat", "dog", "owl"))]
    plain = {s.id: s for s in samples(*clips, seed=5)}
    mixed = samples(*clips, drawer=SampleDrawer(negative_share=0.8), seed=5)
    assert any("asked" in s.id for s in mixed)
    for sample in mixed:
        if "asked" not in sample.id:
            assert sample.window.indices == plain[sample.id].window.indices
            assert sample.keyframe == plain[sample.id].keyframe


def test_the_simulations_names_tell_which_questions_are_foreign(tmp_path: Path) -> None:
    from foreseg_evaluation.datasets import read_dataset
    from foreseg_simulation.generation import Command, generate
    from foreseg_simulation.worlds import World

    command = Command(worlds=(World.SHAPES,), clips=6, streams=0, seed=3, split="train",
                      size_wh=(160, 120))  # fmt: skip
    generate(command, tmp_path / "worlds")
    episodes = read_dataset(tmp_path / "worlds", "fevos", split="train").episodes
    pairs = [(i, o) for i in episodes for o in episodes if i.video != o.video and is_foreign(i, o)]
    assert pairs
    for here, there in pairs:
        assert here.question is not None
        assert there.question is not None
        assert set(here.object_ids) == set(here.object_names)
        said = there.question.text.lower()
        gone = [n for n in there.object_names.values() if n in said]
        assert any(n not in here.object_names.values() for n in gone)
