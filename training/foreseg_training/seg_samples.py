# SPDX-License-Identifier: Apache-2.0
"""Samples for the [SEG] methods: what a method asks, and the true mask on each frame to decode.

VISA's target frame is drawn at random from those whose truth is known, its references are as many
as are drawn, chosen as the method chooses them. FeVOS's frames are those that its window policy
picks. Of the questions that nothing answers, half are learnt as an empty mask, half as the words
that nothing fits (ours; VISA's public code: empty masks). Does not know: models, trainers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foreseg.dialogue import Query, QueryId
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.history.windows import HistoryView
from foreseg.methods.base import SegmentStep
from foreseg.methods.fevos import FevosMethod
from foreseg.methods.visa import VisaMethod
from foreseg_evaluation.episode import Episode
from foreseg_training.negatives import THOUGHT, foreign_question
from foreseg_training.samples import (
    Filtered,
    judged_positions,
    numbering,
    ref_at,
    unfit,
    window_at,
)

SegMethod = VisaMethod | FevosMethod
BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SegSample:
    """A question as a [SEG] method asks it, and the truth on each frame that it decodes.

    Attributes:
        id: of the episode; of another clip's question, both ids.
        query: its words.
        step: the method's last; its request has the frames to decode, full size.
        masks: (F, H, W) bool, the union of the targets on each of these frames, source pixels.
        rationale: a reference chain of thought; "" = there is none.
        says_none: to be learnt as words, not as an empty mask; only where nothing is seen.
    """

    id: str
    query: Query
    step: SegmentStep
    masks: BoolArray
    rationale: str
    says_none: bool

    @property
    def frames(self) -> tuple[Frame, ...]:
        """To be decoded."""
        return self.step.request.frames


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Whose question is asked over a clip."""

    id: str
    text: str
    rationale: str
    is_foreign: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SegSampleDrawer:
    """Draws samples; equal seeds give equal samples.

    Attributes:
        method: that asks.
        label_offset: labels begin at a random number up to this.
        label_stride: labels of neighbouring frames are a random number up to this apart.
        needs_rationale: leave out episodes without a reference chain of thought.
        negative_share: of the samples, so many ask another clip's question.
        least_references: visa: beside the target frame, drawn from here
        most_references: to here.
    """

    method: SegMethod
    label_offset: int = 0
    label_stride: int = 1
    needs_rationale: bool = False
    negative_share: float = 0.0
    least_references: int = 8
    most_references: int = 12

    def __post_init__(self) -> None:
        if not 0 <= self.least_references <= self.most_references:
            msg = (
                "least_references wants 0 to most_references, got"
                f" {self.least_references} and {self.most_references}"
            )
            raise ConfigError(msg)

    def draw(
        self, episodes: Iterable[Episode], seed: int, filtered: Filtered
    ) -> Iterator[SegSample]:
        """Draw one sample of each episode that has a question and a truth; others are counted."""
        episodes = tuple(episodes)
        for number, episode in enumerate(episodes):
            rng = np.random.default_rng([seed, number])
            own = np.random.default_rng([seed, number, 1])  # a share changes no other sample
            asked = self._asked(episode, episodes, own, filtered)
            if asked is None:
                continue
            sample = self._sample(episode, asked, rng)
            kind = "with a target" if sample.masks.any() else "without a target"
            filtered.drawn["with another clip's question" if asked.is_foreign else kind] += 1
            yield sample

    def _asked(
        self,
        episode: Episode,
        others: Sequence[Episode],
        own: np.random.Generator,
        filtered: Filtered,
    ) -> _Asked | None:
        """What is asked over an episode; None, counted, if it gives no sample."""
        if own.random() < self.negative_share and not unfit(episode):
            found = foreign_question(episode, others, own)
            if found is not None:
                other, question = found
                return _Asked(
                    id=f"{episode.id} asked {other.id}",
                    text=question.text,
                    rationale=THOUGHT,
                    is_foreign=True,
                )
            filtered.missed += 1
        reason = unfit(episode, needs_rationale=self.needs_rationale)
        if reason or episode.question is None:
            filtered.reasons[reason] += 1
            return None
        return _Asked(
            id=episode.id,
            text=episode.question.text,
            rationale=episode.question.rationale.strip(),
            is_foreign=False,
        )

    def _sample(self, episode: Episode, asked: _Asked, rng: np.random.Generator) -> SegSample:
        query = Query(id=QueryId("sample"), text=asked.text)
        judged = judged_positions(episode)
        place = numbering(rng, self.label_offset, self.label_stride)
        position_of = {place(position): position for position in judged}
        step = self._step(query, _Clip(episode=episode, judged=judged, place=place), rng)
        shape = (len(step.request.frames), *episode.size_wh[::-1])
        masks = np.zeros(shape, np.bool_)
        for i, frame in enumerate(step.request.frames):
            if not asked.is_foreign:
                masks[i] = episode.truth(position_of[frame.index])
        is_empty = not masks.any()
        has_none = asked.is_foreign or not any(span.object_ids for span in episode.spans)
        return SegSample(
            id=asked.id,
            query=query,
            step=step,
            masks=masks,
            rationale=asked.rationale,
            says_none=is_empty and has_none and bool(rng.random() < 0.5),
        )

    def _step(self, query: Query, clip: _Clip, rng: np.random.Generator) -> SegmentStep:
        refs = clip.refs()
        if isinstance(self.method, VisaMethod):
            target = refs[int(rng.integers(len(refs)))]
            count = int(rng.integers(self.least_references, self.most_references + 1))
            others = tuple(ref for ref in refs if ref is not target)
            beside = self.method.references_among(others, target.index, count) if count else ()
            (frame,) = clip.window((target.index,)).frames
            return self.method.answer_step(query, frame, clip.window(beside).frames)
        chosen = self.method.window_policy.select(HistoryView(dense=(), sparse=refs))
        step = next(self.method.plan(query, clip.window(chosen)))
        assert isinstance(step, SegmentStep)  # noqa: S101 (as the method's plan begins)
        return step


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clip:
    """The frames of an episode whose truth is known, under their numbers in a stream."""

    episode: Episode
    judged: tuple[int, ...]
    place: Callable[[int], FrameIndex]

    def refs(self) -> tuple[FrameRef, ...]:
        """All of them."""
        return tuple(ref_at(self.episode, position, self.place) for position in self.judged)

    def window(self, indices: Collection[FrameIndex]) -> FrameWindow:
        """Some of them, read."""
        positions = [p for p in self.judged if self.place(p) in indices]
        return window_at(self.episode, positions, self.place)
