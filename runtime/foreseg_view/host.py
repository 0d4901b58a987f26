# SPDX-License-Identifier: Apache-2.0
"""What is looked at: a pipeline in this process, or a node over ROS; one contract for both.

Callbacks come from any thread, once, and must not wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from foreseg.dialogue import Query, QueryId
from foreseg.frames import Frame, FrameIndex
from foreseg.pipeline.events import Reply
from foreseg.prompts import ObjectId, SpatialPrompt

Done = Callable[[Reply], None]
FrameDone = Callable[[Frame | None], None]


class Stage(Enum):
    """How far an asking is; the values are words of the HTTP interface."""

    ASKED = "asked"  # waits for its turn
    THINKING = "thinking"  # the reasoner has it
    KEYFRAME = "keyframe"  # it has pointed, the tracker has yet to go there
    HOP = "hop"  # masks are shown, not yet confirmed
    CAUGHT_UP = "caught up"
    ENDED = "ended"  # nothing to track


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryNow:
    """A query that stands, or waits for its answer."""

    id: QueryId
    text: str
    period_s: float = 0.0
    stage: Stage | None = None  # None: answered, and asked again when it is due
    since_s: float = 0.0  # how long it has been in the reasoner's hands
    rationale: str = ""  # as far as it has come


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How what is looked at is; what it does not tell is None."""

    queries: tuple[QueryNow, ...] = ()
    reasoner: str = ""  # its state in words
    is_reasoner_up: bool = False
    oldest_index: int | None = None  # frames at hand, for a frozen picture
    newest_index: int | None = None
    rate_hz: float | None = None
    dropped: Mapping[str, int] = field(default_factory=dict)  # frames since the start, by cause
    rung: str = ""  # what is given up now, in words; "" = nothing
    memory_bytes: int | None = None  # resident, of the process that is looked at
    problem: str = ""  # what the user should know, in a sentence


class Host(Protocol):
    """What is looked at."""

    @property
    def source(self) -> str:
        """What it sees, for people."""

    @property
    def trace_path(self) -> Path | None:
        """Where its trace is written, if it is here."""

    def status(self) -> Status:
        """How it is now; never waits."""

    def ask(self, query: Query, done: Done) -> None:
        """Add a query; the reply tells whether it is taken."""

    def remove_query(self, query_id: QueryId, done: Done) -> None:
        """Take a query back."""

    def point(self, object_id: ObjectId, prompt: SpatialPrompt, stamp_ns: int, done: Done) -> None:
        """Track what is pointed at on the frame with this stamp (0 = the newest).

        A known `object_id` is refined, "" names a new object.
        """

    def remove_object(self, object_id: ObjectId, done: Done) -> None:
        """Let an object go."""

    def copy_frame(self, index: FrameIndex, done: FrameDone) -> None:
        """A frame of the last seconds with pixels of its own, or None."""
