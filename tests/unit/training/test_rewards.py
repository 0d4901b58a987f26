# SPDX-License-Identifier: Apache-2.0
"""The papers' rewards: values computed by hand, and what holds for every input."""

from __future__ import annotations

import doctest
import itertools
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy", reason="boxes are matched with SciPy")
pytest.importorskip("hypothesis", reason="properties")

from hypothesis import given
from hypothesis import strategies as st

from foreseg.methods.grammar import Form
from foreseg_training.rewards import (
    accuracy_reward,
    box_form_reward,
    consistency_reward,
    grammar_reward,
    group_advantages,
    keyframe_reward,
    latency_reward,
    negative_point_reward,
    no_target_reward,
    repetition_reward,
    soft_length_factor,
    spatial_reward,
    token_budget,
)

NAN = math.nan
A, B, C = (0, 0, 10, 10), (20, 20, 40, 40), (100, 100, 110, 110)
THINK, ANSWER = "<think>The ball rolls left.</think>", "<answer>[]</answer>"
boxes = st.lists(
    st.tuples(*[st.integers(0, 60)] * 4).map(
        lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]) + 1, max(b[1], b[3]) + 1)
    ),
    max_size=5,
)


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (THINK + ANSWER, Form.THINK_FIRST, 1),
        (f"  {THINK}\n{ANSWER}\n", Form.THINK_FIRST, 1),
        (THINK + ANSWER, Form.ANSWER_FIRST, 0),
        (ANSWER + THINK, Form.ANSWER_FIRST, 1),
        (ANSWER, Form.THINK_FIRST, 0),
        (THINK + ANSWER + ANSWER, Form.THINK_FIRST, 0),
        (THINK + "well " + ANSWER, Form.THINK_FIRST, 0),
        ("", Form.THINK_FIRST, 0),
        (ANSWER, Form.ANSWER_ONLY, 1),
        (THINK + ANSWER, Form.ANSWER_ONLY, 0),
    ],
)
def test_grammar(text: str, form: Form, expected: float) -> None:
    assert grammar_reward(text, form) == expected


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([], 0),
        ([[1, 2, 3, 4]], 1),
        ([[1, 2, 3, 4], [1, 2, 3], "box", [1, 2, 3, "4"]], 0.25),
        ([(1.5, 2, 3, 4), [1, 2, 3, NAN]], 0.5),
        ([[1, 2, 3, True], [1, 2, 3, math.inf], [1, 2, 3, None], [10**400, 0, 1, 1]], 0),
    ],
)
def test_box_form(items: list[object], expected: float) -> None:
    assert box_form_reward(items) == expected


@pytest.mark.parametrize(
    ("keyframe", "areas", "expected"),
    [
        (7, {0: 50, 7: 100, 14: 200}, 0.5),
        (14, {0: 50, 7: 100, 14: 200}, 1),
        (3, {0: 50, 7: 100}, 0),
        (None, {0: 50}, 0),
        (0, {0: 0, 7: 0}, None),
        (None, {}, None),
    ],
)
def test_keyframe(keyframe: int | None, areas: dict[int, float], expected: float | None) -> None:
    assert keyframe_reward(keyframe, areas) == expected


@pytest.mark.parametrize("area", [-1.0, NAN, math.inf])
def test_an_area_that_cannot_be_is_refused(area: float) -> None:
    with pytest.raises(ValueError, match="frame 7"):
        keyframe_reward(7, {7: area})


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([A], [A], 1),
        ([], [], 1),
        ([], [A], 0),
        ([A], [], 0),
        ([(0, 0, 10, 5)], [A], 0.5),
        ([A, A], [A], 0.5),  # said twice: one is too many
        ([A, (NAN,) * 4], [A], 0.5),
        ([B, A], [A, B], 1),
        ([A, B], [A, B, C], 2 / 3),
        ([(0, 0, 10, 5), B], [A, B], 0.75),
        ([(10, 10, 0, 0)], [A], 0),
    ],
)
def test_spatial(predicted: list[object], truth: list[object], expected: float) -> None:
    assert spatial_reward(predicted, truth) == pytest.approx(expected)


def test_spatial_matches_for_the_best_sum_not_greedily() -> None:
    # greedy would give row 0 its 0.9 and row 1 nothing: 0.9; the best matching has 0.8 + 0.7
    truth = [(0, 0, 10, 10), (0, 0, 10, 8)]
    predicted = [(0, 0, 10, 9), (0, 0, 10, 10)]
    assert spatial_reward(predicted, truth) == pytest.approx((8 / 9 + 1) / 2)


def test_consistency_by_hand() -> None:
    truth = np.zeros((4, 4, 4), bool)
    truth[0, :2] = truth[1, :2] = truth[2, :2] = True
    predicted = np.zeros_like(truth)
    predicted[0, :2] = True  # 1
    predicted[1, :1] = True  # a half
    predicted[2, 2:] = True  # 0; frame 3: both empty, 1
    assert consistency_reward(predicted, truth) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    with pytest.raises(ValueError, match="T, H, W"):
        consistency_reward(predicted[:2], truth)
    with pytest.raises(ValueError, match="T, H, W"):
        consistency_reward(predicted[:0], truth[:0])


@pytest.mark.parametrize(
    ("shift", "point", "expected"),
    [
        (0, (150, 150), 3),
        (9, (150, 150), 3),  # IoU 0.707, 9 px off, point 0 px off and inside
        (12, (150, 150), 2),  # IoU 0.63, 12 px off
        (60, (165, 165), 1),  # IoU 0.087; the point is 21 px off, inside the shifted box
        (60, (150, 150), 0),  # exact, but outside of its own box
        (0, (171, 171), 3),  # 29.7 px off
        (0, (172, 172), 2),  # 31.1 px off
        (0, (NAN, NAN), 2),
    ],
)
def test_accuracy_of_one_object(shift: int, point: tuple[float, float], expected: float) -> None:
    truth = (100, 100, 200, 200)
    predicted = tuple(c + shift for c in truth)
    assert accuracy_reward([predicted], [point], [truth], [(150, 150)]) == expected


def test_accuracy_divides_by_the_larger_number_of_objects() -> None:
    box, point = (100, 100, 200, 200), (150, 150)
    assert accuracy_reward([box] * 3, [point] * 3, [box], [point]) == 1
    assert accuracy_reward([], [], [box], [point]) == 0
    assert accuracy_reward([], [], [], []) == 3
    with pytest.raises(ValueError, match="1 and 0"):
        accuracy_reward([box], [], [box], [point])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 1),
        ("It rolls. It stops.", 1),
        ("It rolls. It rolls.", 1),  # one repetition is allowed
        ("It rolls. it  ROLLS! It rolls?", 0),
        ("It rolls. It stops. It rolls. It stops.", 0),
        ("It is 0.5 m away, then 0.5 m away, then 0.5 m away.", 1),
        ("left\nleft\nleft", 0),
    ],
)
def test_repetition(text: str, expected: float) -> None:
    assert repetition_reward(text) == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], 0),
        ([(15, 15)], 0),  # inside
        ([(20, 15)], 0),  # on the border
        ([(20.5, 15)], 1),
        ([(60, 15)], 1),  # 40 px from x = 20
        ([(15, 60)], 1),  # 40 px below
        ([(15, 60.5)], 0),
        ([(50, 30)], 1),  # 30 + 10
        ([(50, 31)], 0),
        ([(70, 15)], 1),  # 10 px from the second target, 50 from the first
        ([(85, 15), (25, 15)], 0.5),  # inside the second one
        ([(-5, 15), (NAN, NAN)], 0.5),
    ],
)
def test_negative_points(points: list[tuple[float, float]], expected: float) -> None:
    targets = np.zeros((2, 40, 120), bool)
    targets[0, 10:20, 10:20] = True
    targets[1, 10:20, 80:90] = True
    assert negative_point_reward(points, targets) == expected


def test_negative_points_do_not_apply_without_a_target() -> None:
    assert negative_point_reward([(1, 1)], np.zeros((2, 8, 8), bool)) is None
    assert negative_point_reward([], np.zeros((0, 8, 8), bool)) is None
    with pytest.raises(ValueError, match="M, H, W"):
        negative_point_reward([(1, 1)], np.zeros((8, 8), bool))


@pytest.mark.parametrize(
    ("tokens", "budget", "beta", "expected"),
    [(10, 32, 0.01, 1), (32, 32, 0.01, 1), (57, 32, 0.01, 0.75), (132, 32, 0.01, 0), (500, 32, 0.01, 0),
     (500, 32, 0, 1)],
)  # fmt: skip
def test_soft_length(tokens: int, budget: int, beta: float, expected: float) -> None:
    assert soft_length_factor(tokens, budget, beta) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("difficulty", "expected"), [(1, 32), (3.9, 32), (4, 64), (6.8, 64), (7, 96), (10, 96)]
)
def test_budget(difficulty: float, expected: int) -> None:
    assert token_budget(difficulty) == expected


@pytest.mark.parametrize("difficulty", [0.9, 10.1, NAN])
def test_a_difficulty_out_of_range_is_refused(difficulty: float) -> None:
    with pytest.raises(ValueError, match="1 to 10"):
        token_budget(difficulty)


@pytest.mark.parametrize("arguments", [(-1, 32, 0.1), (1, -32, 0.1), (1, 32, -0.1), (1, 32, NAN)])
def test_lengths_below_zero_are_refused(arguments: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError, match="at least 0"):
        soft_length_factor(*arguments)


def test_no_target_and_latency() -> None:
    pairs = itertools.product((True, False), repeat=2)
    assert [no_target_reward(*pair) for pair in pairs] == [1, 0, 0, 1]
    assert latency_reward(0, 0) == 1
    assert latency_reward(256, 0) == latency_reward(0, 2.0) == 0.5
    with pytest.raises(ValueError, match="at least 0"):
        latency_reward(1, NAN)


def test_advantages_by_hand() -> None:
    # mean 2, deviation over G - 1 = 3 is sqrt((1 + 0 + 0 + 1) / 3) = 0.8165
    expected = np.array([-1, 0, 0, 1]) / (math.sqrt(2 / 3) + 1e-4)
    assert group_advantages([1, 2, 2, 3]) == pytest.approx(expected)
    assert group_advantages([2, 2, 2]).tolist() == [0, 0, 0]
    assert group_advantages([5]).tolist() == [0]
    with pytest.raises(ValueError, match="nan at 1"):
        group_advantages([1, NAN])
    with pytest.raises(ValueError, match=r"\(G,\)"):
        group_advantages([])


@given(boxes, boxes, st.randoms(use_true_random=False))
def test_spatial_is_bounded_and_blind_to_order(predicted, truth, random) -> None:  # noqa: ANN001
    reward = spatial_reward(predicted, truth)
    assert 0 <= reward <= 1
    shuffled = random.sample(predicted, len(predicted))
    assert spatial_reward(shuffled, truth) == pytest.approx(reward)
    assert spatial_reward(truth, truth) == 1
    assert spatial_reward([*predicted, (NAN,) * 4], truth) <= reward  # junk never pays


@given(boxes, boxes)
def test_accuracy_is_bounded_and_more_junk_never_pays(predicted, truth) -> None:  # noqa: ANN001
    points, true_points = (
        [((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for b in some] for some in (predicted, truth)
    )
    reward = accuracy_reward(predicted, points, truth, true_points)
    assert 0 <= reward <= 3
    junk = accuracy_reward([*predicted, (NAN,) * 4], [*points, (NAN, NAN)], truth, true_points)
    assert junk <= reward


@given(st.dictionaries(st.integers(0, 99), st.floats(0, 1e9), max_size=8), st.integers(-1, 99))
def test_keyframe_is_none_only_by_the_prompt(areas: dict[int, float], keyframe: int) -> None:
    reward = keyframe_reward(keyframe, areas)
    assert (reward is None) == (max(areas.values(), default=0) == 0)
    assert (keyframe_reward(None, areas) is None) == (reward is None)
    assert reward is None or 0 <= reward <= 1


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=16))
def test_advantages_sum_to_zero_and_keep_the_order(rewards: list[float]) -> None:
    advantages = group_advantages(rewards)
    assert abs(float(advantages.sum())) < 1e-6 * max(1, len(rewards))
    order = np.argsort(rewards, kind="stable")
    assert (np.diff(advantages[order]) >= -1e-9).all()


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0, 1))
def test_length_factor_never_rises_with_length(tokens: int, budget: int, beta: float) -> None:
    factor = soft_length_factor(tokens, budget, beta)
    assert 0 <= factor <= 1
    assert soft_length_factor(tokens + 1, budget, beta) <= factor
    assert latency_reward(tokens + 1, beta) < latency_reward(tokens, beta)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4), st.data())
def test_negative_points_are_blind_to_the_order_of_targets(points, data) -> None:  # noqa: ANN001
    bits = data.draw(st.lists(st.booleans(), min_size=32, max_size=32))
    targets = np.array(bits).reshape(2, 4, 4)
    reward = negative_point_reward(points, targets)
    assert negative_point_reward(points[::-1], targets[::-1]) == reward
    assert reward is None or 0 <= reward <= 1


def test_the_rewards_need_no_torch() -> None:
    code = "import sys, foreseg_training.rewards; print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "False"


def test_the_page_of_rewards_tells_the_truth() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "rewards.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 20
    assert result.failed == 0
