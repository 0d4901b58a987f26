# SPDX-License-Identifier: Apache-2.0
"""Samples: a question over some frames of a video, with what is true on each of them.

Frames are drawn as Veason-R1's public code draws them: at an even stride whose phase puts the
*pseudo keyframe*, one of the five frames with the largest target area, among those shown. Only
frames whose truth is known are shown. Labels start at a random number, for on a robot they do. An
image is a video of one frame. Does not know: methods, models, trainers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.errors import ConfigError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.geometry import BoxXyxy, box_from_mask
from foreseg_evaluation.episode import Episode
from foreseg_training.negatives import THOUGHT, foreign_question

LARGEST = 5  # frames that may be the pseudo keyframe, as in Veason-R1
MAX_LABEL_OFFSET = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """A question over shown frames, and the truth on each of them.

    Attributes:
        id: of the episode; of another clip's question, both ids.
        query: its words.
        window: the shown frames, full size, oldest first; labels count from its origin.
        boxes: of the targets in each shown frame, source pixels; a target that is not seen has none.
        areas_px: of all targets together in each shown frame, source pixels.
        keyframe: the pseudo keyframe, one of the shown frames; None: nothing fits.
        rationale: a reference chain of thought; "" = there is none.
        answer: the true answer in words; "" = there is none.
        difficulty: as rated, 1 (easy) to 10; None: not rated.
        source: id of the episode whose frames are shown.
        positions: of the shown frames in it.
    """

    id: str
    query: Query
    window: FrameWindow
    boxes: Mapping[FrameIndex, tuple[BoxXyxy, ...]]
    areas_px: Mapping[FrameIndex, float]
    keyframe: FrameIndex | None
    rationale: str
    answer: str
    difficulty: float | None = None
    source: str
    positions: Mapping[FrameIndex, int]

    @property
    def areas_by_label(self) -> dict[int, float]:
        """Target areas under the labels that a model sees."""
        return {self.window.label_of(index): area for index, area in self.areas_px.items()}


WITH_TARGET = ("with a target", "for the sampler")  # kinds of samples, as they are counted


@dataclass(slots=True, kw_only=True)
class Filtered:
    """What became of episodes, counted: why some gave no sample, and what the others gave."""

    reasons: Counter[str] = field(default_factory=Counter)
    drawn: Counter[str] = field(default_factory=Counter)
    missed: int = 0  # that should have asked another clip's question, and none was found

    def __str__(self) -> str:
        return _listed(self.reasons)

    @property
    def has_targets(self) -> bool:
        """True if something was drawn to which something fits."""
        return any(self.drawn[kind] for kind in WITH_TARGET)

    def told(self) -> str:
        """All of it on one line."""
        kept = f"{self.drawn.total()} samples"
        kept += f" ({_listed(self.drawn)})" if self.drawn else ""
        left = f"{self.reasons.total()} episodes left out"
        left += f" ({self})" if self.reasons else ""
        missed = f"; {self.missed} kept their own question, for no other was found"
        return f"{kept}; {left}{missed if self.missed else ''}"


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleDrawer:
    """Draws samples; equal seeds give equal samples.

    Attributes:
        num_frames: shown at most (the stride is rounded up, so there may be fewer).
        label_offset: labels begin at a random number up to this.
        label_stride: labels of neighbouring frames are a random number up to this apart: the same
            seconds hold more frames on a robot than in a dataset.
        needs_rationale: leave out episodes without a reference chain of thought.
        negative_share: of the samples, so many ask another clip's question (`negatives`).
    """

    num_frames: int = 8
    label_offset: int = MAX_LABEL_OFFSET
    label_stride: int = 1
    needs_rationale: bool = False
    negative_share: float = 0.0

    def __post_init__(self) -> None:
        if self.num_frames < 2 or self.label_offset < 0 or self.label_stride < 1:
            msg = (
                "samples want num_frames of at least 2, a label_offset of at least 0 and a"
                f" label_stride of at least 1, got {self.num_frames}, {self.label_offset} and"
                f" {self.label_stride}"
            )
            raise ConfigError(msg)
        if not 0 <= self.negative_share < 1:
            msg = f"negative_share wants 0 to less than 1, got {self.negative_share}"
            raise ConfigError(msg)

    def draw(self, episodes: Iterable[Episode], seed: int, filtered: Filtered) -> Iterator[Sample]:
        """Draw one sample of each episode that has a question and a truth; others are counted."""
        episodes = tuple(episodes)
        for number in range(len(episodes)):
            sample = self.one(episodes, number, seed, filtered)
            if sample is not None:
                yield sample

    def one(
        self, episodes: Sequence[Episode], number: int, seed: int, filtered: Filtered
    ) -> Sample | None:
        """Draw the sample of one of the episodes, as `draw` does; None, and counted, if it gives none."""
        episode = episodes[number]
        rng = np.random.default_rng([seed, number])
        own = np.random.default_rng([seed, number, 1])  # so that a share changes no other sample
        if own.random() < self.negative_share and not unfit(episode):
            negative = self._negative(episode, episodes, rng, own)
            if negative is not None:
                filtered.drawn["with another clip's question"] += 1
                return negative
            filtered.missed += 1
        reason = unfit(episode, needs_rationale=self.needs_rationale)
        if reason:
            filtered.reasons[reason] += 1
            return None
        sample = self._sample(episode, rng)
        has_target = any(area > 0 for area in sample.areas_px.values())
        filtered.drawn["with a target" if has_target else "without a target"] += 1
        return sample

    def _sample(self, episode: Episode, rng: np.random.Generator) -> Sample:
        question = episode.question
        assert question is not None  # noqa: S101 (`unfit` looked)
        judged = judged_positions(episode)
        areas = {p: float(np.count_nonzero(episode.truth(p))) for p in judged}
        keyframe = _pseudo_keyframe(episode, areas, rng)
        positions = self._positions(judged, keyframe, rng)
        place = numbering(rng, self.label_offset, self.label_stride)
        return Sample(
            id=episode.id,
            query=Query(id=QueryId("sample"), text=question.text),
            window=window_at(episode, positions, place),
            boxes={place(p): boxes_at(episode, p) for p in positions},
            areas_px={place(p): areas[p] for p in positions},
            keyframe=None if keyframe is None else place(keyframe),
            rationale=question.rationale.strip(),
            answer=question.answer,
            difficulty=question.rating,
            source=episode.id,
            positions={place(p): p for p in positions},
        )

    def _negative(
        self,
        episode: Episode,
        others: Sequence[Episode],
        rng: np.random.Generator,
        own: np.random.Generator,
    ) -> Sample | None:
        found = foreign_question(episode, others, own)
        if found is None:
            return None
        other, question = found
        positions = self._positions(judged_positions(episode), None, rng)
        place = numbering(rng, self.label_offset, self.label_stride)
        return Sample(
            id=f"{episode.id} asked {other.id}",
            query=Query(id=QueryId("sample"), text=question.text),
            window=window_at(episode, positions, place),
            boxes={place(p): () for p in positions},
            areas_px={place(p): 0.0 for p in positions},
            keyframe=None,
            rationale=THOUGHT,
            answer="",
            source=episode.id,
            positions={place(p): p for p in positions},
        )

    def _positions(
        self, judged: Sequence[int], keyframe: int | None, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Every so many of the judged positions, the keyframe among them."""
        stride = math.ceil(len(judged) / (self.num_frames - 1))
        phase = int(rng.integers(stride)) if keyframe is None else judged.index(keyframe) % stride
        return tuple(judged[min(phase, len(judged) - 1) :: stride])


def unfit(episode: Episode, *, needs_rationale: bool = False) -> str:
    """Say why an episode gives no sample; "" if it gives one."""
    if episode.question is None:
        return "without a question"
    if len(episode.spans) != 1:
        return f"with {'no truth' if not episode.spans else 'several truths'}"
    if not episode.annotated:
        return "without annotated frames"
    if not judged_positions(episode):
        return "without an annotated frame in the time of their truth"
    if needs_rationale and not episode.question.rationale.strip():
        return "without a chain of thought"
    return ""


def judged_positions(episode: Episode) -> tuple[int, ...]:
    """The positions whose truth is known: others are neither shown nor judged."""
    return tuple(p for p in episode.annotated if episode.span_at(p) is not None)


def _pseudo_keyframe(
    episode: Episode, areas: Mapping[int, float], rng: np.random.Generator
) -> int | None:
    """The frame that the chain of thought is about, if it has a target; else of the largest."""
    seen = [p for p, area in areas.items() if area > 0]
    largest = sorted(seen, key=lambda p: (-areas[p], p))[:LARGEST]
    drawn = int(largest[rng.integers(len(largest))]) if largest else None
    evidence = None if episode.question is None else episode.question.evidence
    is_fixed = evidence is not None and evidence.is_about_keyframe and evidence.keyframe in seen
    return evidence.keyframe if evidence is not None and is_fixed else drawn


def numbering(
    rng: np.random.Generator, label_offset: int, label_stride: int
) -> Callable[[int], FrameIndex]:
    """Where a position stands in the numbers of a stream, drawn up to an offset and a distance."""
    offset = int(rng.integers(label_offset + 1))
    apart = 1 if label_stride == 1 else int(rng.integers(label_stride)) + 1
    return lambda position: FrameIndex(position * apart + offset)


def window_at(
    episode: Episode, positions: Iterable[int], place: Callable[[int], FrameIndex]
) -> FrameWindow:
    """The frames at some positions, oldest first, numbered by `place`; label 0 is number 0."""
    frames = tuple(
        Frame(ref=ref_at(episode, position, place), image=episode.image(position))
        for position in positions
    )
    return FrameWindow(frames=frames, origin_index=FrameIndex(0))


def ref_at(episode: Episode, position: int, place: Callable[[int], FrameIndex]) -> FrameRef:
    """The frame at a position, numbered by `place`, not read."""
    stamp_ns = episode.stamp_ns(position)
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=place(position),
        epoch=0,
        stamp_ns=stamp_ns,
        received_ns=stamp_ns,
        size_wh=episode.size_wh,
    )


def boxes_at(episode: Episode, position: int) -> tuple[BoxXyxy, ...]:
    """Boxes of the targets that are seen at a position, in the order of their ids."""
    found = (box_from_mask(mask) for _, mask in sorted(episode.target_masks(position).items()))
    return tuple(box for box in found if box is not None)
