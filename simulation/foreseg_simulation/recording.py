# SPDX-License-Identifier: Apache-2.0
"""Frames of a scene, compressed as they come: a JPEG, run-length masks, and the truths.

Does not know: which frames become a clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from foreseg.masks import MaskRle, rle_from_mask

from .foresight import ForesightScene, FutureTruth
from .questions import PastEvent
from .textures import U8Array

JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The visible part of an object on one frame."""

    mask: MaskRle
    box_xyxy: tuple[int, int, int, int]  # pixels, exclusive ends
    area_px: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One frame, compressed."""

    stamp_ns: int
    jpeg: bytes
    objects: Mapping[int, Seen]  # by instance id; what is hidden is absent
    truths: tuple[FutureTruth, ...]

    def truth(self, question: str) -> FutureTruth | None:
        """The truth of one question; None if the frame has none."""
        return next((truth for truth in self.truths if truth.question == question), None)


def record(scene: ForesightScene, num_frames: int) -> list[Shot]:
    """Record a scene's first frames."""
    names = scene.names
    return [
        shot_of(frame.image, frame.instance_ids, names, frame.stamp_ns, frame.truths)
        for frame in itertools.islice(scene.frames(), num_frames)
    ]


def events_of(shots: Sequence[Shot]) -> list[PastEvent]:
    """List the truths that came true between one frame and the next; positions count shots."""
    events = []
    for position, (before, after) in enumerate(itertools.pairwise(shots), start=1):
        for truth in before.truths:
            has_come = truth.event_ns <= after.stamp_ns
            if has_come and truth.target_id is not None:
                events.append(
                    PastEvent(topic=truth.topic, target_id=truth.target_id, position=position)
                )
    return events


def image_of(shot: Shot) -> U8Array:
    """Decompress a shot's frame, (H, W, 3) RGB."""
    bgr = cv2.imdecode(np.frombuffer(shot.jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def shot_of(
    image: U8Array,
    instance_ids: U8Array,
    names: Iterable[int],
    stamp_ns: int,
    truths: tuple[FutureTruth, ...] = (),
) -> Shot:
    """Compress a frame.

    Args:
        image: (H, W, 3) RGB.
        instance_ids: (H, W), 0 background.
        names: ids of the objects that are kept.
        stamp_ns: its time.
        truths: at that time.
    """
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    areas = np.bincount(instance_ids.ravel(), minlength=256)
    return Shot(
        stamp_ns=stamp_ns,
        jpeg=data.tobytes(),
        objects={i: _seen(instance_ids == i) for i in names if areas[i]},
        truths=truths,
    )


def _seen(mask: np.ndarray) -> Seen:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return Seen(
        mask=rle_from_mask(mask),
        box_xyxy=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        area_px=int(np.count_nonzero(mask)),
    )
