# SPDX-License-Identifier: Apache-2.0
"""The label map against its definition, pixel by pixel, over maps that overlap and touch edges."""

from __future__ import annotations

import numpy as np
import pytest

from foreseg.geometry import BoxXyxy
from foreseg.tracker.postprocess import label_map, tight_box, window

SIZE_WH = (13, 9)


def scores_with(seed: int, share: float) -> np.ndarray:
    """Logits that are positive on about this share of the pixels, some of them exactly zero."""
    draw = np.random.default_rng(seed)
    scores = np.where(draw.random(SIZE_WH[::-1]) < share, 1, -1) * draw.integers(0, 4, (9, 13))
    return scores.astype(np.float32)


def cut(scores: np.ndarray) -> tuple[np.ndarray | None, BoxXyxy | None]:
    """What the tracker hands over: the logits in the tight box, and the box."""
    corners = tight_box(scores > 0)
    if corners is None:
        return None, None
    box = BoxXyxy(*(float(v) for v in corners))
    return scores[window(box)], box


@pytest.mark.parametrize("share", [0.0, 0.03, 0.4, 1.0])
@pytest.mark.parametrize("count", [1, 3])
def test_the_highest_positive_map_wins_and_the_first_of_equals(share: float, count: int) -> None:
    maps = [scores_with(seed, share) for seed in range(count)]
    inside, boxes = zip(*(cut(scores) for scores in maps), strict=True)
    labels = label_map(inside, boxes, SIZE_WH)
    stack = np.stack([np.zeros_like(maps[0]), *maps])
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, stack.argmax(axis=0))


def test_an_absent_object_keeps_its_number() -> None:
    scores = scores_with(0, 0.5)
    inside, box = cut(scores)
    labels = label_map([None, inside], [None, box], SIZE_WH)
    np.testing.assert_array_equal(labels, 2 * (scores > 0))


def test_more_objects_than_a_byte_holds() -> None:
    inside, box = cut(scores_with(1, 0.5))
    absent = [None] * 299
    labels = label_map([*absent, inside], [*absent, box], SIZE_WH)
    assert labels.max() == 300
