# SPDX-License-Identifier: Apache-2.0
"""The manifest of a folder that holds a quantised vision-language model: files, hashes, quality.

Does not know how the model is quantised or loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from foreseg.engines.fields import Fields, read_fields
from foreseg.errors import EngineError
from foreseg.reasoner.scene_check import CHECK

MANIFEST_NAME = "foreseg_vlm.json"
FORMAT_VERSION = 1
_BLOCK_BYTES = 1 << 22


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFile:
    """One file of the folder."""

    name: str  # a plain name
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How well the quantised model agrees with its reference on equal prompts.

    Shares are of the prompts compared, in 0..1; -1 where nothing could be compared.
    """

    reference: str  # its precision
    validation_set: str
    num_prompts: int
    num_answers: int  # prompts whose answer the reference gave in the method's grammar
    verdict_agreement: float  # targets, no target, or no answer: the same of the three
    keyframe_agreement: float  # where both found targets
    box_iou: float  # likewise: matched boxes' mean overlap over the larger number of boxes
    token_agreement: float  # the most probable next token, along the reference's completions
    mean_kl: float  # nats a token, from the reference's distribution to the quantised model's
    tokens: int  # compared
    bytes_ratio: float  # of memory, quantised to reference


@dataclass(frozen=True, slots=True, kw_only=True)
class VlmManifest:
    """All that is known about such a folder."""

    format_version: int
    name: str
    precision: str
    source_name: str
    source_sha256: str
    num_parameters: int
    files: tuple[ModelFile, ...]
    exporters: tuple[str, ...]  # "package version"
    created: str  # ISO 8601, UTC
    quality: tuple[Quality, ...]  # of each validation set that it was tried on


def write_vlm_manifest(folder: Path, manifest: VlmManifest) -> None:
    """Write it into its folder."""
    text = json.dumps(dataclasses.asdict(manifest), indent=2) + "\n"
    (folder / MANIFEST_NAME).write_text(text, encoding="utf-8")


def read_vlm_manifest(folder: Path) -> VlmManifest:
    """Read it, without looking at the files that it names.

    Raises:
        EngineError: none there, damaged, or of another format.
    """
    path = folder / MANIFEST_NAME
    fields = read_fields(path, f"no quantised model in {folder}")
    version = fields.integer("format_version")
    if version != FORMAT_VERSION:
        msg = (
            f"{path} has format version {version}, this foreseg reads {FORMAT_VERSION}:"
            " upgrade foreseg, or export the model again"
        )
        raise EngineError(msg)
    return VlmManifest(
        format_version=version,
        name=fields.text("name"),
        precision=fields.text("precision"),
        source_name=fields.text("source_name"),
        source_sha256=fields.text("source_sha256"),
        num_parameters=fields.integer("num_parameters"),
        files=tuple(_file(child) for child in fields.children("files")),
        exporters=tuple(str(item) for item in fields.items("exporters")),
        created=fields.text("created"),
        quality=tuple(_quality(child) for child in fields.children("quality")),
    )


def files_of(folder: Path) -> tuple[ModelFile, ...]:
    """The files of a folder with their hashes, but for the manifest."""
    names = _names(folder)
    sizes = {name: (folder / name).stat().st_size for name in names}
    with _progress(sum(sizes.values()), "hashing") as progress:
        return tuple(
            ModelFile(name=name, num_bytes=sizes[name], sha256=_sha256_of(folder / name, progress))
            for name in names
        )


def verified_manifest(folder: Path) -> VlmManifest:
    """The manifest, once every file of the folder is found to be as it says.

    Raises:
        EngineError: a file is missing, changed, or not in the manifest.
    """
    manifest = read_vlm_manifest(folder)
    remedy = "export or copy the model again"
    listed = {file.name for file in manifest.files}
    unlisted = sorted(set(_names(folder)) - listed)
    if unlisted:
        msg = f"{folder} holds {unlisted[0]!r}, which its manifest does not list: {remedy}"
        raise EngineError(msg)
    for file in manifest.files:
        path = folder / file.name
        if not path.is_file() or path.stat().st_size != file.num_bytes:
            found = f"{path.stat().st_size} bytes" if path.is_file() else "no such file"
            msg = f"{path} wants {file.num_bytes} bytes by its manifest, got {found}: {remedy}"
            raise EngineError(msg)
    total = sum(file.num_bytes for file in manifest.files)
    with _progress(total, "verifying") as progress:
        for file in manifest.files:
            digest = _sha256_of(folder / file.name, progress)
            if digest != file.sha256:
                msg = (
                    f"{folder / file.name} wants sha256 {file.sha256[:12]}... by its manifest, got"
                    f" {digest[:12]}...: {remedy}"
                )
                raise EngineError(msg)
    return manifest


def _names(folder: Path) -> list[str]:
    """Files that a loader may read, sorted; hidden ones are none."""
    names = (path.name for path in folder.iterdir() if path.is_file())
    own = (MANIFEST_NAME, CHECK)  # the latter may come later, and decides nothing
    return sorted(n for n in names if n not in own and not n.startswith("."))


def _sha256_of(path: Path, progress: tqdm[NoReturn]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            progress.update(len(block))
    return digest.hexdigest()


def _progress(total: int, what: str) -> tqdm[NoReturn]:
    """A bar, where somebody watches."""
    return tqdm(total=total, desc=what, unit="B", unit_scale=True, leave=False, disable=None)


def _file(fields: Fields) -> ModelFile:
    return ModelFile(
        name=fields.file_name("name"),
        num_bytes=fields.integer("num_bytes"),
        sha256=fields.text("sha256"),
    )


def _quality(found: Fields) -> Quality:
    return Quality(
        reference=found.text("reference"),
        validation_set=found.text("validation_set"),
        num_prompts=found.integer("num_prompts"),
        num_answers=found.integer("num_answers"),
        verdict_agreement=found.number("verdict_agreement"),
        keyframe_agreement=found.number("keyframe_agreement"),
        box_iou=found.number("box_iou"),
        token_agreement=found.number("token_agreement"),
        mean_kl=found.number("mean_kl"),
        tokens=found.integer("tokens"),
        bytes_ratio=found.number("bytes_ratio"),
    )
