# SPDX-License-Identifier: Apache-2.0
"""Opens the pieces of a bundle, each on what was chosen for it on this processor."""

from __future__ import annotations

from pathlib import Path

from foreseg.engines.base import Engine
from foreseg.engines.chosen import (
    OPENVINO,
    Candidate,
    choose_command,
    find_chosen,
    read_graph,
)
from foreseg.engines.manifest import Manifest, Sam2Geometry
from foreseg.engines.onnx import KEPT_UP_TO_PX, OnnxEngine
from foreseg.engines.openvino import OpenVinoEngine
from foreseg.engines.processor import Processor
from foreseg.engines.sam2_specs import sam2_specs
from foreseg.errors import EngineError, ForesegError


def open_chosen(
    folder: Path, manifest: Manifest, processor: Processor, threads: int
) -> tuple[Engine, ...]:
    """The pieces in the manifest's order.

    Raises:
        EngineError: nothing was chosen for this processor, or the choice is stale or damaged, or a
            piece does not open on what was chosen for it.
        MissingExtraError: what was chosen is not installed.
    """
    chosen = find_chosen(folder, manifest, processor)
    if chosen is None:
        msg = f"no engines of {folder} were chosen: run `{choose_command(folder)}`"
        raise EngineError(msg)
    by_piece = {piece.piece: piece for piece in chosen.pieces}
    engines: list[Engine] = []
    try:
        for own in manifest.pieces:
            piece = by_piece[own.name]
            graph = read_graph(folder, chosen, piece, own)
            engines.append(
                open_candidate(own.name, graph, piece.candidate, manifest.geometry, threads)
            )
    except ForesegError:
        for engine in engines:
            engine.close()
        raise
    return tuple(engines)


def open_candidate(
    name: str, graph: bytes, candidate: Candidate, geometry: Sam2Geometry, threads: int
) -> Engine:
    """One piece on one back-end.

    Raises:
        EngineError: it does not open there.
        MissingExtraError: the back-end is not installed.
    """
    if candidate.runner != OPENVINO:
        gives_back = geometry.image_size > KEPT_UP_TO_PX
        return OnnxEngine(name, graph, threads=threads, gives_back=gives_back)
    specs = sam2_specs(geometry)
    if name not in specs:
        msg = f"OpenVINO runs the pieces {list(specs)}: the axes of {name!r} are not known"
        raise EngineError(msg)
    inputs, outputs = specs[name]
    return OpenVinoEngine(
        name,
        graph,
        inputs=inputs,
        outputs=outputs,
        precision=candidate.precision,
        threads=threads,
        device=candidate.device,
    )
