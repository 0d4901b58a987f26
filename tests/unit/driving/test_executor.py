# SPDX-License-Identifier: Apache-2.0
"""What is painted where no tracker ran, and which frames a question is given."""

from __future__ import annotations

import numpy as np
from tests.support.colour_tracker import ColourTracker
from tests.support.scene import image_of

from foreseg.config import Config
from foreseg.dialogue import Query, QueryId
from foreseg.driving.executor import Executor
from foreseg.driving.label_origins import MAX_OFFSET
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.history.windows import UniformWindow
from foreseg.masks import MaskRle, mask_from_box, rle_from_mask
from foreseg.pipeline.events import AskId, FrameArrived, PublishMasks
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackKey

SIZE_WH = (64, 48)


def pushed() -> tuple[Executor, FrameRef]:
    executor = Executor(Config(), (DEFAULT_CAMERA,), ColourTracker)
    arrived = executor.push(DEFAULT_CAMERA, image_of(0, SIZE_WH), stamp_ns=0, at_ns=0)
    assert isinstance(arrived, FrameArrived)
    return executor, arrived.frame


def held(index: int, box: BoxXyxy, score: float, size_wh: tuple[int, int] = SIZE_WH) -> Track:
    mask: MaskRle = rle_from_mask(mask_from_box(box, size_wh))
    return Track(
        object_id=ObjectId(f"object-{index}"),
        query_ids=(),
        index=index,
        key=TrackKey(f"row-{index}"),
        state=TrackState.UNCERTAIN,
        score=score,
        box=box,
        area_px=int(box.area),
        answer_age_s=1.0,
        catching_up=False,
        mask=mask,
    )


def test_held_masks_are_painted_the_surer_one_on_top() -> None:
    executor, frame = pushed()
    tracks = (held(1, BoxXyxy(10, 10, 30, 30), 0.9), held(2, BoxXyxy(20, 20, 40, 40), 0.4))
    masks = executor.render(PublishMasks(frame=frame, job_id=None, tracks=tracks))
    assert masks.label_map.dtype == np.uint8
    assert masks.label_map[25, 25] == 1
    assert masks.label_map[35, 35] == 2
    assert (masks.label_map == 1).sum() == 400
    assert (masks.label_map == 2).sum() == 300


def test_a_mask_of_another_size_is_not_held_and_without_tracks_the_map_is_empty() -> None:
    executor, frame = pushed()
    other = held(1, BoxXyxy(1, 1, 9, 9), 0.9, size_wh=(32, 24))
    assert not executor.render(
        PublishMasks(frame=frame, job_id=None, tracks=(other,))
    ).label_map.any()
    assert not executor.render(PublishMasks(frame=frame, job_id=None, tracks=())).label_map.any()


def test_a_window_has_nothing_of_the_stream_before_a_restart() -> None:
    executor = Executor(Config(), (DEFAULT_CAMERA,), ColourTracker)
    query = Query(id=QueryId("q"), text="which one?")
    for number in range(60):
        seconds = number if number < 40 else number - 40
        image = image_of(number, SIZE_WH)
        executor.push(DEFAULT_CAMERA, image, stamp_ns=seconds * 10**9, at_ns=number)
    window = executor.take_window(AskId(1), query, UniformWindow(num_frames=8))
    indices = [int(frame.index) for frame in window.frames]
    assert (indices[0], indices[-1]) == (40, 59)
    assert 0 <= window.label_of(window.frames[0].index) <= MAX_OFFSET
    more = executor.more_frames(AskId(1), [FrameIndex(39), FrameIndex(45)])
    assert [int(frame.index) for frame in more.frames] == [45]


def test_a_frame_keeps_its_label_from_asking_to_asking() -> None:
    executor = Executor(Config(), (DEFAULT_CAMERA,), ColourTracker)
    labels = []
    for number in range(30):
        executor.push(
            DEFAULT_CAMERA, image_of(number, SIZE_WH), stamp_ns=number * 10**9, at_ns=number
        )
        if number in (9, 29):
            query = Query(id=QueryId("q"), text="which one?")
            window = executor.take_window(AskId(number), query, UniformWindow(num_frames=30))
            labels.append({int(index): window.label_of(index) for index in window.indices})
            assert executor.label_origin(AskId(number)) == window.origin_index
            executor.release_window(AskId(number))
    assert labels[0].items() <= labels[1].items()
    other = executor.take_window(
        AskId(99), Query(id=QueryId("other"), text="?"), UniformWindow(num_frames=2)
    )
    assert other.label_of(FrameIndex(0)) == labels[0][0]
