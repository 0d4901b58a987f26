# SPDX-License-Identifier: Apache-2.0
"""What every tracker keeps to (foreseg.tracker.base.Tracker), on each implementation at hand."""

from __future__ import annotations

import importlib.util
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from tests.support.edgetam_models import tiny_edgetam_bundle
from tests.support.sam2_models import SIZE_WH, make_frame, tiny_bundle

from foreseg.engines.load import Bundle, bundle_folder, load_bundle
from foreseg.errors import InputError
from foreseg.frames import Frame
from foreseg.geometry import BoxXyxy, box_from_mask
from foreseg.masks import mask_from_box, mask_from_rle, mask_iou, rle_area, rle_from_mask
from foreseg.prompts import Point, PointLabel, SpatialPrompt
from foreseg.tracker.base import FrameMasks, TrackedObject, Tracker, TrackKey

pytest.importorskip("onnxruntime", reason="the trackers here run on ONNX Runtime")
pytest.importorskip("cv2", reason="the trackers here resize with OpenCV")

A, B, C = TrackKey("a"), TrackKey("b"), TrackKey("c")
BOX_A = SpatialPrompt(box=BoxXyxy(10, 20, 40, 50))
BOX_B = SpatialPrompt(box=BoxXyxy(50, 10, 90, 60))
POINT = SpatialPrompt(points=(Point(30.0, 30.0),))
MAX_OBJECTS = 4
# Other rows in the batch change the order of sums inside a matrix product, not more.
BATCH_LOGIT = 1e-3
BATCH_IOU = 0.995

Make = Callable[..., Tracker]


EXPORTED = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("tiny", "edgetam")]


@pytest.fixture(
    scope="module", params=[*EXPORTED, "nano", "nano zoomed", "nano windowed", "repeat", "flow"]
)
def bundle(request: pytest.FixtureRequest) -> Iterator[Bundle | str]:
    if request.param in {"repeat", "flow"}:  # the baselines of evaluation need no bundle
        yield request.param
        return
    if str(request.param).startswith("nano"):
        folder = bundle_folder("nano")
    else:
        missing = [
            name
            for name in ("torch", "transformers", "onnx", "onnxscript")
            if importlib.util.find_spec(name) is None
        ]
        if missing:
            pytest.skip(f"exporting a tiny bundle needs {missing}")
        is_edgetam = request.param == "edgetam"
        folder = tiny_edgetam_bundle() if is_edgetam else tiny_bundle("nano")
    with load_bundle(folder) as opened:
        yield opened


@pytest.fixture
def make(bundle: Bundle | str, request: pytest.FixtureRequest) -> Make:
    from foreseg.tracker.sam2 import Sam2Tracker
    from foreseg.tracker.windowed import WindowedTracker
    from foreseg_evaluation.baselines import flow_tracker, repeat_tracker

    kind = request.node.callspec.params["bundle"]

    def build(max_objects: int = MAX_OBJECTS, cache_bytes: int = 64 << 20) -> Tracker:
        if isinstance(bundle, str):
            return {"repeat": repeat_tracker, "flow": flow_tracker}[bundle](max_objects)
        tracker = Sam2Tracker(
            bundle,
            max_objects=max_objects,
            feature_cache_bytes=cache_bytes,
            zooms=kind == "nano zoomed",
        )
        return WindowedTracker(tracker) if kind == "nano windowed" else tracker

    return build


@pytest.fixture
def tracker(make: Make) -> Tracker:
    return make()


def assert_same_object(a: TrackedObject, b: TrackedObject) -> None:
    assert a.object_logit == pytest.approx(b.object_logit, abs=BATCH_LOGIT)
    assert a.score == pytest.approx(b.score, abs=BATCH_LOGIT)
    assert mask_iou(mask_from_rle(a.mask), mask_from_rle(b.mask)) >= BATCH_IOU


def run(tracker: Tracker, keys: list[TrackKey], indices: range) -> list[FrameMasks]:
    return [tracker.track(make_frame(i), keys) for i in indices]


def test_results_are_consistent_at_source_size(tracker: Tracker) -> None:
    frame = make_frame(0)
    tracker.prompt(frame, A, BOX_A)
    tracker.prompt(frame, B, BOX_B)
    for result in (tracker.track(frame, [A, B]), *run(tracker, [A, B], range(1, 4))):
        assert result.label_map.shape == (SIZE_WH[1], SIZE_WH[0])
        assert result.label_map.dtype == np.uint8
        assert [tracked.key for tracked in result.objects] == [A, B]
        masks = [mask_from_rle(tracked.mask) for tracked in result.objects]
        for tracked, mask in zip(result.objects, masks, strict=True):
            assert mask.shape == (SIZE_WH[1], SIZE_WH[0])
            assert tracked.area_px == rle_area(tracked.mask) == mask.sum()
            assert tracked.box == box_from_mask(mask)
            assert 0 <= tracked.score <= 1
            assert np.isfinite(tracked.object_logit)
        assert np.array_equal(result.label_map > 0, masks[0] | masks[1])
        for i, mask in enumerate(masks):
            assert not (result.label_map == i + 1)[~mask].any()
            assert (result.label_map == i + 1)[mask & ~masks[1 - i]].all()


def test_masks_have_the_size_of_the_source_where_the_frame_is_reduced(tracker: Tracker) -> None:
    whole = make_frame(0)
    reduced = Frame(ref=whole.ref, image=np.ascontiguousarray(whole.image[::2, ::2]))
    tracked = tracker.prompt(reduced, A, BOX_A)
    assert (tracked.mask.width, tracked.mask.height) == SIZE_WH


def test_order_of_objects_is_the_order_asked_for(tracker: Tracker) -> None:
    for key, prompt in ((A, BOX_A), (B, BOX_B), (C, POINT)):
        tracker.prompt(make_frame(0), key, prompt)
    assert tracker.keys == (A, B, C)
    result = tracker.track(make_frame(1), [C, A])
    assert [tracked.key for tracked in result.objects] == [C, A]
    later = tracker.track(make_frame(2), [B, C, A])
    assert [tracked.key for tracked in later.objects] == [B, C, A]


def test_tracking_nothing_gives_an_empty_map(tracker: Tracker) -> None:
    result = tracker.track(make_frame(0), [])
    assert result.objects == ()
    assert not result.label_map.any()


def test_object_added_midstream_leaves_the_others_as_they_were(make: Make) -> None:
    alone, joined = make(), make()
    for tracker in (alone, joined):
        tracker.prompt(make_frame(0), A, BOX_A)
        run(tracker, [A], range(1, 5))
    joined.prompt(make_frame(4), B, BOX_B)
    for i in range(5, 12):
        wanted = alone.track(make_frame(i), [A]).objects[0]
        assert_same_object(joined.track(make_frame(i), [A, B]).objects[0], wanted)


def test_removed_object_leaves_the_others_as_they_were(make: Make) -> None:
    alone, joined = make(), make()
    for tracker in (alone, joined):
        tracker.prompt(make_frame(0), B, BOX_B)
    joined.prompt(make_frame(0), A, BOX_A)
    for i in range(1, 4):
        alone.track(make_frame(i), [B])
        joined.track(make_frame(i), [A, B])
    joined.drop(A)
    assert joined.keys == (B,)
    for i in range(4, 9):
        wanted = alone.track(make_frame(i), [B]).objects[0]
        assert_same_object(joined.track(make_frame(i), [B]).objects[0], wanted)


def test_rows_that_skip_frames_do_not_disturb_each_other(make: Make) -> None:
    alone, both = make(), make()
    for tracker in (alone, both):
        tracker.prompt(make_frame(0), A, BOX_A)
    both.prompt(make_frame(0), B, BOX_B)
    for i in range(1, 10):
        wanted = alone.track(make_frame(i), [A]).objects[0]
        keys = [A, B] if i % 3 == 0 else [A]
        assert_same_object(both.track(make_frame(i), keys).objects[0], wanted)


def test_same_frame_twice_is_answered_twice_the_same(tracker: Tracker) -> None:
    prompted = tracker.prompt(make_frame(0), A, BOX_A)
    assert tracker.track(make_frame(0), [A]).objects == (prompted,)
    first = tracker.track(make_frame(1), [A])
    again = tracker.track(make_frame(1), [A])
    assert again.objects == first.objects
    assert np.array_equal(again.label_map, first.label_map)


def test_tracking_a_frame_twice_is_one_step(make: Make) -> None:
    once, twice = make(), make()
    for tracker in (once, twice):
        tracker.prompt(make_frame(0), A, BOX_A)
    for i in range(1, 6):
        wanted = once.track(make_frame(i), [A]).objects
        twice.track(make_frame(i), [A])
        assert twice.track(make_frame(i), [A]).objects == wanted


def test_step_may_hop_over_any_distance_and_backward(tracker: Tracker) -> None:
    tracker.prompt(make_frame(500), A, BOX_A)
    for index in (501, 9_000, 100):
        result = tracker.track(make_frame(index), [A])
        assert result.frame.index == index


def test_mask_prompt_is_the_result(tracker: Tracker) -> None:
    mask = mask_from_box(BoxXyxy(20, 20, 60, 50), SIZE_WH)
    tracked = tracker.prompt(make_frame(0), A, SpatialPrompt(mask=rle_from_mask(mask)))
    assert np.array_equal(mask_from_rle(tracked.mask), mask)
    assert tracked.object_logit > 0
    result = tracker.track(make_frame(0), [A])
    assert np.array_equal(result.label_map == 1, mask)
    tracker.track(make_frame(1), [A])


def test_refining_replaces_the_result_and_spares_the_others(make: Make) -> None:
    plain, refined = make(), make()
    for tracker in (plain, refined):
        tracker.prompt(make_frame(0), A, BOX_A)
        tracker.prompt(make_frame(0), B, BOX_B)
        run(tracker, [A, B], range(1, 4))
    background = SpatialPrompt(points=(Point(30.0, 30.0, PointLabel.BACKGROUND),))
    tracked = refined.prompt(make_frame(3), A, background)
    assert refined.track(make_frame(3), [A]).objects == (tracked,)
    assert refined.keys == (A, B)
    for i in range(4, 8):
        wanted = plain.track(make_frame(i), [A, B]).objects[1]
        assert_same_object(refined.track(make_frame(i), [A, B]).objects[1], wanted)


def test_a_tracked_row_is_described_anew_by_prompts_on_two_frames(make: Make) -> None:
    fresh, tracked = make(), make()
    tracked.prompt(make_frame(0), A, BOX_B)
    for i in (1, 2):
        tracked.track(make_frame(i), [A])
    for tracker in (fresh, tracked):
        for i in (3, 5):
            tracker.prompt(make_frame(i), A, BOX_A)
    wanted = fresh.track(make_frame(6), [A]).objects[0]
    assert_same_object(tracked.track(make_frame(6), [A]).objects[0], wanted)


def test_refining_a_prompted_frame_adds_points(tracker: Tracker) -> None:
    tracker.prompt(make_frame(0), A, BOX_A)
    tracker.prompt(make_frame(0), A, POINT)
    tracked = tracker.prompt(make_frame(0), A, POINT)
    assert tracker.track(make_frame(0), [A]).objects == (tracked,)
    many = SpatialPrompt(points=POINT.points * 20)
    with pytest.raises(InputError, match="at most"):
        tracker.prompt(make_frame(0), A, many)


def test_prompt_outside_the_frame_is_refused_and_takes_no_row(tracker: Tracker) -> None:
    for prompt in (
        SpatialPrompt(box=BoxXyxy(200, 200, 300, 300)),
        SpatialPrompt(points=(Point(-1.0, 5.0),)),
        SpatialPrompt(mask=rle_from_mask(np.ones((3, 3), np.bool_))),
    ):
        with pytest.raises(InputError):
            tracker.prompt(make_frame(0), A, prompt)
    assert tracker.keys == ()


def test_full_tracker_refuses_more_and_goes_on(make: Make) -> None:
    tracker = make(2)
    tracker.prompt(make_frame(0), A, BOX_A)
    tracker.prompt(make_frame(0), B, BOX_B)
    with pytest.raises(InputError, match="no row is free"):
        tracker.prompt(make_frame(0), C, POINT)
    with pytest.raises(InputError, match="no row is free"):
        tracker.fork(A, C)
    assert tracker.keys == (A, B)
    tracker.track(make_frame(1), [A, B])
    tracker.drop(A)
    tracker.prompt(make_frame(1), C, POINT)
    assert tracker.max_objects == 2


def test_unknown_and_repeated_keys_are_refused(tracker: Tracker) -> None:
    tracker.prompt(make_frame(0), A, BOX_A)
    with pytest.raises(InputError, match="nobody"):
        tracker.track(make_frame(1), [A, TrackKey("nobody")])
    with pytest.raises(InputError):
        tracker.track(make_frame(1), [A, A])
    with pytest.raises(InputError):
        tracker.fork(TrackKey("nobody"), B)
    with pytest.raises(InputError):
        tracker.promote(TrackKey("nobody"), A)
    tracker.drop(TrackKey("nobody"))
    assert tracker.keys == (A,)


def test_fork_goes_its_own_way(make: Make) -> None:
    tracker, alone = make(), make()
    for each in (tracker, alone):
        each.prompt(make_frame(0), A, BOX_A)
        run(each, [A], range(1, 4))
    tracker.fork(A, B)
    with pytest.raises(InputError):
        tracker.fork(A, B)
    here = tracker.track(make_frame(3), [A, B]).objects
    assert here[0].mask == here[1].mask
    assert here[1].key == B
    twins = tracker.track(make_frame(4), [A, B]).objects
    assert_same_object(twins[0], twins[1])
    run(tracker, [B], range(20, 24))  # elsewhere
    alone.track(make_frame(4), [A])
    wanted = alone.track(make_frame(5), [A]).objects[0]
    assert_same_object(tracker.track(make_frame(5), [A]).objects[0], wanted)


def test_promoted_branch_takes_over_the_name(make: Make) -> None:
    tracker, alone = make(2), make()
    tracker.prompt(make_frame(0), A, BOX_A)
    for each, key in ((tracker, B), (alone, A)):
        each.prompt(make_frame(0), key, BOX_B)
        run(each, [key], range(1, 3))
    tracker.promote(B, A)
    assert tracker.keys == (A,)
    assert tracker.track(make_frame(2), [A]).objects[0].key == A
    wanted = alone.track(make_frame(3), [A]).objects[0]
    assert_same_object(tracker.track(make_frame(3), [A]).objects[0], wanted)
    tracker.prompt(make_frame(3), C, POINT)  # the row of the old A is free again
    tracker.promote(C, B)  # to a name that nobody has
    assert set(tracker.keys) == {A, B}
    tracker.promote(B, B)
    assert set(tracker.keys) == {A, B}


def test_reset_forgets_everything(make: Make) -> None:
    used, fresh = make(), make()
    used.prompt(make_frame(0), B, BOX_B)
    run(used, [B], range(1, 9))
    used.reset()
    assert used.keys == ()
    with pytest.raises(InputError):
        used.track(make_frame(9), [B])
    for tracker in (used, fresh):
        tracker.prompt(make_frame(10), A, BOX_A)
    wanted = fresh.track(make_frame(11), [A]).objects[0]
    assert_same_object(used.track(make_frame(11), [A]).objects[0], wanted)


def test_frame_of_a_new_epoch_with_the_same_index_is_another_frame(tracker: Tracker) -> None:
    tracker.prompt(make_frame(0), A, BOX_A)
    small = make_frame(0, size_wh=(64, 48))
    ref = small.ref.__class__(
        **{name: getattr(small.ref, name) for name in small.ref.__slots__ if name != "epoch"},
        epoch=1,
    )
    tracked = tracker.track(Frame(ref=ref, image=small.image), [A]).objects[0]
    assert (tracked.mask.width, tracked.mask.height) == (64, 48)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_stream(make: Make) -> None:
    tracker = make(cache_bytes=4 << 20)  # full long before the first look
    tracker.prompt(make_frame(0), A, BOX_A)
    tracker.prompt(make_frame(0), B, BOX_B)
    run(tracker, [A, B], range(1, 40))
    tracemalloc.start()
    try:
        run(tracker, [A, B], range(40, 50))
        before, _ = tracemalloc.get_traced_memory()
        run(tracker, [A, B], range(50, 150))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 200_000  # bytes; a hundred kept frames would be two million
