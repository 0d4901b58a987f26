# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow


def _frame(index: int, image: np.ndarray | None = None) -> Frame:
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index,
        received_ns=index,
        size_wh=(8, 6),
    )
    return Frame(ref=ref, image=np.zeros((6, 8, 3), dtype=np.uint8) if image is None else image)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((6, 8), dtype=np.uint8),
        np.zeros((6, 8, 4), dtype=np.uint8),
        np.zeros((6, 8, 3), dtype=np.float32),
        np.zeros((0, 8, 3), dtype=np.uint8),
    ],
)
def test_a_frame_wants_rgb_bytes(image: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"a frame wants"):
        _frame(0, image)


def test_a_reduced_image_scales_to_source_pixels() -> None:
    assert _frame(0).scale_xy == (1, 1)
    assert _frame(0, np.zeros((3, 2, 3), dtype=np.uint8)).scale_xy == (4, 2)


def test_labels_keep_the_gaps_and_come_back_as_indices() -> None:
    frames = tuple(_frame(i) for i in (100, 107, 123))
    window = FrameWindow(frames=frames, origin_index=FrameIndex(100))
    assert [window.label_of(index) for index in window.indices] == [0, 7, 23]
    assert [window.index_of(label) for label in (0, 7, 23)] == list(window.indices)
    assert window.newest is frames[-1]
    assert window.get(FrameIndex(107)) is frames[1]
    assert window.get(FrameIndex(101)) is None


@pytest.mark.parametrize("indices", [(3, 2), (2, 2)])
def test_a_window_is_oldest_first_without_repeats(indices: tuple[int, ...]) -> None:
    frames = tuple(_frame(i) for i in indices)
    with pytest.raises(InputError, match="oldest first"):
        FrameWindow(frames=frames, origin_index=FrameIndex(0))


def test_a_window_does_not_start_before_its_origin() -> None:
    with pytest.raises(InputError, match="origin 5"):
        FrameWindow(frames=(_frame(4),), origin_index=FrameIndex(5))


def test_a_window_may_be_empty() -> None:
    window = FrameWindow(frames=(), origin_index=FrameIndex(0))
    assert window.indices == ()
    assert window.get(FrameIndex(0)) is None
