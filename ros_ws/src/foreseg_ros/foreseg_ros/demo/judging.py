# SPDX-License-Identifier: Apache-2.0
"""Compares what was published in part one with the scene's own truth, frame by frame.

The scene is drawn again from its seed; frames are matched by header stamp.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from foreseg.dialogue import AnswerStatus
from foreseg_evaluation.metrics import region_similarity
from foreseg_ros.demo.parts import PartResult
from foreseg_ros.demo.recording import SeenAnswer
from foreseg_ros.demo.scene import DemoScene
from foreseg_simulation.foresight import ForesightFrame, ForesightScene, FutureTruth

NOTHING = "nothing"
MIN_AREA_PX = 100  # of the true object: less of it in view is not judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One answer against the truth at its keyframe."""

    answer: SeenAnswer
    expected: str  # the words for the true target
    named: str  # the words for what the answer's box is on
    expires_s: float  # from the keyframe to the event
    js: tuple[float, ...]  # of every published mask frame on which the target is in view
    first_mask_js: tuple[float, ...]  # of the first of these masks, repeated

    @property
    def is_right(self) -> bool:
        """True if the box is on the object that the event is about, or nothing is said where nothing is."""
        if self.answer.status == AnswerStatus.NO_TARGET.name:
            return self.expected == NOTHING
        return self.answer.is_ok and self.expected == self.named != NOTHING

    @property
    def j(self) -> float | None:
        """Mean J of the true target's mask; None if no frame could be judged."""
        return float(np.mean(self.js)) if self.js else None

    @property
    def j_first_mask(self) -> float | None:
        """Mean J of repeating the first mask: the stupidest tracker."""
        return float(np.mean(self.first_mask_js)) if self.first_mask_js else None


class _Judging:
    """One answer while the scene passes by."""

    def __init__(self, answer: SeenAnswer) -> None:
        self.answer = answer
        self.truth: FutureTruth | None = None
        self.named_id = 0
        self.expires_s = 0.0
        self.js: list[float] = []
        self.first_mask_js: list[float] = []
        self._first_mask: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] | None = None

    def see_keyframe(self, frame: ForesightFrame) -> None:
        """The truth at the keyframe, and what the answer's box is on."""
        self.truth = next(t for t in frame.truths if t.question == self.answer.query)
        self.expires_s = (self.truth.event_ns - frame.stamp_ns) / 1e9
        if self.answer.box is None:
            return
        x0, y0, x1, y1 = (round(v) for v in self.answer.box)
        inside = np.zeros(frame.instance_ids.shape, dtype=np.bool_)
        inside[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        ids = [int(i) for i in np.unique(frame.instance_ids) if i]
        scores = {i: region_similarity(frame.instance_ids == i, inside) for i in ids}
        best = max(scores, key=lambda i: scores[i], default=0)
        self.named_id = best if scores.get(best, 0.0) > 0 else 0

    def see_masks(self, frame: ForesightFrame, result: PartResult, stamp_ns: int) -> None:
        """One frame with masks, after the answer."""
        tracks = result.recording.tracks.get(stamp_ns)
        if self.truth is None or self.truth.target_id is None or tracks is None:
            return
        index = next((t.index for t in tracks if t.object_id in self.answer.object_ids), None)
        if index is None:
            return
        mask = result.recording.label_map(stamp_ns) == index
        if self._first_mask is None:
            self._first_mask = mask
        true_mask = frame.instance_ids == self.truth.target_id
        if np.count_nonzero(true_mask) < MIN_AREA_PX:
            return
        self.js.append(region_similarity(true_mask, mask))
        self.first_mask_js.append(region_similarity(true_mask, self._first_mask))


def judge(result: PartResult, scene: DemoScene) -> tuple[Judged, ...]:
    """Every answer of part one against the scene."""
    world = scene.make()
    judgings = [_Judging(answer) for answer in result.recording.answers]
    for frame, stamp_ns in _frames_with_stamps(world, result):
        for judging in judgings:
            if stamp_ns == judging.answer.keyframe_stamp_ns:
                judging.see_keyframe(frame)
            if stamp_ns in result.recording.masks and stamp_ns > judging.answer.keyframe_stamp_ns:
                judging.see_masks(frame, result, stamp_ns)
    return tuple(
        Judged(
            answer=judging.answer,
            expected=_name(world, judging.truth),
            named=world.names.get(judging.named_id, NOTHING),
            expires_s=judging.expires_s,
            js=tuple(judging.js),
            first_mask_js=tuple(judging.first_mask_js),
        )
        for judging in judgings
    )


def _frames_with_stamps(
    world: ForesightScene, result: PartResult
) -> Iterator[tuple[ForesightFrame, int]]:
    stamps = {index: stamp_ns for stamp_ns, index in result.sent.items()}
    for frame in islice(world.frames(), max(stamps, default=-1) + 1):
        if frame.index in stamps:
            yield frame, stamps[frame.index]


def _name(world: ForesightScene, truth: FutureTruth | None) -> str:
    if truth is None:
        return "unknown"
    return NOTHING if truth.target_id is None else world.names[truth.target_id]
