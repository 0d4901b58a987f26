# SPDX-License-Identifier: Apache-2.0
"""What a teacher is shown, and which of its chains are refused, by reason."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foreseg.geometry import BoxXyxy
from foreseg_evaluation.episode import Episode, Question, QuestionKind, TruthSpan
from foreseg_training.samples import Filtered, Sample, SampleDrawer
from foreseg_training.teacher.chain_words import EXAMPLES, EXAMPLES_NONE
from foreseg_training.teacher.chains import (
    ChainTruth,
    boxed_image,
    chain_errand,
    checked_chain,
    truth_of_chain,
)

SIZE_WH = (80, 60)
TRUTH = ChainTruth(
    keyframe=12, num_objects=1, targets=("red star",), others=("ball", "blue cross"),
    evidence={"keyframe": "00012"},
)  # fmt: skip
GOOD = {
    "scene": "A ball rolls towards three shapes on the right.",
    "why_this_frame": "In frame <12> the ball is close and nothing hides the shapes.",
    "where": "The red star stands alone at the right, above the blue cross.",
    "keyframe": 12,
    "objects": ["red star"],
}


class Slide:
    """A square that slides over grey; the second object rests."""

    def image(self, position: int) -> np.ndarray:
        return np.full((SIZE_WH[1], SIZE_WH[0], 3), 100 + position, np.uint8)

    def mask(self, object_id: str, position: int) -> np.ndarray:
        mask = np.zeros(SIZE_WH[::-1], bool)
        left = 4 + 3 * position if object_id == "0" else 60
        mask[20:40, left : left + 12] = True
        return mask

    def void(self, position: int) -> None:
        del position

    def foreground(self, position: int) -> None:
        del position


def episode(*, targets: tuple[str, ...] = ("0",), text: str = "What moves?") -> Episode:
    positions = tuple(range(12))
    return Episode(
        id="v/0", video="v", expression_id="0", frame_names=tuple(f"{p:05d}" for p in positions),
        question=Question(text=text, kind=QuestionKind.FORESIGHT, answer="the red star"),
        object_ids=("0", "1"), spans=(TruthSpan(first=0, end=12, object_ids=targets),),
        annotated=positions, scored=positions, size_wh=SIZE_WH, media=Slide(),
        object_names={"0": "red star", "1": "blue cross"},
    )  # fmt: skip


def sample_of(made: Episode) -> Sample:
    sample = SampleDrawer(label_offset=0, num_frames=4).one([made], 0, 3, Filtered())
    assert sample is not None
    return sample


def said(**changes: object) -> str:
    return json.dumps({**GOOD, **changes})


def test_a_good_chain_is_kept_without_numbers() -> None:
    found = checked_chain(said(), TRUTH).found
    assert found["evidence"] == {"keyframe": "00012"}
    assert found["chain"] == (
        "A ball rolls towards three shapes on the right. In this frame the ball is close and"
        " nothing hides the shapes. The red star stands alone at the right, above the blue cross."
    )


@pytest.mark.parametrize(
    "text",
    [
        f"```json\n{said()}\n```",
        f"Here it is:\n{said(keyframe='<12>')} I hope that it helps.",
        said(why_this_frame="Frame 12 shows all of it"),
        said(where="This frame <12> has the red star at the right."),
    ],
)
def test_odd_forms_of_a_good_chain_will_do(text: str) -> None:
    checked = checked_chain(text, TRUTH)
    assert checked.reason == ""
    assert "12" not in checked.found["chain"]
    assert "this this" not in checked.found["chain"].lower()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no object of the form"),
        ("I cannot help with that.", "no object of the form"),
        ("[1, 2, 3]", "no object of the form"),
        ('{"a": 1}', "no object of the form"),
        (said(where=""), "lacks a part"),
        (said(scene=3), "lacks a part"),
        (said(where="There it is."), "lacks a part"),
        (said(scene="word " * 300), "longer than"),
        (said(where="The red star is in the red box at the right."), "boxes or marks"),
        (said(where="The red star is in a box at the right."), "boxes or marks"),
        (said(where="The red star has a bounding rectangle here."), "boxes or marks"),
        (said(where="The red star is the highlighted one here."), "boxes or marks"),
        (said(why_this_frame="It was given as the frame to use."), "was told"),
        (said(why_this_frame="The given keyframe shows the red star."), "was told"),
        (said(why_this_frame="It matches the ground truth quite well."), "was told"),
        (said(where="</think> The red star is at the right."), "holds a tag"),
        (said(keyframe=13), "another keyframe"),
        (said(keyframe=None), "another keyframe"),
        (said(keyframe=True), "another keyframe"),
        (said(scene="In frame 3 the ball is still far away."), "another frame by its number"),
        (said(scene="In frames 3 and 12 the ball is far."), "another frame by its number"),
        (said(scene="At <7> the ball is still far away."), "another frame by its number"),
        (said(objects=[]), "another number of objects"),
        (said(objects=["red star", "red star"]), "another number of objects"),
        (said(objects="red star"), "another number of objects"),
        (said(objects=["blue cross"]), "none of the targets"),
        (said(where="The star stands alone at the right."), "does not name a target"),
    ],
)
def test_a_chain_that_will_not_do_is_refused_by_reason(text: str, reason: str) -> None:
    checked = checked_chain(text, TRUTH)
    assert reason in checked.reason
    assert not checked.found


def test_where_a_box_is_a_thing_it_may_be_spoken_of() -> None:
    truth = ChainTruth(keyframe=12, num_objects=1, may_say_box=True)
    text = said(where="The cardboard box stands alone at the right.", objects=["box"])
    assert checked_chain(text, truth).reason == ""
    marked = said(where="The object is in the red box at the right.", objects=["box"])
    assert "boxes or marks" in checked_chain(marked, truth).reason


def test_nothing_fits_has_a_form_of_its_own() -> None:
    truth = ChainTruth(keyframe=None, num_objects=0)
    for example in EXAMPLES_NONE:
        assert checked_chain(example, truth).reason == ""
    assert "no object" in checked_chain(said(where=1, scene=2, why_this_frame=3)[:2], truth).reason
    value = {**json.loads(EXAMPLES_NONE[0]), "objects": ["a cup"]}
    assert "another number of objects" in checked_chain(json.dumps(value), truth).reason
    assert "another keyframe" in checked_chain(json.dumps({**value, "keyframe": 2}), truth).reason


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_would_be_accepted(example: str) -> None:
    value = json.loads(example)
    truth = ChainTruth(
        keyframe=value["keyframe"],
        num_objects=len(value["objects"]),
        targets=tuple(value["objects"]),
    )
    assert checked_chain(example, truth).reason == ""


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=300) | st.dictionaries(st.sampled_from(list(GOOD)), st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text() | st.none()), max_size=5).map(lambda v: json.dumps({**GOOD, **v})))  # fmt: skip
def test_nonsense_is_refused_and_never_raises(text: str) -> None:
    checked = checked_chain(text, TRUTH)
    assert bool(checked.reason) != bool(checked.found)


def test_the_teacher_sees_labels_red_boxes_and_the_keyframe() -> None:
    made = episode()
    sample = sample_of(made)
    errand = chain_errand(sample, made, image_side_px=40, max_tokens=100, temperature=0.5, seed=1)
    system, user = errand.request.messages
    assert any(example in str(system.content[0]) for example in EXAMPLES)
    images = [part for part in user.content if not isinstance(part, str)]
    labels = [part for part in user.content if isinstance(part, str)][:-1]
    assert len(images) == len(sample.window.frames)
    assert labels == [f"<{index}>" for index in sample.window.indices]
    assert f"<{sample.keyframe}>" in user.content[-1]
    for image in images:
        assert max(image.shape) == 40
        assert (image == (255, 0, 0)).all(axis=-1).any()
    assert errand.request.temperature == 0.5


def test_which_example_is_drawn_depends_on_the_sample() -> None:
    made = episode()
    drawn = set()
    for number in range(12):
        sample = sample_of(made)
        object.__setattr__(sample, "id", f"v/{number}")
        errand = chain_errand(sample, made, image_side_px=32, max_tokens=9, temperature=0, seed=1)
        text = str(errand.request.messages[0].content[0])
        drawn |= {example for example in EXAMPLES if example in text}
    assert len(drawn) == 3


def test_a_box_is_drawn_around_and_not_over_the_target() -> None:
    sample = sample_of(episode())
    frame = sample.window.frames[0]
    image = boxed_image(frame, [BoxXyxy(20, 20, 40, 40)], 80)
    assert (image[21:39, 21:39] != (255, 0, 0)).any(axis=-1).all()
    assert (image[18:20, 18:42] == (255, 0, 0)).all()
    at_the_edge = boxed_image(frame, [BoxXyxy(0, 0, 80, 60)], 80)
    assert (at_the_edge == frame.image).all()


def test_the_truth_of_a_chain() -> None:
    made = episode()
    truth = truth_of_chain(sample_of(made), made)
    assert (truth.targets, truth.others, truth.num_objects) == (("red star",), ("blue cross",), 1)
    keyframe = int(truth.evidence["keyframe"])
    assert truth.keyframe == keyframe
    assert truth.evidence["boxes"] == {
        f"{keyframe:05d}": [4.0 + 3 * keyframe, 20.0, 16.0 + 3 * keyframe, 40.0]
    }
    none = episode(targets=())
    assert truth_of_chain(sample_of(none), none).keyframe is None
    boxy = episode(text="What falls into the box?")
    assert truth_of_chain(sample_of(boxy), boxy).may_say_box
