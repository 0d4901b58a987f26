# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy, box_from_mask
from foreseg.masks import (
    MaskRle,
    mask_from_box,
    mask_from_rle,
    mask_iou,
    rle_area,
    rle_from_mask,
    rle_iou,
)


def _box_mask(x0: int, x1: int) -> np.ndarray:
    mask = np.zeros((4, 10), dtype=np.bool_)
    mask[:, x0:x1] = True
    return mask


def test_an_absent_object_has_empty_counts() -> None:
    rle = rle_from_mask(np.zeros((3, 5), dtype=np.bool_))
    assert rle == MaskRle(height=3, width=5, counts="")
    assert rle.is_absent
    assert rle_area(rle) == 0
    assert not mask_from_rle(rle).any()


@pytest.mark.parametrize(
    "mask", [np.zeros((3, 3), dtype=np.uint8), np.zeros((3, 3, 1), dtype=np.bool_)]
)
def test_only_a_bool_mask_of_two_axes_is_encoded(mask: np.ndarray) -> None:
    with pytest.raises(InputError, match="wants \\(H, W\\) bool"):
        rle_from_mask(mask)


def test_masks_of_different_sizes_are_not_compared() -> None:
    with pytest.raises(InputError, match="one size"):
        mask_iou(np.zeros((2, 3), dtype=np.bool_), np.zeros((3, 2), dtype=np.bool_))


def test_iou_counts_pixels_and_two_absent_masks_agree() -> None:
    a, b, none = _box_mask(0, 4), _box_mask(2, 6), _box_mask(0, 0)
    assert mask_iou(a, b) == pytest.approx(2 / 6)
    assert rle_iou(rle_from_mask(a), rle_from_mask(b)) == mask_iou(a, b)
    assert mask_iou(none, none) == 1
    assert mask_iou(a, none) == 0


@pytest.mark.parametrize(
    "counts", ["~", "é", "\x00", " ", "o", "ooooo", "1", "11", "o" * 200 + "0", "oooooooooooooO0"]
)
def test_malformed_text_is_an_input_error(counts: str) -> None:
    with pytest.raises(InputError):
        mask_from_rle(MaskRle(height=4, width=4, counts=counts))


def test_a_box_covers_the_pixels_whose_centres_it_contains() -> None:
    mask = mask_from_box(BoxXyxy(1.4, 0, 3.6, 2), (5, 4))
    assert mask.shape == (4, 5)
    assert box_from_mask(mask) == BoxXyxy(1, 0, 4, 2)
    assert not mask_from_box(BoxXyxy(1.6, 0, 2.4, 2), (5, 4)).any()
