# SPDX-License-Identifier: Apache-2.0
"""The manifest of an engine bundle: what the graphs are, what they were made from, their hashes.

Reads and writes `manifest.json`; knows nothing of what executes the graphs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.fields import Fields, read_fields
from foreseg.errors import EngineError
from foreseg.files import file_size, read_file

MANIFEST_NAME = "manifest.json"
FAMILIES = ("sam2", "edgetam")  # the same four graphs and geometry
FORMAT_VERSION = 2
MAX_FILE_BYTES = 1 << 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Sam2Geometry:
    """The sizes that the numpy half of a SAM2 or EdgeTAM tracker needs.

    `mask_kernel` and `mask_bias` are the one convolution (4 x 4, stride 4) that turns a mask
    prompt into the scale of mask logits.
    """

    image_size: int  # side of the square model input, model pixels
    feature_size: int  # side of the stride-16 feature map
    mask_size: int  # side of the mask logits
    hidden_channels: int
    memory_tokens: int  # of a remembered frame: cells of its feature map, or EdgeTAM's latents
    memory_channels: int
    num_recent: int  # memory entries besides the conditioning one
    num_pointers: int  # object pointers, the conditioning one included
    multimask_min_points: int  # a prompt with so many points gets the best of several masks
    multimask_max_points: int
    multimask_in_tracking: bool
    pixel_mean: tuple[float, ...]  # RGB, of pixels in 0..1
    pixel_std: tuple[float, ...]
    mask_kernel: tuple[float, ...]  # 16, row by row
    mask_bias: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputParity:
    """How far one output of a graph is from the reference's on the golden inputs."""

    name: str
    max_abs: float
    rms: float
    reference_rms: float  # the scale that the two above are read against


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One graph of the bundle."""

    name: str
    file: str  # a plain name inside the bundle
    precision: str  # of its arithmetic: fp32, fp16 or int8; its inputs and outputs are float32
    stored: str  # of its weights in the file
    sha256: str
    num_bytes: int
    outputs: tuple[OutputParity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """How well the bundle's masks agree with those of the reference it was made from."""

    reference: str  # "": nothing was compared, the note says why
    frames: int
    objects: int
    masks: int  # compared: the reference's area is at least `min_area_px`
    min_area_px: int
    max_abs_logit: float
    rms_logit: float
    reference_rms_logit: float  # the scale that the two above are read against
    min_iou: float
    mean_iou: float
    gate_mean_iou: float
    note: str = ""

    @classmethod
    def not_measured(cls, note: str) -> Parity:
        """Nothing was compared, for the reason that the note gives."""
        return cls(
            reference="",
            frames=0,
            objects=0,
            masks=0,
            min_area_px=0,
            max_abs_logit=0.0,
            rms_logit=0.0,
            reference_rms_logit=0.0,
            min_iou=0.0,
            mean_iou=0.0,
            gate_mean_iou=1.0,
            note=note,
        )

    @property
    def passed(self) -> bool:
        """True if masks were compared and their mean overlap reached the gate."""
        return self.masks > 0 and self.mean_iou >= self.gate_mean_iou

    def __str__(self) -> str:
        if not self.reference:
            return f"not measured: {self.note}"
        return (
            f"{'passed' if self.passed else 'NOT PASSED'}: mean mask IoU {self.mean_iou:.5f}"
            f" (gate {self.gate_mean_iou:g}), smallest {self.min_iou:.5f}, {self.masks} masks,"
            f" against {self.reference}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """Mask overlap with the reference where this piece alone is lowered to this precision."""

    piece: str
    precision: str
    min_iou: float
    mean_iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What the ranges of int8 values were taken from."""

    method: str  # percentile, minmax or entropy
    sources: tuple[str, ...]  # names of the user's clips, or "drawn"
    frames: int  # that were looked at

    def __str__(self) -> str:
        return f"int8 ranges ({self.method}) of {self.frames} frames of {', '.join(self.sources)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """The file of golden inputs, outputs and masks by which a device checks itself."""

    file: str
    sha256: str
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that is known about a bundle."""

    format_version: int
    family: str  # one of FAMILIES
    name: str
    geometry: Sam2Geometry
    target: str  # what it is meant for: cpu, a100, jetson-orin, ...; the graphs run anywhere
    flavour: str  # onnx
    precision: str  # that was asked for; a piece that broke masks has a higher one
    max_objects: int  # rows in one launch of engines that are built of it
    opset: int
    pieces: tuple[Piece, ...]
    source_name: str  # the checkpoint's file or folder name
    source_sha256: str
    exporters: tuple[str, ...]  # "package version"
    parity: Parity
    sensitivity: tuple[Sensitivity, ...]  # of the pieces that were lowered to try
    calibration: Calibration | None  # None: nothing is int8
    golden: Golden
    created: str  # ISO 8601, UTC

    def piece(self, name: str) -> Piece:
        """The piece with this name.

        Raises:
            EngineError: if there is none.
        """
        for piece in self.pieces:
            if piece.name == name:
                return piece
        msg = f"bundle {self.name!r} has no piece {name!r}, only {[p.name for p in self.pieces]}"
        raise EngineError(msg)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a bundle's folder."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Read and check `manifest.json`, without looking at the graphs.

    Raises:
        EngineError: no bundle there, unreadable, a field missing or of another type, or made in
            another format.
    """
    path = folder / MANIFEST_NAME
    fields = read_fields(path, f"no engine bundle in {folder}")
    version = fields.integer("format_version")
    if version != FORMAT_VERSION:
        age, remedy = "older", "export the bundle again"
        if version > FORMAT_VERSION:
            age, remedy = "newer", "upgrade foreseg"
        msg = (
            f"{path} has format version {version}, {age} than {FORMAT_VERSION}, which this"
            f" foreseg reads: {remedy}"
        )
        raise EngineError(msg)
    return _manifest(fields, version)


def read_piece(folder: Path, file: Piece | Golden) -> bytes:
    """Read a graph or the golden file, compared with the manifest before anybody parses it.

    Raises:
        EngineError: missing, truncated, or changed since the export.
    """
    return read_hashed(
        folder / file.file,
        num_bytes=file.num_bytes,
        sha256=file.sha256,
        remedy="export or copy the bundle again",
    )


def read_hashed(path: Path, *, num_bytes: int, sha256: str, remedy: str) -> bytes:
    """Read a file whole and compare it with what its record says.

    Raises:
        EngineError: missing, truncated or changed; ends with the remedy.
    """
    try:
        size = file_size(path)
        if size != num_bytes or size > MAX_FILE_BYTES:
            msg = (
                f"{path} has {size} bytes, its record says {num_bytes}, at most {MAX_FILE_BYTES}"
                f" are read: truncated or replaced; {remedy}"
            )
            raise EngineError(msg)
        content = read_file(path, num_bytes)
    except OSError as error:
        msg = f"bundle {path.parent} lacks {path.name}: {error.strerror or error}; {remedy}"
        raise EngineError(msg) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        msg = (
            f"{path} has sha256 {digest[:12]}..., its record says {sha256[:12]}...:"
            f" changed since it was made; {remedy}"
        )
        raise EngineError(msg)
    return content


def sha256_of(path: Path) -> str:
    """Hash of a file, or of a folder's files with their names in sorted order."""
    digest = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _manifest(fields: Fields, version: int) -> Manifest:
    family = fields.text("family")
    if family not in FAMILIES:
        fields.refuse(f"wants one of {FAMILIES} in 'family', got {family!r:.60}")
    return Manifest(
        format_version=version,
        family=family,
        name=fields.text("name"),
        geometry=_geometry(fields.child("geometry")),
        target=fields.text("target"),
        flavour=fields.text("flavour"),
        precision=fields.text("precision"),
        max_objects=fields.positive("max_objects"),
        opset=fields.integer("opset"),
        pieces=tuple(_piece(child) for child in fields.children("pieces")),
        source_name=fields.text("source_name"),
        source_sha256=fields.text("source_sha256"),
        exporters=tuple(str(item) for item in fields.items("exporters")),
        parity=_parity(fields.child("parity")),
        sensitivity=tuple(_sensitivity(child) for child in fields.children("sensitivity")),
        calibration=calibration_from_fields(fields.child_or_none("calibration")),
        golden=_golden(fields.child("golden")),
        created=fields.text("created"),
    )


def _geometry(fields: Fields) -> Sam2Geometry:
    pixel_std = fields.numbers("pixel_std", 3)
    if not min(pixel_std) > 0:
        fields.refuse(f"wants 'pixel_std' above 0, got {pixel_std}")
    return Sam2Geometry(
        image_size=fields.positive("image_size"),
        feature_size=fields.positive("feature_size"),
        mask_size=fields.positive("mask_size"),
        hidden_channels=fields.positive("hidden_channels"),
        memory_tokens=fields.positive("memory_tokens"),
        memory_channels=fields.positive("memory_channels"),
        num_recent=fields.positive("num_recent"),
        num_pointers=fields.positive("num_pointers"),
        multimask_min_points=fields.integer("multimask_min_points"),
        multimask_max_points=fields.integer("multimask_max_points"),
        multimask_in_tracking=fields.flag("multimask_in_tracking"),
        pixel_mean=fields.numbers("pixel_mean", 3),
        pixel_std=pixel_std,
        mask_kernel=fields.numbers("mask_kernel", 16),
        mask_bias=fields.number("mask_bias"),
    )


def _piece(fields: Fields) -> Piece:
    return Piece(
        name=fields.text("name"),
        file=fields.file_name("file"),
        precision=fields.text("precision"),
        stored=fields.text("stored"),
        sha256=fields.text("sha256"),
        num_bytes=fields.integer("num_bytes"),
        outputs=tuple(_output(child) for child in fields.children("outputs")),
    )


def _output(fields: Fields) -> OutputParity:
    return OutputParity(
        name=fields.text("name"),
        max_abs=fields.number("max_abs"),
        rms=fields.number("rms"),
        reference_rms=fields.number("reference_rms"),
    )


def _sensitivity(fields: Fields) -> Sensitivity:
    return Sensitivity(
        piece=fields.text("piece"),
        precision=fields.text("precision"),
        min_iou=fields.number("min_iou"),
        mean_iou=fields.number("mean_iou"),
    )


def calibration_from_fields(fields: Fields | None) -> Calibration | None:
    """Read one, if there is one.

    Raises:
        EngineError: a field is missing or of another type.
    """
    if fields is None:
        return None
    return Calibration(
        method=fields.text("method"),
        sources=tuple(str(item) for item in fields.items("sources")),
        frames=fields.integer("frames"),
    )


def _golden(fields: Fields) -> Golden:
    return Golden(
        file=fields.file_name("file"),
        sha256=fields.text("sha256"),
        num_bytes=fields.integer("num_bytes"),
    )


def _parity(fields: Fields) -> Parity:
    return Parity(
        reference=fields.text("reference"),
        frames=fields.integer("frames"),
        objects=fields.integer("objects"),
        masks=fields.integer("masks"),
        min_area_px=fields.integer("min_area_px"),
        max_abs_logit=fields.number("max_abs_logit"),
        rms_logit=fields.number("rms_logit"),
        reference_rms_logit=fields.number("reference_rms_logit"),
        min_iou=fields.number("min_iou"),
        mean_iou=fields.number("mean_iou"),
        gate_mean_iou=fields.number("gate_mean_iou"),
        note=fields.text("note"),
    )
