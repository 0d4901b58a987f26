# SPDX-License-Identifier: Apache-2.0
"""When drops are steady, and which cause is told."""

from __future__ import annotations

import pytest

from foreseg.config import Config
from foreseg.frames import DEFAULT_CAMERA, FrameIndex, FrameRef
from foreseg.pipeline.events import FrameArrived, FrameDropped
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.telemetry import DropCause
from foreseg_ros.drops import WINDOW_LOOKS, DropWatch, SteadyDrops

BAD, OLD = DropCause.BAD_IMAGE, DropCause.STAMP_BACKWARD


class Camera:
    """A camera of the pipeline, and one who looks at it."""

    def __init__(self) -> None:
        self.state = State.start(Config(), (DEFAULT_CAMERA,))
        self.watch = DropWatch()
        self.at_ns = 0
        self.num_taken = 0

    def second(self, num_good: int, **dropped: int) -> SteadyDrops | None:
        """One second's images, then a look."""
        for _ in range(num_good):
            self.at_ns += 10**6
            frame = FrameRef(
                camera=DEFAULT_CAMERA,
                index=FrameIndex(self.num_taken),
                stamp_ns=self.at_ns,
                received_ns=self.at_ns,
                size_wh=(4, 4),
                epoch=0,
            )
            self.num_taken += 1
            event = FrameArrived(frame=frame, oldest_index=FrameIndex(0), at_ns=self.at_ns)
            self.state, _ = step(self.state, event)
        for name, number in dropped.items():
            for _ in range(number):
                drop = FrameDropped(camera=DEFAULT_CAMERA, cause=DropCause[name], at_ns=self.at_ns)
                self.state, _ = step(self.state, drop)
        return self.watch.look(self.state.cameras[DEFAULT_CAMERA])


@pytest.fixture
def camera() -> Camera:
    made = Camera()
    assert made.second(0) is None
    return made


def test_a_stream_of_bad_images_is_told_at_once(camera: Camera) -> None:
    told = camera.second(0, BAD_IMAGE=30)
    assert told == SteadyDrops(cause=BAD, num_dropped=30, num_came=30)
    assert str(told) == "30 of the last 30 images were dropped: bad image"


def test_equal_or_backward_stamps_among_good_ones_are_told(camera: Camera) -> None:
    told = camera.second(15, STAMP_BACKWARD=15)
    assert told == SteadyDrops(cause=OLD, num_dropped=15, num_came=30)
    assert "stamp not newer" in str(told)


def test_an_accident_is_no_steady_fault(camera: Camera) -> None:
    assert camera.second(0, BAD_IMAGE=2) is None
    assert camera.second(100, BAD_IMAGE=3) is None


def test_what_is_over_is_forgotten(camera: Camera) -> None:
    assert camera.second(0, BAD_IMAGE=30) is not None
    told = [camera.second(30) for _ in range(WINDOW_LOOKS + 1)]
    assert told[0] is not None
    assert told[-1] is None


def test_what_was_dropped_before_the_first_look_does_not_count() -> None:
    camera = Camera()
    assert camera.second(0, BAD_IMAGE=30) is None
    assert camera.second(30) is None


def test_a_busy_or_disabled_node_is_no_fault_of_the_stream(camera: Camera) -> None:
    assert camera.second(5, INBOX_FULL=50, DISABLED=50) is None


def test_the_cause_of_most_drops_is_told(camera: Camera) -> None:
    told = camera.second(9, BAD_IMAGE=3, STAMP_BACKWARD=12)
    assert told is not None
    assert told.cause is OLD
