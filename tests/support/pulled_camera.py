# SPDX-License-Identifier: Apache-2.0
"""Imported first by `foreseg view 0`, a camera that gives no frame as long as a file is there.

`FORESEG_TEST_PULLED` names the file; a second one with `.hangs` at its end lets the camera hang.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

import cv2
import numpy as np

PULLED = Path(os.environ["FORESEG_TEST_PULLED"])
HANGS = PULLED.with_suffix(".hangs")
FRAME_S = 0.1


class PulledCamera:
    """What CameraSource needs of `cv2.VideoCapture`."""

    def __init__(self, device: int | str) -> None:
        del device
        self._number = 0

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return not PULLED.exists()

    def get(self, what: int) -> float:
        del what
        return 1 / FRAME_S

    def read(self) -> tuple[bool, np.ndarray | None]:
        while True:
            threading.Event().wait(FRAME_S)
            if not HANGS.exists():
                break
        if PULLED.exists():
            return False, None
        self._number += 1
        image: np.ndarray = np.full((120, 160, 3), 60, np.uint8)
        cv2.circle(image, (10 + 3 * self._number % 140, 60), 10, (40, 40, 220), -1)
        return True, image

    def release(self) -> None:
        """Nothing is held."""


cv2.VideoCapture = PulledCamera  # type: ignore[assignment,misc]
