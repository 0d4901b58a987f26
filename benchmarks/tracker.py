# SPDX-License-Identifier: Apache-2.0
"""foreseg's tracker beside its peers: `tracker.py [--json FILE] [--sizes nano,512] [--objects 1,2,4]`.

In one run, on the same drawn frames, weights and threads: foreseg on ONNX Runtime, `transformers`'
Sam2VideoModel streaming, and the `sam2` package's video predictor (in torch, eager, float32).
Each is a process of its own; they take turns every few frames, so that all meet the same load of
the machine. A number as size is SAM2.1-tiny at so many model pixels with random weights, exported
first; `nano` is the shipped tracker. `whole` goes from an RGB frame to masks at source size;
foreseg alone also makes boxes, run-length code and the label map in it. `inside` is the engines'
or the network's share (the `sam2` package enlarges masks in it). `--alone` leaves the peers out.
`--best` adds each one's best: foreseg on what `foreseg-export build --target x86` chooses here, on a
copy, and the peers in torch's autocast to bfloat16; the speedup is then also of the best of each side.
With `--int8 CLIP ...` the image encoder in int8, its ranges from these clips, is tried for that, too.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from peers import BEST, LOWER, NAMES, Job, Step, is_installed, serve

from foreseg.commands.bundle_bench import (
    MAX_FRAMES,
    MAX_OBJECTS,
    SIZE_WH,
    machine_name,
    spread_of,
    versions,
    whole_number,
    writable_file,
    write_text,
)
from foreseg.engines.load import bundle_folder
from foreseg.engines.manifest import read_manifest
from foreseg.engines.processor import this_processor
from foreseg.errors import ForesegError, InputError

ROOT = Path(__file__).resolve().parents[1]
NANO = ROOT / "training" / "checkpoints" / "nano_tracker.safetensors"
TURN = 5  # frames
MIN_AREA_PX = 400  # of an object that is compared
# size -> timed frames and warm-up: a memory is full after 7 frames, with its pointers after 16
FRAMES = {"nano": (200, 20), "other": (20, 8)}
# how many times faster than the best peer, with one object and with four
BARS = {"nano": 2.0, "512": 1.3}  # both in float32
BEST_BARS = {"nano": 2.5, "512": 1.5}  # the best of each side
BARRED = {"1", "4"}
NEVER_SLOWER = 1.0
UNIT_PX, LEAST_PX, MOST_PX = 32, 256, 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender at one size with so many objects; speedup is the best peer's ms over ours."""

    size: str
    objects: int
    name: str
    frames: int
    warm_up: int
    whole_p50_ms: float
    whole_p99_ms: float
    inside_p50_ms: float
    peak_mb: float | None  # of its process, with this many objects or fewer
    mean_iou: float | None  # of foreseg's masks with this contender's
    min_iou: float | None
    masks: int  # compared


def main() -> None:
    arguments = _parser().parse_args()
    try:
        file = writable_file(arguments.json) if arguments.json else None
        objects = [whole_number(n, "--objects", MAX_OBJECTS) for n in arguments.objects.split(",")]
        frames = whole_number(arguments.frames, "--frames", MAX_FRAMES) if arguments.frames else 0
        threads = whole_number(arguments.threads, "--threads", os.cpu_count() or 1)
        sizes = [_size(word) for word in arguments.sizes.split(",")]
        if arguments.int8 and not arguments.best:
            msg = "--int8 is for --best: say both"
            raise InputError(msg)
        for clip in arguments.int8:
            if not Path(clip).expanduser().exists():
                msg = f"--int8 wants videos or folders of pictures, nothing is at {clip}"
                raise InputError(msg)
        if any(size != "nano" for size in sizes) and not is_installed("torch"):
            msg = "a random SAM2.1-tiny is made with torch: pip install 'foreseg[export]'"
            raise InputError(msg)
    except ForesegError as error:
        _parser().error(str(error))
    names = [name for name in NAMES if is_installed(name)][: 1 if arguments.alone else None]
    if arguments.best:
        names += [BEST, *(name + LOWER for name in names[1:])]
    load = os.getloadavg()[0]
    rows: list[Row] = []
    for size in sizes:
        timed_frames, warm_up = FRAMES.get(size, FRAMES["other"])
        with job_of(size, threads) as plain, built_of(plain, arguments) as job:
            rows += race(size, job, names, objects, (frames or timed_frames, warm_up))
    about = {
        "machine": machine_name(),
        "processor": str(this_processor()),
        "cores": os.cpu_count(),
        "threads": threads,
        "source_px": list(SIZE_WH),
        "load_before": load,
        "load_after": os.getloadavg()[0],
        "versions": versions(
            ("numpy", "onnxruntime", "openvino", "torch", "transformers", "sam2")
        ),
    }
    speedups = {f"speedup_{size}_{n}": speedup(rows, size, n) for size in sizes for n in objects}
    if arguments.best:
        speedups |= {
            f"best_{size}_{n}": speedup(rows, size, n, best=True)
            for size in sizes
            for n in objects
        }
    show(about, rows, speedups)
    if file is not None:
        data = {**speedups, "about": about, "rows": [asdict(row) for row in rows]}
        write_text(file, json.dumps(data, indent=2) + "\n")


@contextmanager
def job_of(size: str, threads: int) -> Iterator[Job]:
    """The weights of a size; random ones lie in a temporary folder."""
    if size == "nano":
        yield Job(checkpoint=NANO, bundle="nano", threads=threads)
        return
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, bundle = Path(scratch) / "checkpoint", Path(scratch) / "bundle"
        print(f"SAM2.1-tiny at {size} px, random weights: exporting", flush=True)
        context = multiprocessing.get_context("spawn")  # its memory ends with it
        maker = context.Process(target=_make, args=(int(size), checkpoint, bundle))
        maker.start()
        maker.join()
        if maker.exitcode != 0:
            msg = f"the export at {size} px left with {maker.exitcode}"
            raise SystemExit(msg)
        yield Job(checkpoint=checkpoint, bundle=str(bundle), threads=threads)


@contextmanager
def built_of(job: Job, arguments: argparse.Namespace) -> Iterator[Job]:
    """The same, with a copy of the bundle for which engines were chosen, if that is wanted."""
    if not arguments.best:
        yield job
        return
    from foreseg_export.choosing import Search, choose
    from foreseg_export.int8_graph import INT8_PIECE, int8_graph

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(bundle_folder(job.bundle), Path(scratch) / "built"))
        manifest = read_manifest(folder)
        search = Search(
            folder=folder,
            manifest=manifest,
            processor=this_processor(),
            threads=job.threads,
            gate=None if job.bundle == "nano" else 0.0,  # random weights: masks are noise
        )
        if arguments.int8:
            graph, ranges = int8_graph(folder, manifest, arguments.int8, method="percentile")
            search = replace(search, int8_graphs={INT8_PIECE: graph}, calibration=ranges)
        print(f"chosen: {choose(search, print)}", flush=True)
        yield replace(job, built=str(folder))


def race(
    size: str, job: Job, names: Sequence[str], objects: Sequence[int], frames: tuple[int, int]
) -> list[Row]:
    """Every contender with every number of objects, in turns of a few frames."""
    from tqdm import tqdm

    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    for name in names:
        pipes[name], theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, name, job), daemon=True).start()
        theirs.close()
        _answer(pipes[name], name)
    timed_frames, warm_up = frames
    rows: list[Row] = []
    with tqdm(total=len(objects) * (timed_frames + warm_up), unit=" frames", desc=size) as bar:
        for count in objects:
            steps: dict[str, list[Step]] = {name: [] for name in names}
            peaks: dict[str, int | None] = {}
            for name in names:
                pipes[name].send(("start", count))
                _answer(pipes[name], name)
            for first in range(0, warm_up + timed_frames, TURN):
                turn = min(TURN, warm_up + timed_frames - first)
                shift = first // TURN % len(names)
                for name in (*names[shift:], *names[:shift]):
                    pipes[name].send((first + 1, turn))
                    new, peaks[name] = _answer(pipes[name], name)
                    steps[name] += new
                bar.update(turn)
            ours = steps["foreseg"][warm_up:]
            rows += [
                _row(size, count, name, steps[name][warm_up:], ours, warm_up, peaks[name])
                for name in names
            ]
    for pipe in pipes.values():
        pipe.send(None)
    return rows


def speedup(rows: Sequence[Row], size: str, objects: int, *, best: bool = False) -> float | None:
    """Whole milliseconds of the best peer over ours, all in float32 or at their best; None without a peer."""
    found = {r.name: r.whole_p50_ms for r in rows if (r.size, r.objects) == (size, objects)}
    if not best:
        found = {name: ms for name, ms in found.items() if name in NAMES}
    ours = [found.pop(name) for name in ("foreseg", BEST) if name in found]
    return min(found.values()) / min(ours) if found else None


def show(about: dict[str, object], rows: Sequence[Row], speedups: dict[str, float | None]) -> None:
    """Print the table and whether the bars are met."""
    w, h = SIZE_WH
    print(
        f"{about['machine']}, {about['threads']} of {about['cores']} cores, load"
        f" {about['load_before']:.2f} before and {about['load_after']:.2f} after, frames of {w}x{h}"
    )
    print(about["processor"])
    print(", ".join(f"{name} {number}" for name, number in about["versions"].items()))
    print(
        "\nms a frame                          ------- whole -------   inside            IoU with ours"
    )
    print(
        "  size  objects  contender               p50        p99      p50     peak     mean (min)"
    )
    for row in rows:
        peak = "unknown" if row.peak_mb is None else f"{row.peak_mb:.0f} MB"
        iou = "-" if row.mean_iou is None else f"{row.mean_iou:.5f} ({row.min_iou:.5f})"
        print(
            f"{row.size:>6}  {row.objects:>7}  {row.name:<17} {row.whole_p50_ms:>9.1f}"
            f"  {row.whole_p99_ms:>9.1f}  {row.inside_p50_ms:>7.1f}  {peak:>7}  {iou:>19}"
        )
    for name in NAMES:
        if not is_installed(name):
            print(f"{name}: not installed")
    for size in dict.fromkeys(row.size for row in rows):
        row = next(row for row in rows if row.size == size)
        print(f"{size}: {row.frames} frames each after {row.warm_up} of warm-up")
    for key, value in speedups.items():
        kind, size, objects = key.split("_")
        bars = BARS if kind == "speedup" else BEST_BARS
        wanted = bars.get(size, NEVER_SLOWER) if objects in BARRED else NEVER_SLOWER
        if value is None:
            print(f"{key}: no peer ran")
        else:
            verdict = "met" if value >= wanted else "NOT MET"
            print(f"{key}: {value:.2f}x the best peer's speed, bar {wanted:g}x {verdict}")


def _row(
    size: str,
    objects: int,
    name: str,
    steps: Sequence[Step],
    ours: Sequence[Step],
    warm_up: int,
    peak_bytes: int | None,
) -> Row:
    whole = spread_of([step.whole_ms for step in steps])
    ious = []
    for mine, theirs in zip(ours, steps, strict=True):
        a, b = np.unpackbits(mine.masks, axis=-1), np.unpackbits(theirs.masks, axis=-1)
        both, either = (a & b).sum(axis=(1, 2)), (a | b).sum(axis=(1, 2))
        ious += (both / np.maximum(either, 1))[b.sum(axis=(1, 2)) >= MIN_AREA_PX].tolist()
    is_other = name != "foreseg" and bool(ious)
    return Row(
        size=size,
        objects=objects,
        name=name,
        frames=len(steps),
        warm_up=warm_up,
        whole_p50_ms=whole.p50_ms,
        whole_p99_ms=whole.p99_ms,
        inside_p50_ms=spread_of([step.inside_ms for step in steps]).p50_ms,
        peak_mb=None if peak_bytes is None else peak_bytes / 1e6,
        mean_iou=float(np.mean(ious)) if is_other else None,
        min_iou=float(np.min(ious)) if is_other else None,
        masks=len(ious),
    )


def _answer(pipe: Connection, name: str) -> tuple[list[Step], int | None]:
    try:
        answer: tuple[list[Step], int | None] = pipe.recv()
    except EOFError:
        msg = f"{name} ended early: its traceback stands above"
        raise SystemExit(msg) from None
    return answer


def _make(side: int, checkpoint: Path, bundle: Path) -> None:
    """A random SAM2.1-tiny as a folder of transformers', and its bundle."""
    from untrained import save_untrained_tiny

    from foreseg_export.sam2 import ExportOptions, export_sam2

    save_untrained_tiny(checkpoint, side)
    options = ExportOptions(name=f"tiny_{side}", frames=2, allow_failed_parity=True)
    export_sam2(checkpoint, bundle, options, print)


def _size(word: str) -> str:
    text = word.strip()
    if text == "nano":
        return text
    side = int(text) if text.isascii() and text.isdecimal() else 0
    if not (LEAST_PX <= side <= MOST_PX and side % UNIT_PX == 0):
        msg = (
            f"--sizes wants `nano`, or {LEAST_PX} to {MOST_PX} in multiples of {UNIT_PX}, with"
            f" commas between, got {word[:40]!r}"
        )
        raise InputError(msg)
    return str(side)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--sizes", default="nano,512", metavar="S,S", help="default: nano,512")
    add("--objects", default="1,2,4", metavar="N,N", help="default: 1,2,4")
    add("--frames", metavar="N", help="timed frames; default: 200 at nano, 20 else")
    add("--threads", default="1", metavar="N", help="of each contender; default: 1")
    add("--alone", action="store_true", help="without the peers")
    add("--best", action="store_true", help="also each at its best precision; needs openvino")
    add(
        "--int8",
        nargs="+",
        default=[],
        metavar="CLIP",
        help="for --best: clips with ranges for int8",
    )
    add("--json", metavar="FILE", help="also write the numbers here")
    return parser


if __name__ == "__main__":
    main()
