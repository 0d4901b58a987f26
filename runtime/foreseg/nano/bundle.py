# SPDX-License-Identifier: Apache-2.0
"""The bundle of a nano reasoner: two graphs, the tokenizer and the prompt card, each by its hash.

Reads and writes `manifest.json`; nothing is parsed before its hash is found right. Does not know
what executes the graphs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from foreseg.engines.fields import Fields, read_fields
from foreseg.engines.manifest import MANIFEST_NAME, read_hashed
from foreseg.errors import EngineError
from foreseg.language.images import ImageGeometry
from foreseg.nano.familiar import FamiliarLimits

FAMILY = "qwen2_5_vl"
FORMAT_VERSION = 2  # 2: `familiar.npy` knows other pictures too
VISION, DECODER, TOKENIZER, CARD = "vision.onnx", "decoder.onnx", "tokenizer.json", "method.json"
FAMILIAR = "familiar.npy"  # only where the manifest has limits
CALIBRATION = "calibration.json"  # of its confidences, where it was fitted
FILES = (VISION, DECODER, TOKENIZER, CARD)
MAX_END_IDS = 16
MAX_TOKENS = 1 << 16  # that a decoder may read


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFile:
    """One file of the bundle."""

    name: str  # a plain name
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderGeometry:
    """Sizes of the language model."""

    layers: int
    heads: int  # of keys and values
    head_channels: int
    channels: int
    vocabulary: int
    max_tokens: int  # of a prompt with what is said after it
    end_ids: tuple[int, ...]  # tokens that end a completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How the graphs agreed with the torch model on the prompts of the export."""

    reference: str
    prompts: int
    same: int  # greedy completions that were equal, letter by letter
    tokens: int  # of the reference's completions
    max_log_prob: (
        float  # the largest difference of a token's log-probability where they were equal
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoManifest:
    """All that is known about a bundle.

    Attributes:
        precision: of the weights: fp32, fp16 or int8-weights (arithmetic in float32), or int8.
        window_px: side of a window of the vision tower's attention.
        familiar: pictures beyond these limits are not answered about; None: all are.
    """

    format_version: int
    family: str
    name: str
    licence: str
    source_name: str
    source_sha256: str
    precision: str
    images: ImageGeometry
    window_px: int
    decoder: DecoderGeometry
    familiar: FamiliarLimits | None
    agreement: Agreement
    exporters: tuple[str, ...]  # "package version"
    files: tuple[BundleFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NanoBundle:
    """A bundle whose files were found to be as its manifest says."""

    manifest: NanoManifest
    files: dict[str, bytes]


def read_nano_bundle(folder: Path) -> NanoBundle:
    """Read a bundle whole.

    Raises:
        EngineError: no bundle there, of another kind, or a file is missing or was changed.
    """
    manifest = read_nano_manifest(folder)
    remedy = "export or copy the bundle again"
    files = {
        file.name: read_hashed(
            folder / file.name, num_bytes=file.num_bytes, sha256=file.sha256, remedy=remedy
        )
        for file in manifest.files
    }
    return NanoBundle(manifest=manifest, files=files)


def files_of(folder: Path, names: Sequence[str]) -> tuple[BundleFile, ...]:
    """Files with their hashes."""
    contents = {name: (folder / name).read_bytes() for name in names}
    return tuple(
        BundleFile(name=name, num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
    )


def write_nano_manifest(folder: Path, manifest: NanoManifest) -> None:
    """Write `manifest.json`; the same manifest gives the same bytes."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def read_nano_manifest(folder: Path) -> NanoManifest:
    """Read and check `manifest.json`, without looking at the files that it names.

    Raises:
        EngineError: none there, damaged, or of another format or family.
    """
    path = folder / MANIFEST_NAME
    fields = read_fields(path, f"no bundle of a nano reasoner in {folder}")
    family = fields.text("family")
    if family != FAMILY:
        fields.refuse(f"is of a bundle of the family {family!r:.60}, wanted is {FAMILY!r}")
    version = fields.integer("format_version")
    if version != FORMAT_VERSION:
        remedy = "export the bundle again" if version < FORMAT_VERSION else "upgrade foreseg"
        fields.refuse(
            f"has format version {version}, this foreseg reads {FORMAT_VERSION}: {remedy}"
        )
    manifest = NanoManifest(
        format_version=version,
        family=family,
        name=fields.text("name"),
        licence=fields.text("licence"),
        source_name=fields.text("source_name"),
        source_sha256=fields.text("source_sha256"),
        precision=fields.text("precision"),
        images=_images(fields.child("images")),
        window_px=fields.positive("window_px"),
        decoder=_decoder(fields.child("decoder")),
        familiar=_limits(fields.child_or_none("familiar")),
        agreement=_agreement(fields.child("agreement")),
        exporters=tuple(str(item) for item in fields.items("exporters")),
        files=tuple(_file(child) for child in fields.children("files")),
    )
    names = [file.name for file in manifest.files if file.name != CALIBRATION]
    wanted = FILES if manifest.familiar is None else (*FILES, FAMILIAR)
    if sorted(names) != sorted(wanted):
        fields.refuse(f"wants the files {', '.join(wanted)}, got {', '.join(names):.200}")
    if manifest.window_px < manifest.images.unit_px:
        fields.refuse(f"wants 'window_px' of at least {manifest.images.unit_px}")
    return manifest


def _limits(fields: Fields | None) -> FamiliarLimits | None:
    if fields is None:
        return None
    return FamiliarLimits(distance=fields.number("distance"), lean=fields.number("lean"))


def _file(fields: Fields) -> BundleFile:
    return BundleFile(
        name=fields.file_name("name"),
        num_bytes=fields.integer("num_bytes"),
        sha256=fields.text("sha256"),
    )


def _images(fields: Fields) -> ImageGeometry:
    mean, std = fields.numbers("mean", 3), fields.numbers("std", 3)
    if not min(std) > 0:
        fields.refuse(f"wants 'std' above 0, got {std}")
    return ImageGeometry(
        patch_px=fields.positive("patch_px"),
        temporal_patch=fields.positive("temporal_patch"),
        merge=fields.positive("merge"),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
        image_token=fields.text("image_token"),
        image_token_id=fields.integer("image_token_id"),
    )


def _decoder(fields: Fields) -> DecoderGeometry:
    ends = [item for item in fields.items("end_ids") if isinstance(item, int)]
    if not 1 <= len(ends) <= MAX_END_IDS:
        fields.refuse(f"wants 1 to {MAX_END_IDS} whole numbers in 'end_ids', got {ends!r:.60}")
    longest = fields.positive("max_tokens")
    if longest > MAX_TOKENS:
        fields.refuse(f"wants 'max_tokens' of at most {MAX_TOKENS}, got {longest}")
    return DecoderGeometry(
        layers=fields.positive("layers"),
        heads=fields.positive("heads"),
        head_channels=fields.positive("head_channels"),
        channels=fields.positive("channels"),
        vocabulary=fields.positive("vocabulary"),
        max_tokens=longest,
        end_ids=tuple(ends),
    )


def _agreement(fields: Fields) -> Agreement:
    return Agreement(
        reference=fields.text("reference"),
        prompts=fields.integer("prompts"),
        same=fields.integer("same"),
        tokens=fields.integer("tokens"),
        max_log_prob=fields.number("max_log_prob"),
    )


def require_agreement(manifest: NanoManifest, where: Path) -> None:
    """Refuse a bundle whose export did not find the reference's answers.

    Raises:
        EngineError: some completion differed.
    """
    found = manifest.agreement
    if found.same != found.prompts:
        msg = (
            f"{where} gave {found.same} of {found.prompts} answers of {found.reference}: export it"
            " again in a higher precision"
        )
        raise EngineError(msg)
