# SPDX-License-Identifier: Apache-2.0
"""What an episode's scores count, on predictions that are right, wrong, empty or missing."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("cv2", reason="evaluation needs the extra [evaluation]")

from tests.support.episodes import SIZE_WH, Squares, make_episode, make_objects_episode

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, rle_from_mask
from foreseg.prompts import SpatialPrompt
from foreseg_evaluation.episode import Episode, QuestionKind, TruthSpan
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
        episode, "red", status="ok", keyframe=4, prompts=(SpatialPrompt(box=box),), tokens=7
    )
    result = score_episode(episode, said)
    assert set(result.objects[0].j) == set(result.objects[0].f) == {1.0}
    for name in ("accuracy", "robustness", "robustness_sane", "right_target", "keyframe_score",
                 "keyframe_accuracy", "box_iou", "target_accuracy"):  # fmt: skip
        assert result.scores[name] == pytest.approx(1.0), name
    assert result.scores["answer_tokens"] == 7.0
    assert math.isnan(result.scores["no_target_accuracy"])
    assert result.answered["keyframe"] == "4"


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
