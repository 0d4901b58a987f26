# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export sam2 --checkpoint C --out BUNDLE`: the command line of this room."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from foreseg.errors import ForesegError, MissingExtraError


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 after one line that says what is wrong."""
    arguments = _parser().parse_args(argv)
    try:
        return _sam2(arguments)
    except ForesegError as error:
        print(f"foreseg-export: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="foreseg-export", description="Make engine bundles of checkpoints."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    sam2 = commands.add_parser(
        "sam2", help="a SAM2 video tracker: nano .safetensors or a transformers folder"
    )
    sam2.add_argument("--checkpoint", type=Path, required=True, metavar="PATH")
    sam2.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="must not exist")
    sam2.add_argument("--name", help="of the bundle; default: the folder's")
    sam2.add_argument("--target", choices=("cpu",), default="cpu")
    sam2.add_argument("--precision", choices=("fp32",), default="fp32", help="of the arithmetic")
    sam2.add_argument(
        "--stored",
        choices=("fp32", "fp16"),
        default="fp32",
        help="of large weights in the files; fp16 halves them, the gate still holds",
    )
    sam2.add_argument("--parity-frames", type=_positive, default=20, metavar="N")
    sam2.add_argument(
        "--allow-failed-parity",
        action="store_true",
        help="write the bundle even so; the manifest says it (for untrained weights)",
    )
    sam2.add_argument("--threads", type=_positive, default=1, metavar="N", help="of torch")
    return parser


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
        frames=arguments.parity_frames,
        allow_failed_parity=arguments.allow_failed_parity,
    )
    manifest = sam2.export_sam2(arguments.checkpoint, arguments.out, options, _report)
    size = sum(piece.num_bytes for piece in manifest.pieces) / 1e6
    print(f"wrote {arguments.out}: {len(manifest.pieces)} graphs, {size:.2f} MB")
    return 0


def _report(line: str) -> None:
    print(line, flush=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        msg = f"wants at least 1, got {text}"
        raise argparse.ArgumentTypeError(msg)
    return value


if __name__ == "__main__":
    sys.exit(main())
