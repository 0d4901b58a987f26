# SPDX-License-Identifier: Apache-2.0
"""Points that a mask gives: in its middle, and close beside it."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy", reason="distances are SciPy's")

from hypothesis import given, settings
from hypothesis import strategies as st

from foreseg_training.pointers import FRAME_PX, beside, box_of, center_of, on_frame
from foreseg_training.rewards import negative_point_reward

SIZE = (60, 80)  # (H, W)


def mask_of(x0: int, y0: int, x1: int, y1: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_the_centre_lies_on_the_object_where_its_mean_does_not() -> None:
    ring = mask_of(10, 10, 50, 50) & ~mask_of(16, 16, 40, 40)  # 6 left and above, 10 elsewhere
    x, y = center_of(ring)
    assert ring[int(y), int(x)]
    assert not ring[30, 30]
    assert x >= 40 or y >= 40  # in the thick of it
    assert center_of(mask_of(10, 20, 13, 23)) == (11.5, 21.5)


def test_the_frames_edge_is_a_border() -> None:
    assert center_of(mask_of(0, 0, 80, 60))[1] in (29.5, 30.5)


def test_the_box_has_the_outermost_pixels_whole() -> None:
    assert tuple(box_of(mask_of(3, 4, 30, 40))) == (3, 4, 30, 40)


def test_a_mask_on_the_frame_keeps_its_place() -> None:
    large = on_frame(mask_of(20, 15, 40, 30))
    assert large.shape == (840, 840)
    assert tuple(box_of(large)) == (210, 210, 420, 420)


boxes = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 15), st.integers(1, 15))


@settings(max_examples=30, deadline=None)
@given(first=boxes, second=boxes, seed=st.integers(0, 99))
def test_a_point_beside_a_target_earns_its_reward(
    first: tuple[int, ...], second: tuple[int, ...], seed: int
) -> None:
    target, other_target = (mask_of(x, y, x + w, y + h) for x, y, w, h in (first, second))
    rng = np.random.default_rng(seed)
    targets = target | other_target
    place = beside(target, targets, np.zeros_like(target), rng)
    if place is None:
        return  # the other target covers all that is near
    scaled = (place[0] * FRAME_PX / SIZE[1], place[1] * FRAME_PX / SIZE[0])
    assert negative_point_reward([scaled], on_frame(targets)[None]) == 1
    assert 0 <= place[0] < SIZE[1]
    assert 0 <= place[1] < SIZE[0]


def test_a_point_beside_lies_on_what_is_taken_for_the_target() -> None:
    target, twin = mask_of(20, 20, 30, 30), mask_of(32, 20, 42, 30)
    for seed in range(20):
        place = beside(target, target, twin, np.random.default_rng(seed))
        assert place is not None
        assert twin[int(place[1]), int(place[0])]


def test_a_target_that_fills_the_frame_has_nothing_beside_it() -> None:
    whole = np.ones(SIZE, bool)
    assert beside(whole, whole, ~whole, np.random.default_rng(0)) is None
