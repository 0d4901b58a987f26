# SPDX-License-Identifier: Apache-2.0
"""Veason-R1's rewards over completions as TRL hands them: read by the robot's reader, then scored.

Boxes are compared in the model's own units, as they are said: what the robot would repair or clip
counts as it stands. Does not know: models, frames, trainers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreseg.errors import ConfigError
from foreseg.methods.base import Parsed
from foreseg.methods.grammar import Form, answer_of
from foreseg.methods.veason import VeasonMethod
from foreseg_training.rewards import (
    box_form_reward,
    grammar_reward,
    keyframe_reward,
    no_target_reward,
    spatial_reward,
)
from foreseg_training.runs.watched_rewards import RewardFunction, Scores, text_of
from foreseg_training.samples import Sample
from foreseg_training.tracking import Tracking
from foreseg_training.vlm.rewards_tracked import ConsistencyReward


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true of a prompt, as a column of a data set carries it."""

    areas: Mapping[int, float]  # by label of each shown frame
    boxes: Mapping[int, Sequence[Sequence[float]]]  # likewise, in the model's units

    @property
    def has_target(self) -> bool:
        """True if any shown frame has a target."""
        return any(area > 0 for area in self.areas.values())

    def to_json(self) -> str:
        """As text."""
        return json.dumps({"areas": dict(self.areas), "boxes": dict(self.boxes)})

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """Read what `to_json` wrote; keys are numbers again."""
        values = json.loads(text)
        return cls(
            areas={int(label): area for label, area in values["areas"].items()},
            boxes={int(label): boxes for label, boxes in values["boxes"].items()},
        )


def truth_of(method: VeasonMethod, sample: Sample) -> Truth:
    """A sample's truth in the units in which the method's model counts."""
    shown = method.shown(sample.window)
    boxes = {}
    for frame in shown.frames:
        scale = method.scale_xy(frame)
        label = shown.label_of(frame.index)
        boxes[label] = [list(box.scaled(scale)) for box in sample.boxes[frame.index]]
    areas = {shown.label_of(index): area for index, area in sample.areas_px.items()}
    return Truth(areas=areas, boxes=boxes)


class VeasonRewards:
    """The reward functions of one run, each under its name; a batch is parsed once for all."""

    def __init__(self, method: VeasonMethod, form: Form, tracking: Tracking | None = None) -> None:
        self._method = method
        self._form = form
        self._known: dict[str, Parsed] = {}
        self._consistency = None
        if tracking is not None:
            self._consistency = ConsistencyReward(self._said, rows_of, tracking)

    def functions(self, weights: Mapping[str, float]) -> tuple[list[RewardFunction], list[float]]:
        """The functions with a weight, and their weights.

        Raises:
            ConfigError: a name that is none, or no weight at all; a weight for `consistency`
                without a tracker.
        """
        known: dict[str, RewardFunction] = {
            "format": self.format,
            "keyframe": self.keyframe,
            "spatial": self.spatial,
            "consistency": self.consistency,
            "no_target": self.no_target,
        }
        unknown = set(weights) - set(known)
        if unknown or not any(weights.values()):
            msg = f"reward_weights want some of {', '.join(known)}, got {dict(weights)}"
            raise ConfigError(msg)
        used = [name for name in known if weights.get(name)]
        if "consistency" in used and self._consistency is None:
            msg = f"the reward consistency (weight {weights['consistency']}) wants a tracker"
            raise ConfigError(msg)
        return [known[name] for name in used], [weights[name] for name in used]

    def format(self, completions: Sequence[Any], **_: object) -> Scores:
        """R_f, 0..2: the grammar, and the share of well-formed boxes (0 without a keyframe).

        [ours] What says that nothing fits has both, as in `rewards_videoseg`: with boxes alone a false
        box would be worth as much as the truth where nothing fits.
        """
        scores: Scores = []
        for text in map(text_of, completions):
            parsed = self._parsed(text)
            items = float(parsed.says_none)
            if parsed.keyframe is not None and parsed.items:
                items = box_form_reward(parsed.items)
            scores.append(grammar_reward(text, self._form) + items)
        return scores

    def keyframe(self, completions: Sequence[Any], truth: Sequence[str], **_: object) -> Scores:
        """R_k, 0..1; None where no shown frame has a target."""
        return [
            keyframe_reward(self._parsed(text_of(said)).keyframe, Truth.from_json(true).areas)
            for said, true in zip(completions, truth, strict=True)
        ]

    def spatial(self, completions: Sequence[Any], truth: Sequence[str], **_: object) -> Scores:
        """R_s, 0..1, against the targets in the answered keyframe; None likewise."""
        scores: Scores = []
        for said, text in zip(completions, truth, strict=True):
            parsed, true = self._parsed(text_of(said)), Truth.from_json(text)
            if not true.has_target:
                scores.append(None)
            elif parsed.keyframe is None or parsed.keyframe not in true.boxes:
                scores.append(0.0)
            else:
                scores.append(spatial_reward(rows_of(parsed), true.boxes[parsed.keyframe]))
        return scores

    def consistency(
        self,
        completions: Sequence[Any],
        truth: Sequence[str],
        shown: Sequence[str],
        log_metric: Callable[[str, float], object] | None = None,
        **_: object,
    ) -> Scores:
        """R_u, 0..1, of the matched boxes tracked through the shown frames; None likewise."""
        assert self._consistency is not None  # noqa: S101 (`functions` looked)
        boxes = [Truth.from_json(text).boxes for text in truth]
        return self._consistency(completions, shown, boxes, log_metric)

    def no_target(self, completions: Sequence[Any], truth: Sequence[str], **_: object) -> Scores:
        """Ours, 0 or 1: says that nothing fits exactly where nothing does."""
        return [
            no_target_reward(
                self._parsed(text_of(said)).says_none, not Truth.from_json(true).has_target
            )
            for said, true in zip(completions, truth, strict=True)
        ]

    def _said(self, completion: Any) -> Parsed:  # noqa: ANN401 (as `text_of`)
        return self._parsed(text_of(completion))

    def _parsed(self, text: str) -> Parsed:
        if text not in self._known:
            if len(self._known) >= 4096:
                self._known.clear()
            answer = answer_of(text)
            self._known[text] = Parsed() if answer is None else self._method.parse(answer)
        return self._known[text]


def rows_of(parsed: Parsed) -> list[list[float]]:
    """A parsed answer's boxes, (N, 4)."""
    return [_row(item) for item in parsed.items]


def _row(item: object) -> list[float]:
    """Four numbers, or NaN for what is no box, so that it counts against the policy."""
    if box_form_reward([item]) and isinstance(item, list):
        return [float(number) for number in item]
    return [np.nan] * 4
