# SPDX-License-Identifier: Apache-2.0
"""`foreseg bundle inspect|verify|bench BUNDLE`: what a bundle is, whether intact, how fast here."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path


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


def _add_bench_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--objects", default="1,2,4", metavar="N,N", help="how many to track; default: 1,2,4")
    add("--frames", default="100", metavar="N", help="timed frames of each; default: 100")
    add("--threads", default="1", metavar="N", help="of each engine and OpenCV; default: 1")
    add("--json", metavar="FILE", help="also write the numbers here")


def verify_bundle(bundle: str) -> tuple[Path, int, int]:
    """Check a bundle's manifest and hashes; its folder, number of files and of bytes.

    Raises:
        EngineError: missing, damaged or changed since its export.
    """
    from foreseg.engines.load import bundle_folder
    from foreseg.engines.manifest import read_manifest, read_piece

    folder = bundle_folder(bundle)
    sizes = [len(read_piece(folder, piece)) for piece in read_manifest(folder).pieces]
    return folder, len(sizes), sum(sizes)


def _bench(arguments: argparse.Namespace) -> int:
    from foreseg.commands.bundle_bench import bench

    return bench(arguments)


def _verify(arguments: argparse.Namespace) -> int:
    folder, num_files, num_bytes = verify_bundle(arguments.bundle)
    print(f"{folder}: intact, {num_files} graphs, {num_bytes / 1e6:.1f} MB")
    return 0


def _inspect(arguments: argparse.Namespace) -> int:
    from foreseg.engines.load import bundle_folder
    from foreseg.engines.manifest import read_manifest

    folder = bundle_folder(arguments.bundle)
    manifest = read_manifest(folder)
    if arguments.json:
        print(json.dumps(asdict(manifest), indent=2))
        return 0
    parity = manifest.parity
    source = f"{manifest.source_name} (sha256 {manifest.source_sha256[:12]}...)"
    result = (
        f"{'passed' if parity.passed else 'NOT PASSED'}: mean IoU {parity.mean_iou:.5f}"
        f" (gate {parity.gate_mean_iou:g}), smallest {parity.min_iou:.5f},"
        f" {parity.masks} masks, against {parity.reference}"
    )
    rows = (
        ("bundle", f"{manifest.name} ({manifest.family}) in {folder}"),
        ("target", f"{manifest.target}, {manifest.flavour}, opset {manifest.opset}"),
        ("input", f"{manifest.geometry.image_size} x {manifest.geometry.image_size} px"),
        ("source", source),
        ("exporters", ", ".join(manifest.exporters)),
        ("created", manifest.created),
        ("parity", result),
    )
    for name, value in rows:
        print(f"{name.ljust(10)} {value}")
    for piece in manifest.pieces:
        print(
            f"{'graph'.ljust(10)} {piece.name}: {piece.num_bytes / 1e6:.2f} MB, {piece.precision}"
        )
    return 0
