# SPDX-License-Identifier: Apache-2.0
"""`foreseg bundle inspect|verify|bench BUNDLE`: what a bundle is, whether intact, how fast here."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foreseg.engines.built import BuiltEngines
    from foreseg.engines.manifest import Manifest


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "bundle",
        help="look at an engine bundle, check its files, or time it",
        description="An engine bundle is a folder of graphs with a manifest.json.",
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, handler, text in (
        ("inspect", _inspect, "print what the bundle is and was made from"),
        ("verify", _verify, "compare every file with its hash"),
        ("bench", _bench, "time it on this machine, piece by piece"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.add_argument("bundle", metavar="BUNDLE", help="a folder, or the shipped `nano`")
        action.set_defaults(handler=handler)
        if name == "inspect":
            action.add_argument("--json", action="store_true", help="the manifest as JSON")
        if name == "bench":
            _add_bench_options(action)
    text = "the same as `bundle bench`"
    bench = subparsers.add_parser("bench", help=text, description=text)
    bench.add_argument(
        "bundle", metavar="BUNDLE", nargs="?", default="nano", help="a folder; default: `nano`"
    )
    bench.set_defaults(handler=_bench)
    _add_bench_options(bench)


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--backend",
        default="cpu",
        metavar="NAME",
        help="cpu, cuda, onnx-tensorrt, tensorrt, openvino, auto, or torch (of a checkpoint);"
        " default: cpu",
    )
    add("--objects", default="1,2,4", metavar="N,N", help="how many to track; default: 1,2,4")
    add("--frames", default="100", metavar="N", help="timed frames of each; default: 100")
    add("--threads", default="1", metavar="N", help="of each engine and OpenCV; default: 1")
    add("--json", metavar="FILE", help="also write the numbers here")
    add(
        "--budget",
        action="store_true",
        help="time each stage of a frame instead, from JPEG to label map, beside the camera's period",
    )
    add("--hz", default="30", metavar="N", help="with --budget: of the camera; default: 30")
    add(
        "--selftest",
        action="store_true",
        help="first hold it against its golden data; writes foreseg_selftest.json to send back",
    )
    add(
        "--reasoner",
        metavar="KIND",
        help="with --selftest: ask this reasoner about drawn scenes, too, for the same report",
    )


def verify_bundle(bundle: str) -> tuple[Path, int, int]:
    """Check a bundle's manifest and hashes; its folder, number of files and of bytes.

    Raises:
        EngineError: missing, damaged or changed since its export.
    """
    from foreseg.engines.load import bundle_folder
    from foreseg.engines.manifest import read_manifest, read_piece

    folder = bundle_folder(bundle)
    manifest = read_manifest(folder)
    sizes = [len(read_piece(folder, piece)) for piece in manifest.pieces]
    sizes.append(len(read_piece(folder, manifest.golden)))
    return folder, len(sizes), sum(sizes)


def verify_built(folder: Path) -> Iterator[str]:
    """Check every built engine in a bundle's folder; a line about each set.

    Raises:
        EngineError: a record or an engine is damaged.
    """
    from foreseg.engines.built import built_folders, read_built, read_engine
    from foreseg.engines.manifest import read_manifest

    manifest = read_manifest(folder)
    for path in built_folders(folder):
        built = read_built(path)
        num_bytes = sum(len(read_engine(folder, built, engine)) for engine in built.engines)
        yield f"{path}: intact, {num_bytes / 1e6:.1f} MB, {_freshness(built, manifest)}"
    yield from _chosen_rows(folder, manifest)


def _freshness(built: BuiltEngines, manifest: Manifest) -> str:
    from foreseg.engines.built import stale_reason

    reason = stale_reason(built, manifest)
    return "up to date" if reason is None else f"NOT USABLE: {reason}"


def _chosen_rows(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What was chosen for which processor, and with what result."""
    from foreseg.engines.chosen import chosen_folders, read_chosen, why_stale
    from foreseg.errors import EngineError

    for path in chosen_folders(folder):
        try:
            chosen = read_chosen(path)
        except EngineError as error:
            yield str(error)
            continue
        reason = why_stale(chosen, manifest)
        fresh = "up to date" if reason is None else f"NOT USABLE: {reason}"
        yield f"{path.name} ({chosen.processor_name}): {chosen}, made {chosen.created}, {fresh}"


def _bench(arguments: argparse.Namespace) -> int:
    if arguments.budget:
        from foreseg.commands.bundle_budget import budget

        return budget(arguments)
    from foreseg.commands.bundle_bench import bench

    return bench(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    folder, num_files, num_bytes = verify_bundle(arguments.bundle)
    print(f"{folder}: intact, {num_files} files, {num_bytes / 1e6:.1f} MB")
    for line in verify_built(folder):
        print(line)
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from foreseg.engines.load import bundle_folder
    from foreseg.engines.manifest import read_manifest

    folder = bundle_folder(arguments.bundle)
    manifest = read_manifest(folder)
    if arguments.json:
        print(json.dumps(asdict(manifest), indent=2))
        return 0
    source = f"{manifest.source_name} (sha256 {manifest.source_sha256[:12]}...)"
    rows = (
        ("bundle", f"{manifest.name} ({manifest.family}) in {folder}"),
        ("target", f"{manifest.target}, {manifest.flavour}, opset {manifest.opset}"),
        ("input", f"{manifest.geometry.image_size} x {manifest.geometry.image_size} px"),
        ("source", source),
        ("exporters", ", ".join(manifest.exporters)),
        ("created", manifest.created),
        ("parity", str(manifest.parity)),
    )
    for name, value in rows:
        print(f"{name.ljust(10)} {value}")
    for piece in manifest.pieces:
        print(
            f"{'graph'.ljust(10)} {piece.name}: {piece.num_bytes / 1e6:.2f} MB, {piece.precision}"
        )
    for row in (*_engine_rows(folder, manifest), *_chosen_rows(folder, manifest)):
        print(f"{'engines'.ljust(10)} {row}")
    return 0


def _engine_rows(folder: Path, manifest: Manifest) -> Iterator[str]:
    """What was built of the bundle; an unreadable record is a row, too."""
    from foreseg.engines.built import built_folders, read_built
    from foreseg.errors import EngineError

    for path in built_folders(folder):
        try:
            built = read_built(path)
        except EngineError as error:
            yield str(error)
            continue
        num_bytes = sum(engine.num_bytes for engine in built.engines)
        where = built.device_name or "ahead of time"
        yield (
            f"{path.name} ({where}): {num_bytes / 1e6:.2f} MB, up to {built.max_rows} objects in a"
            f" launch, built {built.created}, {_freshness(built, manifest)}"
        )
