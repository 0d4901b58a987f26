# SPDX-License-Identifier: Apache-2.0
"""Samples of VideoSeg-R1's sampler: which stretch of some frames matters, and where to look in it.

The paper's sampler is a large model that is never trained; a small one that never saw its prompts
does not know what to say, so that it can be taught here, apart from the model that answers. What is
right is ours: the frame to look at is one of the five with the largest target area, and the stretch
is what lies around it with at least half the largest. Does not know: methods, models, trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.frames import FrameWindow
from foreseg.methods.segments import evenly
from foreseg_evaluation.episode import Episode
from foreseg_training.samples import (
    LARGEST,
    Filtered,
    judged_positions,
    numbering,
    unfit,
    window_at,
)

WHOLE_SHARE = 0.5  # of the samples show the whole video, the others a stretch of it
LEAST_SHARE = 0.25  # of the video, in such a stretch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SamplerSample:
    """A question over some frames, and what of them matters.

    Attributes:
        id: of the episode.
        query: its words.
        window: the shown frames, full size, oldest first; labels count from its origin.
        interval: labels of the first and last shown frame of the stretch that matters.
        percent: place of the frame to look at between the first frame (0) and the last (100).
    """

    id: str
    query: Query
    window: FrameWindow
    interval: tuple[int, int]
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplerDrawer:
    """Draws samples; equal seeds give equal samples.

    Attributes:
        num_frames: shown at most.
        label_offset, label_stride: as of `SampleDrawer`.
    """

    num_frames: int = 12
    label_offset: int = 200
    label_stride: int = 1

    def draw(
        self, episodes: Iterable[Episode], seed: int, filtered: Filtered
    ) -> Iterator[SamplerSample]:
        """Draw one sample of each episode in which a target is seen; others are counted."""
        for number, episode in enumerate(episodes):
            rng = np.random.default_rng([seed, number, 2])
            reason = unfit(episode)
            areas = {} if reason else _areas(episode)
            if not reason and not any(areas.values()):
                reason = "without a target for the sampler to find"
            if reason:
                filtered.reasons[reason] += 1
                continue
            filtered.drawn["for the sampler"] += 1
            yield self._sample(episode, areas, rng)

    def _sample(
        self, episode: Episode, areas: dict[int, int], rng: np.random.Generator
    ) -> SamplerSample:
        judged = list(areas)
        largest = sorted((p for p in judged if areas[p]), key=lambda p: (-areas[p], p))[:LARGEST]
        best = judged.index(largest[int(rng.integers(len(largest)))])
        first, last = 0, len(judged) - 1
        if rng.random() >= WHOLE_SHARE:
            first, last = _stretch(len(judged), best, rng)
        begin, end = best, best
        half = max(areas.values()) / 2
        while begin > first and areas[judged[begin - 1]] >= half:
            begin -= 1
        while end < last and areas[judged[end + 1]] >= half:
            end += 1
        shown = evenly(judged[first : last + 1], self.num_frames)
        place = numbering(rng, self.label_offset, self.label_stride)
        inside = [p for p in shown if judged[begin] <= p <= judged[end]]
        nearest = min(shown, key=lambda p: (abs(p - judged[best]), p))
        labels = [int(place(p)) for p in inside or [nearest]]
        question = episode.question
        assert question is not None  # noqa: S101 (`unfit` looked)
        span = judged[last] - judged[first]
        share = (judged[best] - judged[first] + 0.5) / (span + 1)
        return SamplerSample(
            id=episode.id,
            query=Query(id=QueryId("sample"), text=question.text),
            window=window_at(episode, shown, place),
            interval=(labels[0], labels[-1]),
            percent=round(100 * share),
        )


def _areas(episode: Episode) -> dict[int, int]:
    return {p: int(np.count_nonzero(episode.truth(p))) for p in judged_positions(episode)}


def _stretch(length: int, around: int, rng: np.random.Generator) -> tuple[int, int]:
    """First and last place of a random stretch around one."""
    size = max(1, round(length * float(rng.uniform(LEAST_SHARE, 1))))
    first = int(rng.integers(max(0, around - size + 1), min(around, length - size) + 1))
    return first, first + size - 1
