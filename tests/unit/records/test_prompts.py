# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math

import numpy as np
import pytest

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, rle_from_mask
from foreseg.prompts import Point, PointLabel, SpatialPrompt

SIZE_WH = (64, 48)


def _mask(height: int = 48, width: int = 64) -> MaskRle:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[3:9, 4:20] = True
    return rle_from_mask(mask)


def test_a_prompt_says_something() -> None:
    with pytest.raises(InputError, match="got none"):
        SpatialPrompt()


def test_a_mask_stands_alone() -> None:
    with pytest.raises(InputError, match="either a mask"):
        SpatialPrompt(mask=_mask(), box=BoxXyxy(0, 0, 4, 4))
    with pytest.raises(InputError, match="either a mask"):
        SpatialPrompt(mask=_mask(), points=(Point(1, 1),))


def test_a_box_that_sticks_out_is_clipped_and_points_are_kept() -> None:
    points = (Point(0, 0), Point(63.9, 47.9, PointLabel.BACKGROUND))
    prompt = SpatialPrompt(box=BoxXyxy(-5, 10, 30, 99), points=points).checked(SIZE_WH)
    assert prompt.box == BoxXyxy(0, 10, 30, 48)
    assert prompt.points == points


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((70, 0, 80, 10), "(70, 0, 80, 10) lies outside the image of 64 x 48"),
        ((-9, -9, 0.5, 0.5), "lies outside"),
        ((9, 0, 3, 10), "got (9, 0, 3, 10)"),
        ((3, 4, 3, 10), "x0 < x1"),
        ((0, 0, math.nan, 4), "nan"),
        ((0, 0, math.inf, 4), "inf"),
    ],
)
def test_a_box_that_cannot_be_is_refused_with_its_values(
    box: tuple[float, float, float, float], words: str
) -> None:
    with pytest.raises(InputError) as caught:
        SpatialPrompt(box=BoxXyxy(*box)).checked(SIZE_WH)
    assert words in str(caught.value)


@pytest.mark.parametrize("xy", [(64, 0), (0, 48), (-0.1, 0), (math.nan, 0), (0, math.inf)])
def test_a_point_outside_is_refused(xy: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="outside the image of 64 x 48"):
        SpatialPrompt(points=(Point(*xy),)).checked(SIZE_WH)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (_mask(height=24), "64 x 48 pixels, got 64 x 24"),
        (MaskRle(height=48, width=64, counts=""), "at least one pixel"),
        (MaskRle(height=48, width=64, counts="5"), "run lengths sum to 5"),
        (MaskRle(height=48, width=64, counts="~~"), "character"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_at_the_boundary(mask: MaskRle, words: str) -> None:
    with pytest.raises(InputError) as caught:
        SpatialPrompt(mask=mask).checked(SIZE_WH)
    assert words in str(caught.value)


def test_a_mask_whose_text_sets_no_pixel_is_empty() -> None:
    all_background = MaskRle(height=1, width=5, counts="5")
    with pytest.raises(InputError, match="empty mask"):
        SpatialPrompt(mask=all_background).checked((5, 1))


def test_a_fitting_mask_is_kept() -> None:
    assert SpatialPrompt(mask=_mask()).checked(SIZE_WH).mask == _mask()
