# SPDX-License-Identifier: Apache-2.0
"""Frames as large as a method needs them: those that came smaller are wanted again.

Does not know what they are needed for.
"""

from __future__ import annotations

from collections.abc import Generator

from foreseg.dialogue import FramesWanted
from foreseg.frames import Frame, FrameWindow


def sharper(
    frames: tuple[Frame, ...], side_px: int
) -> Generator[FramesWanted, FrameWindow | None, tuple[Frame, ...]]:
    """The frames at up to so many pixels of their longer side: those that came smaller are wanted again.

    What is at hand in no larger size stays as it came.
    """
    small = [frame for frame in frames if max(frame.image.shape[:2]) < _whole_px(frame, side_px)]
    if not small:
        return frames
    more = yield FramesWanted(indices=tuple(frame.index for frame in small), side_px=side_px)
    larger = {} if more is None else {frame.index: frame for frame in more.frames}
    return tuple(larger.get(frame.index, frame) for frame in frames)


def _whole_px(frame: Frame, side_px: int) -> int:
    return min(side_px, max(frame.ref.size_wh))
