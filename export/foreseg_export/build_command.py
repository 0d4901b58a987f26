# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export build BUNDLE`: TensorRT engines of a bundle, for this device or ahead of time.

With `--target x86`: what runs each piece fastest on this processor. Needs TensorRT, or OpenVINO, and
the core alone, neither torch nor onnx: it runs on a Jetson.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from foreseg.engines.built import ENGINES_FOLDER, FLAVOURS, BuiltEngines, stale_reason
from foreseg.engines.chosen import CHOSEN_NAME, chosen_folder
from foreseg.engines.load import bundle_folder
from foreseg.engines.local_device import local_device
from foreseg.engines.manifest import Calibration, Manifest, read_manifest
from foreseg.engines.processor import this_processor
from foreseg.errors import EngineError, InputError
from foreseg_export.bundle_engines import Work, build_engines
from foreseg_export.choosing import GATE, Search, choose
from foreseg_export.int8_graph import INT8_PIECE, int8_graph
from foreseg_export.option_values import share, whole
from foreseg_export.targets import MAX_OBJECTS, TARGETS, X86, advice, plan_build
from foreseg_export.tensorrt_api import is_installed, open_package

MAX_LEVEL, MAX_THREADS = 5, 256
X86_MACHINES = ("x86_64", "AMD64", "i686")
ELSEWHERE = "ONNX Runtime runs the graphs as they are, `tracker.backend: cpu`"
REDRAW_S, LOG_PERIOD_S = 0.1, 30.0  # of the line that shows progress; in a log file


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "build",
        help="TensorRT engines of a bundle, or what suits this processor best",
        description="Builds what is missing or stale and keeps the rest. On a machine with a GPU"
        " for that GPU, else for --target with TensorRT for RTX. With --target x86 every back-end"
        " and precision of this processor is tried and the fastest that is right is written down.",
    )
    add = parser.add_argument
    add("bundle", metavar="BUNDLE", help="a folder, or the shipped `nano`")
    add("--target", choices=sorted(TARGETS), help="default: this machine's GPU, or the bundle's")
    flavours = [flavour.replace("_", "-") for flavour in FLAVOURS]
    add("--flavour", choices=("auto", *flavours), default="auto", help="of TensorRT")
    add(
        "--max-objects",
        type=whole(1, MAX_OBJECTS),
        metavar="N",
        help="rows in one launch; default: what the bundle was exported for",
    )
    add("--pieces", metavar="NAME,NAME", help="only these; default: all")
    add("--force", action="store_true", help="build what is up to date as well")
    add(
        "--workspace-mb",
        type=whole(1, 1 << 20),
        metavar="N",
        help="memory that a layer may use on the device; default: all of it",
    )
    add(
        "--optimization-level",
        type=whole(0, MAX_LEVEL),
        metavar="N",
        help=f"0 to {MAX_LEVEL}, of TensorRT: how long it searches; default: its own",
    )
    add(
        "--threads",
        type=whole(1, MAX_THREADS),
        default=1,
        metavar="N",
        help="x86: of an engine while it is timed; default: 1",
    )
    add(
        "--gate",
        type=share,
        metavar="IOU",
        help=f"x86: mean mask IoU to reach; default: {GATE:g}, or the bundle's own if lower",
    )
    _add_int8(parser)
    parser.set_defaults(handler=_build)


def _add_int8(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--int8", action="store_true", help="x86: try the image encoder in int8, too; needs onnx")
    add(
        "--calibration",
        nargs="+",
        default=(),
        metavar="VIDEO|FOLDER",
        help="clips that --int8 takes its ranges from, best like your camera's; default: a drawn one",
    )
    add(
        "--calibration-method",
        choices=("percentile", "minmax", "entropy"),
        help="how; default: percentile (99.99)",
    )


def _choose(arguments: argparse.Namespace, folder: Path, manifest: Manifest) -> int:
    """What runs each piece fastest on this processor."""
    processor = this_processor()
    if processor.machine not in X86_MACHINES:
        msg = f"--target x86 is for Intel and AMD processors, this is {processor}: {ELSEWHERE}"
        raise InputError(msg)
    graphs, calibration = _int8_graphs(arguments, folder, manifest)
    search = Search(
        folder=folder,
        manifest=manifest,
        processor=processor,
        threads=arguments.threads,
        gate=arguments.gate,
        int8_graphs=graphs,
        calibration=calibration,
    )
    chosen = choose(search, partial(print, flush=True))
    print(f"chosen: {chosen}\nwrote {chosen_folder(folder, processor) / CHOSEN_NAME}")
    print(f"next: foreseg bench {shlex.quote(arguments.bundle)} --backend auto --selftest")
    return 0


def _int8_graphs(
    arguments: argparse.Namespace, folder: Path, manifest: Manifest
) -> tuple[Mapping[str, bytes], Calibration | None]:
    if not arguments.int8:
        return {}, None
    graph, calibration = int8_graph(
        folder,
        manifest,
        arguments.calibration,
        method=arguments.calibration_method or "percentile",
    )
    print(calibration, flush=True)
    return {INT8_PIECE: graph}, calibration


def _build(arguments: argparse.Namespace) -> int:
    if arguments.int8 and arguments.target != X86:
        msg = (
            f"--int8 is tried with --target {X86}; for other devices `foreseg-export sam2"
            " --precision int8` makes a bundle"
        )
        raise InputError(msg)
    if (arguments.calibration or arguments.calibration_method) and not arguments.int8:
        msg = "--calibration and --calibration-method are for --int8: say it, or none of them"
        raise InputError(msg)
    folder = bundle_folder(arguments.bundle)
    try:
        manifest = read_manifest(folder)
    except EngineError as error:
        raise InputError(str(error)) from error
    if arguments.target == X86:
        return _choose(arguments, folder, manifest)
    pieces = _pieces(arguments.pieces, manifest)
    local = local_device()
    name = arguments.target
    if name is None and local is None and TARGETS.get(manifest.target, TARGETS["cpu"]).devices:
        name = manifest.target
    target = None if name is None else TARGETS[name]
    plan = plan_build(
        target=target,
        flavour=None if arguments.flavour == "auto" else arguments.flavour.replace("-", "_"),
        local=local,
        installed=[flavour for flavour in FLAVOURS if is_installed(flavour)],
        command=f"foreseg-export build {shlex.quote(arguments.bundle)}",
    )
    package = open_package(plan.flavour)
    where = plan.device_name or "ahead of time"
    print(f"{plan.flavour} {package.__version__} for {plan.device} ({where})", flush=True)
    work = Work(
        folder=folder,
        manifest=manifest,
        plan=plan,
        max_objects=arguments.max_objects or manifest.max_objects,
        pieces=pieces,
        force=arguments.force,
        workspace_mb=arguments.workspace_mb,
        optimization_level=arguments.optimization_level,
    )
    with _Progress() as progress:
        built = build_engines(package, work, progress.report, progress.step)
    hint = None if target is None else advice(target, manifest)
    if hint is not None:
        print(hint)
    _say_result(arguments.bundle, work, built)
    return 0


def _say_result(bundle: str, work: Work, built: BuiltEngines) -> None:
    total = sum(engine.num_bytes for engine in built.engines) / 1e6
    print(
        f"{work.folder / ENGINES_FOLDER / built.folder_name}: {len(built.engines)} of"
        f" {len(work.manifest.pieces)} engines, {total:.2f} MB,"
        f" up to {built.max_rows} objects in a launch"
    )
    reason = stale_reason(built, work.manifest)
    if reason is not None:
        print(f"not ready: {reason}; build without --pieces")
        return
    where = "here" if work.plan.device_name else "on the device"
    print(f"next, {where}: foreseg bench {shlex.quote(bundle)} --backend tensorrt --selftest")


def _pieces(text: str | None, manifest: Manifest) -> tuple[str, ...]:
    known = tuple(piece.name for piece in manifest.pieces)
    if text is None:
        return known
    wanted = [name.strip() for name in text.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        msg = f"--pieces names {unknown}, the bundle has {list(known)}"
        raise InputError(msg)
    return tuple(name for name in known if name in wanted)


class _Progress:
    """A line that shows what the builder is at; ^C stops it at its next step.

    Python's own answer to ^C, an exception, would be swallowed by TensorRT.
    """

    def __init__(self) -> None:
        self._is_stopped = False
        self._drawn_s = time.monotonic()
        self._is_terminal = sys.stderr.isatty()

    def step(self, phase: str, step: int, steps: int) -> bool:
        """Show a step of the builder; False once the user has stopped it."""
        now = time.monotonic()
        if now - self._drawn_s >= (REDRAW_S if self._is_terminal else LOG_PERIOD_S):
            self._drawn_s = now
            line = f"  {phase}: {step}/{steps}"
            if self._is_terminal:
                line = "\r\x1b[K" + line[: shutil.get_terminal_size().columns - 1]
            else:
                line += "\n"
            sys.stderr.write(line)
            sys.stderr.flush()
        return not self._is_stopped

    def report(self, line: str) -> None:
        """Print a line that stays."""
        if self._is_terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
        print(line, flush=True)

    def __enter__(self) -> _Progress:  # noqa: PYI034 (Self is younger than Python 3.10)
        self._before = signal.signal(signal.SIGINT, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _stop(self, *_: object) -> None:
        self._is_stopped = True
        signal.signal(signal.SIGINT, self._before)  # a second ^C does not wait
