# SPDX-License-Identifier: Apache-2.0
"""The label map against its definition, pixel by pixel, over maps that overlap and touch edges."""

from __future__ import annotations

import numpy as np
import pytest

from foreseg.geometry import BoxXyxy
from foreseg.tracker.postprocess import label_map, tight_box

SIZE_WH = (13, 9)


def scores_with(seed: int, share: float) -> np.ndarray:
    """Logits that are positive on about this share of the pixels, some of them exactly zero."""
    draw = np.random.default_rng(seed)
    scores = np.where(draw.random(SIZE_WH[::-1]) < share, 1, -1) * draw.integers(0, 4, (9, 13))
    return scores.astype(np.float32)


def box_of(scores: np.ndarray) -> BoxXyxy | None:
    corners = tight_box(scores > 0)
    return None if corners is None else BoxXyxy(*(float(v) for v in corners))


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_the_highest_positive_map_wins_and_the_first_of_equals(share: float, count: int) -> None:
    maps = [scores_with(seed, share) for seed in range(count)]
    labels = label_map(maps, [box_of(scores) for scores in maps], SIZE_WH)
    stack = np.stack([np.zeros_like(maps[0]), *maps])
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, stack.argmax(axis=0))


def test_an_absent_object_keeps_its_number() -> None:
    scores = scores_with(0, 0.5)
    labels = label_map([None, scores], [None, box_of(scores)], SIZE_WH)
    np.testing.assert_array_equal(labels, 2 * (scores > 0))


def test_more_objects_than_a_byte_holds() -> None:
    scores = scores_with(1, 0.5)
    absent = [None] * 299
    labels = label_map([*absent, scores], [*absent, box_of(scores)], SIZE_WH)
    assert labels.max() == 300
