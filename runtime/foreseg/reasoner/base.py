# SPDX-License-Identifier: Apache-2.0
"""The reasoner's contract, and how one is named so that its own process can build it.

A reasoner knows nothing of trackers, processes or time: a query and frames in, answer parts out.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from foreseg.dialogue import AnswerPart, Query
from foreseg.frames import FrameWindow
from foreseg.history.windows import WindowPolicy

AnswerStream = Generator[AnswerPart, FrameWindow | None, None]
"""Yields parts; is sent the wanted frames after `FramesWanted`, None after every other part.

Ends with exactly one of `AnswerDone` and `AnswerFailed`, and before `AnswerDone` exactly one of
`TargetsFound`, `NoTarget` and `Abstained`.
"""


class Reasoner(Protocol):
    """Contract suite: tests/contract/test_reasoner.py."""

    @property
    def window_policy(self) -> WindowPolicy:
        """Picks the frames of the first window."""

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Answer from these frames alone; one that it cannot answer is `Abstained`, with why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasonerSpec:
    """A reasoner by name and options: what is sent to the process that builds it.

    `kind` is "kinematic", or the name of an entry point in the group `foreseg.reasoners`;
    `calibration` is a file of `foreseg-eval --fit-calibration`, or "".
    """

    kind: str = "kinematic"
    options: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    calibration: str = ""


def caution_in(reasoner: Reasoner) -> str:
    """What the user of a reasoner should know of its answers: its own `caution`, where it has one."""
    return str(getattr(reasoner, "caution", ""))
