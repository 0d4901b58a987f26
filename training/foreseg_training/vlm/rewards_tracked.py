# SPDX-License-Identifier: Apache-2.0
"""Veason-R1's reward of temporal consistency, R_u: what the answered boxes become when tracked.

Boxes are matched with the true ones of the answered keyframe, and only matched ones are tracked,
both ways through the frames that the prompt shows. A completion that points at nothing true scores 0
[ours: the paper's mean would give it the frames on which nothing is to be seen]. Does not know: how
tracking is done, models, trainers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, mask_from_rle, rle_from_mask
from foreseg.methods.base import Parsed
from foreseg.methods.veason import VeasonMethod
from foreseg_evaluation.box_matching import matched_boxes
from foreseg_evaluation.episode import Episode
from foreseg_training.rewards import consistency_reward
from foreseg_training.samples import Sample
from foreseg_training.tracking import Tracked, Tracking, TrackTask

Box = Sequence[float]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """The frames that a prompt shows, by reference, with the true masks on them; a data set's column.

    Attributes:
        video: name, as the dataset has it.
        size_wh: (W, H) of a frame.
        scale_xy: from source pixels to the units in which the model counts.
        positions: in the video, by label.
        truth: COCO counts of all targets together, source size, by label; "" = no pixel. Empty if
            no shown frame has a target.
    """

    video: str
    size_wh: tuple[int, int]
    scale_xy: tuple[float, float]
    positions: Mapping[int, int]
    truth: Mapping[int, str]

    def to_json(self) -> str:
        """As text."""
        return json.dumps(
            {
                "video": self.video,
                "size_wh": self.size_wh,
                "scale_xy": self.scale_xy,
                "positions": dict(self.positions),
                "truth": dict(self.truth),
            }
        )

    @classmethod
    def from_json(cls, text: str) -> Shown:
        """Read what `to_json` wrote; keys are numbers again."""
        values = json.loads(text)
        return cls(
            video=values["video"],
            size_wh=tuple(values["size_wh"]),
            scale_xy=tuple(values["scale_xy"]),
            positions={int(label): position for label, position in values["positions"].items()},
            truth={int(label): counts for label, counts in values["truth"].items()},
        )


def shown_of(method: VeasonMethod, sample: Sample, episode: Episode) -> Shown:
    """A sample's frames and true masks.

    Args:
        method: as it will run on the robot; says in which units its model counts.
        sample: drawn of the episode.
        episode: where its frames are from.
    """
    window = method.shown(sample.window)
    truth: dict[int, str] = {}
    if any(area > 0 for area in sample.areas_px.values()):  # else nothing will be tracked
        truth = {
            window.label_of(index): rle_from_mask(episode.truth(position)).counts
            for index, position in sample.positions.items()
        }
    return Shown(
        video=episode.video,
        size_wh=episode.size_wh,
        scale_xy=method.scale_xy(method.shown(window).newest),
        positions={window.label_of(i): position for i, position in sample.positions.items()},
        truth=truth,
    )


class ConsistencyReward:
    """R_u of completions.

    Args:
        parse: what a completion says; its keyframe is None if it cannot be read.
        rows: a parsed answer's boxes, (N, 4) in the model's units, NaN for what is none.
        tracking: tracks.
    """

    def __init__(
        self,
        parse: Callable[[Any], Parsed],
        rows: Callable[[Parsed], Sequence[Box]],
        tracking: Tracking,
    ) -> None:
        self._parse = parse
        self._rows = rows
        self._tracking = tracking

    def __call__(
        self,
        completions: Sequence[Any],
        shown: Sequence[str],
        boxes: Sequence[Mapping[int, Sequence[Box]]],
        log_metric: Callable[[str, float], object] | None = None,
    ) -> list[float | None]:
        """R_u, 0..1; None where no shown frame has a target.

        A completion whose tracking failed takes the reward from all of its prompt's: a trainer would
        count it as 0 against the others.

        Args:
            completions: as the trainer hands them.
            shown: `Shown` of each one's prompt.
            boxes: true boxes of its prompt by label, in the model's units.
            log_metric: gets the share of tasks that were given up.
        """
        prompts = {text: Shown.from_json(text) for text in set(shown)}
        tasks: dict[TrackTask, None] = {}  # a set that keeps the order
        wanted: list[TrackTask | None] = []
        for said, text, true in zip(completions, shown, boxes, strict=True):
            task = self._task(self._parse(said), prompts[text], true)
            wanted.append(task)
            if task is not None:
                tasks[task] = None
        found = dict(zip(tasks, self._tracking.run(list(tasks)), strict=True))
        failed = {
            text
            for task, text in zip(wanted, shown, strict=True)
            if task is not None and found[task] is None
        }
        if failed:
            _LOG.warning("R_u is left out for %d prompts whose tracking failed", len(failed))
        if log_metric is not None and tasks:
            num_failed = sum(masks is None for masks in found.values())
            log_metric("consistency/failed", num_failed / len(tasks))
        scores: list[float | None] = []
        for task, text in zip(wanted, shown, strict=True):
            prompt = prompts[text]
            masks = None if task is None else found[task]
            if not any(prompt.truth.values()) or text in failed:
                scores.append(None)
            else:
                scores.append(0.0 if masks is None else _score(masks, prompt))
        return scores

    def _task(
        self, parsed: Parsed, prompt: Shown, boxes: Mapping[int, Sequence[Box]]
    ) -> TrackTask | None:
        """The matched boxes of an answer; None if none is to be tracked."""
        keyframe = parsed.keyframe
        if not any(prompt.truth.values()) or keyframe is None or keyframe not in prompt.positions:
            return None
        rows = self._rows(parsed)
        pairs = matched_boxes(rows, boxes.get(keyframe, ()))
        if not pairs:
            return None
        back = (1 / prompt.scale_xy[0], 1 / prompt.scale_xy[1])
        found = (BoxXyxy(*map(float, rows[number])).scaled(back) for number, _ in pairs)
        positions = tuple(prompt.positions.values())
        return TrackTask(
            video=prompt.video,
            positions=positions,
            size_wh=prompt.size_wh,
            keyframe=positions.index(prompt.positions[keyframe]),
            boxes=tuple(box.clipped(prompt.size_wh) for box in found),
        )


def _score(masks: Tracked, prompt: Shown) -> float:
    width, height = prompt.size_wh
    truth = [
        mask_from_rle(MaskRle(height=height, width=width, counts=prompt.truth[label]))
        for label in prompt.positions
    ]
    return consistency_reward(np.stack([mask_from_rle(m) for m in masks]), np.stack(truth))
