# SPDX-License-Identifier: Apache-2.0
"""How many instructions a frame takes outside the engines: `instructions.py [--objects 1,4] [--keep]`.

Callgrind counts them, so neighbours, caches and clocks do not matter, and 5 % are seen. Engines only
repeat what they gave in a run before; from a JPEG to the label map, and to its messages where ROS is,
all else is the robot's own code in one thread: decoding, history, pipeline, resizing, memory, masks,
run-length code. The parts below the line are done once more beside it, to tell where a change is.
Held against the figures kept in instructions.json, made with the same versions: above 5 % the exit code
is 1. `--keep` writes new ones. Needs valgrind (apt install valgrind) on Linux; half a minute of the
processor for each number of objects. Says nothing of how long the instructions take: `foreseg bench --budget` does.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TypeVar, cast

import numpy as np

from foreseg.commands.bundle_bench import (
    MAX_OBJECTS,
    SIZE_WH,
    drawn_frame,
    drawn_prompts,
    versions,
    whole_number,
)
from foreseg.config import Config
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.driving.player import Latencies, Player
from foreseg.engines.base import Engine, Tensor
from foreseg.engines.load import Bundle, bundle_folder, load_bundle
from foreseg.engines.manifest import read_manifest
from foreseg.errors import EngineError, ForesegError, InputError
from foreseg.frames import DEFAULT_CAMERA, U8Array
from foreseg.masks import Mask, mask_from_rle
from foreseg.media.image_messages import rgb_from_compressed_message
from foreseg.pipeline.state import State
from foreseg.tracker.base import TrackedObject, TrackKey
from foreseg.tracker.postprocess import label_map, logits_at_source, object_from_mask, window
from foreseg.tracker.preprocess import import_cv2, pixels_from_image
from foreseg.tracker.sam2 import Sam2Tracker

KEPT = Path(__file__).with_suffix(".json")
MAX_SHARE = 0.05  # more than was kept
TUNABLES = (  # a string instruction would count once a byte; and one way to allocate for all sizes
    "glibc.cpu.x86_rep_movsb_threshold=0x7fffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffff"
    ":glibc.malloc.mmap_threshold=0x40000000"
)
WARM_UP, FRAMES = 6, 6  # by then Python has specialised its code
PERIOD_NS, TRACKER_NS = 33_333_333, 10_000_000
DOOR = "PyNumber_InPlaceMatrixMultiply"  # what runs within `@=` is counted, and nothing else
PATH = ("decode", "pipeline and tracker", "messages")  # whose sum is the figure
BESIDE = ("resize", "masks", "boxes and run-length code", "label map")
TIMEOUT_S = 1800.0

R = TypeVar("R")
Counts = Mapping[str, float]  # stage -> instructions a frame


class Recorder:
    """An engine that remembers what it gave."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name, self.provider = engine.name, engine.provider
        self.inputs, self.outputs = engine.inputs, engine.outputs
        self.given: list[dict[str, Tensor]] = []

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run, and keep a copy."""
        outputs = self._engine.run(inputs, keep=keep)
        self.given.append({name: np.array(value) for name, value in outputs.items()})
        return outputs

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class Repeater:
    """An engine that gives what a recorder got, run by run."""

    provider = "what was recorded"

    def __init__(self, name: str, given: Sequence[dict[str, Tensor]]) -> None:
        self.name = name
        self.inputs = self.outputs = ()
        self._given = iter(given)

    def run(self, _: Mapping[str, Tensor], *, keep: Collection[str] = ()) -> dict[str, Tensor]:  # noqa: ARG002
        """The next outputs."""
        try:
            return next(self._given)
        except StopIteration:
            msg = f"{self.name} ran more often than when it was recorded"
            raise EngineError(msg) from None

    def close(self) -> None:
        """Nothing is held."""


class Newest:
    """An output that keeps the newest masks."""

    def __init__(self) -> None:
        self.masks: PublishedMasks | None = None

    def publish_masks(self, masks: PublishedMasks) -> None:
        """See `Output`."""
        self.masks = replace(masks, image=None)

    def publish_answer(self, _: object) -> None:
        """Nothing is asked."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Robot:
    """The pipeline with its tracker and its output."""

    player: Player
    output: Newest


def main(argv: Sequence[str] | None = None) -> int:
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.counted:
        gc.disable()
        return frames_through_the_door(Path(arguments.counted), int(arguments.objects))
    try:
        objects = [whole_number(n, "--objects", MAX_OBJECTS) for n in arguments.objects.split(",")]
        if shutil.which("valgrind") is None or not sys.platform.startswith("linux"):
            msg = "instructions are counted by valgrind on Linux: apt install valgrind"
            raise InputError(msg)
        found = {str(count): counted(count) for count in objects}
    except ForesegError as error:
        parser.error(str(error))
    show(found)
    about = {**versions(("numpy",)), "valgrind": _valgrind_version()}
    if arguments.keep:
        kept_now = {"about": about, "counts": found}
        KEPT.write_text(json.dumps(kept_now, indent=2) + "\n", encoding="utf-8")
        print(f"kept in {KEPT}")
        return 0
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    return judge(found, about, kept)


def counted(objects: int) -> Counts:
    """Record a run, and play it once more under callgrind.

    Raises:
        InputError: valgrind fails, or is not done in time.
    """
    with tempfile.TemporaryDirectory() as scratch:
        record, out = Path(scratch) / "record.npz", Path(scratch) / "out"
        record_run(record, objects)
        command = [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}.%p"),
            "--trace-children=yes",  # ROS's wheels start Python once more in its place
            *(f"--toggle-collect={DOOR}", f"--dump-after={DOOR}"),
            *(sys.executable, "-s", __file__, "--counted", str(record), "--objects", str(objects)),
        ]
        try:
            done = subprocess.run(
                command,
                env=_environment(),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            msg = f"valgrind is not done within {TIMEOUT_S:g} s"
            raise InputError(msg) from error
        number, *stages = done.stdout.split("|")[:-1] or [""]
        dumps = sorted(out.parent.glob(f"out.{number}.*"), key=lambda path: int(path.suffix[1:]))
        if done.returncode or not stages or len(dumps) < len(stages):
            msg = f"valgrind ended with {done.returncode}: {done.stderr.strip()[-600:]}"
            raise InputError(msg)
        return means(stages, [instructions_of(path.read_text("utf-8")) for path in dumps])


def means(stages: Sequence[str], counts: Sequence[int]) -> Counts:
    """Of each stage over the frames after the warm-up, in the order of the stages."""
    found: dict[str, list[int]] = {}
    for stage, count in zip(stages, counts, strict=False):  # the last dump is of the end
        found.setdefault(stage, []).append(count)
    return {stage: float(np.mean(some[WARM_UP:])) for stage, some in found.items()}


def instructions_of(dump: str) -> int:
    """What a file of callgrind has as its sum.

    Raises:
        InputError: it has none.
    """
    for line in dump.splitlines():
        key, _, value = line.partition(":")
        if key in {"summary", "totals"}:
            return int(value.split()[0])
    msg = "a file of callgrind has no sum"
    raise InputError(msg)


def whole_of(counts: Counts) -> float:
    """Of the frame's path."""
    return sum(counts.get(stage, 0.0) for stage in PATH)


def show(found: Mapping[str, Counts]) -> None:
    """Print a table."""
    print(f"millions of instructions a frame of {SIZE_WH[0]}x{SIZE_WH[1]}, outside the engines")
    print(f"{'objects':<28}" + "".join(f"{objects:>10}" for objects in found))
    for stage in (*PATH, "", *BESIDE):
        if not stage:
            print(
                f"{'whole':<28}" + "".join(f"{whole_of(c) / 1e6:>10.3f}" for c in found.values())
            )
            continue
        cells = (
            f"{c[stage] / 1e6:>10.3f}" if stage in c else f"{'-':>10}" for c in found.values()
        )
        print(f"{stage:<28}" + "".join(cells))


def judge(
    found: Mapping[str, Counts], about: Mapping[str, str], kept: Mapping[str, Mapping[str, object]]
) -> int:
    """Hold them against what was kept: 1 if more than `MAX_SHARE` is lost, else 2 if some do not compare, else 0."""
    if kept["about"] != about:
        print(f"not compared: kept with {kept['about']}, here is {about}")
        return 2
    code = 0
    for objects, counts in found.items():
        before = kept["counts"].get(objects)
        if before is None or before.keys() != counts.keys():
            print(f"{objects} object(s): not compared, other stages or none were kept")
            code = code or 2
            continue
        share = whole_of(counts) / whole_of(before) - 1
        verdict = "TOO MUCH" if share > MAX_SHARE else "within"
        print(
            f"{objects} object(s): {share:+.2%} against what was kept, {verdict} {MAX_SHARE:.0%}"
        )
        code = 1 if share > MAX_SHARE else code
    return code


def record_run(file: Path, objects: int) -> None:
    """Let the shipped tracker follow the drawn clip, and write what its engines gave."""
    with load_bundle("nano") as bundle:
        recorders = tuple(Recorder(engine) for engine in bundle.engines)
        robot = robot_with(replace(bundle, engines=recorders), objects)
        for index in range(WARM_UP + FRAMES):
            feed(robot, index, drawn_frame(index).image)
        arrays = {
            f"{recorder.name}/{i}/{name}": value
            for recorder in recorders
            for i, outputs in enumerate(recorder.given)
            for name, value in outputs.items()
        }
    np.savez(file, **arrays)


def bundle_of_record(file: Path) -> Bundle:
    """A bundle whose engines repeat a record."""
    given: dict[str, list[dict[str, Tensor]]] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            engine, run, name = key.split("/")
            runs = given.setdefault(engine, [])
            if int(run) == len(runs):
                runs.append({})
            runs[int(run)][name] = arrays[key]
    manifest = read_manifest(bundle_folder("nano"))
    engines = tuple(Repeater(piece.name, given[piece.name]) for piece in manifest.pieces)
    return Bundle(manifest=manifest, engines=engines)


def robot_with(bundle: Bundle, objects: int) -> Robot:
    """A pipeline with objects that are pointed at before the first frame."""
    config = Config()
    output = Newest()
    executor = Executor(
        config, (DEFAULT_CAMERA,), lambda rows: Sam2Tracker(bundle, max_objects=rows)
    )
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        executor,
        output,
        latencies=Latencies(tracker_ns=TRACKER_NS),
    )
    feed(Robot(player=player, output=output), -1, drawn_frame(0).image)
    for i, prompt in enumerate(drawn_prompts(objects)):
        player.add_object(DEFAULT_CAMERA, prompt, f"disc-{i}")
    return Robot(player=player, output=output)


def feed(robot: Robot, index: int, image: U8Array) -> None:
    """The next frame of a camera of 30 Hz; what is published is the frame before."""
    robot.player.feed(DEFAULT_CAMERA, image, (index + 2) * PERIOD_NS)


def frames_through_the_door(record: Path, objects: int) -> int:
    """Play a record; each stage of a frame goes through `DOOR`, and named on standard output."""
    cv2 = import_cv2()
    cv2.setNumThreads(1)
    bundle = bundle_of_record(record)
    geometry = bundle.manifest.geometry
    robot = robot_with(bundle, objects)
    messages = _messages()
    jpegs = [_jpeg(drawn_frame(i).image) for i in range(WARM_UP + FRAMES)]
    keys = [TrackKey(str(i)) for i in range(objects)]
    rng = np.random.default_rng(0)
    soft = rng.normal(size=(geometry.mask_size, geometry.mask_size)).astype(np.float32)
    sys.stdout.write(str(os.getpid()))
    for index, jpeg in enumerate(jpegs):
        image = through("decode", lambda data=jpeg: rgb_from_compressed_message(_message(data)))
        through("pipeline and tracker", lambda: feed(robot, index, image))  # noqa: B023 (called at once)
        newest = robot.output.masks
        if messages is not None and newest is not None:
            through("messages", lambda: messages(newest))  # noqa: B023
        through("resize", lambda: pixels_from_image(image, geometry))  # noqa: B023
        through("masks", lambda: [logits_at_source(soft, SIZE_WH) > 0 for _ in keys])
        if newest is None or any(track.mask is None for track in newest.tracks):
            continue
        masks = [mask_from_rle(track.mask) for track in newest.tracks]
        through("boxes and run-length code", lambda: [_record(mask) for mask in masks])  # noqa: B023
        boxes = [track.box for track in newest.tracks]
        maps = [
            None if box is None else mask[window(box)].astype(np.float32)
            for mask, box in zip(masks, boxes, strict=True)
        ]
        through("label map", lambda: label_map(maps, boxes, SIZE_WH))  # noqa: B023
    sys.stdout.write("|")
    return 0


def through(stage: str, work: Callable[[], R]) -> R:
    """What the work gives; by a name of the interpreter callgrind sees where it begins and ends."""
    sys.stdout.write(f"|{stage}")
    door = _Door()
    door @= work
    return cast("R", door.given)


class _Door:
    """`door @= work` does the work: an operator that nothing else here uses."""

    def __imatmul__(self, work: Callable[[], object]) -> _Door:  # noqa: PYI034 (Self is younger than Python 3.10)
        self.given = work()
        return self


def _messages() -> Callable[[PublishedMasks], object] | None:
    """What makes messages of masks, as the node publishes them; None without ROS."""
    if importlib.util.find_spec("foreseg_msgs") is None:
        return None
    from foreseg_ros.conversions import header_from_stamp, image_msg_from_labels
    from foreseg_ros.records import track_array_msg_from_tracks

    def make(masks: PublishedMasks) -> object:
        header = header_from_stamp(masks.frame.stamp_ns, masks.frame.frame_id)
        labels = image_msg_from_labels(masks.label_map, header)
        return labels, track_array_msg_from_tracks(masks.frame, masks.tracks, with_masks=True)

    return make


def _message(jpeg: bytes) -> SimpleNamespace:
    return SimpleNamespace(format="jpeg", data=jpeg)


def _record(mask: Mask) -> TrackedObject:
    return object_from_mask(TrackKey("disc"), mask, object_logit=1.0, score=1.0)


def _jpeg(image: U8Array) -> bytes:
    _, jpeg = import_cv2().imencode(".jpg", np.ascontiguousarray(image[..., ::-1]))
    return bytes(jpeg)


def _environment() -> dict[str, str]:
    """As little as runs, for it lies on the stack: the same wherever it is counted."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", ""),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "PYTHONHASHSEED": "0",
        "OPENBLAS_NUM_THREADS": "1",
        "GLIBC_TUNABLES": TUNABLES,
    }


def _valgrind_version() -> str:
    done = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)  # noqa: S607
    return done.stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", default="1,4", metavar="N,N", help="default: 1,4")
    parser.add_argument("--keep", action="store_true", help=f"write {KEPT.name} anew")
    parser.add_argument("--counted", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
