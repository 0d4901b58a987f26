# SPDX-License-Identifier: Apache-2.0
"""What an episode's scores count, on predictions that are right, wrong, empty or missing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="evaluation needs the extra [evaluation]")

from tests.support.episodes import SIZE_WH, Squares, make_episode, make_objects_episode

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, rle_from_mask
from foreseg.prompts import Point, SpatialPrompt
from foreseg_evaluation.episode import Episode, Evidence, QuestionKind, TruthSpan
from foreseg_evaluation.prediction import Prediction, Spoken
from foreseg_evaluation.results import TARGET
from foreseg_evaluation.scoring import right_target, score_episode


def predicted(episode: Episode, object_id: str, **said: object) -> Prediction:
    masks = {i: rle_from_mask(episode.media.mask(object_id, i)) for i in episode.annotated}  # type: ignore[arg-type]
    return Prediction(masks={TARGET: masks}, spoken=Spoken(**said))  # type: ignore[arg-type]


def pointed(episode: Episode, object_id: str) -> Prediction:
    prompt = SpatialPrompt(mask=rle_from_mask(episode.media.mask(object_id, 0)))  # type: ignore[arg-type]
    return predicted(episode, object_id, status="ok", keyframe=0, prompts=(prompt,))


def test_the_truth_scores_one_everywhere() -> None:
    episode = make_episode()
    x, y = Squares().corner("red", 4)
    box = BoxXyxy(x, y, x + 24, y + 24)
    said = predicted(
        episode,
        "red",
        status="ok",
        text="the RED one",
        keyframe=4,
        shown=(0, 4, 8),
        prompts=(SpatialPrompt(box=box),),
        tokens=7,
    )
    result = score_episode(episode, said)
    assert set(result.objects[0].j) == set(result.objects[0].f) == {1.0}
    for name in ("accuracy", "robustness", "robustness_sane", "right_target", "keyframe_score",
                 "keyframe_accuracy", "spatial_score", "answer_accuracy", "target_accuracy"):  # fmt: skip
        assert result.scores[name] == pytest.approx(1.0), name
    assert result.scores["answer_tokens"] == 7.0
    assert math.isnan(result.scores["no_target_accuracy"])
    assert (result.answered["keyframe"], result.answered["shown"]) == ("4", "0, 4, 8")


class Growing(Squares):
    """Red is (position + 1) pixels wide and hides at position 3."""

    def mask(self, object_id: str, position: int):  # noqa: ANN201
        whole = super().mask(object_id, position)
        if object_id == "red":
            whole[:, self.corner("red", position)[0] + position + 1 :] = False
            whole &= position != 3
        return whole


def place_scores(episode: Episode, **said: object) -> dict[str, float]:
    scores = score_episode(episode, predicted(episode, "red", **said)).scores
    names = ("keyframe_score", "keyframe_accuracy", "spatial_score", "evidence_score")
    return {name: scores[name] for name in names if name in scores}


def test_a_keyframe_is_compared_with_the_frames_that_were_shown_not_with_all() -> None:
    episode = make_episode(media=Growing())
    box = SpatialPrompt(box=BoxXyxy(6, 8, 8, 32))  # at position 1 red spans 6 to 8
    said = {"status": "ok", "keyframe": 1, "prompts": (box,)}
    assert place_scores(episode, **said, shown=(1, 3)) == {
        "keyframe_score": 1.0,
        "keyframe_accuracy": 1.0,
        "spatial_score": 1.0,
    }
    assert place_scores(episode, **said, shown=(1, 3, 7))["keyframe_score"] == 2 / 8
    assert place_scores(episode, **said, shown=(3, 7))["keyframe_score"] == 0.0  # not shown
    assert place_scores(episode, **said, shown=(3,)) == {}  # no target in what was shown
    assert place_scores(episode, **said) == {}  # not known what was shown
    nothing = place_scores(episode, status="no_target", shown=(1, 3))
    assert set(nothing.values()) == {0.0}
    assert set(nothing) == {"keyframe_score", "keyframe_accuracy", "spatial_score"}


def test_frames_without_annotation_do_not_count_against_a_keyframe() -> None:
    episode = replace(make_episode(media=Growing()), annotated=(0, 1))
    said = {"status": "ok", "keyframe": 1, "prompts": (SpatialPrompt(box=BoxXyxy(6, 8, 8, 32)),)}
    assert place_scores(episode, **said, shown=(1, 7))["keyframe_score"] == 1.0
    assert place_scores(episode, **{**said, "keyframe": 7}, shown=(1, 7)) == {}


def test_every_box_counts_and_masks_have_boxes() -> None:
    spans = (TruthSpan(first=0, end=20, object_ids=("red", "blue")),)
    episode = make_episode(spans=spans)
    red = SpatialPrompt(mask=rle_from_mask(episode.media.mask("red", 2)))  # type: ignore[arg-type]
    blue = SpatialPrompt(box=BoxXyxy(90, 60, 114, 84))
    point = SpatialPrompt(points=(Point(100, 70),))
    shown = {"status": "ok", "keyframe": 2, "shown": (2,)}
    for prompts, score in (
        ((blue, red), 1.0),
        ((red,), 0.5),
        ((red, blue, blue), 2 / 3),
        ((red, blue, point), 2 / 3),
        ((point,), 0.0),
    ):
        assert place_scores(episode, **shown, prompts=prompts)["spatial_score"] == score


def test_a_keyframe_may_be_among_the_evidence() -> None:
    episode = make_episode()
    assert episode.question is not None
    evidence = Evidence(keyframe=9, frames=(2, 5))
    episode = replace(episode, question=replace(episode.question, evidence=evidence))
    said = {
        "status": "ok",
        "shown": (2, 4, 9),
        "prompts": (SpatialPrompt(box=BoxXyxy(7, 8, 9, 9)),),
    }
    scores = {k: place_scores(episode, **said, keyframe=k)["evidence_score"] for k in (2, 4, 9)}
    assert scores == {2: 1.0, 4: 0.0, 9: 1.0}
    assert place_scores(episode, status="no_target", shown=(2,))["evidence_score"] == 0.0


def answer_accuracy(episode: Episode, **said: object) -> float | None:
    return score_episode(episode, predicted(episode, "red", **said)).scores.get("answer_accuracy")


def test_an_answer_in_words_is_right_if_it_says_the_same_words() -> None:
    episode = make_episode()  # "The red one."
    for text, score in (("red one", 1.0), ("A  Red-one!", 1.0), ("the blue one", 0.0), ("", 0.0)):
        assert answer_accuracy(episode, status="ok", keyframe=2, text=text) == score
    assert answer_accuracy(episode, status="abstained") == 0.0
    assert answer_accuracy(episode, status="no_target", text="the red one") == 0.0
    nothing = make_episode(kind=QuestionKind.NO_TARGET)
    assert answer_accuracy(nothing, status="no_target") == 1.0
    assert answer_accuracy(nothing, status="ok", keyframe=2, text="blue") == 0.0
    assert episode.question is not None
    mute = replace(
        episode,
        question=replace(episode.question, answer=""),
        spans=(replace(episode.spans[0], answer=""),),
    )
    assert answer_accuracy(mute, status="ok", keyframe=2, text="red one") is None


def test_the_words_that_are_true_at_the_keyframe_count() -> None:
    spans = (
        TruthSpan(first=0, end=8, object_ids=("red",), answer="red"),
        TruthSpan(first=12, end=20, object_ids=("blue",), answer="blue"),
    )
    episode = make_episode(spans=spans)
    assert answer_accuracy(episode, status="ok", keyframe=13, text="blue") == 1.0
    assert answer_accuracy(episode, status="ok", keyframe=3, text="blue") == 0.0
    assert answer_accuracy(episode, status="ok", keyframe=10, text="blue") is None  # between them


def test_the_other_object_is_wrong_and_not_robust() -> None:
    episode = make_episode()
    result = score_episode(episode, pointed(episode, "blue"))
    assert set(result.objects[0].j) == {0.0}
    assert result.scores["right_target"] == 0.0
    assert result.scores["robustness"] == pytest.approx(0.5, abs=1e-3)  # as large as the target


def test_positions_left_out_count_as_empty_but_are_told_apart() -> None:
    episode = make_episode(num_frames=3)
    masks = {1: rle_from_mask(episode.truth(1))}
    result = score_episode(episode, Prediction(masks={TARGET: masks}))
    assert result.objects[0].j == (0.0, 1.0, 0.0)
    assert result.objects[0].masks[0] is None
    assert result.objects[0].masks[1]
    assert "right_target" not in result.scores  # nothing was said


def test_overlapping_targets_are_punished_by_the_official_robustness_alone() -> None:
    class Overlap(Squares):
        def mask(self, object_id: str, position: int):  # noqa: ANN202
            return super().mask("red" if object_id == "blue" else object_id, position)

    episode = make_episode(media=Overlap())
    both = type(episode.spans[0])(first=0, end=20, object_ids=("red", "blue"))
    episode = make_episode(media=Overlap(), spans=(both,))
    result = score_episode(episode, predicted(episode, "red"))
    assert result.scores["robustness"] == 0.0
    assert result.scores["robustness_sane"] == 1.0


def test_no_target_is_right_only_with_no_pixel() -> None:
    episode = make_episode(kind=QuestionKind.NO_TARGET)
    silent = Prediction(masks={TARGET: {}}, spoken=Spoken(status="no_target"))
    loud = pointed(episode, "blue")
    assert score_episode(episode, silent).scores["no_target_accuracy"] == 1.0
    assert score_episode(episode, loud).scores["no_target_accuracy"] == 0.0
    assert score_episode(episode, loud).scores["right_target"] == 0.0


def test_who_says_nothing_is_not_right_where_nothing_fits() -> None:
    episode = make_episode(kind=QuestionKind.NO_TARGET, num_frames=4)
    empty = MaskRle(height=SIZE_WH[1], width=SIZE_WH[0], counts="")
    said = dict.fromkeys(range(4), empty)
    right = score_episode(
        episode, Prediction(masks={TARGET: said}, spoken=Spoken(status="no_target"))
    )
    assert set(right.objects[0].j) == set(right.objects[0].f) == {1.0}
    assert (right.scores["abstained"], right.scores["union_px"]) == (0.0, 0.0)
    ignorant = score_episode(
        episode, Prediction(masks={TARGET: {}}, spoken=Spoken(status="abstained", reason="dark"))
    )
    assert set(ignorant.objects[0].j) == set(ignorant.objects[0].f) == {0.0}
    for name in ("right_target", "no_target_accuracy"):
        assert (right.scores[name], ignorant.scores[name]) == (1.0, 0.0)
    assert ignorant.scores["abstained"] == 1.0
    assert ignorant.scores["union_px"] > 0  # so that gIoU is not 1, either
    assert ignorant.answered["status"] == "abstained"


def test_between_two_truths_nothing_is_right_or_wrong() -> None:
    spans = (
        TruthSpan(first=0, end=8, object_ids=("red",)),
        TruthSpan(first=12, end=20, object_ids=("blue",)),
    )
    episode = make_episode(spans=spans)
    nothing = Spoken(status="no_target")
    assert math.isnan(right_target(episode, nothing, asked_position=10))
    assert right_target(episode, nothing, asked_position=7) == 0.0
    prompt = SpatialPrompt(mask=rle_from_mask(episode.media.mask("red", 10)))  # type: ignore[arg-type]
    red = Spoken(status="ok", keyframe=10, prompts=(prompt,))
    assert math.isnan(right_target(episode, red))
    abstained = Spoken(status="abstained")
    assert math.isnan(right_target(episode, abstained, asked_position=10))
    assert right_target(episode, abstained, asked_position=7) == 0.0


def test_sa_v_counts_an_object_from_where_it_first_shows() -> None:
    episode = make_objects_episode()
    masks = {
        name: {i: rle_from_mask(episode.media.mask(name, i)) for i in range(12)}  # type: ignore[arg-type]
        for name in ("red", "blue")
    }
    rows = score_episode(episode, Prediction(masks=masks), from_first_seen=True).objects
    assert rows[0].j == (None, *[1.0] * 9)  # red hides at positions 0 and 1; 0 is not scored
    assert rows[1].j == (1.0,) * 10
    everywhere = score_episode(episode, Prediction(masks=masks)).objects
    assert everywhere[0].j == (1.0,) * 10


def test_a_mask_of_another_size_is_refused_with_both_sizes() -> None:
    episode = make_episode(num_frames=2)
    wrong = rle_from_mask(np.ones((4, 5), dtype=bool))
    with pytest.raises(InputError, match=rf"\({SIZE_WH[1]}, {SIZE_WH[0]}\).*\(4, 5\)"):
        score_episode(episode, Prediction(masks={TARGET: {0: wrong}}))


def test_an_empty_code_is_an_empty_answer() -> None:
    assert Prediction(masks={TARGET: {0: MaskRle(height=2, width=2, counts="")}}).is_empty
