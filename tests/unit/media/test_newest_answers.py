# SPDX-License-Identifier: Apache-2.0
"""The keyframe beside the masks: when it shows, in which colours, and that little is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.colour_tracker import ColourTracker
from tests.support.pointing_reasoner import PointingReasoner
from tests.support.scene import SIZE_WH, image_of

from foreseg.commands import run_files
from foreseg.commands.run_files import RunFiles
from foreseg.config import Config
from foreseg.dialogue import Answer, AnswerStatus, ObservedMask, Outcome, Query, QueryId
from foreseg.driving.executor import Executor
from foreseg.driving.player import Latencies, Player
from foreseg.frames import DEFAULT_CAMERA, CameraId, Frame, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import rle_from_mask
from foreseg.media.captions import Banner, OverlayLabel
from foreseg.media.newest_answers import MAX_QUERIES, SHOWN_NS, SIDE_PX, NewestAnswers
from foreseg.media.overlay import Inset, colour_of
from foreseg.pipeline.state import State
from foreseg.prompts import ObjectId, SpatialPrompt

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")

NS = 1_000_000_000
HZ = 30
WIDE = (1280, 960)


def ref_of(
    index: int, size_wh: tuple[int, int] = WIDE, camera: CameraId = DEFAULT_CAMERA
) -> FrameRef:
    return FrameRef(
        camera=camera,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index * NS // HZ,
        received_ns=0,
        size_wh=size_wh,
    )


def keyframe_of(index: int, camera: CameraId = DEFAULT_CAMERA) -> Frame:
    image = np.full((*WIDE[::-1], 3), 90, np.uint8)
    return Frame(ref=ref_of(index, camera=camera), image=image)


def answer_of(
    keyframe: int, *, query: str = "q", status: AnswerStatus = AnswerStatus.OK
) -> Answer:
    """About a keyframe, half a second later."""
    is_ok = status is AnswerStatus.OK
    stamp_ns = keyframe * NS // HZ
    return Answer(
        query_id=QueryId(query),
        query_text="which?",
        camera=DEFAULT_CAMERA,
        status=status,
        keyframe_index=FrameIndex(keyframe) if is_ok else None,
        keyframe_stamp_ns=stamp_ns,
        prompts=(SpatialPrompt(box=BoxXyxy(100, 100, 700, 700)),) if is_ok else (),
        object_ids=(ObjectId("object-7"),) if is_ok else (),
        asked_stamp_ns=stamp_ns,
        answered_stamp_ns=stamp_ns + NS // 2,
    )


def test_every_query_keeps_its_newest_answer() -> None:
    newest = NewestAnswers()
    for keyframe, query in enumerate(("a", "b", "a", "c")):
        newest.take(answer_of(keyframe, query=query), None)
    again = replace(answer_of(1, query="b"), rationale="so")  # b, once more: not the newest
    newest.take(again, None)
    found = newest.of_queries(DEFAULT_CAMERA, {QueryId(q) for q in "abx"})
    assert [(a.query_id, a.keyframe_index, a.rationale) for a in found] == [
        ("a", 2, ""),
        ("b", 1, "so"),
    ]
    assert newest.of_queries(CameraId("other"), {QueryId("a")}) == []
    for i in range(100):
        newest.take(answer_of(10 + i, query=f"q{i}"), None)
    everything = {QueryId(f"q{i}") for i in range(100)} | {QueryId("a")}
    assert len(newest.of_queries(DEFAULT_CAMERA, everything)) == MAX_QUERIES


def inset_at(
    newest: NewestAnswers,
    stamp_ns: int,
    *,
    label: int | None = None,
    camera: CameraId = DEFAULT_CAMERA,
) -> Inset | None:
    """Beside a frame with this stamp, on which the answer's object has this label."""
    labels = () if label is None else (OverlayLabel(index=label, name="object-7"),)
    return newest.inset(replace(ref_of(0, camera=camera), stamp_ns=stamp_ns), labels)


def test_an_inset_shows_the_keyframe_in_a_fifth_and_leaves_after_its_time() -> None:
    newest, answer = NewestAnswers(), answer_of(30)
    newest.take(answer, keyframe_of(30))
    inset = inset_at(newest, 3 * NS)
    assert inset is not None
    assert inset.image.shape == (192, 256, 3)
    assert inset.age_s == 2.0
    last_ns = answer.answered_stamp_ns + SHOWN_NS
    assert inset_at(newest, last_ns) is not None
    assert inset_at(newest, last_ns + 1) is None
    assert inset_at(newest, NS // 2) is None, "the stream began anew"
    assert inset_at(newest, 3 * NS, camera=CameraId("other")) is None


def test_boxes_have_the_colour_of_their_track_also_when_it_has_gone() -> None:
    newest = NewestAnswers()
    newest.take(answer_of(30), keyframe_of(30))
    for label, colour in ((None, colour_of(1)), (5, colour_of(5)), (None, colour_of(5))):
        inset = inset_at(newest, 2 * NS, label=label)
        assert inset is not None
        ys, xs = np.nonzero((inset.image == colour).all(axis=2))
        assert xs.size > 200, label
        assert np.allclose((xs.min(), ys.min(), xs.max(), ys.max()), (20, 20, 139, 139), atol=2)


@pytest.mark.parametrize("status", [status for status in AnswerStatus if status])
def test_an_answer_without_a_target_takes_the_inset_away(status: AnswerStatus) -> None:
    newest = NewestAnswers()
    newest.take(answer_of(30), keyframe_of(30))
    newest.take(answer_of(45, status=status), keyframe_of(45))
    assert inset_at(newest, 2 * NS) is None


def test_an_answer_that_comes_again_is_not_the_newest_by_that() -> None:
    newest, old, new = NewestAnswers(), answer_of(30, query="old"), answer_of(40, query="new")
    newest.take(old, keyframe_of(30))
    newest.take(new, keyframe_of(40))
    newest.take(replace(old, outcome=Outcome.CAME_TRUE), keyframe_of(30))
    assert newest.of(DEFAULT_CAMERA) == new
    inset = inset_at(newest, 2 * NS)
    assert inset is not None
    assert inset.age_s == pytest.approx(2 - 40 / HZ, abs=1e-6)
    newest.take(replace(new, rationale="because"), None)  # its frames are let go by now
    assert newest.of(DEFAULT_CAMERA) == replace(new, rationale="because")
    assert inset_at(newest, 2 * NS) is not None


def test_one_reduced_keyframe_a_camera_is_kept_and_nothing_else() -> None:
    newest = NewestAnswers()
    cameras = [CameraId("left"), CameraId("right")]
    mask = rle_from_mask(np.ones((8, 8), dtype=np.bool_))
    observed = (ObservedMask(frame_index=FrameIndex(1), mask=mask),)
    for keyframe in range(70):
        for camera in cameras:
            answer = replace(answer_of(keyframe), camera=camera, observed=observed)
            newest.take(answer, keyframe_of(keyframe, camera))
            if keyframe % 10 == 9:
                assert inset_at(newest, answer.answered_stamp_ns, camera=camera) is not None
            newest.take(replace(answer, observed=observed), None)
    assert sorted(newest._kept) == cameras
    for kept in newest._kept.values():
        assert kept.frame is not None
        assert max(kept.frame.image.shape) == SIDE_PX
        assert kept.frame.image.base is None or kept.frame.image.base.nbytes < 2 * SIDE_PX**2 * 3
        assert kept.answer.observed == ()
    assert len(newest._seen) <= 64


def test_a_run_shows_the_keyframe_from_its_answer_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[Banner | None, Inset | None]] = []

    def draw(
        image: np.ndarray, _map: object, _labels: object, banner: Banner, inset: Inset
    ) -> np.ndarray:
        shown.append((banner, inset))
        return image

    monkeypatch.setattr(run_files, "draw_overlay", draw)
    files = RunFiles(tmp_path, {}, video_hz=HZ)
    executor = Executor(Config(), (DEFAULT_CAMERA,), ColourTracker)
    trace = files.open_trace(Config(), executor)
    player = Player(
        State.start(Config(), (DEFAULT_CAMERA,)),
        executor,
        files,
        reasoner=PointingReasoner(),
        latencies=Latencies(tracker_ns=10_000_000, reasoner_ns=NS // 2),
        trace=trace,
    )
    player.ask(Query(id=QueryId("q"), text="which is red?"))
    for number in range(11 * HZ):
        player.feed(DEFAULT_CAMERA, image_of(number), number * NS // HZ)
    player.settle(1.0)
    trace.close()
    files.close()
    (answer,) = files.answers
    assert answer.keyframe_index is not None
    answered = [i for i, (banner, _) in enumerate(shown) if banner is not None and banner.answer]
    with_inset = [i for i, (_, inset) in enumerate(shown) if inset is not None]
    assert with_inset[0] == answered[0]
    assert 7.9 * HZ < len(with_inset) <= 8 * HZ + 1 < len(answered)
    inset = shown[with_inset[0]][1]
    assert inset is not None
    assert inset.age_s == pytest.approx((with_inset[0] - answer.keyframe_index) / HZ, abs=1e-6)
    assert inset.image.shape[1] == round(SIZE_WH[0] / 5)
