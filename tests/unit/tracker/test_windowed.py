# SPDX-License-Identifier: Apache-2.0
"""The window of an object follows it, grows while it is not seen, and stays in the frame.

The scripted mask fills the middle half of what is seen, so a result's box tells its window.
"""

from __future__ import annotations

import pytest
from tests.support.sam2_models import make_frame
from tests.unit.engines.test_engines import World

from foreseg.errors import ConfigError
from foreseg.geometry import BoxXyxy
from foreseg.masks import mask_from_box, rle_from_mask
from foreseg.prompts import Point, SpatialPrompt
from foreseg.tracker.base import TrackedObject, Tracker, TrackKey
from foreseg.tracker.views import tracker_factory

A, B = TrackKey("a"), TrackKey("b")
SIZE_WH = (640, 480)
BOX = BoxXyxy(300, 200, 340, 230)
HALF_PX = 2.0  # what rounding of the scripted mask's edges takes


@pytest.fixture
def world() -> World:
    pytest.importorskip("cv2", reason="the tracker resizes with OpenCV")
    return World()


@pytest.fixture
def tracker(world: World) -> Tracker:
    return tracker_factory(world.bundle, "window")(4)


def frame(index: int):  # noqa: ANN201
    return make_frame(index, size_wh=SIZE_WH)


def window_of(tracked: TrackedObject) -> tuple[float, float, float, float]:
    """Centre and sides of the window that shows this result."""
    assert tracked.box is not None
    x, y = tracked.box.centre_xy
    return x, y, 2 * tracked.box.width, 2 * tracked.box.height


def test_a_window_is_a_square_around_what_is_prompted(tracker: Tracker) -> None:
    mask = rle_from_mask(mask_from_box(BOX, SIZE_WH))
    x, y, width, height = window_of(tracker.prompt(frame(0), A, SpatialPrompt(box=BOX)))
    assert (x, y) == pytest.approx(BOX.centre_xy, abs=HALF_PX)
    assert (width, height) == pytest.approx((120, 120), abs=2 * HALF_PX)
    assert tracker.prompt(frame(0), B, SpatialPrompt(mask=mask)).box == BOX
    x, y, width, height = window_of(tracker.track(frame(1), [B]).objects[0])
    assert (x, y) == pytest.approx(BOX.centre_xy, abs=HALF_PX)
    assert (width, height) == pytest.approx((120, 120), abs=2 * HALF_PX)


def test_a_window_at_the_edge_stays_in_the_frame(tracker: Tracker) -> None:
    tracked = tracker.prompt(frame(0), A, SpatialPrompt(box=BoxXyxy(0, 440, 40, 480)))
    assert tracked.box == pytest.approx(BoxXyxy(30, 390, 90, 450), abs=HALF_PX)


def test_a_window_changes_slowly_and_grows_faster_while_nothing_is_seen(
    world: World, tracker: Tracker
) -> None:
    tracker.prompt(frame(0), A, SpatialPrompt(box=BOX))
    first = window_of(tracker.track(frame(1), [A]).objects[0])[2]
    second = window_of(tracker.track(frame(2), [A]).objects[0])[2]
    assert first == pytest.approx(120 * 1.1, abs=2 * HALF_PX)  # half of it wants 1.5 times
    assert second == pytest.approx(120 * 1.1**2, abs=2 * HALF_PX)
    world.object_logit = -2.0
    for index in range(3, 20):
        assert tracker.track(frame(index), [A]).objects[0].mask.is_absent
    world.object_logit = 3.0
    x, y, width, height = window_of(tracker.track(frame(20), [A]).objects[0])
    assert (width, height) == pytest.approx(SIZE_WH, abs=2 * HALF_PX)
    assert (x, y) == pytest.approx((320, 240), abs=HALF_PX)


def test_a_click_without_a_box_sees_the_whole_frame_and_one_in_the_window_refines(
    world: World, tracker: Tracker
) -> None:
    tracked = tracker.prompt(frame(0), A, SpatialPrompt(points=(Point(30, 30),)))
    assert window_of(tracked)[2:] == pytest.approx(SIZE_WH, abs=2 * HALF_PX)
    tracker.prompt(frame(0), B, SpatialPrompt(box=BOX))
    encoded = world.launches()[0]
    refined = tracker.prompt(frame(0), B, SpatialPrompt(points=(Point(320, 215),)))
    assert window_of(refined)[2] == pytest.approx(120, abs=2 * HALF_PX)
    assert world.launches()[0] == encoded
    outside = tracker.prompt(frame(0), B, SpatialPrompt(points=(Point(5, 5),)))
    assert window_of(outside)[2:] == pytest.approx(SIZE_WH, abs=2 * HALF_PX)


def test_a_branch_goes_its_own_way_from_where_it_was_forked(tracker: Tracker) -> None:
    first = tracker.prompt(frame(0), A, SpatialPrompt(box=BOX))
    tracker.fork(A, B)
    both = tracker.track(frame(0), [A, B]).objects
    assert [tracked.box for tracked in both] == [first.box, first.box]
    alone = tracker.track(frame(1), [B]).objects[0]
    assert tracker.track(frame(0), [A]).objects[0].box == first.box
    tracker.promote(B, A)
    assert tracker.keys == (A,)
    assert tracker.track(frame(1), [A]).objects[0].box == alone.box


def test_a_view_that_is_none_is_refused_with_those_that_are(world: World) -> None:
    with pytest.raises(ConfigError, match="wants one of auto, whole, zoom, window, got 'wide'"):
        tracker_factory(world.bundle, "wide")
