# SPDX-License-Identifier: Apache-2.0
"""The kinematic reasoner on real pictures: cameras that move, cars under one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

cv2 = pytest.importorskip("cv2", reason="reads pictures and videos")

from tests.support.reasoners import query  # noqa: E402

from foreseg.dialogue import VERDICTS, Abstained, NoTarget, TargetsFound  # noqa: E402
from foreseg.frames import (  # noqa: E402
    DEFAULT_CAMERA,
    Frame,
    FrameIndex,
    FrameRef,
    FrameWindow,
    U8Array,
)
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg.kinematic.reasoner import KinematicReasoner  # noqa: E402

pytestmark = pytest.mark.slow

SHARED = Path(__file__).resolve().parents[3] / ".." / "shared" / "data"
CARS = SHARED / "videos/intel_car-detection.mp4"
CLIP_HZ = 24.0
MOVING = (
    "davis16_camel", "davis16_car-roundabout", "davis16_cows", "davis16_goat",
    "davis16_horsejump-high", "davis16_kite-surf", "davis16_scooter-black", "davis16_soapbox",
    "xmem2_caps",
)  # fmt: skip
STILL = (
    "again.mkv", "book.mkv", "bottle-detection.mp4", "car-detection.mp4", "eat.mkv", "help.mkv",
    "walk.mkv", "yes.mkv",
)  # fmt: skip


def window_of(images: dict[int, U8Array], rate_hz: float) -> FrameWindow:
    frames = []
    for index, image in sorted(images.items()):
        stamp_ns = round(index * 1e9 / rate_hz)
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(index),
            epoch=0,
            stamp_ns=stamp_ns,
            received_ns=stamp_ns,
            size_wh=image.shape[1::-1],
        )
        frames.append(Frame(ref=ref, image=image))
    return FrameWindow(frames=tuple(frames), origin_index=FrameIndex(0))


def indices_of(newest: int, rate_hz: float) -> list[int]:
    """As the window policy takes them: nine frames, 0.15 s apart."""
    step = max(1, round(0.15 * rate_hz))
    return [newest - step * k for k in range(9) if newest >= step * k]


def clip_window(name: str, share: float) -> FrameWindow:
    folder = SHARED / "clips" / name / "frames"
    if not folder.is_dir():
        pytest.skip(f"the real clip {name} is not here")
    paths = sorted(folder.iterdir())
    newest = round(29 + share * (len(paths) - 30))
    images = {
        i: cv2.cvtColor(cv2.imread(str(paths[i])), cv2.COLOR_BGR2RGB)
        for i in indices_of(newest, CLIP_HZ)
    }
    return window_of(images, CLIP_HZ)


def video_window(path: Path, newest: int) -> FrameWindow:
    if not path.is_file():
        pytest.skip(f"the real video {path.name} is not here")
    capture = cv2.VideoCapture(str(path))
    rate_hz = capture.get(cv2.CAP_PROP_FPS)
    wanted = set(indices_of(newest, rate_hz))
    images = {}
    for index in range(newest + 1):
        assert capture.grab()
        if index in wanted:
            images[index] = cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB)
    capture.release()
    return window_of(images, rate_hz)


def verdict(text: str, window: FrameWindow) -> TargetsFound | NoTarget | Abstained:
    parts = KinematicReasoner().ask(query(text), window)
    return next(part for part in parts if isinstance(part, VERDICTS))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", MOVING)
def test_a_camera_that_moves_is_abstained_from(name: str, share: float) -> None:
    found = verdict("what will leave the view next?", clip_window(name, share))
    assert isinstance(found, Abstained)
    assert found.reason.startswith("the camera moves")


@pytest.mark.parametrize("name", STILL)
def test_a_camera_that_stands_is_not_taken_for_one_that_moves(name: str) -> None:
    found = verdict("what is moving?", video_window(SHARED / f"videos/intel_{name}", 45))
    assert not (isinstance(found, Abstained) and found.reason.startswith("the camera moves"))


def test_of_two_cars_that_drive_both_are_named_by_their_colours() -> None:
    found = verdict("what is moving?", video_window(CARS, 195))
    assert isinstance(found, TargetsFound)
    assert set(found.text.split(" and ")) == {"the white region", "the red region"}
    white, red = (prompt.box for prompt in found.prompts)
    assert isinstance(white, BoxXyxy)
    assert isinstance(red, BoxXyxy)
    for box in (white, red):
        assert 100 < box.width < 240
        assert 140 < box.height < 240


def test_a_car_is_followed_while_the_camera_sets_its_exposure() -> None:
    found = verdict("what will leave the view next?", video_window(CARS, 76))
    assert isinstance(found, TargetsFound)
    assert found.text == "the white region will leave first, over the top"
    assert 0.2 < found.confidence < 0.9
    (prompt,) = found.prompts
    assert prompt.box is not None
    assert prompt.box.width > 100
    assert prompt.box.height > 200


def test_marks_on_the_road_that_only_shake_are_not_believed() -> None:
    found = verdict("what will leave the view next?", video_window(CARS, 13))
    assert not isinstance(found, TargetsFound) or found.confidence < 0.2
