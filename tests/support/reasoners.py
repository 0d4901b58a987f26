# SPDX-License-Identifier: Apache-2.0
"""Small reasoners that behave badly on purpose, and windows of a drawn scene to ask about.

Reasoners are built by name, also inside a process: `tests.support.reasoners:<factory>`.
"""

from __future__ import annotations

import ctypes
import os
import select
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    ObservedMask,
    Query,
    QueryId,
    RationalePart,
    TargetsFound,
)
from foreseg.frames import (
    DEFAULT_CAMERA,
    Frame,
    FrameIndex,
    FrameRef,
    FrameWindow,
    U8Array,
)
from foreseg.history.windows import RecentWindow
from foreseg.masks import Mask, rle_from_mask
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream

ROOT = Path(__file__).parents[2]
BYTES = {
    "half a message": struct.pack(">Q", 1000) + b"x" * 10,
    "a huge message": struct.pack(">Q", 2**40),
    "an empty message": struct.pack(">Q", 0),  # unpickling it is an EOFError
    "no pickle": struct.pack(">Q", 9) + b"\x80\x04garbage",
}
Options = Mapping[str, str | int | float | bool]


@dataclass(frozen=True)
class Scripted:
    """Says what its script says."""

    script: Callable[[Query, FrameWindow], AnswerStream]
    window_policy: RecentWindow = field(default_factory=lambda: RecentWindow(num_frames=3))
    caution: str = ""

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        return self.script(query, window)


def saying(*parts: AnswerPart) -> Scripted:
    def script(_query: Query, _window: FrameWindow) -> AnswerStream:
        yield from parts

    return Scripted(script)


def by_text(_options: Options) -> Scripted:
    """Does what the query's text says: hang, raise, wait for frames, talk for ever, hoard memory,
    print what is no text, send bytes of its own, start a process of its own and then hang, exit, or hold Python's lock.
    """
    return Scripted(_obey)


def cautious(_options: Options) -> Scripted:
    """One whose answers are not to be trusted, and that says so."""
    return Scripted(_obey, caution="UNCHECKED: it sees nothing")


def drawing(_options: Options) -> Scripted:
    """Draws what is red on every frame that it is shown, and names the middle one."""

    def script(_query: Query, window: FrameWindow) -> AnswerStream:
        masks = tuple(
            ObservedMask(frame_index=frame.index, mask=rle_from_mask(_red_in(frame.image)))
            for frame in window.frames
        )
        named = masks[len(masks) // 2]
        yield TargetsFound(
            keyframe_index=named.frame_index,
            prompts=(SpatialPrompt(mask=named.mask),),
            masks_by_frame=masks,
        )
        yield AnswerDone(tokens=3)

    return Scripted(script, window_policy=RecentWindow(num_frames=5))


def _red_in(image: U8Array) -> Mask:
    red: Mask = (image[..., 0] > 150) & (image[..., 1] < 100)
    return red


def _obey(query: Query, window: FrameWindow) -> AnswerStream:
    yield RationalePart(text=f"I have {_counted(window)}")
    if query.text == "hang":
        select.select([], [], [])  # for ever, as a stuck engine would
    if query.text == "raise":
        msg = "no such thing"
        raise KeyError(msg)
    if query.text == "print":
        for number in (1, 2):
            os.write(number, bytes(range(256)) * 200)
    if query.text in BYTES:
        os.write(_pipe(), BYTES[query.text])
        select.select([], [], [])
    if query.text == "half a message, then hoard":
        os.write(_pipe(), BYTES["half a message"])
        kept = [b"x" * 20_000_000 for _ in range(20)]
        select.select([], [], kept[:0])
    if query.text.startswith("child"):
        yield RationalePart(text=f"child {_started_child()}")
        if query.text == "child, then exit":
            os._exit(3)
        if query.text == "child, then hold":
            ctypes.PyDLL(None).sleep(600)  # the interpreter's lock is kept: no thread runs
        select.select([], [], [])
    hoard: list[bytes] = []
    while query.text == "hoard":
        hoard.append(b"x" * 20_000_000)
        yield RationalePart(text=f"{len(hoard)} blocks")
    while query.text == "talk":
        yield RationalePart(text="and so on")
    if query.text == "more frames":
        more = yield FramesWanted(indices=(FrameIndex(7),))
        yield RationalePart(text=f"I got {_counted(more) if more else 'nothing'}")
    yield NoTarget(reason="that was all")
    yield AnswerDone()


def _pipe() -> int:
    """This process's end of the pair of sockets that leads to its parent."""
    for number in map(int, [entry.name for entry in Path("/proc/self/fd").iterdir()]):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:  # what listed them
            continue
        if is_socket:
            return number
    raise AssertionError


def _started_child() -> int:
    """A process that outlives us, and holds our end of the pipe as a forked worker would."""
    command = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    return subprocess.Popen(command, pass_fds=[_pipe()]).pid


def _counted(window: FrameWindow) -> str:
    writable = any(frame.image.flags.writeable for frame in window.frames)
    return f"{len(window.frames)} {'writable' if writable else 'read-only'} frames"


def sharp(_options: Options) -> Scripted:
    """Says how large its frames come, at first and when it wants them with up to 640 pixels."""

    def script(_query: Query, window: FrameWindow) -> AnswerStream:
        first = window.newest
        more = yield FramesWanted(indices=(first.index,), side_px=640)
        again = "gone" if more is None or not more.frames else more.newest.image.shape
        yield NoTarget(reason=f"{first.image.shape} and {again} of {first.ref.size_wh}")
        yield AnswerDone()

    return Scripted(script)


def broken(_options: Options) -> Scripted:
    msg = "weights not found"
    raise RuntimeError(msg)


def ignorant(_options: Options) -> Scripted:
    return saying(Abstained(reason="I know nothing of this"), AnswerDone())


def failing(_options: Options) -> Scripted:
    return saying(AnswerFailed(reason="out of order"))


def thread_counts(_options: Options) -> Scripted:
    threads = os.environ["OMP_NUM_THREADS"]
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    reason = f"OMP_NUM_THREADS={threads} nice={os.nice(0)} cores={cores}"
    return saying(NoTarget(reason=reason), AnswerDone())


@dataclass(frozen=True, kw_only=True)
class Disc:
    """A coloured disc: place in the first frame, pixels per second, radius."""

    x: float
    y: float
    radius: float
    colour: tuple[int, int, int]
    vx: float = 0.0
    vy: float = 0.0


def query(text: str) -> Query:
    return Query(id=QueryId("q"), text=text)


def textured(size_wh: tuple[int, int], seed: int = 0) -> U8Array:
    """A grey, blotchy background, (h, w, 3)."""
    width, height = size_wh
    coarse = np.random.default_rng(seed).integers(70, 130, (height // 8 + 1, width // 8 + 1, 1))
    image = coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    return np.repeat(image, 3, axis=2).astype(np.uint8)


def window_of(images: Sequence[U8Array], rate_hz: float = 7.5, first: int = 100) -> FrameWindow:
    frames = []
    for i, image in enumerate(images):
        ref = FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(first + 4 * i),
            epoch=0,
            stamp_ns=round(i * 1e9 / rate_hz),
            received_ns=round(i * 1e9 / rate_hz),
            size_wh=(image.shape[1], image.shape[0]),
        )
        image.flags.writeable = False
        frames.append(Frame(ref=ref, image=image))
    return FrameWindow(frames=tuple(frames), origin_index=FrameIndex(first))


def discs_window(
    *discs: Disc,
    size_wh: tuple[int, int] = (320, 240),
    num_frames: int = 9,
    camera_vx: float = 0.0,
    background: U8Array | None = None,
) -> FrameWindow:
    """Discs over a texture, seen by a camera that may slide to the right; 7.5 Hz."""
    width, height = size_wh
    wide = textured((width * 2, height)) if background is None else background
    y, x = np.mgrid[0:height, 0:width]
    images = []
    for i in range(num_frames):
        t = i / 7.5
        slide = round(camera_vx * t)
        image = wide[:, slide : slide + width].copy()
        for disc in discs:
            dx = x + 0.5 + slide - disc.x - disc.vx * t
            dy = y + 0.5 - disc.y - disc.vy * t
            image[dx**2 + dy**2 < disc.radius**2] = disc.colour
        images.append(image)
    return window_of(images)
