# SPDX-License-Identifier: Apache-2.0
"""Sources of frames without ROS: a video file, a folder of images, one image, a camera; or a bag.

A source yields RGB images with stamps, as fast as they are asked for; it knows nothing of pacing,
histories or trackers. OpenCV is imported when a source is opened.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Protocol

import numpy as np

from foreseg.clock import Clock, SystemClock
from foreseg.errors import ConfigError, InputError, MissingExtraError, StreamError
from foreseg.files import read_file
from foreseg.frames import U8Array
from foreseg.media.closing import Closing
from foreseg.media.pictures import decoded_picture

if TYPE_CHECKING:
    from typing_extensions import Self  # typing's own from Python 3.11 on

NS_PER_S = 1_000_000_000
DEFAULT_RATE_HZ = 30.0  # stamps of files that state no rate
MAX_RATE_HZ = 1000.0  # a declared rate above it is a broken header
MAX_IMAGE_BYTES = 1 << 30  # of an image's file
RATE_AGREES = 0.1  # a header's rate that is farther from the stamps' is a broken header
NUM_TIMED = 32  # frames whose stamps tell the rate
MISSING_FRAMES, MISSING_SHARE = 1, 0.02  # so far may a header's estimate be off
MAX_UNREADABLE = 1000  # frames in a row; a file that gives no other has ended
FIRST_RETRY_S = 0.5
MAX_RETRY_S = 10.0
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
_CAMERA_SPEC = re.compile(r"(?:camera:)?(\d{1,3})")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SourceFrame:
    """One image and when it was taken: files count from 0, cameras stamp with the clock."""

    image: U8Array  # (H, W, 3) RGB; the receiver's own
    stamp_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLost:
    """A camera gives no frames; the source waits `retry_in_s` and opens it again."""

    reason: str
    attempt: int  # failures in a row, from 1
    retry_in_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceGap:
    """Frames that a file should have and does not give; what comes after is counted without them."""

    reason: str
    num_frames: int  # as far as that can be told


SourceItem = SourceFrame | SourceLost | SourceGap


class Capture(Protocol):
    """What is used of OpenCV's `VideoCapture`."""

    def isOpened(self) -> bool:  # noqa: N802 (OpenCV's name)
        """Whether there is something to read."""

    def grab(self) -> bool:
        """Go on by one image."""

    def read(self) -> tuple[bool, U8Array | None]:
        """The next image in BGR."""

    def get(self, prop: int) -> float:
        """A property."""

    def release(self) -> None:
        """Close."""


class Source(Protocol):
    """An iterable over frames, to be closed.

    Only cameras yield `SourceLost`, only videos and bags `SourceGap`.

    Iterating raises `StreamError` where an image file cannot be read.
    """

    @property
    def name(self) -> str:
        """What was opened, for messages."""

    @property
    def num_frames(self) -> int | None:
        """Frames; of a video an estimate from its header. None for a camera or an unknown number."""

    @property
    def rate_hz(self) -> float | None:
        """Rate by the stamps of a file's first frames, else as declared; None if unknown."""

    def counted_frames(self) -> int | None:
        """Frames as they are, though a video must be read for that; None for a camera."""

    def __iter__(self) -> Iterator[SourceItem]:
        """Frames in order."""

    def close(self) -> None:
        """Let go of the file or device; twice is fine."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""


def open_source(spec: str, *, rate_hz: float | None = None, clock: Clock | None = None) -> Source:
    """Open a video file, a folder of images, an image, a bag with one camera's images, or a camera.

    Args:
        spec: a path; or a camera as "0", "camera:0" or "/dev/video0".
        rate_hz: stamps an image folder or video at this rate instead of its own.
        clock: stamps a camera's frames; the system's if None.

    Raises:
        StreamError: nothing there, or not readable as any of these.
        ConfigError: a rate that is not above 0.
        MissingExtraError: OpenCV is not installed, or for a bag rosbags.
    """
    from foreseg.media.bags import BagSource, is_bag  # it knows this module

    if rate_hz is not None and not (math.isfinite(rate_hz) and 0 < rate_hz <= MAX_RATE_HZ):
        msg = f"a source wants a rate above 0 and at most {MAX_RATE_HZ:g} Hz, got {rate_hz}"
        raise ConfigError(msg)
    camera = _CAMERA_SPEC.fullmatch(spec)
    if camera or spec.startswith("/dev/video"):
        device = int(camera[1]) if camera else spec
        return CameraSource(device, clock=clock or SystemClock())
    path = Path(spec).expanduser()
    if path.exists() and is_bag(path):
        return BagSource(path)
    if path.is_dir():
        return ImageSource(_images_in(path), name=str(path), rate_hz=rate_hz)
    if not path.exists():
        msg = (
            f"no file, folder or camera {spec!r}: give a video, an image, a folder of images,"
            " or a camera such as 0"
        )
        raise StreamError(msg)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource((path,), name=str(path), rate_hz=rate_hz)
    return VideoSource(path, rate_hz=rate_hz)


class ImageSource(Closing):
    """Images in the order given; grey, RGBA and 16-bit ones become RGB of 8 bits.

    They may differ in size: each change starts a new epoch of the history.

    Raises:
        StreamError: no image, or the first one cannot be read.
    """

    def __init__(self, paths: Sequence[Path], *, name: str, rate_hz: float | None = None) -> None:
        self._cv2 = _import_cv2("reading images")
        self._paths = tuple(paths)
        self._rate_hz = rate_hz
        self.name = name
        if not self._paths:
            msg = f"no image in {name}: expected files such as {', '.join(sorted(IMAGE_SUFFIXES))}"
            raise StreamError(msg)
        _read_image(self._cv2, self._paths[0])

    @property
    def num_frames(self) -> int:
        """Images."""
        return len(self._paths)

    @property
    def rate_hz(self) -> float | None:
        """As the caller declared it."""
        return self._rate_hz

    def counted_frames(self) -> int:
        """Images."""
        return len(self._paths)

    def __iter__(self) -> Iterator[SourceItem]:
        """Read one after the other."""
        for i, path in enumerate(self._paths):
            stamp_ns = round(i * NS_PER_S / (self._rate_hz or DEFAULT_RATE_HZ))
            yield SourceFrame(image=_read_image(self._cv2, path), stamp_ns=stamp_ns)


class VideoSource(Closing):
    """A video file, turned upright as its header says.

    Stamps are the file's own (a phone's rate varies) where they increase, else at its rate. What a
    header says of rate and length is believed only as far as the first stamps bear it out. A frame
    that cannot be decoded is left out: a `SourceGap` tells of it, and of an end before the promised
    one. Iterating again starts at the beginning.

    Raises:
        StreamError: not a video, or without a readable frame.
    """

    def __init__(self, path: Path, *, rate_hz: float | None = None) -> None:
        self._cv2 = _import_cv2("reading video")
        self._path = path
        self._forced_rate_hz = rate_hz
        self.name = str(path)
        self._capture = self._open()
        declared_hz = _plausible_hz(self._capture.get(self._cv2.CAP_PROP_FPS))
        num_frames = self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)
        measured_hz = self._measured_hz()
        own_hz = measured_hz or declared_hz
        if declared_hz and own_hz and abs(declared_hz / own_hz - 1) <= RATE_AGREES:
            own_hz = declared_hz
        self._is_rate_sound = own_hz == declared_hz
        self._rate_hz = rate_hz or own_hz
        self._num_frames = None
        if math.isfinite(num_frames) and num_frames > 0 and declared_hz and own_hz:
            self._num_frames = max(1, round(num_frames / declared_hz * own_hz))

    @property
    def num_frames(self) -> int | None:
        """As the header has it, corrected by what its rate is wrong; the file may give fewer."""
        return self._num_frames

    @property
    def rate_hz(self) -> float | None:
        """By the first stamps, else as the header has it; or the caller's."""
        return self._rate_hz

    def counted_frames(self) -> int:
        """Read the whole file to count what it gives."""
        capture, count, num_failed = self._open(), 0, 0
        while num_failed < MAX_UNREADABLE:
            is_there = capture.grab()
            count, num_failed = count + is_there, 0 if is_there else num_failed + 1
        capture.release()
        return count

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def __iter__(self) -> Iterator[SourceItem]:
        """Decode from the beginning."""
        self._capture.release()
        self._capture = capture = self._open()
        step_ns = round(NS_PER_S / (self._rate_hz or DEFAULT_RATE_HZ))
        stamp_ns, num_read, num_left_out, num_failed = -step_ns, 0, 0, 0
        while num_failed < MAX_UNREADABLE:
            is_read, image = capture.read()
            if not is_read or image is None:
                num_failed += 1
                continue
            if num_failed:
                yield _gap_after(num_read, num_failed)
            own_ns = round(capture.get(self._cv2.CAP_PROP_POS_MSEC) * 1e6)
            is_own = self._forced_rate_hz is None and own_ns > stamp_ns and own_ns > 0
            stamp_ns = own_ns if is_own else stamp_ns + (1 + num_failed) * step_ns
            num_read, num_left_out, num_failed = num_read + 1, num_left_out + num_failed, 0
            yield SourceFrame(image=_rgb_from_bgr(self._cv2, image), stamp_ns=stamp_ns)
        num_given = num_read + num_left_out
        if not self._is_rate_sound:  # nor is its number of frames, but its length
            num_given = round((stamp_ns + step_ns) / step_ns)
        missing = (self._num_frames or 0) - num_given
        if missing > MISSING_FRAMES + MISSING_SHARE * (self._num_frames or 0):
            reason = (
                f"{num_read} frames could be read, and the header promises {self._num_frames}: the"
                " file is damaged or cut short, or its rate varies"
            )
            yield SourceGap(reason=reason, num_frames=missing)

    def _measured_hz(self) -> float | None:
        """The rate of the first frames by their stamps; None without any that increase.

        Raises:
            StreamError: no frame can be read.
        """
        stamps: list[float] = []
        num_failed, is_readable = 0, False
        while len(stamps) < NUM_TIMED and num_failed < MAX_UNREADABLE:
            is_there = self._capture.grab() if is_readable else self._capture.read()[0]
            if is_there:
                is_readable = True
                stamps.append(float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)))
            num_failed = 0 if is_there else num_failed + 1
        if not is_readable:
            self._capture.release()
            msg = f"cannot read a frame of {self._path}: the video is empty, damaged or cut short"
            raise StreamError(msg)
        gaps = [later - stamp for stamp, later in pairwise(stamps) if later > stamp]
        return _plausible_hz(1000.0 / median(gaps)) if gaps else None

    def _open(self) -> Capture:
        capture: Capture = self._cv2.VideoCapture(str(self._path))
        if not capture.isOpened():
            msg = (
                f"cannot open {self._path} as a video: expected a format that OpenCV's FFmpeg reads"
                " (mp4, avi, mkv, webm, mov); convert it, or give a folder of images"
            )
            raise StreamError(msg)
        return capture


class CameraSource(Closing):
    """A camera of this machine, stamped when a frame has come.

    When it dies, `SourceLost` is yielded with every failed attempt, and it is opened again after
    a wait that doubles up to `MAX_RETRY_S`. It never ends by itself.

    Args:
        device: number, or path of the device.
        clock: stamps.
        wait: blocks for so many seconds.
        open_capture: opens the device; a double in tests.

    Raises:
        StreamError: it cannot be opened now.
    """

    num_frames: None = None

    def __init__(
        self,
        device: int | str,
        *,
        clock: Clock,
        wait: Callable[[float], None] = time.sleep,
        open_capture: Callable[[int | str], Capture] | None = None,
    ) -> None:
        self._cv2 = _import_cv2("reading a camera")
        self._device = device
        self._clock = clock
        self._wait = wait
        self._open_capture = open_capture or self._open_device
        self.name = f"camera {device}"
        self._is_closed = False
        self._capture = self._open_capture(device)
        if not self._capture.isOpened():
            msg = (
                f"cannot open camera {device}: is it plugged in, is /dev/video* readable for this"
                " user (group video), and does no other program use it?"
            )
            raise StreamError(msg)
        self._rate_hz = _plausible_hz(self._capture.get(self._cv2.CAP_PROP_FPS))

    @property
    def rate_hz(self) -> float | None:
        """As the driver declares it."""
        return self._rate_hz

    def counted_frames(self) -> None:
        """Nobody knows."""

    def close(self) -> None:
        """Let go of the device; iteration ends with the next frame."""
        self._is_closed = True
        self._capture.release()

    def __iter__(self) -> Iterator[SourceItem]:
        """Frames, and news of outages."""
        attempt, retry_s = 0, FIRST_RETRY_S
        while not self._is_closed:
            is_read, image = self._capture.read()
            if is_read and image is not None and image.size:
                attempt, retry_s = 0, FIRST_RETRY_S
                stamp_ns = self._clock.stamp_ns()
                yield SourceFrame(image=_rgb_from_bgr(self._cv2, image), stamp_ns=stamp_ns)
                continue
            attempt += 1
            self._capture.release()
            reason = f"{self.name} gives no frame"
            yield SourceLost(reason=reason, attempt=attempt, retry_in_s=retry_s)
            self._reopen_after(retry_s)
            retry_s = min(2 * retry_s, MAX_RETRY_S)

    def _reopen_after(self, retry_s: float) -> None:
        if self._is_closed:
            return
        self._wait(retry_s)
        self._capture = self._open_capture(self._device)

    def _open_device(self, device: int | str) -> Capture:
        capture: Capture = self._cv2.VideoCapture(device)
        return capture


def frames_of(source: Source) -> Iterator[SourceFrame]:
    """The frames of a source alone."""
    return (item for item in source if isinstance(item, SourceFrame))


def _plausible_hz(rate_hz: float) -> float | None:
    return float(rate_hz) if math.isfinite(rate_hz) and 0 < rate_hz <= MAX_RATE_HZ else None


def _gap_after(num_read: int, num_failed: int) -> SourceGap:
    what = "a frame" if num_failed == 1 else f"{num_failed} frames"
    where = f"behind frame {num_read - 1}" if num_read else "at the beginning"
    return SourceGap(
        reason=f"{what} {where} cannot be decoded; later ones are counted without",
        num_frames=num_failed,
    )


def _import_cv2(purpose: str) -> ModuleType:
    try:
        import cv2
    except ImportError as error:
        package, extra = "cv2", "video"
        raise MissingExtraError(package, extra, purpose) from error
    return cv2


def _images_in(folder: Path) -> list[Path]:
    """Those that are not hidden: a Mac puts a file `._NAME` beside each NAME that it copies."""
    images = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file() and path.name[0] != "."
    ]
    return sorted(images, key=lambda path: _natural_key(path.name))


def _natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts frame_2 before frame_10."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple((0, int(p), p) if p.isdecimal() else (1, 0, p) for p in parts)


def _read_image(cv2: ModuleType, path: Path) -> U8Array:
    try:
        data = read_file(path, MAX_IMAGE_BYTES)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror or error}"
        raise StreamError(msg) from error
    try:
        return _rgb_from_bgr(cv2, decoded_picture(cv2, data, cv2.IMREAD_COLOR))
    except InputError as error:
        msg = f"cannot decode {path} as an image: {error}; remove or replace it"
        raise StreamError(msg) from error


def _rgb_from_bgr(cv2: ModuleType, image: U8Array) -> U8Array:
    if image.ndim == 2:  # noqa: PLR2004 (some drivers give grey)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), dtype=np.uint8)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)
