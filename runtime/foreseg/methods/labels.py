# SPDX-License-Identifier: Apache-2.0
"""How frames are labelled for a model: by their number, gaps kept, or by their rank among those shown.

A robot labels by number: Veason-R1 finds that policies collapse on ranks, of which there are always
the same few. Ranks are here so that this can be trained and measured. Does not know: words, methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from foreseg.errors import InputError
from foreseg.frames import FrameIndex, FrameWindow


class LabelForm(Enum):
    """What a frame's label counts."""

    ABSOLUTE = "absolute"  # frames since the window's origin, those between left out or not
    RANK = "rank"  # the frames that are shown, from 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankedWindow(FrameWindow):
    """A window whose labels are ranks."""

    def label_of(self, index: FrameIndex) -> int:
        """The rank of a shown frame.

        Raises:
            InputError: it is not shown, and has none.
        """
        if index not in self.indices:
            msg = f"a ranked window has labels of its own frames alone, got index {index}"
            raise InputError(msg)
        return self.indices.index(index)

    def index_of(self, label: int) -> FrameIndex:
        """The absolute index of the frame at a rank.

        Raises:
            InputError: there is none.
        """
        if not 0 <= label < len(self.frames):
            msg = f"a window of {len(self.frames)} frames has no rank {label}"
            raise InputError(msg)
        return self.frames[label].index


def labelled_window(window: FrameWindow, labels: LabelForm) -> FrameWindow:
    """A window whose labels are of a form."""
    if labels is LabelForm.ABSOLUTE:
        return window
    return RankedWindow(frames=window.frames, origin_index=window.origin_index)
