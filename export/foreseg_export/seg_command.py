# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export seg`: its options; `foreseg_torch` joins two models, `published` converts others'."""

from __future__ import annotations

import argparse
import importlib
import tempfile
from pathlib import Path
from types import ModuleType

from foreseg.errors import ConfigError, MissingExtraError
from foreseg_export.check_option import CHECK_HELP, checked

METHODS = ("visa", "fevos", "sa2va")
MAX_SEED = 2**63 - 1
PRECISIONS = ("bf16", "nf4", "int8", "fp32")
FROM_PRECISIONS = ("bf16", "nf4", "int8")


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "seg",
        help="a [SEG] model: one that Sa2VA's code exported, or the start of one to be trained",
        description="With --from, a published folder becomes one that is loaded here; nothing of"
        " it is run. With --vlm and --sam2, a language model is joined to SAM2's heads: the"
        " projection between the two is random, and its masks mean nothing until it has been"
        " trained.",
    )
    add = parser.add_argument
    add("--from", dest="source", metavar="PATH|ID", help="a folder that Sa2VA's code exported, or"
        " owner/name on the hub")  # fmt: skip
    add("--vlm", metavar="PATH|ID", help="a folder, or owner/name on the hub")
    add("--sam2", type=Path, metavar="PATH", help="a folder of transformers', or a"
        " nano tracker's .safetensors")  # fmt: skip
    add("--method", choices=METHODS, help="in whose words it is asked; default: sa2va, which wants"
        " --from; with --vlm visa")  # fmt: skip
    add("--precision", choices=PRECISIONS, default="bf16", help="of the language model's weights; with"
        " --from, what nf4 or int8 cost the masks is measured and told")  # fmt: skip
    add(
        "--seed", type=int, default=0, metavar="N", help="of the projection that --vlm begins with"
    )
    add("--out", type=Path, required=True, metavar="FOLDER", help="must not exist, or be empty")
    add("--check", action="store_true", help=CHECK_HELP)
    parser.set_defaults(handler=_seg)


def _seg(arguments: argparse.Namespace) -> int:
    if not 0 <= arguments.seed <= MAX_SEED:
        msg = f"--seed wants 0 to {MAX_SEED}, got {arguments.seed}"
        raise ConfigError(msg)
    joins = arguments.vlm is not None and arguments.sam2 is not None
    if (arguments.source is None) != joins or (arguments.source and arguments.vlm):
        msg = "seg wants --from, or --vlm and --sam2"
        raise ConfigError(msg)
    if joins and arguments.method == "sa2va":
        msg = (
            "--method sa2va wants --from: with --vlm and --sam2 expected visa or fevos, got sa2va"
        )
        raise ConfigError(msg)
    if arguments.source is None:
        _join(arguments)
    else:
        _convert(arguments)
    return checked(arguments.out, "auto", _report) if arguments.check else 0


def _join(arguments: argparse.Namespace) -> None:
    store = _module("foreseg_torch.seg.store")
    loading = _module("foreseg_torch.vlm.loading")
    method = arguments.method or "visa"
    store.assemble_seg_vlm(
        arguments.vlm,
        arguments.sam2,
        arguments.out,
        method=method,
        precision=loading.Precision(arguments.precision),
        seed=arguments.seed,
    )
    print(f"wrote {arguments.out}: {_mb(arguments.out)}, {method}, its projection UNTRAINED")


def _convert(arguments: argparse.Namespace) -> None:
    """A published folder, or one of ours that is to be coarser."""
    source, out, precision = arguments.source, arguments.out, arguments.precision
    if precision not in FROM_PRECISIONS:
        msg = f"--from makes {', '.join(FROM_PRECISIONS)}, got --precision {precision}"
        raise ConfigError(msg)
    is_ours = (Path(source) / "seg.json").is_file()
    if is_ours and (precision == "bf16" or arguments.method):
        msg = (
            f"{source} is a folder of foreseg's already: load it as it is, or make it coarser with"
            " --precision nf4 or int8; its method stays"
        )
        raise ConfigError(msg)
    method = arguments.method or "sa2va"
    published = _module("foreseg_export.published")
    if is_ours:
        _coarser(Path(source), out, precision)
    elif precision == "bf16":
        published.convert_published(source, out, method=method, report=_report)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            whole = Path(scratch) / "bf16"
            published.convert_published(source, whole, method=method, report=_report)
            _coarser(whole, out, precision)
    print(f"wrote {out}: {_mb(out)}, {precision}, from {source}")


def _coarser(source: Path, out: Path, precision: str) -> None:
    quantise = _module("foreseg_export.seg_quantise")
    asked = _module("foreseg_export.vlm_quality").drawn_set()
    kind = _module("foreseg_torch.vlm.loading").Precision(precision)
    quantise.quantise_seg(source, out, kind, asked, _report)


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        extra = "vlm"
        raise MissingExtraError(error.name or "torch", extra, "a model that segments") from error


def _mb(folder: Path) -> str:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return f"{size:.2f} MB"


def _report(line: str) -> None:
    print(line, flush=True)
