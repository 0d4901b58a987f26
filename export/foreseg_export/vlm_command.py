# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export vlm --model M --out FOLDER`: its options; `vlm` does the work."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from foreseg.errors import ConfigError, MissingExtraError
from foreseg_export.check_option import CHECK_HELP, checked

PRECISIONS = ("nf4", "int8")


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "vlm", help="a vision-language model of the Qwen-VL kind, quantised for transformers:FILE"
    )
    add = parser.add_argument
    add(
        "--model",
        required=True,
        metavar="PATH|ID",
        help="a folder that transformers saved, or owner/name on the hub",
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="must not exist, or be empty")
    add("--name", help="of the quantised model; default: the folder's")
    add("--precision", choices=PRECISIONS, default="nf4")
    add("--device", default="auto", metavar="auto|cpu|cuda|cuda:N")
    add("--threads", type=_positive, metavar="N", help="of torch; default: as it chooses")
    add(
        "--validation",
        action="append",
        default=[],
        metavar="CLIP",
        help="a video or a folder of images to compare it on; may be repeated; default: drawn",
    )
    add(
        "--query",
        action="append",
        default=[],
        metavar="TEXT",
        help="what to ask about each clip; may be repeated",
    )
    add("--report-tokens", type=_positive, default=256, metavar="N", help="of each completion")
    add(
        "--no-report",
        action="store_true",
        help="do not compare it with its source, which needs both in memory",
    )
    add("--check", action="store_true", help=CHECK_HELP)
    parser.set_defaults(handler=_vlm)


def _vlm(arguments: argparse.Namespace) -> int:
    if arguments.query and not arguments.validation:
        msg = "--query wants a clip to ask about: give --validation CLIP"
        raise ConfigError(msg)
    if arguments.validation and arguments.no_report:
        msg = "--validation and --no-report exclude each other: without a report nothing is asked"
        raise ConfigError(msg)
    try:
        torch = importlib.import_module("torch")
        vlm = importlib.import_module("foreseg_export.vlm")
        quality = importlib.import_module("foreseg_export.vlm_quality")
        loading = importlib.import_module("foreseg_torch.vlm.loading")
    except ModuleNotFoundError as error:
        extra = "vlm"
        raise MissingExtraError(error.name or "torch", extra, "quantising a model") from error
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    asked = None
    if arguments.validation:
        asked = quality.clip_set(arguments.validation, arguments.query)
    elif not arguments.no_report:
        asked = quality.drawn_set()
    options = vlm.VlmExportOptions(
        name=arguments.name or arguments.out.name,
        precision=loading.Precision(arguments.precision),
        device=arguments.device,
        max_tokens=arguments.report_tokens,
    )
    manifest = vlm.export_vlm(arguments.model, arguments.out, options, asked, _report)
    size = sum(file.num_bytes for file in manifest.files) / 1e6
    print(f"wrote {arguments.out}: {len(manifest.files)} files, {size:.2f} MB")
    return checked(arguments.out, arguments.device, _report) if arguments.check else 0


def _report(line: str) -> None:
    print(line, flush=True)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        msg = f"wants a whole number of at least 1, got {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
