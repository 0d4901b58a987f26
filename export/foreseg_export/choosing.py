# SPDX-License-Identifier: Apache-2.0
"""Finds what runs each piece of a bundle fastest on this processor, and writes it down.

Every back-end and precision that is here is tried for every piece; what fails its golden step is
out. The fastest of each, together, then track the drawn clip: below the gate the piece that is
furthest off takes its next fastest, until the masks pass. Needs the core alone.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from foreseg.commands.bundle_selftest import SelfTest
from foreseg.engines.chosen import (
    CHOSEN_FORMAT_VERSION,
    ONNX_RUNTIME,
    OPENVINO,
    Candidate,
    ChosenEngines,
    ChosenPiece,
    Tried,
    chosen_folder,
    versions_of,
    write_chosen,
)
from foreseg.engines.manifest import Calibration, Manifest, Piece, read_piece
from foreseg.engines.openvino import PROCESSOR
from foreseg.engines.processor import Processor
from foreseg.errors import EngineError, InputError
from foreseg.tracker.golden import GoldenStep, golden_from_bytes
from foreseg_export.probe_child import ClipJob, Device, PieceJob, Refused
from foreseg_export.probing import find_devices, try_clip, try_piece

GATE = 0.99  # mean mask IoU of the whole, if the bundle's own gate is not lower
WORTH = 1.03  # how much faster another back-end than ONNX Runtime has to be
PLAIN = Candidate(runner=ONNX_RUNTIME, device=PROCESSOR, precision="fp32")

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Search:
    """What to choose for."""

    folder: Path  # of the bundle
    manifest: Manifest
    processor: Processor
    threads: int
    gate: float | None = None  # None: `GATE`, or the bundle's own if that is lower
    int8_graphs: Mapping[str, bytes] = field(default_factory=dict)  # piece -> made beside its own
    calibration: Calibration | None = None  # whence the ranges of those; None: there are none


@dataclass(slots=True, eq=False)
class _Race:
    """A piece, its graphs, and its candidates that passed, the fastest first."""

    piece: Piece
    graph: bytes
    tried: tuple[Tried, ...]
    passed: list[Tried]

    @property
    def pick(self) -> Tried:
        return self.passed[0]


def choose(search: Search, report: Report) -> ChosenEngines:
    """Try everything, and write the record into the bundle.

    Raises:
        EngineError: a piece passes nowhere, or the masks miss the gate however they are made.
        InputError: the bundle is damaged, or its folder cannot be written to.
    """
    target = _writable(chosen_folder(search.folder, search.processor))
    load = _load()
    golden = _golden(search)
    devices = find_devices()
    report(f"{search.processor}, {search.threads} thread(s), load {load:.1f}")
    if isinstance(devices, Refused):
        report(f"OpenVINO is left out: {devices.reason}")
        devices = ()
    for device in devices:
        report(f"OpenVINO has {device.device}: {device.name}, {', '.join(device.precisions)}")
        if device.device == PROCESSOR and "bf16" not in device.precisions:
            report("bf16 is left out: OpenVINO finds no instructions for it in this processor")
    races = [_race(search, piece, golden, devices, report) for piece in search.manifest.pieces]
    found, gate = _settle(search, races, report), _gate(search)
    pieces = tuple(_chosen(search, race, target) for race in races)
    chosen = ChosenEngines(
        format_version=CHOSEN_FORMAT_VERSION,
        processor=search.processor.key,
        processor_name=str(search.processor),
        versions=versions_of(pieces),
        threads=search.threads,
        load=round(load, 2),
        frames=found.frames,
        masks=found.masks,
        min_iou=found.min_iou,
        mean_iou=found.mean_iou,
        gate_mean_iou=gate,
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
        calibration=search.calibration if any(piece.file for piece in pieces) else None,
        pieces=pieces,
    )
    write_chosen(target, chosen)
    return chosen


def candidates_of(piece: Piece, devices: Sequence[Device], *, has_int8: bool) -> list[Candidate]:
    """ONNX Runtime first, then all that OpenVINO has; of an int8 graph each once more."""
    own = [PLAIN] + [
        Candidate(runner=OPENVINO, device=device.device, precision=precision)
        for device in devices
        for precision in device.precisions
    ]
    if piece.precision == "int8":
        return [_in_int8(candidate) for candidate in own]
    return own + ([_in_int8(candidate) for candidate in own] if has_int8 else [])


def _in_int8(candidate: Candidate) -> Candidate:
    return Candidate(
        runner=candidate.runner,
        device=candidate.device,
        precision=candidate.precision,
        is_int8=True,
    )


def _race(
    search: Search,
    piece: Piece,
    golden: Mapping[str, GoldenStep],
    devices: Sequence[Device],
    report: Report,
) -> _Race:
    """Try every candidate of one piece.

    Raises:
        EngineError: none passes.
    """
    graph = _graph(search, piece)
    made = search.int8_graphs.get(piece.name)
    jobs = [
        PieceJob(
            name=piece.name,
            graph=graph if made is None or not candidate.is_int8 else made,
            candidate=candidate,
            geometry=search.manifest.geometry,
            threads=search.threads,
            step=golden[piece.name],
        )
        for candidate in candidates_of(piece, devices, has_int8=made is not None)
    ]
    tried = try_piece(jobs)
    for one in tried:
        report(f"{piece.name:<17} {one.candidate!s:<26} {_told(one)}")
    passed = sorted((one for one in tried if not one.refusal), key=_rank)
    if not passed:
        reasons = "; ".join(f"{one.candidate}: {one.refusal}" for one in tried)
        msg = f"nothing here runs {piece.name} of {search.folder}: {reasons}"
        raise EngineError(msg)
    return _Race(piece=piece, graph=graph, tried=tried, passed=passed)


def _rank(one: Tried) -> float:
    taken = float("inf") if one.ms is None else one.ms
    return taken * (1.0 if one.candidate.runner == ONNX_RUNTIME else WORTH)


def _told(one: Tried) -> str:
    error = "" if one.worst_error is None else f"  off by {one.worst_error:.2g}"
    taken = "      -   " if one.ms is None else f"{one.ms:>7.2f} ms"
    return f"{taken}{error}{'  ' + one.refusal if one.refusal else ''}"


def _settle(search: Search, races: Sequence[_Race], report: Report) -> SelfTest:
    """Let the picks track the drawn clip, and give way piece by piece until the gate is passed.

    Raises:
        EngineError: no combination passes.
    """
    gate = _gate(search)
    while True:
        found = try_clip(
            ClipJob(
                folder=search.folder,
                manifest=search.manifest,
                graphs=tuple(_pick(search, race) for race in races),
                threads=search.threads,
            )
        )
        mean_iou, reason = 0.0, ""
        if isinstance(found, Refused):
            reason = found.reason
        else:
            mean_iou, reason = found.mean_iou, found.failure
            if not reason and mean_iou >= gate:
                return found
        reason = reason or f"mean mask IoU {mean_iou:.5f}, gate {gate:g}"
        open_races = [race for race in races if len(race.passed) > 1]
        if not open_races:
            msg = f"no choice of engines passes for {search.folder}: {reason}"
            raise EngineError(msg)
        worst = max(open_races, key=lambda race: race.pick.worst_error or 0.0)
        before = worst.passed.pop(0).candidate
        report(
            f"together: {reason}; {worst.piece.name} gives way from {before} to"
            f" {worst.pick.candidate}"
        )


def _pick(search: Search, race: _Race) -> tuple[str, bytes, Candidate]:
    candidate = race.pick.candidate
    made = search.int8_graphs.get(race.piece.name) if candidate.is_int8 else None
    return race.piece.name, race.graph if made is None else made, candidate


def _chosen(search: Search, race: _Race, target: Path) -> ChosenPiece:
    """The record of a piece; a graph that is not the bundle's own is written beside it."""
    _, graph, candidate = _pick(search, race)
    is_own = graph is race.graph
    file = "" if is_own else f"{race.piece.name}.int8.onnx"
    (target / f"{race.piece.name}.int8.onnx").unlink(missing_ok=True)  # of a run before
    if not is_own:
        (target / file).write_bytes(graph)
    return ChosenPiece(
        piece=race.piece.name,
        graph_sha256=race.piece.sha256,
        candidate=candidate,
        file=file,
        sha256="" if is_own else hashlib.sha256(graph).hexdigest(),
        num_bytes=0 if is_own else len(graph),
        tried=race.tried,
    )


def _gate(search: Search) -> float:
    own = min(GATE, search.manifest.parity.gate_mean_iou)
    return own if search.gate is None else search.gate


def _golden(search: Search) -> Mapping[str, GoldenStep]:
    manifest = search.manifest
    where = str(search.folder / manifest.golden.file)
    try:
        content = read_piece(search.folder, manifest.golden)
        steps = {step.piece: step for step in golden_from_bytes(content, where).steps}
    except EngineError as error:
        raise InputError(str(error)) from error
    lacking = [piece.name for piece in manifest.pieces if piece.name not in steps]
    if lacking:
        msg = f"{where} has no golden inputs for {lacking}: export the bundle again"
        raise InputError(msg)
    return steps


def _graph(search: Search, piece: Piece) -> bytes:
    try:
        return read_piece(search.folder, piece)
    except EngineError as error:
        raise InputError(str(error)) from error


def _writable(folder: Path) -> Path:
    """Make the folder of the record, before minutes are spent."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        msg = (
            f"the choice cannot be written to {folder}: {error.strerror or error}; copy the bundle"
            " to where there is room and you may write"
        )
        raise InputError(msg) from error
    return folder


def _load() -> float:
    try:
        return os.getloadavg()[0]
    except OSError:
        return -1.0
