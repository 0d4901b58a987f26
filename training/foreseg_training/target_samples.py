# SPDX-License-Identifier: Apache-2.0
"""Samples of VideoSeg-R1's last request: a target frame, key frames around it, and references.

The paper's sampler is "only used during inference"; how target frames are drawn in training it does
not say. Ours: four of five among the frames whose target area is in the upper half, the fifth any
frame, so that "nothing fits" occurs; key frames are of a stretch around it, placed at random, for a
sampler does not centre it either. Does not know: methods, models, trainers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.errors import ConfigError
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.masks import Mask
from foreseg.methods.segments import evenly
from foreseg.prompts import Point, PointLabel, SpatialPrompt
from foreseg_evaluation.episode import Episode, Question
from foreseg_training.negatives import THOUGHT, foreign_question
from foreseg_training.pointers import beside, box_of, center_of
from foreseg_training.samples import Filtered, judged_positions, numbering, unfit, window_at

UNSEEN_THOUGHT = "What is asked for cannot be seen in the target frame. So nothing fits there."
DIFFICULTIES = {"easy": 3.0, "hard": 8.0}  # ours, where a dataset has words for it
DEFAULT_DIFFICULTY = 5.5  # the middle of 1..10, where nobody rated it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TargetSample:
    """A question over some frames of which one is the target frame, and the truth in that one.

    Attributes:
        id: of the episode; of another clip's question, both ids.
        query: its words.
        window: the shown frames, full size, oldest first; labels count from its origin.
        target: the target frame, one of those shown.
        masks: of the targets that are seen in it, (H, W), source pixels, by object id.
        prompts: of each of these a box, its centre, and a point beside it where there is room.
        rationale: a reference chain of thought; "" = there is none.
        difficulty: 1 (easy) to 10.
        video: whose frames are shown.
        position: of the target frame in it.
    """

    id: str
    query: Query
    window: FrameWindow
    target: FrameIndex
    masks: Mapping[str, Mask]
    prompts: tuple[SpatialPrompt, ...]
    rationale: str
    difficulty: float
    video: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetDrawer:
    """Draws samples; equal seeds give equal samples.

    Attributes:
        num_key_frames: of the stretch around the target frame at most, beside it.
        num_reference_frames: from elsewhere at most.
        segment_share: the stretch's share of the video.
        any_share: so many target frames are drawn from all frames.
        label_offset, label_stride, needs_rationale, negative_share: as of `SampleDrawer`.
    """

    num_key_frames: int = 6
    num_reference_frames: int = 4
    segment_share: float = 0.25
    any_share: float = 0.2
    label_offset: int = 200
    label_stride: int = 1
    needs_rationale: bool = False
    negative_share: float = 0.0

    def __post_init__(self) -> None:
        if self.num_key_frames < 1 or self.num_reference_frames < 0:
            msg = (
                "target samples want a key frame and no less than 0 references, got"
                f" {self.num_key_frames} and {self.num_reference_frames}"
            )
            raise ConfigError(msg)
        for name in ("segment_share", "any_share"):
            if not 0 <= getattr(self, name) <= 1:
                msg = f"{name} wants 0 to 1, got {getattr(self, name)}"
                raise ConfigError(msg)

    def draw(
        self, episodes: Iterable[Episode], seed: int, filtered: Filtered
    ) -> Iterator[TargetSample]:
        """Draw one sample of each episode that has a question and a truth; others are counted."""
        episodes = tuple(episodes)
        for number, episode in enumerate(episodes):
            rng = np.random.default_rng([seed, number])
            own = np.random.default_rng([seed, number, 1])  # a share changes no other sample
            if own.random() < self.negative_share and not unfit(episode):
                found = foreign_question(episode, episodes, own)
                if found is not None:
                    filtered.drawn["with another clip's question"] += 1
                    yield self._foreign(episode, *found, rng)
                    continue
                filtered.missed += 1
            reason = unfit(episode, needs_rationale=self.needs_rationale)
            if reason:
                filtered.reasons[reason] += 1
                continue
            sample = self._own(episode, rng)
            filtered.drawn["with a target" if sample.masks else "without a target"] += 1
            yield sample

    def _own(self, episode: Episode, rng: np.random.Generator) -> TargetSample:
        question = episode.question
        assert question is not None  # noqa: S101 (`unfit` looked)
        judged = judged_positions(episode)
        areas = {p: int(np.count_nonzero(episode.truth(p))) for p in judged}
        position = self._target(question, areas, rng)
        masks = {i: m for i, m in sorted(episode.target_masks(position).items()) if m.any()}
        rationale = question.rationale.strip()
        if not masks and any(areas.values()):
            rationale = UNSEEN_THOUGHT  # the clip's own thoughts lead to a target
        return self._sample(
            episode, question, position, rng, masks=masks, rationale=rationale, name=episode.id
        )

    def _foreign(
        self, episode: Episode, other: Episode, question: Question, rng: np.random.Generator
    ) -> TargetSample:
        judged = judged_positions(episode)
        position = judged[int(rng.integers(len(judged)))]
        name = f"{episode.id} asked {other.id}"
        return self._sample(
            episode, question, position, rng, masks={}, rationale=THOUGHT, name=name
        )

    def _sample(
        self,
        episode: Episode,
        question: Question,
        position: int,
        rng: np.random.Generator,
        *,
        masks: Mapping[str, Mask],
        rationale: str,
        name: str,
    ) -> TargetSample:
        positions = self._positions(judged_positions(episode), position, rng)
        place = numbering(rng, self.label_offset, self.label_stride)
        return TargetSample(
            id=name,
            query=Query(id=QueryId("sample"), text=question.text),
            window=window_at(episode, positions, place),
            target=place(position),
            masks=masks,
            prompts=_prompts(episode, position, masks, rng),
            rationale=rationale,
            difficulty=difficulty_of(question),
            video=episode.video,
            position=position,
        )

    def _target(
        self, question: Question, areas: Mapping[int, int], rng: np.random.Generator
    ) -> int:
        """The target frame's position; the one that the chain of thought is about, if it is."""
        seen = sorted((p for p in areas if areas[p]), key=lambda p: (-areas[p], p))
        every = sorted(areas)
        evidence = question.evidence
        drawn = rng.random(), rng.integers(1 << 32)
        is_fixed = self.needs_rationale and evidence is not None and evidence.is_about_keyframe
        if is_fixed and evidence is not None and evidence.keyframe in areas:
            return evidence.keyframe
        best = seen[: (len(seen) + 1) // 2]
        among = every if drawn[0] < self.any_share or not best else best
        return among[int(drawn[1]) % len(among)]

    def _positions(
        self, judged: Sequence[int], target: int, rng: np.random.Generator
    ) -> tuple[int, ...]:
        """The target frame, key frames of a stretch that it is in, and references from elsewhere."""
        length = max(1, round(self.segment_share * len(judged)))
        at = judged.index(target)
        first = int(rng.integers(max(0, at - length + 1), min(at, len(judged) - length) + 1))
        stretch = judged[first : first + length]
        elsewhere = [*judged[:first], *judged[first + length :]]
        shown = {target, *evenly(stretch, self.num_key_frames)}
        return tuple(sorted({*shown, *evenly(elsewhere, self.num_reference_frames)}))


def difficulty_of(question: Question) -> float:
    """How difficult a question is, 1 (easy) to 10: as it was rated, else as its word says."""
    if question.rating is not None:
        return min(10.0, max(1.0, question.rating))
    return DIFFICULTIES.get(question.difficulty, DEFAULT_DIFFICULTY)


def _prompts(
    episode: Episode, position: int, masks: Mapping[str, Mask], rng: np.random.Generator
) -> tuple[SpatialPrompt, ...]:
    if not masks:
        return ()
    targets = np.logical_or.reduce(list(masks.values()))
    others = np.zeros_like(targets)
    for object_id in set(episode.object_ids) - set(masks):
        mask = episode.media.mask(object_id, position)
        others |= False if mask is None else mask
    prompts = []
    for mask in masks.values():
        points = [Point(*center_of(mask), PointLabel.FOREGROUND)]
        negative = beside(mask, targets, others & ~targets, rng)
        if negative is not None:
            points.append(Point(*negative, PointLabel.BACKGROUND))
        prompts.append(SpatialPrompt(box=box_of(mask), points=tuple(points)))
    return tuple(prompts)
