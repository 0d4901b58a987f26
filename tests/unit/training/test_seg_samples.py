# SPDX-License-Identifier: Apache-2.0
"""Samples of the [SEG] methods: what is asked, what is true of it, and that rows say so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="frames are shown through OpenCV")
pytest.importorskip("torch", reason="rows are for torch's trainers")
pytest.importorskip("PIL", reason="rows carry Pillow's pictures")
from tests.support.episodes import SIZE_WH, make_episode

from foreseg.errors import ConfigError, InputError
from foreseg.methods.fevos import FevosMethod, FevosSettings
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.visa import VisaMethod, VisaSettings
from foreseg_evaluation.episode import Episode, QuestionKind
from foreseg_training.samples import Filtered
from foreseg_training.seg_samples import SegMethod, SegSample, SegSampleDrawer
from foreseg_training.vlm.seg_rows import (
    masks_from_text,
    masks_text,
    resized,
    seg_completion_of,
    seg_sft_row,
)

VIEW = View(image_side_px=56)
VISA = VisaMethod(VisaSettings(view=VIEW))
FEVOS = FevosMethod(FevosSettings(view=VIEW, form=Form.ANSWER_ONLY))
THOUGHT = "It goes on."


def clip(*, name: str = "clip/0", rationale: str = THOUGHT, **options: object) -> Episode:
    made = make_episode(name=name, **options)  # type: ignore[arg-type]
    assert made.question is not None
    return replace(made, question=replace(made.question, rationale=rationale))


def drawn(method: SegMethod, *episodes: Episode, seed: int = 0, **options: object) -> SegSample:
    drawer = SegSampleDrawer(method=method, **options)  # type: ignore[arg-type]
    return next(drawer.draw(episodes, seed, Filtered()))


def test_visas_target_frame_is_any_and_8_to_12_others_stand_beside_it() -> None:
    samples = [drawn(VISA, clip(), seed=seed) for seed in range(40)]
    targets = {int(sample.frames[0].index) for sample in samples}
    assert len(targets) > 12
    shown = {
        sum(not isinstance(part, str) for m in s.step.request.completion.messages for part in m.content)
        for s in samples
    }  # fmt: skip
    assert shown == {9, 10, 11, 12, 13}
    for sample in samples:
        (frame,), (mask,) = sample.frames, sample.masks
        assert np.array_equal(mask, clip().truth(int(frame.index)))
        assert np.array_equal(frame.image, clip().image(int(frame.index)))
    none = drawn(VISA, clip(), least_references=0, most_references=0)
    assert len(none.step.request.completion.messages[0].content) == 2


def test_fevos_decodes_the_frames_that_its_policy_shows_under_labels_that_begin_anywhere() -> None:
    starts = set()
    for seed in range(20):
        sample = drawn(FEVOS, clip(), seed=seed, label_offset=50)
        indices = [int(frame.index) for frame in sample.frames]
        start = indices[0]
        starts.add(start)
        assert [i - start for i in indices] == [0, 5, 10, 14, 19]
        for frame, mask in zip(sample.frames, sample.masks, strict=True):
            assert np.array_equal(mask, clip().truth(int(frame.index) - start))
    assert len(starts) > 10


def test_only_frames_whose_truth_is_known_are_shown() -> None:
    some = replace(clip(), annotated=(0, 4, 8, 12), scored=(0, 4, 8, 12))
    assert {int(f.index) for f in drawn(FEVOS, some).frames} == {0, 4, 8, 12}
    assert {int(drawn(VISA, some, seed=s).frames[0].index) for s in range(30)} == {0, 4, 8, 12}


def test_the_completion_is_the_methods_words_and_one_token() -> None:
    assert seg_completion_of(VISA, drawn(VISA, clip())) == "Yes, it is [SEG]."
    assert seg_completion_of(FEVOS, drawn(FEVOS, clip())) == "<answer>It is [SEG].</answer>"
    thinking = FevosMethod(FevosSettings(view=VIEW, form=Form.THINK_FIRST))
    said = seg_completion_of(thinking, drawn(thinking, clip(rationale="[SEG] it is.")))
    assert said == "<think>SEG it is.</think>\n<answer>It is [SEG].</answer>"


@pytest.mark.parametrize("method", [VISA, FEVOS])
def test_what_nothing_answers_is_half_an_empty_mask_and_half_words(method: SegMethod) -> None:
    absent = clip(kind=QuestionKind.NO_TARGET)
    samples = [drawn(method, absent, seed=seed) for seed in range(60)]
    assert not any(sample.masks.any() for sample in samples)
    said = [seg_completion_of(method, sample) for sample in samples]
    assert 15 < sum("[SEG]" in text for text in said) < 45
    assert {text for text in said if "[SEG]" not in text} <= {
        "There is no such object.",
        '<answer>{"no_target": "nothing in the frames fits"}</answer>',
    }


def test_another_clips_question_has_no_mask() -> None:
    other = replace(clip(name="other/0"), question=replace(clip().question, text="the kettle"))  # type: ignore[type-var]
    sample = drawn(VISA, clip(), other, negative_share=0.99)
    assert sample.id == "clip/0 asked other/0"
    assert sample.query.text == "the kettle"
    assert not sample.masks.any()


def test_what_is_left_out_is_counted() -> None:
    filtered = Filtered()
    drawer = SegSampleDrawer(method=FEVOS, needs_rationale=True)
    found = list(drawer.draw([clip(rationale=""), replace(clip(), question=None)], 0, filtered))
    assert not found
    assert filtered.reasons == {"without a chain of thought": 1, "without a question": 1}
    with pytest.raises(ConfigError, match="least_references wants 0 to most"):
        SegSampleDrawer(method=VISA, least_references=3, most_references=2)


def test_a_row_has_masks_in_the_size_of_the_frames_that_are_decoded() -> None:
    row = seg_sft_row(FEVOS, drawn(FEVOS, clip()), frozenset(), decode_side_px=80)
    assert [image.size for image in row["decoded_images"]] == [(80, 48)] * 5
    masks = masks_from_text(row["masks"])
    assert masks.shape == (5, 48, 80)
    whole = drawn(FEVOS, clip()).masks[0]
    assert abs(masks[0].mean() - whole.mean()) < 0.005
    assert row["completion"][0]["content"][0]["text"].endswith("</answer>")
    assert max(image.size[0] for image in row["images"]) == 56


def test_masks_survive_their_text_and_a_resize() -> None:
    rng = np.random.default_rng(0)
    masks = rng.random((3, *SIZE_WH[::-1])) < 0.3
    masks[1] = False
    assert np.array_equal(masks_from_text(masks_text(list(masks))), masks)
    half = np.zeros((6, 8), bool)
    half[:, 4:] = True
    assert np.array_equal(resized(half, (3, 4)), half[::2, ::2])
    assert resized(half, half.shape) is half


def test_a_truth_that_the_robot_would_not_read_stops_with_its_name() -> None:
    sample = replace(drawn(FEVOS, clip()), says_none=True)
    with pytest.raises(InputError, match="sample clip/0: the true completion is not read"):
        seg_completion_of(FEVOS, sample)
