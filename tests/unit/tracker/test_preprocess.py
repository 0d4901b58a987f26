# SPDX-License-Identifier: Apache-2.0
"""Frames on their way into the model: the fast path to a small square is close to the slow one."""

from __future__ import annotations

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="frames are resized with OpenCV")

from foreseg.engines.load import bundle_folder  # noqa: E402
from foreseg.engines.manifest import read_manifest  # noqa: E402
from foreseg.tracker.preprocess import pixels_from_image  # noqa: E402

MEAN_LEVELS, MAX_LEVELS = 2, 12  # of 255: pixels on the border of two cells go to one of them


@pytest.mark.parametrize("size_wh", [(640, 480), (641, 479), (1920, 1080)])
def test_halving_first_changes_a_frame_by_few_grey_levels(size_wh: tuple[int, int]) -> None:
    geometry = read_manifest(bundle_folder("nano")).geometry
    noise = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), dtype=np.uint8)
    image = cv2.GaussianBlur(noise, (0, 0), size_wh[0] / 60)
    image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX)
    side = geometry.image_size
    small = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    mean = np.asarray(geometry.pixel_mean, np.float32)
    std = np.asarray(geometry.pixel_std, np.float32)
    expected = ((small / np.float32(255) - mean) / std).transpose(2, 0, 1)[None]
    found = pixels_from_image(image, geometry)
    assert found.shape == (1, 3, side, side)
    levels = np.abs(found - expected)[0] * std[:, None, None] * 255
    assert levels.mean() < MEAN_LEVELS
    assert levels.max() < MAX_LEVELS


@pytest.mark.parametrize("size_wh", [(447, 300), (640, 480), (330, 300), (1000, 240)])
def test_no_pixel_is_skipped(size_wh: tuple[int, int]) -> None:
    """A bright line of one pixel's width, wherever it stands, is seen: fine detail is not lost."""
    geometry = read_manifest(bundle_folder("nano")).geometry
    black = pixels_from_image(np.zeros((size_wh[1], size_wh[0], 3), np.uint8), geometry)
    for x in range(size_wh[0] // 2, size_wh[0] // 2 + 12):
        image = np.zeros((size_wh[1], size_wh[0], 3), np.uint8)
        image[:, x] = 255
        gained = (pixels_from_image(image, geometry) - black).max(axis=(0, 2, 3))
        assert (gained * np.asarray(geometry.pixel_std) * 255 > MAX_LEVELS).all()
