# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export seg --vlm V --sam2 S --out FOLDER`: its options; `foreseg_torch` does the work."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from foreseg.errors import ConfigError, MissingExtraError

METHODS = ("visa", "fevos")
MAX_SEED = 2**63 - 1
PRECISIONS = ("bf16", "nf4", "int8", "fp32")


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "seg",
        help="the start of a [SEG] model: a language model joined to SAM2's heads, to be trained",
        description="The projection between the two is random: the folder's masks mean nothing"
        " until it has been trained.",
    )
    add = parser.add_argument
    add("--vlm", required=True, metavar="PATH|ID", help="a folder, or owner/name on the hub")
    add("--sam2", type=Path, required=True, metavar="PATH", help="a folder of transformers', or a"
        " nano tracker's .safetensors")  # fmt: skip
    add("--method", choices=METHODS, default="visa")
    add("--precision", choices=PRECISIONS, default="bf16", help="of the language model's weights")
    add("--seed", type=int, default=0, metavar="N", help="of the projection")
    add("--out", type=Path, required=True, metavar="FOLDER", help="must not exist, or be empty")
    parser.set_defaults(handler=_seg)


def _seg(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.seed <= MAX_SEED:
        msg = f"--seed wants 0 to {MAX_SEED}, got {arguments.seed}"
        raise ConfigError(msg)
    try:
        store = importlib.import_module("foreseg_torch.seg.store")
        loading = importlib.import_module("foreseg_torch.vlm.loading")
    except ModuleNotFoundError as error:
        extra = "vlm"
        raise MissingExtraError(error.name or "torch", extra, "joining the two models") from error
    store.assemble_seg_vlm(
        arguments.vlm,
        arguments.sam2,
        arguments.out,
        method=arguments.method,
        precision=loading.Precision(arguments.precision),
        seed=arguments.seed,
    )
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file()) / 1e6
    print(f"wrote {arguments.out}: {size:.2f} MB, {arguments.method}, its projection UNTRAINED")
    return 0
