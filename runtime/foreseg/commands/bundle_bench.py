# SPDX-License-Identifier: Apache-2.0
"""`foreseg bundle bench BUNDLE`: milliseconds a frame of a bundle's pieces and of the tracker.

Times what the node runs on the machine it runs on: `Sam2Tracker.track` whole (resize, engines,
memory, masks and run-length code at source size) and each engine inside it. Every object is a
disc on a drawn clip, every frame is new. Does not judge masks: `bundle_selftest` does.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from foreseg.engines.base import Engine, Tensor, TensorSpec
from foreseg.engines.load import Bundle, bundle_folder, load_bundle
from foreseg.engines.processor import this_processor
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg.tracker.preprocess import import_cv2
from foreseg.tracker.sam2 import Sam2Tracker

SIZE_WH = (640, 480)
MAX_OBJECTS = 8  # cells of the drawn clip, and rows that the tracker advances in one launch
MAX_FRAMES = 100_000
SELF_TEST_FILE = "foreseg_selftest.json"  # to send back
FAILED = 1
WARM_UP = 20  # frames: the memory (7 maps, 16 pointers) is full by then

_COLUMNS, _LINES = 4, 2
_RADIUS_PX = 44
_SWING_PX = 20  # a disc goes so far to either side
_PACKAGES = ("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt_rtx")
_MODEL_FILES = (Path("/proc/device-tree/model"), Path("/proc/cpuinfo"))  # of a Jetson, of a PC
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Milliseconds of many frames."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PieceTimes:
    """One engine's share of a frame."""

    name: str
    provider: str
    times: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerTimes:
    """One number of objects, over `frames` frames."""

    objects: int
    frames: int
    whole: Spread
    outside_engines: Spread
    pieces: tuple[PieceTimes, ...]
    peak_bytes: int | None  # of the process since it began; None: the system does not tell


class TimedEngine:
    """An engine that adds up the time of its runs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.provider = engine.name, engine.provider
        self.inputs: tuple[TensorSpec, ...] = engine.inputs
        self.outputs: tuple[TensorSpec, ...] = engine.outputs
        self._spent_ns = 0

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run and time."""
        start = time.perf_counter_ns()
        outputs = self._engine.run(inputs, keep=keep)
        self._spent_ns += time.perf_counter_ns() - start
        return outputs

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def taken_ms(self) -> float:
        """Time of the runs since the last call."""
        spent, self._spent_ns = self._spent_ns, 0
        return spent / 1e6


def timed(bundle: Bundle) -> tuple[Bundle, tuple[TimedEngine, ...]]:
    """The bundle with engines that are timed, and these."""
    engines = tuple(TimedEngine(engine) for engine in bundle.engines)
    return replace(bundle, engines=engines), engines


def drawn_frame(index: int) -> Frame:
    """Eight discs that swing to and fro over a soft texture; equal for equal indices."""
    w, h = SIZE_WH
    coarse = np.random.default_rng(0).integers(70, 150, (h // 16, w // 16, 3), dtype=np.uint8)
    image: U8Array = coarse.repeat(16, axis=0).repeat(16, axis=1)
    rows, columns = np.ogrid[:h, :w]
    for i, (x, y) in enumerate(_centres(index)):
        disc = (columns - x) ** 2 + (rows - y) ** 2 <= _RADIUS_PX**2
        image[disc] = (255 if i & 1 else 20, 255 if i & 2 else 20, 255 if i & 4 else 20)
    ref = FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(index),
        epoch=0,
        stamp_ns=index,
        received_ns=index,
        size_wh=SIZE_WH,
    )
    return Frame(ref=ref, image=image)


def drawn_prompts(objects: int) -> tuple[SpatialPrompt, ...]:
    """A box around each of the first discs on frame 0."""
    r = _RADIUS_PX
    return tuple(
        SpatialPrompt(box=BoxXyxy(x - r, y - r, x + r, y + r)) for x, y in _centres(0)[:objects]
    )


def spread_of(values_ms: Sequence[float]) -> Spread:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(values_ms, (50, 99))
    return Spread(p50_ms=float(p50), p99_ms=float(p99))


def peak_memory_bytes() -> int | None:
    """The most memory this process ever had resident, where Linux tells."""
    try:
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(sizes[0]) * 1024 if sizes else None


def machine_name() -> str:
    """The board's or the processor's name."""
    for path in _MODEL_FILES:
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        if path.name == "model" and lines:
            return lines[0].rstrip("\0")
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        if names:
            return names[0]
    return platform.processor() or platform.machine()


def time_tracker(
    bundle: Bundle, objects: int, frames: int, on_frame: Callable[[], None] = lambda: None
) -> TrackerTimes:
    """Track the drawn clip and time it, after `WARM_UP` frames that do not count."""
    watched, engines = timed(bundle)
    tracker = Sam2Tracker(watched, max_objects=objects)
    keys = [TrackKey(str(i)) for i in range(objects)]
    first = drawn_frame(0)
    for key, prompt in zip(keys, drawn_prompts(objects), strict=True):
        tracker.prompt(first, key, prompt)
    whole: list[float] = []
    inside: list[list[float]] = []
    for index in range(1, WARM_UP + frames + 1):
        frame = drawn_frame(index)
        for engine in engines:
            engine.taken_ms()
        start = time.perf_counter_ns()
        tracker.track(frame, keys)
        taken_ms = (time.perf_counter_ns() - start) / 1e6
        if index > WARM_UP:
            whole.append(taken_ms)
            inside.append([engine.taken_ms() for engine in engines])
        on_frame()
    shares = np.asarray(inside)
    return TrackerTimes(
        objects=objects,
        frames=frames,
        whole=spread_of(whole),
        outside_engines=spread_of((np.asarray(whole) - shares.sum(axis=1)).tolist()),
        pieces=tuple(
            PieceTimes(name=engine.name, provider=engine.provider, times=spread_of(share.tolist()))
            for engine, share in zip(engines, shares.T, strict=True)
        ),
        peak_bytes=peak_memory_bytes(),
    )


def bench(arguments: argparse.Namespace) -> int:
    """Time a bundle on this machine and print a table; on request, test it before.

    Returns 0, or 1 if its masks are not those that its export measured, or a reasoner that was to be
    asked does not see the drawn scenes.
    """
    if arguments.reasoner and not arguments.selftest:
        msg = "--reasoner is asked for the self-test's report: give --selftest, too"
        raise InputError(msg)
    from foreseg.commands.bundle_selftest import asked_reasoner, print_self_test, self_test
    from foreseg.commands.progress import ProgressBar

    counts = tuple(
        whole_number(word, "--objects", MAX_OBJECTS) for word in arguments.objects.split(",")
    )
    frames = whole_number(arguments.frames, "--frames", MAX_FRAMES)
    threads = whole_number(arguments.threads, "--threads", os.cpu_count() or 1)
    name = arguments.json or (SELF_TEST_FILE if arguments.selftest else None)
    file = writable_file(name) if name else None
    import_cv2().setNumThreads(threads)
    load = os.getloadavg()[0]
    with load_bundle(arguments.bundle, backend=arguments.backend, threads=threads) as bundle:
        golden_frames = bundle.manifest.parity.frames if arguments.selftest else 0
        bar, done = ProgressBar(golden_frames + len(counts) * (WARM_UP + frames)), 0

        def count_frame() -> None:
            nonlocal done
            done += 1
            bar.update(done)

        found = None
        if arguments.selftest:
            found = self_test(bundle, bundle_folder(arguments.bundle), count_frame)
        if found is not None and found.failure:
            counts = ()  # what does not track cannot be timed
        rows = [time_tracker(bundle, objects, frames, count_frame) for objects in counts]
        bar.close(done)
        about = {**_about(bundle, threads), "load": round(load, 2)}
    _print(bundle, about, rows)
    if found is not None:
        print_self_test(found)
    scenes = asked_reasoner(arguments.reasoner) if arguments.reasoner else None
    if file is not None:
        told = {
            "about": about,
            "rows": [asdict(row) for row in rows],
            "parity": asdict(bundle.manifest.parity),
            "self_test": None if found is None else asdict(found),
            "reasoner": scenes and {"kind": arguments.reasoner, **asdict(scenes)},
        }
        write_text(file, json.dumps(told, indent=2) + "\n")
        print(f"wrote {file}")
    passed = (found is None or found.passed) and (scenes is None or scenes.is_checked)
    return 0 if passed else FAILED


def whole_number(word: str, option: str, largest: int) -> int:
    """A number of at least 1.

    Raises:
        InputError: anything else, or more than `largest`.
    """
    text = word.strip()
    if not (text.isascii() and text.isdecimal()) or not 1 <= int(text[:9]) <= largest:
        msg = f"{option} wants whole numbers from 1 to {largest}, got {word[:40]!r}"
        raise InputError(msg)
    return int(text[:9])


def writable_file(name: str) -> Path:
    """A path that a file can have, known before time is spent on what will be in it.

    Raises:
        InputError: it is a folder, its folder is missing, or may not be written to.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        reason = "is a folder"
    elif not path.parent.is_dir():
        reason = "lies in a folder that does not exist"
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        reason = "may not be written"
    else:
        return path
    msg = f"--json wants a file to write, {path} {reason}"
    raise InputError(msg)


def write_text(path: Path, text: str) -> None:
    """Write a file.

    Raises:
        InputError: it cannot be written.
    """
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        msg = f"{path} cannot be written: {error.strerror or error}"
        raise InputError(msg) from error


def _centres(index: int) -> list[tuple[int, int]]:
    """(x, y) of each disc; neighbours swing in turn."""
    w, h = SIZE_WH
    period = 4 * _SWING_PX
    places = []
    for i in range(MAX_OBJECTS):
        phase = (index + i * _SWING_PX) % period
        shift = abs(phase - period // 2) - _SWING_PX
        x = w * (2 * (i % _COLUMNS) + 1) // (2 * _COLUMNS) + shift
        places.append((x, h * (2 * (i // _COLUMNS) + 1) // (2 * _LINES)))
    return places


def _about(bundle: Bundle, threads: int) -> dict[str, object]:
    manifest = bundle.manifest
    return {
        "bundle": manifest.name,
        "source": manifest.source_name,
        "model_px": manifest.geometry.image_size,
        "precision": sorted({piece.precision for piece in manifest.pieces})
        or [manifest.precision],
        "machine": machine_name(),
        "features": list(this_processor().features),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": threads,
        "backend": str(bundle.backend),
        "source_px": list(SIZE_WH),
        "warm_up": WARM_UP,
        "versions": versions(_PACKAGES),
    }


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Of Python, foreseg, OpenCV, and of these packages where they are installed."""
    from foreseg import __version__

    found = {"python": platform.python_version(), "foreseg": __version__}
    found["opencv"] = str(import_cv2().__version__)
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _print(bundle: Bundle, about: Mapping[str, object], rows: Sequence[TrackerTimes]) -> None:
    manifest = bundle.manifest
    precisions = dict.fromkeys(piece.precision for piece in manifest.pieces)
    providers = " + ".join(dict.fromkeys(engine.provider for engine in bundle.engines))
    print(
        f"{manifest.name} (from {manifest.source_name}), model {manifest.geometry.image_size} px,"
        f" {'/'.join(precisions) or manifest.precision}, frames of {SIZE_WH[0]}x{SIZE_WH[1]}"
    )
    print(f"{about['machine']}, {about['threads']} thread(s), {providers}")
    print(
        f"{' '.join(this_processor().features) or 'features unknown'}; load {about['load']} before"
    )
    print(", ".join(f"{name} {version}" for name, version in versions(_PACKAGES).items()))
    print(f"parity {manifest.parity}")
    if not rows:
        return
    names = [piece.name for piece in rows[0].pieces]
    columns = ("track", *names, "outside")
    print(f"\nms a frame, p50 / p99 of {rows[0].frames} frames after {WARM_UP} of warm-up")
    print("objects  " + "  ".join(name.rjust(15) for name in columns) + "  peak memory")
    for row in rows:
        spreads = (row.whole, *(piece.times for piece in row.pieces), row.outside_engines)
        cells = (f"{s.p50_ms:.2f} / {s.p99_ms:.2f}".rjust(15) for s in spreads)
        peak = "unknown" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f} MB"
        cells_text = "  ".join(cells)
        print(f"{row.objects:>7}  {cells_text}  {peak:>11}")
