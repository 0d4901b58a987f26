# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export reasoner --from FOLDER --out BUNDLE`: its options; `reasoner` does the work."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from foreseg.errors import ConfigError, MissingExtraError

PRECISIONS = ("int8", "int8-weights", "fp16", "fp32")
MAX_THREADS = 256
MAX_TOKENS = 1_024


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "reasoner",
        help="a nano reasoner as ONNX graphs, for the reasoner nano: no torch on the robot",
    )
    add = parser.add_argument
    add(
        "--from",
        dest="source",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="a model that `foreseg-train nano` made, with its method.json",
    )
    add("--out", type=Path, required=True, metavar="BUNDLE", help="must not exist, or be empty")
    add("--name", help="of the bundle; default: the folder's")
    add("--licence", default="Apache-2.0", metavar="SPDX", help="of the weights")
    add(
        "--precision",
        choices=PRECISIONS,
        default="int8",
        help="of the weights, the lowest to try: a higher one is taken where answers would change",
    )
    add(
        "--golden",
        action="append",
        default=[],
        metavar="CLIP",
        help="a video or a folder of images to hold it against the torch model on; may be"
        " repeated; default: drawn",
    )
    add(
        "--query",
        action="append",
        default=[],
        metavar="TEXT",
        help="what to ask about each; may be repeated",
    )
    add("--golden-tokens", type=int, default=64, metavar="N", help="of each answer compared")
    _add_what_it_knows(parser)
    add("--threads", type=int, default=1, metavar="N", help="of torch")
    parser.set_defaults(handler=_reasoner)


def _add_what_it_knows(parser: argparse.ArgumentParser) -> None:
    """Of its pictures, and of itself."""
    add = parser.add_argument
    add(
        "--seen",
        type=Path,
        metavar="FILE",
        help="the frames.npy that the training left: pictures unlike these are left to another reasoner",
    )
    add(
        "--unlike",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="pictures that it is not for, such as photographs: what looks like them, or like a"
        " plain drawing, is left to another reasoner, too; may be repeated",
    )
    add(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="of its confidences, fitted by `foreseg-eval --fit-calibration` on an export without",
    )


def _reasoner(arguments: argparse.Namespace) -> int:
    for name, value, most in (
        ("threads", arguments.threads, MAX_THREADS),
        ("golden-tokens", arguments.golden_tokens, MAX_TOKENS),
    ):
        if not 1 <= value <= most:
            msg = f"--{name} wants 1 to {most}, got {value}"
            raise ConfigError(msg)
    if not arguments.source.is_dir():
        msg = f"--from wants a folder with a model, got {arguments.source}"
        raise ConfigError(msg)
    if arguments.query and not arguments.golden:
        msg = "--query wants a clip to ask about: give --golden CLIP"
        raise ConfigError(msg)
    if arguments.unlike and arguments.seen is None:
        msg = "--unlike wants to know what is alike: give --seen FILE"
        raise ConfigError(msg)
    for folder in arguments.unlike:
        if not folder.is_dir():
            msg = f"--unlike wants a folder of pictures, got {folder}"
            raise ConfigError(msg)
    try:
        torch = importlib.import_module("torch")
        reasoner = importlib.import_module("foreseg_export.reasoner")
        quality = importlib.import_module("foreseg_export.vlm_quality")
        importlib.import_module("accelerate")  # of [vlm], which opens the model
    except ModuleNotFoundError as error:
        extra = "export,vlm"
        raise MissingExtraError(error.name or "torch", extra, "exporting a reasoner") from error
    torch.set_num_threads(arguments.threads)
    asked = quality.drawn_set()
    if arguments.golden:
        asked = quality.clip_set(arguments.golden, arguments.query)
    options = reasoner.ReasonerExportOptions(
        name=arguments.name or arguments.out.name,
        licence=arguments.licence,
        precision=arguments.precision,
        max_tokens=arguments.golden_tokens,
        seen=arguments.seen,
        unlike=tuple(arguments.unlike),
        calibration=arguments.calibration,
    )
    manifest = reasoner.export_reasoner(arguments.source, arguments.out, options, asked, _report)
    size = sum(file.num_bytes for file in manifest.files) / 1e6
    print(f"wrote {arguments.out}: {size:.2f} MB, {manifest.precision}")
    return 0


def _report(line: str) -> None:
    print(line, flush=True)
