# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from foreseg.geometry import BoxXyxy, box_from_mask, box_iou


def test_a_box_of_one_pixel_has_width_one() -> None:
    mask = np.zeros((4, 6), dtype=np.bool_)
    mask[2, 5] = True
    box = box_from_mask(mask)
    assert box == BoxXyxy(5, 2, 6, 3)
    assert (box.width, box.height, box.area, box.centre_xy) == (1, 1, 1, (5.5, 2.5))


def test_the_box_of_an_empty_mask_is_none() -> None:
    assert box_from_mask(np.zeros((3, 3), dtype=np.bool_)) is None
    assert box_from_mask(np.zeros((0, 3), dtype=np.bool_)) is None


def test_a_box_outside_is_clipped_to_nothing() -> None:
    assert BoxXyxy(-9, -9, -1, -1).clipped((8, 8)).area == 0
    assert BoxXyxy(10, 2, 20, 5).clipped((8, 8)).area == 0
    assert BoxXyxy(-5, -5, 50, 50).clipped((8, 6)) == BoxXyxy(0, 0, 8, 6)


def test_swapped_corners_have_no_area() -> None:
    box = BoxXyxy(5, 5, 1, 9)
    assert (box.width, box.area) == (0, 0)
    assert box_iou(box, box) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_corner_that_is_no_number_is_seen(bad: float) -> None:
    assert not BoxXyxy(0, 0, bad, 1).is_finite()
    assert BoxXyxy(0, 0, 1, 1).is_finite()


def test_iou_of_boxes_is_that_of_their_pixels() -> None:
    a, b = BoxXyxy(0, 0, 4, 4), BoxXyxy(2, 1, 6, 3)
    assert box_iou(a, b) == box_iou(b, a) == pytest.approx(4 / (16 + 8 - 4))
    assert box_iou(a, a) == 1
    assert box_iou(a, BoxXyxy(4, 0, 8, 4)) == 0, "touching edges share no pixel"


def test_scaling_is_per_axis() -> None:
    assert BoxXyxy(1, 2, 3, 4).scaled((2, 0.5)) == BoxXyxy(2, 1, 6, 2)
