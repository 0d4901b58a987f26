# SPDX-License-Identifier: Apache-2.0
"""Measures of mask pairs equal the official evaluators' on their golden values."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2", reason="metrics need the extra [evaluation]")

from foreseg_evaluation.aggregates import giou_ciou
from foreseg_evaluation.metrics import (
    boundary_f,
    intersection_and_union,
    pixel_accuracy,
    region_similarity,
    robustness,
    robustness_sane,
)

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "metrics"
CASES = json.loads((GOLDEN / "cases.json").read_text())["cases"]
TOLERANCE = 1e-9  # the evaluators compute in float64
FLOAT32_TOLERANCE = 2**-22  # but gIoU and cIoU: two roundings of at most 2^-24 of values <= 1


@pytest.fixture(scope="module")
def masks():  # noqa: ANN201
    with np.load(GOLDEN / "masks.npz") as archive:
        return {name: archive[name] for name in archive.files}


def unpack(packed: np.ndarray, shape: list[int]) -> np.ndarray:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)


def masks_of(masks: dict[str, np.ndarray], case: dict[str, Any]) -> list[np.ndarray]:
    names = (f"{name}_{case['i']}" for name in ("truth", "prediction", "foreground"))
    return [unpack(masks[name], case["shape"]) for name in names]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_case(masks, case) -> None:  # noqa: ANN001
    truth, prediction, foreground = masks_of(masks, case)
    void = unpack(masks[f"void_{case['i']}"], case["shape"]) if case["void"] else None
    found = {
        "region_similarity": region_similarity(truth, prediction, void),
        "boundary_f": boundary_f(truth, prediction, void),
        "pixel_accuracy": pixel_accuracy(truth, prediction),
        "robustness": robustness(truth, prediction, foreground),
    }
    if case["sav_j"] is not None:  # percent; the official code scores no object that is not there
        found["sav_j"] = 100 * region_similarity(truth, prediction)
        found["sav_f"] = 100 * boundary_f(truth, prediction)
    assert found == {name: pytest.approx(case[name], abs=TOLERANCE) for name in found}
    assert robustness_sane(truth, prediction, foreground) == found["robustness"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_counts_give_the_official_overlaps(masks, case) -> None:  # noqa: ANN001
    truth, prediction, _ = masks_of(masks, case)
    counts = intersection_and_union(truth, prediction)
    # the official code divides in float32, so it is that division that gives its value exactly
    i, u = np.float32(counts[0]), np.float32(counts[1])
    assert case["giou"] == (i / (u + np.float32(1e-5)) if u else 1)
    assert case["ciou"] == i / (u + np.float32(1e-10))
    # and ours, in float64, within what float32 keeps
    assert giou_ciou([counts]).giou == pytest.approx(case["giou"], abs=FLOAT32_TOLERANCE)
    assert giou_ciou([counts]).ciou == pytest.approx(case["ciou"], abs=FLOAT32_TOLERANCE)


@pytest.mark.parametrize("height", [1, 100, 480, 1080])
def test_a_boundary_is_matched_within_the_radius_and_not_beyond(height: int) -> None:
    width = height * 16 // 9
    radius = math.ceil(0.008 * math.hypot(height, width))
    rng = np.random.default_rng(height)
    for _ in range(20):
        y, x = int(rng.integers(0, height)), int(rng.integers(0, width))
        dy, dx = (int(v) for v in rng.integers(-radius - 1, radius + 2, 2))
        if not (0 <= y + dy < height and 0 <= x + dx < width):
            continue
        truth, prediction = np.zeros((2, height, width), dtype=bool)
        truth[y, x] = prediction[y + dy, x + dx] = True
        own, other = boundary_points(truth), boundary_points(prediction)
        if len(own) and len(other):
            squares = ((own[:, None] - other[None]) ** 2).sum(axis=2) <= radius**2
            precision, recall = squares.any(axis=0).mean(), squares.any(axis=1).mean()
            f = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
            assert boundary_f(truth, prediction) == pytest.approx(f, abs=TOLERANCE)


def boundary_points(mask: np.ndarray) -> np.ndarray:
    """Pixels that differ from a neighbour right, below or across, one by one."""
    height, width = mask.shape
    near = [(0, 1), (1, 0), (1, 1)]
    points = [
        (y, x)
        for y, x in np.argwhere(dilated_up(mask))
        if any(
            mask[y, x] != mask[min(y + dy, height - 1), min(x + dx, width - 1)] for dy, dx in near
        )
    ]
    return np.array(points, dtype=int).reshape(-1, 2)


def dilated_up(mask: np.ndarray) -> np.ndarray:
    """The mask and its neighbours to the left and above: only they can be boundary."""
    padded = np.pad(mask, ((0, 1), (0, 1)))
    return padded[:-1, :-1] | padded[1:, :-1] | padded[:-1, 1:] | padded[1:, 1:]


def test_robustness_wraps_where_two_true_objects_overlap_and_the_sane_one_does_not() -> None:
    truth = np.ones((4, 5), dtype=np.uint8)
    prediction = truth.copy()
    foreground = truth.copy()
    assert robustness(truth, prediction, foreground) == 1
    truth[0, 0] = 2  # 1 - 2 = 255 in uint8, far more than the 20 pixels of foreground
    assert robustness(truth, prediction, foreground) == 0
    assert robustness_sane(truth, prediction, foreground) == 1
    assert pixel_accuracy(truth, prediction) == 19 / 20


def test_answers_stored_as_255_collapse_accuracy_and_robustness_as_they_do_officially() -> None:
    truth = np.zeros((10, 10), dtype=np.uint8)
    truth[:5] = 1
    prediction = np.zeros_like(truth)
    prediction[:5, :9] = 1
    prediction[5, 0] = 1  # one false positive
    assert robustness(truth, prediction, truth) == pytest.approx(1 - 1 / (50 + 1e-6), abs=1e-15)
    assert robustness(truth, prediction * 255, truth) == 0
    assert pixel_accuracy(truth, prediction * 255) == 49 / 100  # only background is equal
    assert robustness_sane(truth, prediction * 255, truth * 255) == pytest.approx(0.98)


def test_robustness_without_foreground_is_all_or_nothing() -> None:
    empty, one = np.zeros((2, 3), dtype=bool), np.eye(2, 3, dtype=bool)
    assert robustness(empty, empty, empty) == 1
    assert robustness(empty, one, empty) == 0


def test_void_pixels_count_in_no_overlap() -> None:
    truth = np.array([[1, 1, 0, 0]], dtype=bool)
    prediction = np.array([[1, 1, 1, 1]], dtype=bool)
    void = np.array([[1, 0, 1, 0]], dtype=bool)
    assert intersection_and_union(truth, prediction, void) == (1, 2)


def test_masks_of_0_and_255_score_like_bool_masks() -> None:
    truth = np.zeros((40, 50), dtype=bool)
    truth[5:20, 10:30] = True
    prediction = np.roll(truth, 4, axis=1)
    as_bytes = [mask.astype(np.uint8) * 255 for mask in (truth, prediction)]
    assert region_similarity(*as_bytes) == region_similarity(truth, prediction)
    assert boundary_f(*as_bytes) == boundary_f(truth, prediction)


def test_unequal_shapes_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        region_similarity(np.zeros((4, 5), dtype=bool), np.zeros((5, 4), dtype=bool))


def test_an_unequal_foreground_is_refused() -> None:
    mask = np.zeros((4, 5), dtype=bool)
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(4, 6\)"):
        robustness(mask, mask, np.zeros((4, 6), dtype=bool))
