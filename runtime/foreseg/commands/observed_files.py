# SPDX-License-Identifier: Apache-2.0
"""Writes the masks of each answer's window: a folder an answer, a palette PNG a frame.

The value is 1 where a target is. Knows nothing of how a window is segmented.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from foreseg.dialogue import Answer
from foreseg.errors import InputError
from foreseg.masks import mask_from_rle
from foreseg.media.sinks import write_palette_png

MAX_ID_CHARS = 40
_FRAME_NAME = re.compile(r"\d{6,}\.png")


class ObservedFiles:
    """Writes `<query>_keyframe-<index>/<frame>.png` into a folder.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.num_windows = 0
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = f"cannot make the folder {folder}: {error.strerror}; give another"
            raise InputError(msg + " --observed-masks") from error

    def add(self, answer: Answer) -> None:
        """Write an answer's window, in place of what an earlier run left there."""
        if not answer.observed or answer.keyframe_index is None:
            return
        query = re.sub(r"[^0-9A-Za-z_-]", "_", answer.query_id)[:MAX_ID_CHARS]
        window = self._folder / f"{query}_keyframe-{answer.keyframe_index:06d}"
        for path in window.glob("*.png"):
            if _FRAME_NAME.fullmatch(path.name):
                path.unlink()
        for observed in answer.observed:
            label_map = mask_from_rle(observed.mask).astype(np.uint8)
            write_palette_png(window / f"{observed.frame_index:06d}.png", label_map)
        self.num_windows += 1
