# SPDX-License-Identifier: Apache-2.0
"""Run-length masks against pycocotools, and against whatever text comes from outside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from foreseg.errors import InputError
from foreseg.geometry import box_from_mask
from foreseg.masks import MaskRle, mask_from_rle, mask_iou, rle_area, rle_from_mask, rle_iou

MAX_SIDE = 24
shapes = st.tuples(st.integers(1, MAX_SIDE), st.integers(1, MAX_SIDE))
masks = shapes.flatmap(lambda shape: npst.arrays(np.bool_, shape))


# pycocotools' __array__ has no `copy`:
# https://numpy.org/devdocs/numpy_2_0_migration_guide.html#adapting-to-changes-in-the-copy-keyword
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(masks)
@example(np.ones((1, 1), dtype=np.bool_))
@example(np.ones((70, 3), dtype=np.bool_))
@example(np.eye(33, dtype=np.bool_))
@example(np.pad(np.ones((1, 1), dtype=np.bool_), ((0, 99), (0, 99))))
@example(np.pad(np.ones((1, 1), dtype=np.bool_), ((99, 0), (99, 0))))
def test_text_and_pixels_are_those_of_pycocotools(mask: np.ndarray) -> None:
    coco = pytest.importorskip("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    ours = rle_from_mask(mask)
    if mask.any():
        assert ours.counts == theirs["counts"].decode("ascii")
    assert rle_area(ours) == int(coco.area(theirs)) == int(mask.sum())
    decoded = coco.decode({"size": list(mask.shape), "counts": theirs["counts"]})
    their_text = MaskRle(
        height=mask.shape[0], width=mask.shape[1], counts=theirs["counts"].decode("ascii")
    )
    assert (mask_from_rle(their_text) == decoded.astype(np.bool_)).all()


@given(masks)
def test_a_mask_comes_back_from_its_text(mask: np.ndarray) -> None:
    back = mask_from_rle(rle_from_mask(mask))
    assert back.dtype == np.bool_
    assert back.flags.c_contiguous
    assert (back == mask).all()


@given(masks)
def test_any_strides_are_encoded_alike(mask: np.ndarray) -> None:
    turned = np.ascontiguousarray(mask.T).T
    assert rle_from_mask(turned) == rle_from_mask(mask)
    flipped = np.ascontiguousarray(mask[:, ::-1])[:, ::-1]
    assert rle_from_mask(flipped) == rle_from_mask(mask)


@given(st.data(), shapes)
def test_iou_is_symmetric_and_bounded(data: st.DataObject, shape: tuple[int, int]) -> None:
    a, b = (data.draw(npst.arrays(np.bool_, shape)) for _ in range(2))
    value = mask_iou(a, b)
    assert 0 <= value <= 1
    assert value == mask_iou(b, a) == rle_iou(rle_from_mask(a), rle_from_mask(b))
    assert (value == 1) == bool((a == b).all())


@given(masks)
def test_the_tight_box_holds_every_pixel(mask: np.ndarray) -> None:
    box = box_from_mask(mask)
    if box is None:
        assert not mask.any()
        return
    x0, y0, x1, y1 = (int(v) for v in box)
    assert mask[y0:y1, x0:x1].sum() == mask.sum()
    assert mask[y0].any()
    assert mask[y1 - 1].any()
    assert mask[:, x0].any()
    assert mask[:, x1 - 1].any()


coco_text = st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=60)


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=60), coco_text), st.integers(0, 40), st.integers(0, 40))
@example("o" * 60 + "0", 4, 4)
@example("0" * 60, 0, 0)
@example("PPYo0", 1, 1)
def test_text_from_outside_decodes_or_is_an_input_error(
    counts: str, height: int, width: int
) -> None:
    rle = MaskRle(height=height, width=width, counts=counts)
    try:
        mask = mask_from_rle(rle)
    except InputError:
        return
    assert mask.shape == (height, width)
    assert rle_area(rle) == int(mask.sum())
