# SPDX-License-Identifier: Apache-2.0
"""Files into a worker at their own rate, over and over; cameras as they come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from foreseg.clock import Clock, ManualClock
from foreseg.config import Config
from foreseg.errors import StreamError
from foreseg.frames import DEFAULT_CAMERA, CameraId, U8Array
from foreseg.media.sources import CameraSource, SourceFrame, SourceGap, SourceItem
from foreseg.pipeline.state import State
from foreseg_view.feed import Feed

NS = 1_000_000_000


class Clip:
    """A file of so many frames at 10 Hz."""

    name, num_frames, rate_hz = "clip", None, 10.0

    def __init__(self, num: int) -> None:
        self.num = num

    def __iter__(self) -> Iterator[SourceItem]:
        for number in range(self.num):
            if number == 2:
                yield SourceGap(reason="a frame is damaged", num_frames=1)
            image = np.zeros((2, 2, 3), np.uint8)
            yield SourceFrame(image=image, stamp_ns=number * NS // 10)


class Rig:
    """A worker that only counts, a clock that the waiting moves on, an end after some frames."""

    def __init__(self, end: int) -> None:
        self.clock = ManualClock()
        self.stopping = threading.Event()
        self.stopping.wait = self.wait  # type: ignore[method-assign, assignment]
        self.state = State.start(Config(), (DEFAULT_CAMERA,))
        self.got: list[tuple[int, int]] = []  # stamp, when
        self.said: list[str] = []
        self.end = end

    def wait(self, timeout_s: float | None = None) -> bool:
        if timeout_s is None:
            self.stopping.set()
        else:
            self.clock.advance(round(timeout_s * NS))
        return self.stopping.is_set()

    def submit_frame(self, camera: CameraId, image: U8Array, stamp_ns: int) -> None:
        assert camera == DEFAULT_CAMERA
        assert image.size
        self.got.append((stamp_ns, self.clock.monotonic_ns()))
        if len(self.got) == self.end:
            self.stopping.set()

    def snapshot(self) -> Rig:
        return self

    def run(self, source: object) -> Feed:
        feed = Feed(source, self, self.said.append, self.stopping, clock=self.clock)  # type: ignore[arg-type]
        feed.run()
        return feed


def test_a_file_is_played_at_its_own_rate_and_begins_anew() -> None:
    rig = Rig(end=50)
    rig.run(Clip(25))
    stamps = [stamp for stamp, _ in rig.got]
    assert stamps == [n % 25 * NS // 10 for n in range(50)], "its own stamps: a stream begun anew"
    gaps = {later[1] - one[1] for one, later in zip(rig.got, rig.got[1:], strict=False)}
    assert gaps == {NS // 10}
    assert rig.said == ["a frame is damaged"] * 2


def test_a_short_clip_goes_on_with_later_stamps() -> None:
    """Stamps that run back by less than a second would be refused, all of them."""
    rig = Rig(end=12)
    rig.run(Clip(4))
    assert [stamp for stamp, _ in rig.got] == [n * NS // 10 for n in range(12)]


def test_an_image_is_shown_once_and_kept() -> None:
    rig = Rig(end=9)
    feed = rig.run(Clip(1))
    assert len(rig.got) == 1
    assert feed.num_passes == 1


def test_a_file_without_a_frame_is_an_error() -> None:
    with pytest.raises(StreamError, match="clip gives no frame"):
        Rig(end=1).run(Clip(0))


def test_a_camera_that_goes_is_told_of_until_it_is_back() -> None:
    pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[view]'")

    class Device:
        reads = iter([True, False, True, True])

        def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
            return True

        def read(self) -> tuple[bool, U8Array | None]:
            is_there = next(self.reads)
            return is_there, np.zeros((2, 2, 3), np.uint8) if is_there else None

        def get(self, _: int) -> float:
            return 30.0

        def release(self) -> None:
            pass

    rig = Rig(end=3)
    clock: Clock = rig.clock
    wait: Callable[[float], None] = lambda _: None  # noqa: E731
    rig.run(CameraSource(0, clock=clock, wait=wait, open_capture=lambda _: Device()))  # type: ignore[arg-type, return-value]
    assert len(rig.got) == 3
    assert rig.said == ["camera 0 gives no frame; again in 0.5 s", ""]
