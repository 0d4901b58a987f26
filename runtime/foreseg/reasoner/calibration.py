# SPDX-License-Identifier: Apache-2.0
"""Confidences made honest: mapped so that of answers with 0.7 about seven in ten are right.

Platt scaling (Platt 1999): sigmoid(slope x logit(confidence) + intercept), both fitted by
`foreseg-eval --fit-calibration` on answers whose truth is known. Holds for the reasoner, the
method and the kind of scenes that it was fitted on, and says nothing about others.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from foreseg.dialogue import NoTarget, Query, TargetsFound
from foreseg.errors import ConfigError
from foreseg.files import read_file
from foreseg.frames import FrameWindow
from foreseg.history.windows import WindowPolicy
from foreseg.reasoner.base import AnswerStream, Reasoner, caution_in

_LEAST = 1e-4  # confidences are held this far from 0 and 1, whose logit is infinite
MAX_FILE_BYTES = 100_000
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A mapping of confidences, and what it was fitted on."""

    slope: float
    intercept: float
    answers: int  # with a known truth and a confidence
    ece_before: float  # expected calibration error, 0..1
    ece_after: float  # likewise, each answer mapped by a fit that had not seen it
    source: str  # the run

    def __post_init__(self) -> None:
        for name in ("slope", "intercept"):
            if not math.isfinite(getattr(self, name)):
                msg = f"a calibration wants a finite {name}, got {getattr(self, name)}"
                raise ConfigError(msg)

    def calibrated(self, confidence: float) -> float:
        """The mapped confidence, 0..1; NaN stays NaN."""
        if math.isnan(confidence):
            return math.nan
        return sigmoid(self.slope * logit(confidence) + self.intercept)


def logit(confidence: float) -> float:
    """log(p / (1 - p)) of a confidence in 0..1, finite at both ends."""
    p = min(1 - _LEAST, max(_LEAST, confidence))
    return math.log(p / (1 - p))


def sigmoid(value: float) -> float:
    """1 / (1 + exp(-value)), without overflow."""
    small = math.exp(-abs(value))
    return 1 / (1 + small) if value >= 0 else small / (1 + small)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write it as JSON."""
    record = {"format_version": _VERSION, **asdict(calibration)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_calibration(path: Path) -> Calibration:
    """Read it.

    Raises:
        ConfigError: not there, or no calibration; the message names the file.
    """
    try:
        record = json.loads(read_file(path, MAX_FILE_BYTES))
        if not isinstance(record, dict) or record.pop("format_version", None) != _VERSION:
            msg = f"it wants the format version {_VERSION}"
            raise ValueError(msg)
        return Calibration(
            slope=float(record["slope"]),
            intercept=float(record["intercept"]),
            answers=int(record["answers"]),
            ece_before=float(record["ece_before"]),
            ece_after=float(record["ece_after"]),
            source=str(record["source"]),
        )
    except (
        *(OSError, ValueError, KeyError, TypeError),
        *(OverflowError, RecursionError, ConfigError),
    ) as error:
        msg = f"{path} is no calibration: {type(error).__name__}: {error}"
        raise ConfigError(msg) from error


class CalibratedReasoner:
    """Any reasoner, its confidences mapped; nothing else is changed."""

    def __init__(self, reasoner: Reasoner, calibration: Calibration) -> None:
        self._reasoner = reasoner
        self._calibration = calibration
        self.caution = caution_in(reasoner)

    @property
    def window_policy(self) -> WindowPolicy:
        """The reasoner's own."""
        return self._reasoner.window_policy

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Answer as the reasoner does."""
        return calibrated_stream(self._reasoner.ask(query, window), self._calibration)


def calibrated_stream(stream: AnswerStream, calibration: Calibration) -> AnswerStream:
    """An answer as it comes, its confidences mapped."""
    try:
        part = next(stream)
        while True:
            if isinstance(part, (TargetsFound, NoTarget)):
                part = replace(part, confidence=calibration.calibrated(part.confidence))
            part = stream.send((yield part))
    except StopIteration:
        return
    finally:
        stream.close()
