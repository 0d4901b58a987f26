# SPDX-License-Identifier: Apache-2.0
"""Rows of one annotator are matched to true objects over the whole video."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("scipy", reason="evaluation needs the extra [evaluation]")
pytest.importorskip("cv2", reason="evaluation needs the extra [evaluation]")

from tests.support.episodes import Squares, make_episode

from foreseg.masks import Mask, rle_from_mask
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.prediction import Prediction
from foreseg_evaluation.results import TARGET, EpisodeResult
from foreseg_evaluation.run import failed_result
from foreseg_evaluation.scoring import score_episode
from foreseg_evaluation.unsupervised import unsupervised_table

NAMES = {"1": "red", "2": "blue"}


class Numbered(Squares):
    """The squares under DAVIS' numbers."""

    def mask(self, object_id: str, position: int) -> Mask:
        return super().mask(NAMES.get(object_id, object_id), position)


def episodes() -> dict[str, Episode]:
    found = {}
    for number in range(8):  # object * 4 + annotator
        one = make_episode(name=f"video/{number}", num_frames=5, media=Numbered())
        found[one.id] = replace(one, object_ids=("1", "2"))
    return found


def answered(episode: Episode, object_id: str) -> EpisodeResult:
    masks = {i: rle_from_mask(Numbered().mask(object_id, i)) for i in range(5)}
    return score_episode(replace(episode, spans=()), Prediction(masks={TARGET: masks}))


def test_swapped_masks_are_matched_and_missing_rows_are_empty() -> None:
    by_id = episodes()
    results = []
    for annotator in range(4):
        first, second = by_id[f"video/{annotator}"], by_id[f"video/{annotator + 4}"]
        swapped = annotator == 1
        results.append(answered(first, "2" if swapped else "1"))
        if annotator != 2:
            results.append(answered(second, "1" if swapped else "2"))
    table = unsupervised_table(results, by_id)
    rows = dict(table.rows)
    assert rows["annotator set 0"] == (100.0, 100.0, 100.0)
    assert rows["annotator set 1"] == (100.0, 100.0, 100.0)
    assert rows["annotator set 2"] == (50.0, 50.0, 50.0)
    assert rows["mean of the sets"][0] == pytest.approx(350 / 4)


def test_of_two_rows_on_one_object_the_first_keeps_its_pixels() -> None:
    by_id = episodes()
    results = [answered(by_id["video/0"], "1"), answered(by_id["video/4"], "1")]
    rows = dict(unsupervised_table(results, by_id).rows)
    assert rows["annotator set 0"] == (50.0, 50.0, 50.0)


def test_a_video_with_a_failed_expression_is_left_out_and_counted() -> None:
    by_id = episodes()
    results = [
        answered(by_id["video/0"], "1"),
        failed_result(by_id["video/4"], "no picture"),
        answered(by_id["video/1"], "1"),
    ]
    table = unsupervised_table(results, by_id)
    assert [name for name, _ in table.rows] == ["annotator set 1", "mean of the sets"]
    assert "1 videos" in table.about
