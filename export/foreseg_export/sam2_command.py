# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export sam2 --checkpoint C --out BUNDLE`: its options; `sam2` does the work."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from foreseg.errors import ForesegError, MissingExtraError
from foreseg_export import build_command
from foreseg_export.option_values import share, whole
from foreseg_export.targets import TARGETS, X86


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "sam2",
        help="a SAM2 video tracker, of Meta's, of transformers', or our nano tracker; or EdgeTAM",
    )
    add = parser.add_argument
    add(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="PATH|ID",
        help="a .pt of Meta's, a transformers folder (SAM2 or EdgeTAM), a nano .safetensors, or"
        " owner/name on the hub",
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="must not exist")
    add("--name", help="of the bundle; default: the folder's")
    add(
        "--target",
        choices=tuple(TARGETS),
        default="cpu",
        help="what it is meant for; default: cpu",
    )
    add(
        "--precision",
        choices=("fp32", "fp16", "int8"),
        default="fp32",
        help="of the arithmetic; int8: of the image encoder, the rest fp16 (on a cpu fp32)",
    )
    add(
        "--stored",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of large weights in the files; fp16 halves them, the gate still holds",
    )
    add(
        "--image-size",
        type=whole(1),
        metavar="N",
        help="side of the model input, 256 to 1024 px; default: the checkpoint's own",
    )
    add(
        "--memory-slots",
        type=whole(1),
        metavar="K",
        help="frames an object remembers, the prompted one included; default: all it can",
    )
    add(
        "--max-objects",
        type=whole(1),
        default=8,
        metavar="N",
        help="that engines built of the bundle take in one launch; default: 8",
    )
    add("--threads", type=whole(1), default=1, metavar="N", help="of torch")
    _add_quality(parser)
    parser.set_defaults(handler=_sam2)


def _add_quality(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--calibration",
        nargs="+",
        default=(),
        metavar="VIDEO|FOLDER",
        help="clips that int8 takes its ranges from; default: a drawn one",
    )
    add(
        "--calibration-method",
        choices=("percentile", "minmax", "entropy"),
        default="percentile",
        help="how; default: percentile (99.99)",
    )
    add(
        "--gate",
        type=share,
        metavar="IOU",
        help="mean mask IoU to reach; default: 0.999 fp32, 0.99 fp16, 0.97 int8",
    )
    add(
        "--parity-frames",
        type=whole(2),
        default=20,
        metavar="N",
        help="2 or more; default: 20",
    )
    add(
        "--no-fallback",
        action="store_true",
        help="refuse where the gate fails, do not raise the pieces that break masks to fp32",
    )
    add(
        "--allow-failed-parity",
        action="store_true",
        help="write the bundle even so; the manifest says it (for untrained weights)",
    )


def _sam2(arguments: argparse.Namespace) -> int:
    try:
        torch = importlib.import_module("torch")
        sam2 = importlib.import_module("foreseg_export.sam2")
    except ModuleNotFoundError as error:
        extra = "export"
        raise MissingExtraError(error.name or "torch", extra, "exporting a tracker") from error
    torch.set_num_threads(arguments.threads)
    options = sam2.ExportOptions(
        name=arguments.name or arguments.out.name,
        target=arguments.target,
        precision=arguments.precision,
        stored=arguments.stored,
        image_size=arguments.image_size,
        memory_slots=arguments.memory_slots,
        max_objects=arguments.max_objects,
        calibration=tuple(arguments.calibration),
        calibration_method=arguments.calibration_method,
        gate=arguments.gate,
        frames=arguments.parity_frames,
        fall_back=not arguments.no_fallback,
        allow_failed_parity=arguments.allow_failed_parity,
    )
    manifest = sam2.export_sam2(arguments.checkpoint, arguments.out, options, _report)
    size = sum(piece.num_bytes for piece in manifest.pieces) / 1e6
    print(f"wrote {arguments.out}: {len(manifest.pieces)} graphs, {size:.2f} MB")
    if TARGETS[arguments.target].devices or arguments.target == X86:
        _build(arguments)
    return 0


def _build(arguments: argparse.Namespace) -> None:
    """Engines for the target, where they can be built without it; else how to build them there."""
    parser = argparse.ArgumentParser()
    build_command.add_command(parser.add_subparsers())
    words = ["build", str(arguments.out), "--target", arguments.target]
    if arguments.target == X86:
        words += ["--threads", str(arguments.threads)]
    else:
        words += ["--max-objects", str(arguments.max_objects)]
    built = parser.parse_args(words)
    try:
        built.handler(built)
    except ForesegError as error:
        print(f"engines are not built here: {error}")


def _report(line: str) -> None:
    print(line, flush=True)
