# SPDX-License-Identifier: Apache-2.0
"""Engines that TensorRT built of a bundle's graphs: where they lie, what they were built from.

They stand beside the graphs, in `BUNDLE/engines/<flavour>-<version>-<device>/`: one file a piece,
and `engines.json`. One that was built of another graph, by another version or for another device
is refused, never used. Knows nothing of what builds or executes them.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.base import Dimension, TensorSpec
from foreseg.engines.fields import Fields, read_fields
from foreseg.engines.manifest import Manifest, read_hashed
from foreseg.errors import EngineError

ENGINES_FOLDER = "engines"
RECORD_NAME = "engines.json"
BUILT_FORMAT_VERSION = 1
FLAVOURS = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisRange:
    """Sizes that an engine takes along a named axis, such as B; both ends are inclusive."""

    name: str
    min: int
    opt: int  # what it is tuned for
    max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngine:
    """One piece, built."""

    piece: str
    file: str  # a plain name in the folder of the record
    sha256: str
    num_bytes: int
    graph_sha256: str  # of the ONNX graph it was built from
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: tuple[AxisRange, ...]  # of every named axis; empty if all shapes are fixed
    build_s: float
    num_layers: int  # of the network before its layers were fused

    def axis(self, name: str) -> AxisRange | None:
        """The range of a named axis; None if no input has it."""
        return next((axis for axis in self.profile if axis.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltEngines:
    """What one run of the builder made."""

    format_version: int
    flavour: str  # one of FLAVOURS
    version: str  # of TensorRT, or of TensorRT for RTX
    device: str  # compute capability such as "sm80"; several are joined: "sm86+sm89"
    device_name: str  # "" if it was built without one
    max_rows: int  # rows of a launch: the largest B
    created: str  # ISO 8601, UTC
    builder: str  # system and Python of the machine that built
    engines: tuple[BuiltEngine, ...]

    @property
    def devices(self) -> tuple[str, ...]:
        """Every compute capability it runs on."""
        return tuple(self.device.split("+"))

    @property
    def folder_name(self) -> str:
        """Its folder in `BUNDLE/engines`."""
        return f"{self.flavour}-{self.version}-{self.device}"

    def engine(self, piece: str) -> BuiltEngine:
        """The engine of this piece.

        Raises:
            EngineError: if it was not built.
        """
        for engine in self.engines:
            if engine.piece == piece:
                return engine
        msg = f"no engine of {piece!r} was built, only {[e.piece for e in self.engines]}"
        raise EngineError(msg)


def find_built(
    folder: Path,
    manifest: Manifest,
    *,
    flavour: str,
    version: str,
    device: str,
    device_name: str | None = None,
) -> BuiltEngines:
    """The engines that this TensorRT can run on this device, up to date and whole.

    Compared are records and sizes. The content of a file is compared when `read_engine` reads it.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        flavour: "tensorrt" or "tensorrt_rtx".
        version: of the package that will run them, to the last digit.
        device: compute capability, such as "sm80".
        device_name: as `LocalDevice` gives it. Engines of "tensorrt" are tuned for one GPU, not
            for all of its compute capability; None: not compared.

    Raises:
        EngineError: none was built, or only for another device or version, or the graphs have
            changed since, or a file is missing or truncated; with the command that mends it.
    """
    remedy = build_command(folder, flavour)
    engines_folder = built_folder(folder, flavour=flavour, version=version, device=device)
    if engines_folder is None:
        raise EngineError(_why_none(folder, f"{flavour}-{version}-{device}", remedy))
    built = read_built(engines_folder)
    reason = stale_reason(built, manifest) or _other_device(built, device_name)
    if reason is not None:
        msg = f"the engines in {engines_folder} are stale: {reason}; run `{remedy}`"
        raise EngineError(msg)
    for engine in built.engines:
        path = engines_folder / engine.file
        num_bytes = path.stat().st_size if path.is_file() else None
        if num_bytes != engine.num_bytes:
            has = "is missing" if num_bytes is None else f"has {num_bytes} bytes"
            msg = (
                f"{path} {has}, its record says {engine.num_bytes} bytes: truncated or replaced;"
                f" run `{remedy}`"
            )
            raise EngineError(msg)
    return built


def read_engine(folder: Path, built: BuiltEngines, engine: BuiltEngine) -> bytes:
    """Read an engine whole, and compare it with its record before anybody deserialises it.

    Args:
        folder: of the bundle.
        built: the record that the engine stands in.
        engine: one of its engines.

    Raises:
        EngineError: missing, truncated, or changed since it was built.
    """
    return read_hashed(
        folder / ENGINES_FOLDER / built.folder_name / engine.file,
        num_bytes=engine.num_bytes,
        sha256=engine.sha256,
        remedy=f"run `{build_command(folder, built.flavour)}`",
    )


def build_command(folder: Path, flavour: str) -> str:
    """The command that builds a bundle's engines, to be run on the device."""
    return f"foreseg-export build {shlex.quote(str(folder))} --flavour {flavour.replace('_', '-')}"


def built_folder(folder: Path, *, flavour: str, version: str, device: str) -> Path | None:
    """Where engines for this device lie in a bundle; None if there are none."""
    prefix = f"{flavour}-{version}-"
    for path in built_folders(folder):
        if path.name.startswith(prefix) and device in path.name[len(prefix) :].split("+"):
            return path
    return None


def built_folders(folder: Path) -> tuple[Path, ...]:
    """Every folder of built engines in a bundle, by name."""
    found = (folder / ENGINES_FOLDER).glob(f"*/{RECORD_NAME}")
    return tuple(sorted(path.parent for path in found if not path.parent.name.startswith(".")))


def stale_reason(built: BuiltEngines, manifest: Manifest) -> str | None:
    """Why these engines are not those of the bundle's graphs; None if they are."""
    by_piece = {engine.piece: engine for engine in built.engines}
    for piece in manifest.pieces:
        engine = by_piece.pop(piece.name, None)
        if engine is None:
            return f"{piece.name} was not built"
        if engine.graph_sha256 != piece.sha256:
            return (
                f"{piece.name} was built from the graph {engine.graph_sha256[:12]}..., the bundle"
                f" has {piece.sha256[:12]}..."
            )
    if by_piece:
        return f"the bundle has no {sorted(by_piece)}"
    return None


def write_built(engines_folder: Path, built: BuiltEngines) -> None:
    """Write `engines.json` into the folder of these engines."""
    text = json.dumps(dataclasses.asdict(built), indent=2) + "\n"
    (engines_folder / RECORD_NAME).write_text(text, encoding="utf-8")


def read_built(engines_folder: Path) -> BuiltEngines:
    """Read and check `engines.json`, without looking at the engines.

    Raises:
        EngineError: none there, damaged, in another format, or not what its folder's name says.
    """
    path = engines_folder / RECORD_NAME
    fields = read_fields(path, f"no built engines in {engines_folder}")
    format_version = fields.integer("format_version")
    if format_version != BUILT_FORMAT_VERSION:
        msg = (
            f"{path} has format version {format_version}, this foreseg reads"
            f" {BUILT_FORMAT_VERSION}: build the engines again"
        )
        raise EngineError(msg)
    built = BuiltEngines(
        format_version=format_version,
        flavour=fields.text("flavour"),
        version=fields.text("version"),
        device=fields.text("device"),
        device_name=fields.text("device_name"),
        max_rows=fields.integer("max_rows"),
        created=fields.text("created"),
        builder=fields.text("builder"),
        engines=tuple(_engine(child) for child in fields.children("engines")),
    )
    if built.folder_name != engines_folder.name:
        msg = f"{path} is the record of {built.folder_name!r}, not of {engines_folder.name!r}"
        raise EngineError(msg)
    return built


def _engine(fields: Fields) -> BuiltEngine:
    return BuiltEngine(
        piece=fields.text("piece"),
        file=fields.file_name("file"),
        sha256=fields.text("sha256"),
        num_bytes=fields.integer("num_bytes"),
        graph_sha256=fields.text("graph_sha256"),
        inputs=tuple(_spec(child) for child in fields.children("inputs")),
        outputs=tuple(_spec(child) for child in fields.children("outputs")),
        profile=tuple(_axis(child) for child in fields.children("profile")),
        build_s=fields.number("build_s"),
        num_layers=fields.integer("num_layers"),
    )


def _spec(fields: Fields) -> TensorSpec:
    shape: list[Dimension] = []
    for dim in fields.items("shape"):
        if isinstance(dim, bool) or not isinstance(dim, (int, str)):
            fields.refuse(f"wants integers and names in 'shape', got {dim!r:.60}")
        shape.append(dim)
    return TensorSpec(name=fields.text("name"), shape=tuple(shape), dtype=fields.text("dtype"))


def _axis(fields: Fields) -> AxisRange:
    axis = AxisRange(
        name=fields.text("name"),
        min=fields.integer("min"),
        opt=fields.integer("opt"),
        max=fields.integer("max"),
    )
    if not 1 <= axis.min <= axis.opt <= axis.max:
        fields.refuse(f"wants 1 <= min <= opt <= max, got {axis}")
    return axis


def _other_device(built: BuiltEngines, device_name: str | None) -> str | None:
    if built.flavour != "tensorrt" or device_name in (None, built.device_name):
        return None
    return f"they were tuned for {built.device_name!r}, this is {device_name!r}"


def _why_none(folder: Path, wanted: str, remedy: str) -> str:
    others = [path.name for path in built_folders(folder)]
    if others:
        return f"bundle {folder} has engines of {others}, none of {wanted!r}: run `{remedy}`"
    return f"bundle {folder} has no built engines, wanted {wanted!r}: run `{remedy}`"
