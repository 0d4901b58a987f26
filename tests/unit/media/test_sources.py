# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import builtins
from pathlib import Path

import numpy as np
import pytest

from foreseg.clock import ManualClock
from foreseg.errors import ConfigError, MissingExtraError, StreamError
from foreseg.media.sinks import OverlayVideoWriter, write_image
from foreseg.media.sources import (
    FIRST_RETRY_S,
    MAX_RETRY_S,
    CameraSource,
    SourceFrame,
    SourceLost,
    open_source,
)

cv2 = pytest.importorskip("cv2")

RED = (250, 10, 20)
CODEC_TOLERANCE = 40  # mp4 is lossy; red and blue differ by 230


def _image(size_wh: tuple[int, int] = (32, 24), colour: tuple[int, int, int] = RED) -> np.ndarray:
    return np.full((size_wh[1], size_wh[0], 3), colour, dtype=np.uint8)


def _frames(source: object) -> list[SourceFrame]:
    items = list(source)  # type: ignore[call-overload]
    assert all(isinstance(item, SourceFrame) for item in items)
    return items


def _video(path: Path, num: int = 5, rate_hz: float = 10) -> Path:
    with OverlayVideoWriter(path, rate_hz) as writer:
        for _ in range(num):
            writer.write(_image())
    return path


def test_a_video_gives_rgb_frames_with_the_stamps_of_its_rate(tmp_path: Path) -> None:
    with open_source(str(_video(tmp_path / "v.mp4"))) as source:
        assert source.num_frames == 5
        assert source.rate_hz == pytest.approx(10)
        frames = _frames(source)
        again = _frames(source)
    assert [frame.stamp_ns for frame in frames] == [i * 100_000_000 for i in range(5)]
    assert len(again) == 5, "iterating again starts at the beginning"
    image = frames[0].image
    assert image.shape == (24, 32, 3)
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - RED).max() < CODEC_TOLERANCE


def test_a_rate_may_be_declared_by_the_caller(tmp_path: Path) -> None:
    with open_source(str(_video(tmp_path / "v.mp4")), rate_hz=4) as source:
        assert source.rate_hz == 4
        assert [frame.stamp_ns for frame in _frames(source)][:3] == [0, 250_000_000, 500_000_000]
    with pytest.raises(ConfigError, match="got 0"):
        open_source(str(tmp_path), rate_hz=0)


def test_a_folder_is_read_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        write_image(tmp_path / f"f{number}.png", _image(colour=(number, 0, 0)))
    (tmp_path / "notes.txt").write_text("no image")
    with open_source(str(tmp_path)) as source:
        assert source.num_frames == 3
        assert source.rate_hz is None
        frames = _frames(source)
    assert [int(frame.image[0, 0, 0]) for frame in frames] == [1, 9, 10]
    assert frames[1].stamp_ns - frames[0].stamp_ns == pytest.approx(1e9 / 30, abs=1)


@pytest.mark.parametrize("form", ["grey", "rgba", "sixteen bits"])
def test_every_form_of_image_becomes_rgb_bytes(tmp_path: Path, form: str) -> None:
    pixels = {
        "grey": np.full((5, 7), 77, dtype=np.uint8),
        "rgba": np.full((5, 7, 4), 77, dtype=np.uint8),
        "sixteen bits": np.full((5, 7), 77 << 8, dtype=np.uint16),
    }[form]
    path = tmp_path / "one.png"
    assert cv2.imwrite(str(path), pixels)
    with open_source(str(path)) as source:
        (frame,) = _frames(source)
    assert frame.image.shape == (5, 7, 3)
    assert (frame.image == 77).all()


def test_a_folder_may_change_size(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", _image((8, 6)))
    write_image(tmp_path / "b.png", _image((6, 9)))
    with open_source(str(tmp_path)) as source:
        assert [frame.image.shape[:2] for frame in _frames(source)] == [(6, 8), (9, 6)]


def test_what_a_mac_puts_beside_each_image_is_none(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", _image())
    (tmp_path / "._1.png").write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
    with open_source(str(tmp_path)) as source:
        assert len(_frames(source)) == source.num_frames == 1


def test_a_missing_file_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="no file, folder or camera"):
        open_source(str(tmp_path / "nothing.mp4"))


def test_an_empty_folder_says_what_it_expected(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="no image in"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("content", [b"", b"not a video at all" * 50])
def test_a_file_that_is_no_video_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.mp4"
    path.write_bytes(content)
    with pytest.raises(StreamError, match=r"broken\.mp4"):
        open_source(str(path))


def test_a_video_cut_short_is_refused_or_gives_what_is_left(tmp_path: Path) -> None:
    path = _video(tmp_path / "cut.mp4")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(StreamError, match=r"cut\.mp4"):
        open_source(str(path))


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no image"])
def test_an_image_without_pixels_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "empty.png"
    path.write_bytes(content)
    with pytest.raises(StreamError, match=f"{len(content)} bytes"):
        open_source(str(path))


def test_a_corrupt_image_inside_a_folder_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", _image())
    (tmp_path / "2.png").write_bytes(b"broken")
    items = iter(open_source(str(tmp_path)))
    assert isinstance(next(items), SourceFrame)
    with pytest.raises(StreamError, match=r"2\.png"):
        next(items)


def test_without_opencv_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_import = builtins.__import__

    def no_cv2(name: str, *args: object, **kwargs: object) -> object:
        if name == "cv2":
            raise ImportError(name)
        return real_import(name, *args, **kwargs)  # type: ignore[arg-type]

    write_image(tmp_path / "1.png", _image())
    monkeypatch.setattr(builtins, "__import__", no_cv2)
    with pytest.raises(MissingExtraError, match=r"foreseg\[video\]"):
        open_source(str(tmp_path))


class _Camera:
    """A capture that gives so many images; a second read after its death is an error."""

    def __init__(self, num: int, *, is_open: bool = True) -> None:
        self.left = num
        self.is_open = is_open

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        return self.is_open

    def get(self, prop: int) -> float:
        return 15.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self.left:
            return False, None
        self.left -= 1
        return True, np.full((4, 6, 3), (1, 2, 3), dtype=np.uint8)

    def release(self) -> None:
        self.left = 0


def test_a_camera_that_dies_is_reported_and_opened_again() -> None:
    devices = [_Camera(2), *(_Camera(0, is_open=False) for _ in range(6)), _Camera(1)]
    clock, waits = ManualClock(100), []
    source = CameraSource(0, clock=clock, wait=waits.append, open_capture=lambda _: devices.pop(0))
    assert source.rate_hz == 15
    assert source.num_frames is None
    items = iter(source)
    first = [next(items) for _ in range(2)]
    assert all(isinstance(item, SourceFrame) and item.stamp_ns == 100 for item in first)
    lost = [next(items) for _ in range(7)]
    assert all(isinstance(item, SourceLost) for item in lost)
    assert [item.attempt for item in lost] == list(range(1, 8))
    back = next(items)
    assert isinstance(back, SourceFrame)
    assert tuple(back.image[0, 0]) == (3, 2, 1), "BGR became RGB"
    assert waits == [item.retry_in_s for item in lost]
    assert waits == [min(FIRST_RETRY_S * 2**i, MAX_RETRY_S) for i in range(7)]
    again = next(items)
    assert isinstance(again, SourceLost)
    assert again.attempt == 1, "a frame ends the outage"
    source.close()
    assert list(items) == []


def test_a_camera_that_cannot_be_opened_says_what_to_check() -> None:
    with pytest.raises(StreamError, match=r"cannot open camera 3: is it plugged in"):
        CameraSource(3, clock=ManualClock(), open_capture=lambda _: _Camera(0, is_open=False))


@pytest.mark.parametrize("spec", ["97", "camera:97", "/dev/video97"])
def test_a_camera_is_named_by_number_or_device(spec: str) -> None:
    with pytest.raises(StreamError, match=r"cannot open camera .*97"):
        open_source(spec)
