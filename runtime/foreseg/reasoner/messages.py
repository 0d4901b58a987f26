# SPDX-License-Identifier: Apache-2.0
"""What the reasoner's process and its parent say to each other over their pipe.

Both ends run this very package and one has started the other, so the records travel pickled.
Does not know how they travel (`process`), or what the parts of an answer mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreseg.dialogue import AnswerPart, Query
from foreseg.frames import FrameWindow
from foreseg.history.windows import WindowPolicy


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AskMessage:
    """Answer this; only one at a time."""

    ask_id: int  # the parent's, never reused
    query: Query
    window: FrameWindow


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MoreFrames:
    """The frames of a `FramesWanted` that are still at hand; possibly none."""

    ask_id: int
    window: FrameWindow
    side_px: int = 0  # as they were wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelMessage:
    """End this asking; it is confirmed by its `AnswerFailed`, unless it has just ended."""

    ask_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """Show a sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The reasoner is built."""

    kind: str
    window_policy: WindowPolicy
    caution: str = ""  # what its user should know of its answers


@dataclass(frozen=True, slots=True, kw_only=True)
class NotBuilt:
    """The reasoner cannot be built from its spec; another try would end alike."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartMessage:
    """Some more of an answer."""

    ask_id: int
    part: AnswerPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Alive:
    """The sign of life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """The process is gone: made by the parent's end, once for each process."""

    reason: str
    ask_id: int | None = None  # the asking that died with it
    can_restart: bool = True


ToReasoner = AskMessage | MoreFrames | CancelMessage | Ping | Stop
FromReasoner = Ready | NotBuilt | PartMessage | Alive
