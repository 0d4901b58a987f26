# SPDX-License-Identifier: Apache-2.0
"""Pictures for viewers: drawn once for all, newest only, only while wanted."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[view]'")

import cv2
from tests.unit.view.test_board import masks_of, track_of

from foreseg.masks import rle_from_mask
from foreseg.media.overlay import colour_of
from foreseg_view.board import Board
from foreseg_view.painter import Painter
from foreseg_view.pixels import drawn_jpeg, fitting_side, label_map_of, reduced


def painter_of(board: Board) -> Painter:
    return Painter(board, lambda: None, threading.Event())


def test_one_picture_is_drawn_for_all_who_wait_and_none_for_nobody() -> None:
    board = Board()
    painter = painter_of(board)
    painter.want(320)
    assert not painter.draw_wanted(), "there is no frame yet"
    board.publish_masks(masks_of(1))
    painter.want(320)
    painter.want(320)
    assert painter.draw_wanted()
    assert not painter.draw_wanted(), "nobody waits any more"
    first = painter.picture(320)
    assert first is not None
    assert painter.picture(640) is None
    painter.want(320)
    assert not painter.draw_wanted(), "this frame is drawn already"
    for number in (2, 3, 4):
        board.publish_masks(masks_of(number))
    assert painter.draw_wanted()
    newest = painter.picture(320)
    assert newest is not None
    assert (first.frame.index, newest.frame.index) == (1, 4), "what lies between is left out"
    assert newest.number > first.number


def test_a_late_viewer_sees_the_last_frame_of_a_stream_that_is_silent() -> None:
    board = Board()
    painter = painter_of(board)
    board.publish_masks(masks_of(1))
    painter.want(640)
    assert painter.draw_wanted()


def test_a_drawn_frame_has_the_colours_of_the_overlay() -> None:
    image = np.full((240, 320, 3), 30, np.uint8)
    label_map = np.zeros((240, 320), np.uint8)
    label_map[60:180, 80:240] = 3
    data = drawn_jpeg(image, label_map, (track_of(),), 160, lambda _: "it")
    drawn = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert drawn.shape == (120, 160, 3)
    mixed = 0.58 * 30 + 0.42 * np.array(colour_of(3))
    assert np.abs(drawn[70, 80].astype(float) - mixed).max() < 12
    assert np.abs(drawn[110, 150].astype(float) - 30).max() < 12


def test_sizes_are_few_so_that_viewers_share_them() -> None:
    assert [fitting_side(n) for n in (-5, 1, 320, 321, 2000, 10**9)] == [
        320,
        320,
        320,
        640,
        2560,
        2560,
    ]
    assert reduced(np.zeros((1, 5000, 3), np.uint8), 320).shape == (1, 320, 3)


def test_masks_of_another_size_are_left_out() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2:4, 2:5] = True
    track = replace(track_of(), mask=rle_from_mask(mask))
    assert np.array_equal(label_map_of((track,), (8, 6)), 3 * mask)
    assert not label_map_of((track,), (6, 8)).any()
