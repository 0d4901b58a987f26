# SPDX-License-Identifier: Apache-2.0
"""Each benchmark's own averages, worked out by hand, and the intervals around a mean."""

from __future__ import annotations

import math

import numpy as np
import pytest

from foreseg_evaluation.aggregates import (
    ExpressionScores,
    giou_ciou,
    keyframe_accuracy,
    keyframe_score,
    mean_of,
    revos_table,
    sav_counted,
    sequence_statistics,
    target_accuracy,
)
from foreseg_evaluation.bootstrap import mean_interval
from foreseg_evaluation.episode import QuestionKind

NAN = math.nan


def expression(kind: QuestionKind, j: float, f: float = 0.0, **scores: float) -> ExpressionScores:
    given = {"accuracy": 0.0, "robustness": 0.0, "is_empty_answer": False, **scores}
    return ExpressionScores(kind=kind, j=j, f=f, **given)  # type: ignore[arg-type]


def official_decay(values: list[float]) -> float:
    """As the formula in the evaluator reads, edges in uint8 as there."""
    array = np.array(values)
    edges = (np.round(np.linspace(1, len(array), 5) + 1e-10) - 1).astype(np.uint8).astype(int)
    bins = [array[edges[i] : edges[i + 1] + 1] for i in range(4)]
    return float(bins[0].mean() - bins[3].mean())


def test_mean_recall_and_decay_of_a_sequence() -> None:
    found = sequence_statistics([1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.2, 0.0])
    assert found.mean == pytest.approx(0.55)
    assert found.recall == 4 / 8  # 0.5 itself is not above
    # edges 0, 2, 4, 5, 7 (inclusive at both ends): frames 0 to 2 against 5 to 7
    assert found.decay == pytest.approx(0.9 - 0.2)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 49, 104, 255])
def test_decay_equals_the_official_one_up_to_255_frames(count: int) -> None:
    values = np.random.default_rng(count).random(count).tolist()
    assert sequence_statistics(values).decay == pytest.approx(official_decay(values), abs=1e-12)


def test_decay_is_right_where_the_official_one_wraps() -> None:
    values = [1.0] * 200 + [0.0] * 200
    assert sequence_statistics(values).decay == 1
    assert official_decay(values) != 1


def test_frames_that_do_not_count_are_left_out_of_a_sequence() -> None:
    found = sequence_statistics([NAN, 1.0, 1.0, NAN, 0.4, NAN, 0.0, NAN])
    assert (found.mean, found.recall) == (0.6, 0.5)
    assert found.decay == 1.0
    for nothing in (sequence_statistics([]), sequence_statistics([NAN, NAN])):
        assert all(map(math.isnan, (nothing.mean, nothing.recall, nothing.decay)))


@pytest.mark.parametrize(
    ("truth", "prediction", "counted"),
    [
        ("111111", "111111", [1, 2, 3, 4]),
        ("000111", "000111", [3, 4]),  # frames before it appears do not count
        ("000111", "001111", [2, 3, 4]),  # but a false alarm does, from there on
        ("111000", "111000", [1, 2, 3, 4]),  # right silence after it left counts
        ("100001", "111111", []),  # true only where nothing is kept: not scored
        ("11", "11", []),
        ("", "", []),
    ],
)
def test_sav_counts_from_the_first_appearance(
    truth: str, prediction: str, counted: list[int]
) -> None:
    found = sav_counted([c == "1" for c in truth], [c == "1" for c in prediction])
    assert list(found) == counted


def test_sav_wants_an_answer_for_every_frame() -> None:
    with pytest.raises(ValueError, match="3, 2"):
        sav_counted([True] * 3, [True] * 2)


def test_revos_rounds_each_expression_and_weighs_both_kinds_alike() -> None:
    table = revos_table(
        [
            expression(QuestionKind.REFERRING, 0.123449, 0.5, accuracy=0.9, robustness=0.25),
            expression(QuestionKind.REFERRING, 0.123449, 0.5, accuracy=0.9, robustness=0.75),
            expression(QuestionKind.REFERRING, 0.123449, 0.5, accuracy=0.9, robustness=0.5),
            expression(QuestionKind.REASONING, 0.2, 0.1, accuracy=0.8, robustness=1.0),
            expression(QuestionKind.NO_TARGET, 1.0, 1.0, is_empty_answer=True),
            expression(QuestionKind.NO_TARGET, 0.0, 0.0, is_empty_answer=False),
        ]
    )
    assert table.referring.j == pytest.approx(12.34, abs=1e-12)  # not 12.3449
    assert table.referring.f == 50
    assert table.referring.robustness == 50
    assert table.reasoning.j == 20
    assert table.overall.j == pytest.approx((12.34 + 20) / 2, abs=1e-12)  # not 3 to 1
    assert table.overall.j_and_f == pytest.approx((12.34 + 50 + 20 + 10) / 4, abs=1e-12)
    assert table.overall.accuracy == pytest.approx(85)
    assert table.no_target_accuracy == 50


def test_revos_rounds_as_numpy_does() -> None:
    # 2.675 is a little less in binary: Python's round gives 2.67, numpy's as officially 2.68
    assert revos_table([expression(QuestionKind.REFERRING, 0.02675)]).referring.j == 2.68


def test_revos_without_a_kind_has_no_overall() -> None:
    table = revos_table([expression(QuestionKind.REFERRING, 1.0)])
    assert table.referring.j == 100
    assert math.isnan(table.reasoning.j)
    assert math.isnan(table.overall.j_and_f)
    assert math.isnan(table.no_target_accuracy)


def test_giou_averages_frames_and_ciou_pixels() -> None:
    found = giou_ciou([(1, 1), (0, 0), (50, 100)])
    assert found.giou == pytest.approx((1 / (1 + 1e-5) + 1 + 50 / (100 + 1e-5)) / 3, abs=1e-15)
    assert found.ciou == pytest.approx(51 / 101, abs=1e-12)
    nothing = giou_ciou([(0, 0)])
    assert (nothing.giou, nothing.ciou) == (1, 0)
    assert math.isnan(giou_ciou([]).giou)


def test_target_accuracy_tells_silence_from_answers() -> None:
    found = target_accuracy([True, True, True, False, False], [True, True, False, False, True])
    assert (found.target, found.no_target) == (2 / 3, 1 / 2)
    assert math.isnan(target_accuracy([True], [True]).no_target)
    with pytest.raises(ValueError, match="1, 2"):
        target_accuracy([True], [True, True])


def test_keyframe_score_compares_with_the_best_of_the_shown_frames() -> None:
    areas = {0: 0, 7: 50, 23: 200}
    assert keyframe_score(areas, 23) == 1
    assert keyframe_score(areas, 7) == 0.25
    assert keyframe_score(areas, 0) == 0
    assert keyframe_score(areas, 8) == 0  # not among the shown
    assert keyframe_score(areas, None) == 0
    assert math.isnan(keyframe_score({0: 0}, 0))  # the target was nowhere to be seen
    assert math.isnan(keyframe_score({}, None))


def test_keyframe_accuracy_and_means_leave_out_what_does_not_apply() -> None:
    assert keyframe_accuracy([1.0, 0.01, 0.0, NAN]) == 2 / 3
    assert mean_of([NAN, 10.0, 20.0]) == 15
    assert math.isnan(mean_of([NAN]))


def test_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        found = mean_interval(rng.normal(0.4, 0.2, size=60))
        hits += found.low <= 0.4 <= found.high
    assert 88 <= hits <= 100  # 95 expected; the percentile bootstrap is a little narrow


def test_interval_is_reproducible_and_its_seed_counts() -> None:
    values = np.random.default_rng(1).random(40)
    assert mean_interval(values) == mean_interval(values[::-1].tolist())
    assert mean_interval(values, seed=1).low != mean_interval(values).low


def test_interval_has_the_width_that_theory_gives() -> None:
    values = np.random.default_rng(2).random(400)
    found = mean_interval([*values, NAN])
    half = 1.96 * values.std() / math.sqrt(400)
    assert found.count == 400
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_interval_drawn_in_chunks_is_as_wide() -> None:
    values = np.random.default_rng(3).random(5000)  # 800 rows at a time
    found = mean_interval(values)
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 5000**0.5, rel=0.1)


def test_interval_of_few_values_claims_nothing() -> None:
    assert math.isnan(mean_interval([]).mean)
    one = mean_interval([0.5, NAN])
    assert (one.mean, one.count) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert one.scaled(100).mean == 50
