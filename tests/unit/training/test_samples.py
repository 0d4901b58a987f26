# SPDX-License-Identifier: Apache-2.0
"""Samples: what is drawn of an episode, what is left out, and that the truth survives the words."""

from __future__ import annotations

from dataclasses import replace

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
from foreseg_evaluation.episode import Episode, Question, QuestionKind, TruthSpan
from foreseg_training.samples import Filtered, Sample, SampleDrawer
from foreseg_training.vlm.method_rewards import Truth, VeasonRewards, truth_of
from foreseg_training.vlm.rows import completion_of, sft_row

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


@pytest.mark.parametrize("bad", [{"num_frames": 1}, {"label_offset": -1}])
def test_numbers_that_cannot_be_are_refused(bad: dict[str, int]) -> None:
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
    (sample,) = samples(episode())
    row = sft_row(method(), sample, {"<|im_end|>"})
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
