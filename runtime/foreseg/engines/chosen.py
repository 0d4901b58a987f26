# SPDX-License-Identifier: Apache-2.0
"""Which back-end and precision runs each piece fastest on one processor, as a probe found it.

The record lies beside the graphs, in `BUNDLE/engines/<processor>/chosen.json`, with the figures of
all that was tried. One of other graphs, of another processor or of other versions is refused, never
used. Knows nothing of how it was found, nor of what executes it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.built import ENGINES_FOLDER
from foreseg.engines.fields import Fields, read_fields
from foreseg.engines.manifest import (
    Calibration,
    Manifest,
    Piece,
    calibration_from_fields,
    read_hashed,
    read_piece,
)
from foreseg.engines.openvino import PRECISIONS
from foreseg.engines.processor import Processor
from foreseg.errors import EngineError

CHOSEN_NAME = "chosen.json"
CHOSEN_FORMAT_VERSION = 2
ONNX_RUNTIME, OPENVINO = "onnxruntime", "openvino"
RUNNERS = (ONNX_RUNTIME, OPENVINO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to run a piece."""

    runner: str  # one of RUNNERS
    device: str  # as the runner names it
    precision: str  # of its arithmetic, as the runner is told
    is_int8: bool = False  # the graph's products with weights are int8

    def __str__(self) -> str:
        text = self.precision if self.device == "CPU" else f"{self.device} {self.precision}"
        return f"{self.runner} {'int8 and ' if self.is_int8 else ''}{text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of one candidate for a piece."""

    candidate: Candidate
    ms: float | None  # a launch with one row, median; None: it never ran to the end
    worst_error: float | None  # RMS of its worst output over that of the reference
    refusal: str  # why it cannot be taken; "" if it can


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenPiece:
    """What a piece shall run on."""

    piece: str
    graph_sha256: str  # of the bundle's graph
    candidate: Candidate
    file: str  # of another graph in the folder of the record; "": the bundle's own
    sha256: str  # of that file
    num_bytes: int
    tried: tuple[Tried, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenEngines:
    """What one run of the probe found."""

    format_version: int
    processor: str  # its key
    processor_name: str  # with its features
    versions: tuple[str, ...]  # "package version" of every runner that is wanted
    threads: int  # of the engines when they were timed
    load: float  # of the machine before; -1: it does not tell
    frames: int  # of the drawn clip that the whole was held against
    masks: int
    min_iou: float
    mean_iou: float
    gate_mean_iou: float
    created: str  # ISO 8601, UTC
    calibration: Calibration | None  # of graphs that were made int8; None: none of them is wanted
    pieces: tuple[ChosenPiece, ...]

    def __str__(self) -> str:
        told = ", ".join(f"{piece.piece} on {piece.candidate}" for piece in self.pieces)
        ranges = f"; {self.calibration}" if self.calibration else ""
        return f"{told}; mean mask IoU {self.mean_iou:.5f} (gate {self.gate_mean_iou:g}){ranges}"


def find_chosen(folder: Path, manifest: Manifest, processor: Processor) -> ChosenEngines | None:
    """The record for this processor, if it is fresh; None if nothing was ever chosen for this bundle.

    Raises:
        EngineError: chosen for another processor alone, of other graphs or versions, or damaged;
            with the command that mends it.
    """
    remedy = f"run `{choose_command(folder)}`"
    mine = chosen_folder(folder, processor)
    if not (mine / CHOSEN_NAME).is_file():
        others = [path.name for path in chosen_folders(folder)]
        if not others:
            return None
        msg = f"engines of {folder} were chosen for {others}, this is {processor.key}: {remedy}"
        raise EngineError(msg)
    chosen = read_chosen(mine)
    reason = why_stale(chosen, manifest)
    if reason is not None:
        msg = f"the choice of engines in {mine} is stale: {reason}; {remedy}"
        raise EngineError(msg)
    return chosen


def read_graph(folder: Path, chosen: ChosenEngines, piece: ChosenPiece, own: Piece) -> bytes:
    """The graph that a piece shall run, compared with its record.

    Args:
        folder: of the bundle.
        chosen: the record.
        piece: of the record.
        own: the same piece of the manifest.

    Raises:
        EngineError: missing, truncated or changed.
    """
    if not piece.file:
        return read_piece(folder, own)
    return read_hashed(
        folder / ENGINES_FOLDER / chosen.processor / piece.file,
        num_bytes=piece.num_bytes,
        sha256=piece.sha256,
        remedy=f"run `{choose_command(folder)}`",
    )


def why_stale(chosen: ChosenEngines, manifest: Manifest) -> str | None:
    """Why a choice is not one of these graphs with what is installed; None if it is."""
    by_piece: Mapping[str, ChosenPiece] = {piece.piece: piece for piece in chosen.pieces}
    if by_piece.keys() != {piece.name for piece in manifest.pieces}:
        return f"it is of {sorted(by_piece)}, the bundle has {[p.name for p in manifest.pieces]}"
    for piece in manifest.pieces:
        known = by_piece[piece.name].graph_sha256
        if known != piece.sha256:
            return (
                f"{piece.name} was the graph {known[:12]}..., the bundle has"
                f" {piece.sha256[:12]}..."
            )
    here = versions_of(chosen.pieces)
    if chosen.versions != here:
        return f"it was made with {', '.join(chosen.versions)}, here is {', '.join(here)}"
    return None


def choose_command(folder: Path) -> str:
    """The command that chooses engines for the processor on which it runs."""
    return f"foreseg-export build {shlex.quote(str(folder))} --target x86"


def chosen_folder(folder: Path, processor: Processor) -> Path:
    """Where the record for a processor lies."""
    return folder / ENGINES_FOLDER / processor.key


def chosen_folders(folder: Path) -> tuple[Path, ...]:
    """Every folder of a bundle that holds a choice."""
    found = (folder / ENGINES_FOLDER).glob(f"*/{CHOSEN_NAME}")
    return tuple(sorted(path.parent for path in found if not path.parent.name.startswith(".")))


def versions_of(pieces: tuple[ChosenPiece, ...]) -> tuple[str, ...]:
    """Name and installed version of each runner that these pieces want."""
    names = sorted({piece.candidate.runner for piece in pieces})
    return tuple(f"{name} {installed_version(name)}" for name in names)


def installed_version(runner: str) -> str:
    """Of a runner's package; "missing" if it is not installed."""
    names = (runner, "onnxruntime-gpu") if runner == ONNX_RUNTIME else (runner,)
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "missing"


def write_chosen(engines_folder: Path, chosen: ChosenEngines) -> None:
    """Write `chosen.json` into its folder, in one step."""
    text = json.dumps(dataclasses.asdict(chosen), indent=2) + "\n"
    new = engines_folder / f".{CHOSEN_NAME}.new"
    new.write_text(text, encoding="utf-8")
    new.replace(engines_folder / CHOSEN_NAME)


def read_chosen(engines_folder: Path) -> ChosenEngines:
    """Read and check `chosen.json`.

    Raises:
        EngineError: none there, damaged, in another format, or not what its folder's name says.
    """
    path = engines_folder / CHOSEN_NAME
    fields = read_fields(path, f"no chosen engines in {engines_folder}")
    version = fields.integer("format_version")
    if version != CHOSEN_FORMAT_VERSION:
        msg = (
            f"{path} has format version {version}, this foreseg reads {CHOSEN_FORMAT_VERSION}: run"
            " `foreseg-export build --target x86` again"
        )
        raise EngineError(msg)
    chosen = ChosenEngines(
        format_version=version,
        processor=fields.text("processor"),
        processor_name=fields.text("processor_name"),
        versions=tuple(str(item) for item in fields.items("versions")),
        threads=fields.positive("threads"),
        load=fields.number("load"),
        frames=fields.integer("frames"),
        masks=fields.integer("masks"),
        min_iou=fields.number("min_iou"),
        mean_iou=fields.number("mean_iou"),
        gate_mean_iou=fields.number("gate_mean_iou"),
        created=fields.text("created"),
        calibration=calibration_from_fields(fields.child_or_none("calibration")),
        pieces=tuple(_piece(child) for child in fields.children("pieces")),
    )
    if chosen.processor != engines_folder.name:
        msg = f"{path} is the record of {chosen.processor!r}, not of {engines_folder.name!r}"
        raise EngineError(msg)
    return chosen


def _piece(fields: Fields) -> ChosenPiece:
    file = fields.text("file")
    return ChosenPiece(
        piece=fields.text("piece"),
        graph_sha256=fields.text("graph_sha256"),
        candidate=_candidate(fields.child("candidate")),
        file=fields.file_name("file") if file else "",
        sha256=fields.text("sha256"),
        num_bytes=fields.integer("num_bytes"),
        tried=tuple(_tried(child) for child in fields.children("tried")),
    )


def _candidate(fields: Fields) -> Candidate:
    runner, precision = fields.text("runner"), fields.text("precision")
    if runner not in RUNNERS:
        fields.refuse(f"wants one of {RUNNERS} in 'runner', got {runner!r:.60}")
    if precision not in PRECISIONS:
        fields.refuse(f"wants one of {tuple(PRECISIONS)} in 'precision', got {precision!r:.60}")
    return Candidate(
        runner=runner,
        device=fields.text("device"),
        precision=precision,
        is_int8=fields.flag("is_int8"),
    )


def _tried(fields: Fields) -> Tried:
    return Tried(
        candidate=_candidate(fields.child("candidate")),
        ms=fields.number_or_none("ms"),
        worst_error=fields.number_or_none("worst_error"),
        refusal=fields.text("refusal"),
    )
