# SPDX-License-Identifier: Apache-2.0
"""J and F equal the official evaluator's on its own golden masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("cv2", reason="metrics need the extra [evaluation]")

from foreseg_evaluation.metrics import boundary_f, region_similarity

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
CASES = json.loads((GOLDEN / "cases.json").read_text())["cases"]
TOLERANCE = 1e-9  # the evaluators compute in float64


@pytest.fixture(scope="module")
def masks():  # noqa: ANN201
    with np.load(GOLDEN / "masks.npz") as archive:
        return {name: archive[name] for name in archive.files}


def unpack(packed: np.ndarray, shape: list[int]) -> np.ndarray:
    return np.unpackbits(packed, count=shape[0] * shape[1]).reshape(shape).astype(bool)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_golden_case(masks, case) -> None:  # noqa: ANN001
    i, shape = case["i"], case["shape"]
    truth = unpack(masks[f"truth_{i}"], shape)
    prediction = unpack(masks[f"prediction_{i}"], shape)
    void = unpack(masks[f"void_{i}"], shape) if case["void"] else None
    j = region_similarity(truth, prediction, void)
    f = boundary_f(truth, prediction, void)
    assert j == pytest.approx(case["region_similarity"], abs=TOLERANCE)
    assert f == pytest.approx(case["boundary_f"], abs=TOLERANCE)


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
