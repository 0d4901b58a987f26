# SPDX-License-Identifier: Apache-2.0
"""Training clips in windows around an object: its size in them, where they go, what stays as it was."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")
pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")

from foreseg_training.tracker.clips import Clip, make_clip
from foreseg_training.tracker.in_windows import in_windows, windowed

_SIDE = 96


def clip_of(*squares: tuple[int, int, int] | None) -> Clip:
    """Frames of 200 px with a bright square of id 1: its first column and row, and its side."""
    ids = np.zeros((len(squares), 200, 200), np.uint8)
    for seen, square in zip(ids, squares, strict=True):
        if square is not None:
            x, y, side = square
            seen[y : y + side, x : x + side] = 1
    images = np.repeat(255 * ids[..., None], 3, axis=-1)
    first = squares[0]
    area = float(first[2] ** 2) if first else 400.0
    return Clip(images=images, instance_ids=ids, full_areas_px=(area,))


def test_an_object_is_a_third_of_its_window_and_stays_in_it() -> None:
    places = [(60 + 5 * n, 80, 20) for n in range(6)]
    seen = windowed(np.random.default_rng(0), clip_of(*places), _SIDE)
    assert seen.images.shape == (6, _SIDE, _SIDE, 3)
    off = (seen.images[..., 0] > 127) != (seen.instance_ids == 1)
    assert off.mean() < 0.02, "a pixel at the edges"
    for ids in seen.instance_ids:
        assert ids.any(axis=0).sum() == pytest.approx(_SIDE / 3, abs=3)
        xs = np.flatnonzero(ids.any(axis=0))
        assert xs.mean() == pytest.approx(_SIDE / 2, abs=_SIDE / 4)
    assert seen.full_areas_px[0] == pytest.approx(np.count_nonzero(seen.instance_ids[0]), rel=0.1)


def test_a_window_grows_while_nothing_is_seen_in_it_up_to_the_whole_frame() -> None:
    places = [(90, 90, 20), *[None] * 8, (5, 5, 20)]
    seen = windowed(np.random.default_rng(0), clip_of(*places), _SIDE)
    assert not seen.instance_ids[1:9].any()
    columns = seen.instance_ids[9].any(axis=0).sum()
    assert columns == pytest.approx(_SIDE * 20 / 200, abs=2), "the whole frame by now"


def test_without_an_object_the_whole_frames_are_shown() -> None:
    seen = windowed(np.random.default_rng(0), clip_of(None, (50, 50, 100)), _SIDE)
    assert np.count_nonzero(seen.instance_ids[1]) == pytest.approx(_SIDE**2 / 4, rel=0.05)


def test_a_share_is_shown_so_and_the_rest_as_drawn() -> None:
    assert np.array_equal(
        in_windows(make_clip, 0.0)(3, 2, _SIDE).images, make_clip(3, 2, _SIDE).images
    )
    half, every = in_windows(make_clip, 0.5), in_windows(make_clip, 1.0)
    are_whole = [
        np.array_equal(half(seed, 1, _SIDE).images, make_clip(seed, 1, _SIDE).images)
        for seed in range(12)
    ]
    assert 1 < sum(are_whole) < 11
    first, again = every(5, 3, _SIDE), every(5, 3, _SIDE)
    assert np.array_equal(first.images, again.images), "equal seeds, equal bytes"
    assert first.images.shape == (3, _SIDE, _SIDE, 3)
