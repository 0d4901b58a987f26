# SPDX-License-Identifier: Apache-2.0
"""What VideoSeg-R1's text adds to its accuracy: the mask that an object's prompt gives, against the truth.

Its public predecessor (VisionReasoner's code) rewards boxes and points alone, and so do recipes as
they are shipped: this term has the weight 0. The masks are the frozen tracker's on the target frame,
from box, points and negative points together. Does not know: questions, models, other rewards.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, rle_iou
from foreseg.prompts import Point, PointLabel, SpatialPrompt
from foreseg_training.rewards import MATCH_IOU
from foreseg_training.tracking import Tracked, Tracking, TrackTask

Row = Sequence[float]


def prompt_from_rows(
    box: Row, points: Sequence[Row], negatives: Sequence[Row], size_wh: tuple[int, int]
) -> SpatialPrompt | None:
    """An object's prompt as the robot would give it to the tracker; None if nothing can be used.

    Args:
        box: four numbers, source pixels; NaN: none was said.
        points: two numbers each, on it.
        negatives: likewise, beside it.
        size_wh: of the frame.
    """
    given = None
    if np.isfinite(box).all():
        x0, y0, x1, y1 = (float(number) for number in box)
        clipped = BoxXyxy(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)).clipped(size_wh)
        given = clipped if clipped.width >= 1 and clipped.height >= 1 else None
    marks = [
        Point(float(x), float(y), label)
        for rows, label in ((points, PointLabel.FOREGROUND), (negatives, PointLabel.BACKGROUND))
        for x, y in rows
        if 0 <= x < size_wh[0] and 0 <= y < size_wh[1]  # NaN is in no range
    ]
    if given is None and not any(mark.label is PointLabel.FOREGROUND for mark in marks):
        return None
    try:
        return SpatialPrompt(box=given, points=tuple(marks)).checked(size_wh)
    except InputError:
        return None


class MaskAccuracy:
    """Share of objects whose mask overlaps its match by more than half, of the larger number.

    Args:
        tracking: makes masks of prompts.
    """

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def __call__(
        self,
        prompts: Sequence[Sequence[SpatialPrompt | None]],
        truths: Sequence[Sequence[MaskRle]],
        places: Sequence[tuple[str, int]],
    ) -> list[float | None]:
        """0..1 for each completion; None where there is no target.

        A completion whose masks could not be made takes the term from all of its frame's: it would
        count as 0 against the others.

        Args:
            prompts: of each completion, of each object that it says; None: unusable.
            truths: of each completion's target frame, source size.
            places: video and position of that frame.
        """
        tasks: dict[TrackTask, None] = {}  # a set that keeps the order
        wanted: list[list[TrackTask | None]] = []
        for said, truth, place in zip(prompts, truths, places, strict=True):
            mine = [_task(prompt, truth, place) if truth else None for prompt in said]
            wanted.append(mine)
            tasks.update((task, None) for task in mine if task is not None)
        found = dict(zip(tasks, self._tracking.run(list(tasks)), strict=True))
        failed = {(task.video, task.positions[0]) for task in tasks if found[task] is None}
        return [
            None if not truth or place in failed else _share(mine, truth, found)
            for mine, truth, place in zip(wanted, truths, places, strict=True)
        ]


def _task(
    prompt: SpatialPrompt | None, truth: Sequence[MaskRle], place: tuple[str, int]
) -> TrackTask | None:
    if prompt is None:
        return None
    return TrackTask(
        video=place[0],
        positions=(place[1],),
        size_wh=(truth[0].width, truth[0].height),
        keyframe=0,
        boxes=(),
        prompts=(prompt,),
    )


def _share(
    mine: Sequence[TrackTask | None],
    truth: Sequence[MaskRle],
    found: dict[TrackTask, Tracked | None],
) -> float:
    made = [None if task is None else found[task] for task in mine]
    overlaps = np.array(
        [[0.0 if m is None else rle_iou(m[0], true) for true in truth] for m in made]
    ).reshape(len(made), len(truth))
    good = (overlaps > MATCH_IOU).astype(np.float64)
    rows, columns = linear_sum_assignment(good, maximize=True)
    return float(good[rows, columns].sum()) / max(len(made), len(truth))
