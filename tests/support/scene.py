# SPDX-License-Identifier: Apache-2.0
"""A scene of coloured squares, so plain that its masks are known; and an output that keeps all."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from foreseg.dialogue import Answer
from foreseg.driving.executor import PublishedMasks
from foreseg.frames import U8Array
from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask, mask_from_box

SIZE_WH = (64, 48)
SIDE = 10
COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "green": (30, 200, 30)}
STARTS = {"red": (4, 8), "blue": (44, 28), "green": (4, 34)}
WAIT_S = 20.0


def box_of(name: str, number: int, size_wh: tuple[int, int] = SIZE_WH) -> BoxXyxy:
    """Where a square is on frame `number`: red rolls to the right and back, the others stay."""
    x, y = STARTS[name]
    if name == "red":
        way = size_wh[0] - SIDE - 8
        phase = number // 3 % (2 * way)
        x += phase if phase < way else 2 * way - phase
    return BoxXyxy(x, y, x + SIDE, y + SIDE)


def image_of(number: int, size_wh: tuple[int, int] = SIZE_WH, without: str = "") -> U8Array:
    image = np.full((size_wh[1], size_wh[0], 3), 90, np.uint8)
    for name, colour in COLOURS.items():
        if name != without:
            image[mask_from_box(box_of(name, number, size_wh), size_wh)] = colour
    return image


def truth_of(name: str, number: int, size_wh: tuple[int, int] = SIZE_WH) -> Mask:
    return mask_from_box(box_of(name, number, size_wh), size_wh)


class Recorder:
    """An output that keeps what it gets (without source images) and can be waited on."""

    def __init__(self) -> None:
        self.masks: list[PublishedMasks] = []
        self.answers: list[Answer] = []
        self.on_masks: Callable[[PublishedMasks], None] = lambda _: None
        self._changed = threading.Condition()

    def publish_masks(self, masks: PublishedMasks) -> None:
        self.on_masks(masks)
        with self._changed:
            self.masks.append(replace(masks, image=None))
            self._changed.notify_all()

    def publish_answer(self, answer: Answer) -> None:
        with self._changed:
            self.answers.append(answer)
            self._changed.notify_all()

    def notify(self) -> None:
        """Let waiters look again."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, is_met: Callable[[], object], what: str) -> None:
        with self._changed:
            assert self._changed.wait_for(is_met, WAIT_S), f"not within {WAIT_S} s: {what}"
