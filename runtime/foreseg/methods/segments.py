# SPDX-License-Identifier: Apache-2.0
"""Stretches of frame labels, and the frames of one asking: how a sampler closes in on a frame.

Does not know: words, requests, how often anyone is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from foreseg.frames import Frame, FrameIndex, FrameWindow
from foreseg.methods.grounding import View, label_text
from foreseg.methods.percentages import answer_in, label_at_mean, numbers_in

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of frame labels, both ends included."""

    first: int
    last: int

    def __contains__(self, label: int) -> bool:
        return self.first <= label <= self.last

    @property
    def length(self) -> int:
        """Labels in it."""
        return self.last - self.first + 1

    def even_labels(self, count: int) -> list[int]:
        """At most so many labels, evenly over it, both ends among them; of one: the last."""
        steps = min(count, self.length) - 1
        if steps < 1:
            return [self.last]
        return [self.first + round((self.last - self.first) * i / steps) for i in range(steps + 1)]

    def narrowed(self, texts: Sequence[str]) -> Narrowed:
        """The average of the intervals that completions give, within this segment."""
        ends = [found for text in texts if (found := self._interval_from(text)) is not None]
        if not ends:
            note = f"[sampler: no interval in {len(texts)} answers, the whole span is kept]\n"
            return Narrowed(segment=self, note=note)
        first, last = (round(fmean(side)) for side in zip(*ends, strict=True))
        note = (
            f"[sampler: key segment {label_text(first)} to {label_text(last)},"
            f" from {len(ends)} of {len(texts)} answers]\n"
        )
        return Narrowed(segment=Segment(first, last), note=note)

    def target(self, texts: Sequence[str]) -> tuple[int, str]:
        """The label at the average of the percentages that completions give, with a note."""
        return label_at_mean(self.first, self.last, texts)

    def _interval_from(self, text: str) -> tuple[float, float] | None:
        numbers = numbers_in(answer_in(text))
        if len(numbers) != 2:  # noqa: PLR2004 (first and last)
            return None
        low, high = sorted(numbers)
        if high < self.first or low > self.last:
            return None
        return max(low, self.first), min(high, self.last)


@dataclass(frozen=True, slots=True, kw_only=True)
class Narrowed:
    """A smaller segment, and how it came about."""

    segment: Segment
    note: str


class Album:
    """All frames of an asking, as the model sees them."""

    def __init__(self, window: FrameWindow) -> None:
        self._origin = window.origin_index
        self._frames = {window.label_of(frame.index): frame for frame in window.frames}

    @property
    def labels(self) -> list[int]:
        """Of the frames at hand, oldest first."""
        return sorted(self._frames)

    def add(self, more: list[str] | FrameWindow | None, view: View) -> None:
        """Take in the frames that came; those that are gone did not."""
        if isinstance(more, FrameWindow):
            for frame in view.shown(more).frames:
                self._frames[int(frame.index) - int(self._origin)] = frame

    def missing(self, labels: Iterable[int]) -> tuple[FrameIndex, ...]:
        """The indices of those of these labels that are not at hand."""
        origin = int(self._origin)
        return tuple(FrameIndex(origin + n) for n in labels if n not in self._frames)

    def nearest(self, label: int) -> Frame:
        """The frame with this label or the next best, the newer of two."""
        return self._frames[min(self._frames, key=lambda other: (abs(other - label), -other))]

    def within(self, segment: Segment, most: int) -> FrameWindow:
        """At most so many frames, evenly over a segment; where none is at hand, the next best."""
        nearest = [self.nearest(label) for label in segment.even_labels(most)]
        inside = [f for f in nearest if int(f.index) - int(self._origin) in segment]
        return window_of(inside or nearest[-1:], self._origin)


def window_of(frames: Iterable[Frame], origin: FrameIndex) -> FrameWindow:
    """Frames in any order, each once, as a window whose label 0 is at `origin`."""
    ordered = {frame.index: frame for frame in frames}
    return FrameWindow(frames=tuple(ordered[i] for i in sorted(ordered)), origin_index=origin)


def evenly(items: Sequence[_Item], count: int) -> list[_Item]:
    """At most so many items, evenly over them, both ends among them; of one: the first."""
    if len(items) <= count:
        return list(items)
    steps = max(1, count - 1)
    return [items[round((len(items) - 1) * i / steps)] for i in range(count)]
