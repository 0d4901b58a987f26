# SPDX-License-Identifier: Apache-2.0
"""Samples: a question over some frames of a video, with what is true on each of them.

Frames are drawn as Veason-R1's public code draws them: at an even stride whose phase puts the
*pseudo keyframe*, one of the five frames with the largest target area, among those shown. Labels
start at a random number, for on a robot they do. Does not know: methods, models, trainers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.errors import ConfigError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.geometry import BoxXyxy
from foreseg_evaluation.episode import Episode

LARGEST = 5  # frames that may be the pseudo keyframe, as in Veason-R1
MAX_LABEL_OFFSET = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A question over shown frames, and the truth on each of them.

    Attributes:
        id: of the episode.
        query: its words.
        window: the shown frames, full size, oldest first; labels count from its origin.
        boxes: of the targets in each shown frame, source pixels; a target that is not seen has none.
        areas_px: of all targets together in each shown frame, source pixels.
        keyframe: the pseudo keyframe, one of the shown frames; None: nothing fits.
        rationale: a reference chain of thought; "" = there is none.
        answer: the true answer in words; "" = there is none.
    """

    id: str
    query: Query
    window: FrameWindow
    boxes: Mapping[FrameIndex, tuple[BoxXyxy, ...]]
    areas_px: Mapping[FrameIndex, float]
    keyframe: FrameIndex | None
    rationale: str
    answer: str

    @property
    def areas_by_label(self) -> dict[int, float]:
        """Target areas under the labels that a model sees."""
        return {self.window.label_of(index): area for index, area in self.areas_px.items()}


@dataclass(slots=True, kw_only=True)
class Filtered:
    """Why episodes gave no sample, counted."""

    reasons: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return ", ".join(f"{count} {reason}" for reason, count in self.reasons.most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDrawer:
    """Draws samples; equal seeds give equal samples.

    Attributes:
        num_frames: shown at most (the stride is rounded up, so there may be fewer).
        label_offset: labels begin at a random number up to this.
        needs_rationale: leave out episodes without a reference chain of thought.
    """

    num_frames: int = 8
    label_offset: int = MAX_LABEL_OFFSET
    needs_rationale: bool = False

    def __post_init__(self) -> None:
        if self.num_frames < 2 or self.label_offset < 0:
            msg = (
                "samples want num_frames of at least 2 and a label_offset of at least 0, got"
                f" {self.num_frames} and {self.label_offset}"
            )
            raise ConfigError(msg)

    def draw(self, episodes: Iterable[Episode], seed: int, filtered: Filtered) -> Iterator[Sample]:
        """Draw one sample of each episode that has a question and a truth; others are counted."""
        for number, episode in enumerate(episodes):
            rng = np.random.default_rng([seed, number])
            reason = self._unfit(episode)
            if reason:
                filtered.reasons[reason] += 1
                continue
            yield self._sample(episode, rng)

    def _unfit(self, episode: Episode) -> str:
        """Say why an episode gives no sample; "" if it gives one."""
        if episode.question is None:
            return "without a question"
        if len(episode.spans) != 1:
            return f"with {'no truth' if not episode.spans else 'several truths'}"
        if not episode.annotated:
            return "without annotated frames"
        if self.needs_rationale and not episode.question.rationale.strip():
            return "without a chain of thought"
        return ""

    def _sample(self, episode: Episode, rng: np.random.Generator) -> Sample:
        question = episode.question
        assert question is not None  # noqa: S101 (`_unfit` looked)
        areas = {p: float(np.count_nonzero(episode.truth(p))) for p in episode.annotated}
        seen = [p for p, area in areas.items() if area > 0]
        largest = sorted(seen, key=lambda p: (-areas[p], p))[:LARGEST]
        keyframe = int(largest[rng.integers(len(largest))]) if largest else None
        stride = math.ceil(episode.num_frames / (self.num_frames - 1))
        phase = int(rng.integers(stride)) if keyframe is None else keyframe % stride
        positions = range(min(phase, episode.num_frames - 1), episode.num_frames, stride)
        offset = int(rng.integers(self.label_offset + 1))
        return Sample(
            id=episode.id,
            query=Query(id=QueryId("sample"), text=question.text),
            window=_window(episode, positions, offset),
            boxes={FrameIndex(p + offset): _boxes(episode, p) for p in positions},
            areas_px={FrameIndex(p + offset): areas.get(p, 0.0) for p in positions},
            keyframe=None if keyframe is None else FrameIndex(keyframe + offset),
            rationale=question.rationale.strip(),
            answer=question.answer,
        )


def _window(episode: Episode, positions: Iterable[int], offset: int) -> FrameWindow:
    frames = []
    for position in positions:
        stamp_ns = episode.stamp_ns(position)
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(position + offset),
            epoch=0,
            stamp_ns=stamp_ns,
            received_ns=stamp_ns,
            size_wh=episode.size_wh,
        )
        frames.append(Frame(ref=ref, image=episode.image(position)))
    return FrameWindow(frames=tuple(frames), origin_index=FrameIndex(0))


def _boxes(episode: Episode, position: int) -> tuple[BoxXyxy, ...]:
    """Boxes of the targets that are seen at a position, in the order of their ids."""
    found = []
    for _, mask in sorted(episode.target_masks(position).items()):
        ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if len(ys):
            corners = (xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
            found.append(BoxXyxy(*(float(c) for c in corners)))
    return tuple(found)
