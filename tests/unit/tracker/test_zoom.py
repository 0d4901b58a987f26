# SPDX-License-Identifier: Apache-2.0
"""A boxed object is looked at in a window of its own where the model is small."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.sam2_models import SIZE_WH, make_frame
from tests.unit.engines.test_engines import World

from foreseg.engines.load import load_bundle
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import Mask, mask_from_rle, mask_iou
from foreseg.prompts import Point, PointLabel, SpatialPrompt
from foreseg.tracker import views
from foreseg.tracker.base import TrackKey
from foreseg.tracker.sam2 import Sam2Tracker
from foreseg.tracker.views import VIEWS, tracker_factory
from foreseg.tracker.zoom import window_around

KEY = TrackKey("a")
BOX = BoxXyxy(20, 20, 30, 30)
DISC_BOX = BoxXyxy(398, 208, 423, 233)


@pytest.fixture
def world() -> World:
    pytest.importorskip("cv2", reason="the tracker resizes with OpenCV")
    return World()


def zooming(world: World) -> Sam2Tracker:
    return Sam2Tracker(world.bundle, zooms=True)


def small_disc() -> tuple[Frame, Mask]:
    """A noisy picture with a disc of 24 pixels, and its mask."""
    rng = np.random.default_rng(3)
    ys, xs = np.mgrid[:480, :640]
    disc = (xs - 410) ** 2 + (ys - 220) ** 2 <= 12**2
    image = np.clip(110 + rng.normal(0, 12, (480, 640, 3)), 0, 255)
    image[disc] = (200, 120, 40)
    ref = FrameRef(
        camera=DEFAULT_CAMERA, index=FrameIndex(0), epoch=0, stamp_ns=0, received_ns=0,
        size_wh=(640, 480),
    )  # fmt: skip
    return Frame(ref=ref, image=image.astype(np.uint8)), disc


@given(
    st.tuples(st.integers(1, 2000), st.integers(1, 2000)),
    st.tuples(*[st.floats(0, 1, allow_nan=False)] * 4),
)
def test_a_window_holds_its_box_and_lies_in_the_frame(
    size_wh: tuple[int, int], corners: tuple[float, float, float, float]
) -> None:
    w, h = size_wh
    (x0, x1), (y0, y1) = sorted(corners[:2]), sorted(corners[2:])
    window = window_around(BoxXyxy(x0 * w, y0 * h, x1 * w, y1 * h), size_wh)
    if window is None:
        return
    a, b, c, d = window
    assert 0 <= a <= x0 * w
    assert 0 <= b <= y0 * h
    assert math.ceil(x1 * w) <= c <= w
    assert math.ceil(y1 * h) <= d <= h
    assert a < c
    assert b < d


def test_a_box_as_large_as_the_frame_has_no_window(world: World) -> None:
    w, h = SIZE_WH
    assert window_around(BoxXyxy(0, 0, w, h), SIZE_WH) is None
    zooming(world).prompt(make_frame(0), KEY, SpatialPrompt(box=BoxXyxy(0, 0, w, h)))
    assert world.launches() == [1, 0, 1, 1]


def test_the_mask_comes_from_the_window_and_is_remembered(world: World) -> None:
    window = window_around(BOX, SIZE_WH)
    assert window is not None
    x0, y0, x1, y1 = window
    tracker = zooming(world)
    tracked = tracker.prompt(make_frame(0), KEY, SpatialPrompt(box=BOX))
    assert tracked.box is not None
    for low, start, end in ((tracked.box.x0, x0, x1), (tracked.box.y0, y0, y1)):
        assert low == pytest.approx(start + (end - start) / 4, abs=2)  # the scripted mask's
    assert tracked.score == pytest.approx(0.9)
    assert tracked.object_logit == pytest.approx(3.0)
    assert world.launches() == [2, 0, 2, 1]
    assert tracker.track(make_frame(0), [KEY]).objects == (tracked,)
    tracker.track(make_frame(1), [KEY])
    assert world.launches() == [3, 1, 3, 2]


def test_points_on_what_a_window_showed_are_asked_in_a_window_with_the_box(world: World) -> None:
    apart, together = zooming(world), zooming(world)
    first, second = Point(25, 25), Point(28, 22, PointLabel.BACKGROUND)
    apart.prompt(make_frame(0), KEY, SpatialPrompt(box=BOX, points=(first,)))
    refined = apart.prompt(make_frame(0), KEY, SpatialPrompt(points=(second,)))
    assert world.launches() == [3, 0, 4, 2]  # the whole frame is encoded once
    at_once = together.prompt(make_frame(0), KEY, SpatialPrompt(box=BOX, points=(first, second)))
    assert refined == at_once
    many = SpatialPrompt(points=(first,) * 14)
    with pytest.raises(InputError, match="at most 16 points"):
        apart.prompt(make_frame(0), KEY, many)


def test_a_click_refines_what_the_shipped_tracker_saw_in_a_window() -> None:
    pytest.importorskip("onnxruntime")
    frame, disc = small_disc()
    with load_bundle("nano") as bundle:
        tracker = tracker_factory(bundle, "zoom")(1)
        tracker.prompt(frame, KEY, SpatialPrompt(box=DISC_BOX))
        clicked = tracker.prompt(frame, KEY, SpatialPrompt(points=(Point(410, 220),)))
    assert mask_iou(mask_from_rle(clicked.mask), disc) > 0.9


@pytest.mark.parametrize(("image_size", "zooms"), [(224, True), (256, True), (512, False)])
def test_by_itself_a_small_model_zooms_and_a_large_one_does_not(
    world: World, image_size: int, *, zooms: bool
) -> None:
    geometry = replace(world.bundle.manifest.geometry, image_size=image_size)
    manifest = replace(world.bundle.manifest, geometry=geometry)
    told = tracker_factory(replace(world.bundle, manifest=manifest), "auto")
    with pytest.MonkeyPatch.context() as patch:
        made = []
        patch.setattr(views, "Sam2Tracker", lambda *_, **named: made.append(named["zooms"]))
        told(1)
    assert made == [zooms]


def test_the_whole_frame_is_asked_where_the_window_shows_nothing(world: World) -> None:
    world.object_logit = -2.0
    tracked = zooming(world).prompt(make_frame(0), KEY, SpatialPrompt(box=BOX))
    assert tracked.mask.is_absent
    assert world.launches() == [2, 0, 2, 1]


@pytest.mark.parametrize(
    "prompt",
    [
        SpatialPrompt(points=(Point(25, 25),)),
        SpatialPrompt(box=BOX, points=(Point(25, 25), Point(90, 60))),
    ],
    ids=["no box", "a point outside"],
)
def test_what_a_window_cannot_hold_is_asked_of_the_whole_frame(
    world: World, prompt: SpatialPrompt
) -> None:
    zooming(world).prompt(make_frame(0), KEY, prompt)
    assert world.launches() == [1, 0, 1, 1]


def test_a_window_of_a_reduced_frame_is_cut_at_its_place(world: World) -> None:
    whole = make_frame(0)
    reduced = Frame(ref=whole.ref, image=np.ascontiguousarray(whole.image[::2, ::2]))
    prompt = SpatialPrompt(box=BOX)
    one, other = (zooming(world).prompt(frame, KEY, prompt) for frame in (whole, reduced))
    assert one == other


def test_the_shipped_tracker_sees_a_small_disc_better_in_its_window() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("cv2")
    frame, disc = small_disc()
    prompt = SpatialPrompt(box=DISC_BOX)
    with load_bundle("nano") as bundle:
        ious = [
            mask_iou(
                mask_from_rle(tracker_factory(bundle, view)(1).prompt(frame, KEY, prompt).mask),
                disc,
            )
            for view in VIEWS
        ]
    assert min(ious[1:]) > ious[0] + 0.02, ious
    assert min(ious[1:]) > 0.9, ious
