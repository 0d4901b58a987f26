# SPDX-License-Identifier: Apache-2.0
"""Samples of VideoSeg-R1's last request: which frame is the target, what is shown around it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scipy", reason="distances are SciPy's")

from foreseg.errors import ConfigError
from foreseg.prompts import PointLabel
from foreseg_evaluation.episode import Episode, Evidence, Question, QuestionKind, TruthSpan
from foreseg_training.samples import Filtered
from foreseg_training.target_samples import (
    UNSEEN_THOUGHT,
    TargetDrawer,
    TargetSample,
    difficulty_of,
)

SIZE_WH = (112, 84)
NUM_FRAMES = 40
FIRST_SEEN = 20


class Growing:
    """A square that is seen in the second half and grows; a twin stands beside it throughout."""

    def image(self, position: int) -> np.ndarray:
        return np.full((SIZE_WH[1], SIZE_WH[0], 3), 5 * position, np.uint8)

    def mask(self, object_id: str, position: int) -> np.ndarray | None:
        mask = np.zeros(SIZE_WH[::-1], bool)
        if object_id == "twin":
            mask[20:40, 60:70] = True
        elif position >= FIRST_SEEN:
            mask[20 : 21 + position - FIRST_SEEN, 30:58] = True
        return mask

    def void(self, position: int) -> None:
        del position

    def foreground(self, position: int) -> None:
        del position


def episode(**changes: object) -> Episode:
    question = Question(text="what grows?", kind=QuestionKind.FORESIGHT, rationale="It grows.")
    positions = tuple(range(NUM_FRAMES))
    made = Episode(
        id="clip/0", video="clip", frame_names=tuple(map(str, positions)), question=question,
        object_ids=("square", "twin"),
        spans=(TruthSpan(first=0, end=NUM_FRAMES, object_ids=("square",)),),
        annotated=positions, scored=positions, size_wh=SIZE_WH, media=Growing(),
    )  # fmt: skip
    return replace(made, **changes)


def draw(drawer: TargetDrawer, seed: int, *episodes: Episode) -> list[TargetSample]:
    return list(drawer.draw(episodes or (episode(),), seed, Filtered()))


def position_of(sample: TargetSample) -> int:
    """Frames are as bright as they are late."""
    frame = sample.window.get(sample.target)
    assert frame is not None
    return int(frame.image[0, 0, 0]) // 5


def test_four_of_five_target_frames_are_of_the_upper_half_of_areas() -> None:
    positions = [position_of(draw(TargetDrawer(), seed)[0]) for seed in range(100)]
    upper = [p for p in positions if p >= FIRST_SEEN + (NUM_FRAMES - FIRST_SEEN) // 2]
    unseen = [p for p in positions if p < FIRST_SEEN]
    assert 0.75 < len(upper) / 100 < 0.93  # 0.8, and a quarter of the rest
    assert 0.04 < len(unseen) / 100 < 0.18  # half of the rest
    alone = TargetDrawer(any_share=0)
    assert min(position_of(draw(alone, seed)[0]) for seed in range(50)) >= 30


def test_key_frames_are_of_a_stretch_that_is_not_always_centred() -> None:
    drawer = TargetDrawer(num_key_frames=40, num_reference_frames=0, label_offset=0)
    ways = set()
    for seed in range(40):
        (sample,) = draw(drawer, seed)
        labels = [sample.window.label_of(index) for index in sample.window.indices]
        assert labels == list(range(labels[0], labels[0] + 10))  # a quarter of 40
        ways.add(sample.window.label_of(sample.target) - labels[0])
    assert max(ways) == 9
    assert len(ways) > 5


def test_target_key_frames_and_references_are_shown_each_once() -> None:
    for seed in range(30):
        (sample,) = draw(TargetDrawer(label_offset=50, label_stride=4), seed)
        labels = [sample.window.label_of(index) for index in sample.window.indices]
        assert labels == sorted(set(labels))
        assert 10 <= len(labels) <= 11  # 6 + 4, and the target where it is none of the 6
        assert sample.target in sample.window.indices


def test_equal_seeds_give_equal_samples() -> None:
    (one,), (same,), (other,) = (draw(TargetDrawer(), seed) for seed in (3, 3, 4))
    assert (one.target, one.window.indices, one.prompts) == (
        same.target,
        same.window.indices,
        same.prompts,
    )
    assert (one.target, one.window.indices) != (other.target, other.window.indices)


def test_a_prompt_has_a_box_its_centre_and_a_point_on_the_twin() -> None:
    (sample,) = draw(TargetDrawer(any_share=0), 1)
    (prompt,) = sample.prompts
    assert prompt.box is not None
    height = position_of(sample) - FIRST_SEEN + 1
    assert tuple(prompt.box) == (30, 20, 58, 20 + height)
    center, negative = prompt.points
    assert (center.label, negative.label) == (PointLabel.FOREGROUND, PointLabel.BACKGROUND)
    assert sample.masks["square"][int(center.y), int(center.x)]
    assert Growing().mask("twin", 0)[int(negative.y), int(negative.x)]


def test_a_target_frame_without_the_target_has_its_own_thought() -> None:
    drawer = TargetDrawer(any_share=1)
    samples = [draw(drawer, seed)[0] for seed in range(20)]
    unseen = [sample for sample in samples if not sample.prompts]
    assert unseen
    assert {sample.rationale for sample in unseen} == {UNSEEN_THOUGHT}
    assert {sample.rationale for sample in samples if sample.prompts} == {"It grows."}


def test_a_chain_about_one_frame_makes_it_the_target_where_thoughts_are_learnt() -> None:
    evidence = Evidence(keyframe=25, is_about_keyframe=True)
    question = replace(episode().question, evidence=evidence)
    own = episode(question=question)
    assert {
        position_of(draw(TargetDrawer(needs_rationale=True), s, own)[0]) for s in range(9)
    } == {25}
    assert len({position_of(draw(TargetDrawer(), s, own)[0]) for s in range(9)}) > 3


def test_another_clips_question_has_no_target() -> None:
    other = episode(
        id="other/0", video="other", question=replace(episode().question, text="what falls?")
    )
    drawer = TargetDrawer(negative_share=0.99)
    found = [s for seed in range(5) for s in draw(drawer, seed, episode(), other)]
    foreign = [sample for sample in found if " asked " in sample.id]
    assert foreign
    assert all(not sample.prompts and not sample.masks for sample in foreign)


def test_what_gives_no_sample_is_counted() -> None:
    filtered = Filtered()
    silent = episode(question=replace(episode().question, rationale=""))
    drawer = TargetDrawer(needs_rationale=True)
    assert list(drawer.draw([silent, episode(spans=())], 0, filtered)) == []
    assert filtered.reasons == {"without a chain of thought": 1, "with no truth": 1}


def test_difficulty_is_as_rated_else_as_the_word_says() -> None:
    question = Question(text="?", kind=QuestionKind.REFERRING)
    assert difficulty_of(question) == 5.5
    assert difficulty_of(replace(question, difficulty="easy")) < 4
    assert difficulty_of(replace(question, difficulty="hard")) > 7
    assert difficulty_of(replace(question, difficulty="hard", rating=2.5)) == 2.5


@pytest.mark.parametrize("name", ["segment_share", "any_share"])
def test_shares_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} wants 0 to 1, got 1.5"):
        TargetDrawer(**{name: 1.5})
    with pytest.raises(ConfigError, match="want a key frame"):
        TargetDrawer(num_key_frames=0)
