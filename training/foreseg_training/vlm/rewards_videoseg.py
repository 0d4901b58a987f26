# SPDX-License-Identifier: Apache-2.0
"""VideoSeg-R1's reward over completions as TRL hands them: (format + accuracy + ...) * length.

Its parts are scored on what a completion says, before anything is repaired, in a frame of
840 x 840 px. TRL adds rewards up, so that a product is one function; the parts are logged beside
it. Where the paper is silent, and what is said here: an object without a negative point counts as
one whose point is wrong, and so does one with several central points; where nothing fits, saying
so has the full marks of form and accuracy, and there is no negative point to give. Does not know:
models, frames, trainers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from foreseg.errors import ConfigError
from foreseg.masks import Mask, MaskRle, mask_from_rle, rle_from_mask
from foreseg.methods.grammar import Form, answer_of
from foreseg.methods.pointing import Pointed, PointedObject
from foreseg.methods.reading import reasoning_span
from foreseg.methods.videoseg import VideosegMethod
from foreseg.prompts import SpatialPrompt
from foreseg_training.pointers import FRAME_PX, on_frame
from foreseg_training.rewards import (
    accuracy_reward,
    grammar_reward,
    negative_point_reward,
    no_target_reward,
    repetition_reward,
    soft_length_factor,
    token_budget,
)
from foreseg_training.runs.watched_rewards import RewardFunction, Scores, text_of
from foreseg_training.target_samples import TargetSample
from foreseg_training.tracking import Tracking
from foreseg_training.vlm.rewards_masked import MaskAccuracy, prompt_from_rows
from foreseg_training.vlm.thoughts import Encoded, ThoughtCounter

PARTS = ("format", "accuracy", "repetition", "negative", "mask", "no_target")
NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class PointedTruth:
    """What is true of a prompt, as a column of a data set carries it; places on the 840-px frame."""

    size_wh: tuple[float, float]  # of the target frame in the model's units
    boxes: Sequence[Sequence[float]]  # (M, 4)
    centers: Sequence[Sequence[float]]  # (M, 2)
    masks: Sequence[MaskRle]  # source pixels
    difficulty: float
    video: str = ""  # of the target frame, by reference
    position: int = 0  # of it there

    def to_json(self) -> str:
        """As text."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> PointedTruth:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        width, height = values["size_wh"]
        masks = [MaskRle(**mask) for mask in values["masks"]]
        return cls(**{**values, "size_wh": (width, height), "masks": masks})

    def on_frame(self) -> Mask:
        """The targets' union on the 840-px frame, (840, 840)."""
        union: Mask = np.logical_or.reduce([mask_from_rle(mask) for mask in self.masks])
        return on_frame(union)


def pointed_truth_of(method: VideosegMethod, sample: TargetSample) -> PointedTruth:
    """A sample's truth, scaled to the 840-px frame."""
    frame = next(f for f in method.shown(sample.window).frames if f.index == sample.target)
    width, height = frame.ref.size_wh
    scale = (FRAME_PX / width, FRAME_PX / height)
    return PointedTruth(
        size_wh=method.size_wh(frame),
        boxes=[list(p.box.scaled(scale)) for p in sample.prompts if p.box is not None],
        centers=[[p.points[0].x * scale[0], p.points[0].y * scale[1]] for p in sample.prompts],
        masks=[rle_from_mask(mask) for mask in sample.masks.values()],
        difficulty=sample.difficulty,
        video=sample.video,
        position=sample.position,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What a completion is worth, part by part; None: does not apply to its prompt."""

    parts: Mapping[str, float | None]
    length: float  # what the sum is multiplied by
    thought_tokens: int
    total: float


class VideosegRewards:
    """The reward of one run.

    Args:
        method: as it will run; it parses.
        form: that completions are asked for.
        weights: of the parts in the sum, by name; those left out count nothing.
        length_beta: loss of the factor for each token of thought beyond the budget; 0: none.
        counter: counts tokens of thought.
        tracking: makes masks, for the part `mask`; None: it has no weight.

    Raises:
        ConfigError: a part that is none, or no weight at all; a weight for `mask` without a tracker.
    """

    def __init__(
        self,
        method: VideosegMethod,
        form: Form,
        *,
        weights: Mapping[str, float],
        length_beta: float,
        counter: ThoughtCounter,
        tracking: Tracking | None = None,
    ) -> None:
        if set(weights) - set(PARTS) or not any(weights.values()):
            msg = f"reward_weights want some of {', '.join(PARTS)}, got {dict(weights)}"
            raise ConfigError(msg)
        if weights.get("mask") and tracking is None:
            msg = f"the reward mask (weight {weights['mask']}) wants a tracker"
            raise ConfigError(msg)
        self._masks = None if tracking is None else MaskAccuracy(tracking)
        self._method = method
        self._form = form
        self._weights = dict(weights)
        self._length_beta = length_beta
        self._counter = counter

    def functions(self) -> tuple[list[RewardFunction], list[float]]:
        """The one function, and its weight."""
        return [self.videoseg], [1.0]

    def videoseg(
        self,
        completions: Sequence[Any],
        truth: Sequence[str],
        completion_ids: Sequence[Encoded] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **_: object,
    ) -> Scores:
        """R = (R_fmt + R_acc + R_nonrep + R_neg) * s, each part with its weight; 0..8 with 1 each.

        Args:
            completions: chats, or texts.
            truth: of each, as `PointedTruth.to_json` writes it.
            completion_ids: their tokens; without them thoughts are counted in words.
            log_metric: as TRL hands it: takes the mean of each part.
            log_extra: likewise: takes each part of each completion.
        """
        ids: Sequence[Encoded | None] = completion_ids or [None] * len(completions)
        texts = [text_of(said) for said in completions]
        masked = self._masked(texts, truth)
        scored = [
            self._scored(text, true, tokens, mask)
            for text, true, tokens, mask in zip(texts, truth, ids, masked, strict=True)
        ]
        for name in (*PARTS, "length"):
            values = [s.length if name == "length" else s.parts[name] for s in scored]
            known = [value for value in values if value is not None]
            if log_metric is not None and known:
                log_metric(f"parts/{name}", math.fsum(known) / len(known))
            if log_extra is not None:
                log_extra(name, values)
        if log_metric is not None and scored:
            tokens_used = math.fsum(s.thought_tokens for s in scored)
            log_metric("parts/thought_tokens", tokens_used / len(scored))
        return [s.total for s in scored]

    def scored(self, text: str, truth: str, ids: Encoded | None = None) -> Scored:
        """What one completion is worth."""
        return self._scored(text, truth, ids, self._masked([text], [truth])[0])

    def _masked(self, texts: Sequence[str], truth: Sequence[str]) -> list[float | None]:
        """The part `mask` of each completion; None also where there is no tracker."""
        if self._masks is None:
            return [None] * len(texts)
        trues = [PointedTruth.from_json(true) for true in truth]
        said = [self._parsed(text).objects for text in texts]
        return self._masks(
            [
                [_prompt(item, t) for item in o] if t.masks else []
                for o, t in zip(said, trues, strict=True)
            ],
            [true.masks for true in trues],
            [(true.video, true.position) for true in trues],
        )

    def _scored(self, text: str, truth: str, ids: Encoded | None, mask: float | None) -> Scored:
        true = PointedTruth.from_json(truth)
        said = self._parsed(text)
        start, end = reasoning_span(text)
        tokens = self._counter.count(text, (start, end), ids)
        parts: dict[str, float | None] = {
            "format": grammar_reward(text, self._form) + _item_form(said, true),
            "accuracy": _accuracy(said, true),
            "repetition": repetition_reward(text[start:end]),
            "negative": _negative(said, true),
            "mask": mask,
            "no_target": no_target_reward(said.says_none, not true.boxes),
        }
        budget = token_budget(true.difficulty)
        length = soft_length_factor(tokens, budget, self._length_beta)
        known = [(name, value) for name, value in parts.items() if value is not None]
        total = math.fsum(self._weights.get(name, 0.0) * value for name, value in known)
        return Scored(parts=parts, length=length, thought_tokens=tokens, total=total * length)

    def _parsed(self, text: str) -> Pointed:
        answer = answer_of(text)
        return Pointed() if answer is None else self._method.parse(answer)


def _item_form(said: Pointed, true: PointedTruth) -> float:
    """R_fmt's second part, 0..2: share of objects with a box, and with one central point."""
    if not said.objects:
        return 2.0 if said.says_none and not true.boxes else 0.0
    good = sum(_is_finite(_row(item.box, 4)) + _is_finite(_center(item)) for item in said.objects)
    return good / len(said.objects)


def _accuracy(said: Pointed, true: PointedTruth) -> float:
    """R_acc, 0..3; what says nothing at all is never right."""
    if not said.objects and not said.says_none:
        return 0.0
    x, y = FRAME_PX / true.size_wh[0], FRAME_PX / true.size_wh[1]
    boxes = [np.multiply(_row(item.box, 4), (x, y, x, y)) for item in said.objects]
    points = [np.multiply(_center(item), (x, y)) for item in said.objects]
    return accuracy_reward(boxes, points, true.boxes, true.centers)


def _negative(said: Pointed, true: PointedTruth) -> float | None:
    """R_neg, 0..1; None where there is no target."""
    if not true.masks:
        return None
    x, y = FRAME_PX / true.size_wh[0], FRAME_PX / true.size_wh[1]
    rows = [_row(point, 2) for item in said.objects for point in item.negatives or (None,)]
    points = np.multiply(np.reshape(rows, (-1, 2)), (x, y))
    return negative_point_reward(points, true.on_frame()[None])


def _prompt(item: PointedObject, true: PointedTruth) -> SpatialPrompt | None:
    size_wh = (true.masks[0].width, true.masks[0].height)
    x, y = size_wh[0] / true.size_wh[0], size_wh[1] / true.size_wh[1]
    return prompt_from_rows(
        np.multiply(_row(item.box, 4), (x, y, x, y)).tolist(),
        [np.multiply(_row(point, 2), (x, y)).tolist() for point in item.points],
        [np.multiply(_row(point, 2), (x, y)).tolist() for point in item.negatives],
        size_wh,
    )


def _center(item: PointedObject) -> list[float]:
    return _row(item.points[0], 2) if len(item.points) == 1 else [NAN] * 2


def _row(value: object, width: int) -> list[float]:
    """So many finite numbers, or NaN for what is none, so that it counts against the policy."""
    if not isinstance(value, list | tuple) or len(value) != width:
        return [NAN] * width
    numbers = [NAN if isinstance(n, bool) or not isinstance(n, int | float) else n for n in value]
    try:
        row = [float(number) for number in numbers]
    except OverflowError:  # an integer beyond float64
        return [NAN] * width
    return row if _is_finite(row) else [NAN] * width


def _is_finite(row: Sequence[float]) -> bool:
    return all(map(math.isfinite, row))
