# SPDX-License-Identifier: Apache-2.0
"""Opens an engine bundle: checks its manifest and hashes, then hands each graph to a back-end."""

from __future__ import annotations

import importlib.resources
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from foreseg.engines.base import Engine
from foreseg.engines.manifest import Manifest, Piece, read_manifest, read_piece
from foreseg.engines.onnx import CPU_PROVIDER, OnnxEngine
from foreseg.engines.store import HostStore, StoreMaker
from foreseg.errors import EngineError

SHIPPED_BUNDLES = {"nano": "nano_tracker"}  # name -> folder in foreseg/models

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """An opened bundle: its manifest, and its engines in the manifest's order."""

    manifest: Manifest
    engines: tuple[Engine, ...]
    make_store: StoreMaker = HostStore  # room for tensors where the engines run

    def engine(self, name: str) -> Engine:
        """The engine of this piece.

        Raises:
            EngineError: if the bundle has no such piece.
        """
        for engine in self.engines:
            if engine.name == name:
                return engine
        msg = (
            f"bundle {self.manifest.name!r} has no piece {name!r},"
            f" only {[e.name for e in self.engines]}"
        )
        raise EngineError(msg)

    def close(self) -> None:
        """Close every engine."""
        for engine in self.engines:
            engine.close()

    def __enter__(self) -> Bundle:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def bundle_folder(path_or_name: str | Path) -> Path:
    """The folder of a shipped bundle's name ("nano"), or the path itself."""
    folder = SHIPPED_BUNDLES.get(str(path_or_name))
    if folder is None:
        return Path(path_or_name)
    return Path(str(importlib.resources.files("foreseg") / "models" / folder))


def load_bundle(
    path_or_name: str | Path = "nano",
    *,
    providers: Sequence[str] = (CPU_PROVIDER,),
    threads: int = 1,
    targets: Sequence[str] = ("cpu",),
) -> Bundle:
    """Open a bundle; every graph's hash is checked before a back-end parses it.

    Args:
        path_or_name: a bundle's folder, or "nano" for the one that is shipped.
        providers: of ONNX Runtime, in order of preference; the first must be available.
        threads: per engine, at least 1.
        targets: the devices whose bundles run here; "cpu" bundles are plain ONNX.

    Raises:
        EngineError: missing, damaged, tampered with, newer, or made for another target.
        MissingExtraError: the back-end's package is not installed.
    """
    folder = bundle_folder(path_or_name)
    manifest = read_manifest(folder)
    if manifest.target not in targets:
        msg = (
            f"bundle {folder} was made for the target {manifest.target!r}, this machine runs"
            f" {list(targets)}: export it for one of these"
        )
        raise EngineError(msg)
    graphs = [(piece, read_piece(folder, piece)) for piece in manifest.pieces]
    engines = tuple(_open(manifest, piece, graph, providers, threads) for piece, graph in graphs)
    _log.info(
        "bundle %r from %s: %s, %d pieces, parity mean IoU %.5f",
        manifest.name, folder, manifest.flavour, len(engines), manifest.parity.mean_iou,
    )  # fmt: skip
    return Bundle(manifest=manifest, engines=engines)


def _open(
    manifest: Manifest, piece: Piece, graph: bytes, providers: Sequence[str], threads: int
) -> Engine:
    if manifest.flavour == "onnx":
        return OnnxEngine(piece.name, graph, providers=providers, threads=threads)
    msg = f"bundle {manifest.name!r} holds {manifest.flavour!r} engines; only 'onnx' runs here"
    raise EngineError(msg)
