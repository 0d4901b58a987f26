# SPDX-License-Identifier: Apache-2.0
"""Brings the built engines of a bundle up to date: keeps what fits, builds the rest.

Each engine is written as soon as it is built, and the record after it: a build that is stopped
goes on where it was, and at no time is a record there that fits files of another build.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
import platform
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.built import (
    BUILT_FORMAT_VERSION,
    ENGINES_FOLDER,
    RECORD_NAME,
    AxisRange,
    BuiltEngine,
    BuiltEngines,
    read_built,
    read_engine,
    write_built,
)
from foreseg.engines.manifest import Manifest, read_piece
from foreseg.errors import EngineError, InputError
from foreseg_export.engine_build import (
    POINTS_AXIS,
    ROWS_AXIS,
    BuildOptions,
    Engine,
    EngineBuilder,
    Progress,
)
from foreseg_export.targets import BuildPlan
from foreseg_export.tensorrt_api import Package

TUNED_ROWS = 2  # what most streams track at a time
MAX_POINTS = 16  # that the tracker gives an object on one frame

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What to bring up to date."""

    folder: Path  # of the bundle
    manifest: Manifest
    plan: BuildPlan
    max_objects: int  # rows of a launch
    pieces: Collection[str]  # names of those to build if need be; the others are left alone
    force: bool = False  # build what is up to date as well
    workspace_mb: int | None = None
    optimization_level: int | None = None


def build_engines(
    package: Package, work: Work, report: Report, progress: Progress | None = None
) -> BuiltEngines:
    """Build every piece that is missing, stale, damaged, or made for other sizes.

    Raises:
        EngineError: TensorRT does not build a piece; what was built before it stays.
        InputError: the bundle is damaged, or its folder cannot be written to.
    """
    known = _known(work, package.__version__)
    built = known or _empty(work, package.__version__)
    engines_folder = work.folder / ENGINES_FOLDER / built.folder_name
    todo = [piece for piece in work.manifest.pieces if piece.name in work.pieces]
    reasons = [
        "asked for" if work.force else _why_build(work, built, piece.name) for piece in todo
    ]
    if any(reasons):
        _check(work, engines_folder.parent)
    builder: EngineBuilder | None = None
    for i, (piece, reason) in enumerate(zip(todo, reasons, strict=True)):
        head = f"[{i + 1}/{len(todo)}] {piece.name}"
        if reason is None:
            kept = built.engine(piece.name)
            report(f"{head}: up to date, {_size(kept.num_bytes)}")
            continue
        graph = _graph(work, piece.name)
        builder = builder or EngineBuilder(package, work.plan.devices, _options(work))
        engine = builder.build(piece.name, graph, progress)
        record = _record(piece.name, piece.sha256, engine)
        built = _with(work, built, record)
        _write(engines_folder, built, record.file, engine.content)
        report(
            f"{head}: {engine.build_s:.1f} s, {_size(record.num_bytes)},"
            f" {engine.num_layers} layers ({reason})"
        )
    return built


def _check(work: Work, parent: Path) -> None:
    """Refuse a damaged graph, and a folder that cannot be written to, before minutes are spent."""
    for name in work.pieces:
        _graph(work, name)
    with _writing(parent), tempfile.TemporaryDirectory(prefix=".", dir=parent):
        pass


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Make a folder; whatever fails in it is said to the user."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        msg = (
            f"engines cannot be written to {folder}: {error.strerror or error}; copy the bundle"
            " to where there is room and you may write"
        )
        raise InputError(msg) from error


def _known(work: Work, version: str) -> BuiltEngines | None:
    """The record of engines for the same devices; None if there is none that can be read."""
    folder = work.folder / ENGINES_FOLDER / _empty(work, version).folder_name
    try:
        built = read_built(folder)
    except EngineError:
        return None  # damaged, or of an older format: all is built anew
    if work.plan.flavour == "tensorrt" and built.device_name != work.plan.device_name:
        return None  # tuned for another device of this compute capability
    return built


def _empty(work: Work, version: str) -> BuiltEngines:
    return BuiltEngines(
        format_version=BUILT_FORMAT_VERSION,
        flavour=work.plan.flavour,
        version=version,
        device=work.plan.device,
        device_name=work.plan.device_name,
        max_rows=work.max_objects,
        created="",
        builder="",
        engines=(),
    )


def _why_build(work: Work, built: BuiltEngines, name: str) -> str | None:
    """Why a piece has to be built; None if its engine is up to date and intact."""
    engine = next((engine for engine in built.engines if engine.piece == name), None)
    if engine is None:
        return "new"
    if engine.graph_sha256 != work.manifest.piece(name).sha256:
        return "the graph has changed"
    wanted = _options(work).axes
    if any(axis != wanted.get(axis.name) for axis in engine.profile):
        return "it was built for other sizes"
    try:
        read_engine(work.folder, built, engine)
    except EngineError:
        return "its file was damaged"
    return None


def _options(work: Work) -> BuildOptions:
    rows, points = work.max_objects, MAX_POINTS
    return BuildOptions(
        axes={
            ROWS_AXIS: AxisRange(name=ROWS_AXIS, min=1, opt=min(TUNED_ROWS, rows), max=rows),
            POINTS_AXIS: AxisRange(name=POINTS_AXIS, min=1, opt=1, max=points),
        },
        workspace_mb=work.workspace_mb,
        optimization_level=work.optimization_level,
    )


def _graph(work: Work, name: str) -> bytes:
    try:
        return read_piece(work.folder, work.manifest.piece(name))
    except EngineError as error:
        raise InputError(str(error)) from error


def _record(name: str, graph_sha256: str, engine: Engine) -> BuiltEngine:
    return BuiltEngine(
        piece=name,
        file=f"{name}.engine",
        sha256=hashlib.sha256(engine.content).hexdigest(),
        num_bytes=len(engine.content),
        graph_sha256=graph_sha256,
        inputs=engine.inputs,
        outputs=engine.outputs,
        profile=engine.profile,
        build_s=round(engine.build_s, 3),
        num_layers=engine.num_layers,
    )


def _with(work: Work, built: BuiltEngines, record: BuiltEngine) -> BuiltEngines:
    """The record with one engine new or replaced, in the manifest's order."""
    by_piece = {engine.piece: engine for engine in built.engines} | {record.piece: record}
    engines = tuple(by_piece[p.name] for p in work.manifest.pieces if p.name in by_piece)
    rows = [axis.max for engine in engines if (axis := engine.axis(ROWS_AXIS)) is not None]
    return dataclasses.replace(
        built,
        device_name=work.plan.device_name,
        max_rows=min(rows, default=work.max_objects),
        created=dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
        builder=f"{platform.platform()}, Python {platform.python_version()}",
        engines=engines,
    )


def _write(engines_folder: Path, built: BuiltEngines, file: str, content: bytes) -> None:
    """Put an engine and its record in place, each in one step."""
    parent = engines_folder.parent
    with _writing(parent), tempfile.TemporaryDirectory(prefix=".", dir=parent) as scratch:
        (Path(scratch) / file).write_bytes(content)
        write_built(Path(scratch), built)
        engines_folder.mkdir(exist_ok=True)
        (Path(scratch) / file).replace(engines_folder / file)
        (Path(scratch) / RECORD_NAME).replace(engines_folder / RECORD_NAME)


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:.2f} MB"
