# SPDX-License-Identifier: Apache-2.0
"""Prompts tracked both ways from a keyframe: each frame once, from it outwards, on clean rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.support.colour_tracker import ColourTracker

from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, mask_from_rle, rle_from_mask
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import FrameMasks, TrackedObject, TrackKey
from foreseg.tracker.both_ways import track_prompts

RED, BLUE = (220, 40, 40), (40, 60, 220)
SIZE_WH = (40, 24)


def frames(count: int) -> list[Frame]:
    """Red moves right by two pixels a frame, blue stands."""
    made = []
    for index in range(count):
        image = np.full((SIZE_WH[1], SIZE_WH[0], 3), 90, dtype=np.uint8)
        image[2:8, 2 + 2 * index : 8 + 2 * index] = RED
        image[14:20, 30:36] = BLUE
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(index),
            epoch=0,
            stamp_ns=index,
            received_ns=index,
            size_wh=SIZE_WH,
        )
        made.append(Frame(ref=ref, image=image))
    return made


class Noting(ColourTracker):
    """Notes the order of its work."""

    def __init__(self, max_objects: int) -> None:
        super().__init__(max_objects)
        self.seen: list[int] = []
        self.num_rows: list[int] = []

    def track(self, frame: Frame, keys: Sequence[TrackKey]) -> FrameMasks:
        self.seen.append(int(frame.index))
        self.num_rows.append(len(self.keys))
        return super().track(frame, keys)


def prompts(keyframe: int) -> list[SpatialPrompt]:
    x = 2 + 2 * keyframe
    return [
        SpatialPrompt(box=BoxXyxy(x, 2, x + 6, 8)),
        SpatialPrompt(box=BoxXyxy(30, 14, 36, 20)),
    ]


@pytest.mark.parametrize("keyframe", [0, 2, 4])
def test_every_frame_has_the_union_of_the_objects(keyframe: int) -> None:
    shown = frames(5)
    tracker = Noting(2)
    masks = track_prompts(tracker, shown, prompts(keyframe), keyframe)
    for frame, mask in zip(shown, masks, strict=True):
        np.testing.assert_array_equal(mask_from_rle(mask), (frame.image != 90).any(axis=2))
    assert tracker.seen == [*range(keyframe, -1, -1), *range(keyframe, 5)]
    assert set(tracker.num_rows) == {2}  # none is left of the other way
    assert tracker.keys == ()


class Prompted(Noting):
    """Notes where an object is prompted, and whether it was tracked before."""

    def __init__(self, max_objects: int) -> None:
        super().__init__(max_objects)
        self.prompted: list[tuple[int, int]] = []

    def prompt(self, frame: Frame, key: TrackKey, prompt: SpatialPrompt) -> TrackedObject:
        self.prompted.append((int(frame.index), len(self.seen)))
        return super().prompt(frame, key, prompt)


def test_masks_of_other_frames_condition_the_only_object_before_it_is_tracked() -> None:
    shown, tracker = frames(5), Prompted(1)
    drawn = {i: rle_from_mask((shown[i].image == RED).all(axis=2)) for i in (0, 2, 4)}
    drawn[1] = MaskRle(height=SIZE_WH[1], width=SIZE_WH[0], counts="")  # nothing there
    track_prompts(tracker, shown, prompts(2)[:1], 2, drawn)
    assert tracker.prompted == [(0, 0), (4, 0), (2, 0), (0, 3), (4, 3), (2, 3)]
    tracker = Prompted(2)
    track_prompts(tracker, shown, prompts(2), 2, drawn)  # of two objects: whose are they?
    assert {index for index, _ in tracker.prompted} == {2}


def test_without_prompts_every_mask_is_empty() -> None:
    tracker = Noting(1)
    assert all(mask.is_absent for mask in track_prompts(tracker, frames(3), [], 1))
    assert tracker.seen == []


@pytest.mark.parametrize("keyframe", [-1, 3])
def test_a_keyframe_that_is_no_frame_is_refused(keyframe: int) -> None:
    with pytest.raises(InputError, match=f"one of 3 frames, got {keyframe}"):
        track_prompts(ColourTracker(2), frames(3), prompts(0), keyframe)


def test_more_prompts_than_rows_are_refused() -> None:
    with pytest.raises(InputError, match="no row is free"):
        track_prompts(ColourTracker(1), frames(2), prompts(0), 0)
