# SPDX-License-Identifier: Apache-2.0
"""A folder of weights that somebody published: which tensors lie in which file, and its licence.

Only headers are read here, and nothing of the folder is run. Does not know what the tensors mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from foreseg.errors import InputError
from foreseg.texts import first_names
from foreseg_torch.json_file import read_json_object
from foreseg_torch.vlm.loading import SMALL_FILES, model_folder
from foreseg_torch.vlm.weight_files import (
    WEIGHTS,
    check_has_weights,
    refuse_adapters,
    weight_files,
)

INDEX = "model.safetensors.index.json"
UNKNOWN = "unknown"

_LICENCE = re.compile(r"^license(?:_name)?:\s*[\"']?([^\"'\n]+?)[\"']?\s*$", re.MULTILINE)
_NON_COMMERCIAL = re.compile(r"(?:^|[-_ ])nc(?:$|[-_ ])|non-?commercial|research", re.IGNORECASE)
_CARDS = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
# What publishers say elsewhere than in the folder, by owner/name.
_KNOWN_LICENCES = {
    "fudancvl/fevos-r1": "cc-by-nc-sa-4.0 (its project's page; the hub has no tag)",
    "bytedance/sa2va-qwen2_5-vl-3b": "apache-2.0, of a base under Qwen's research licence",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPlace:
    """Where one tensor lies."""

    shard: str  # a file's name
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFolder:
    """What is known of such a folder before any weight is read."""

    path: Path
    name: str
    config: dict[str, Any]
    tensors: dict[str, TensorPlace]
    licence: str

    @property
    def is_non_commercial(self) -> bool:
        """True if the licence says so."""
        return bool(_NON_COMMERCIAL.search(self.licence))

    @property
    def shards(self) -> tuple[str, ...]:
        """The files with weights, in the order of their names."""
        return tuple(sorted({place.shard for place in self.tensors.values()}))

    def read(self, shard: str, names: list[str]) -> Iterator[tuple[str, Tensor]]:
        """Tensors of one file, one at a time.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path / shard
        try:
            with safe_open(path, framework="pt", device="cpu") as file:
                for name in names:
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            msg = f"{path} is damaged: {error}"
            raise InputError(msg) from error

    def as_meta(self, names: list[str]) -> dict[str, Tensor]:
        """Tensors of the right shapes, without their values."""
        return {name: torch.empty(self.tensors[name].shape, device="meta") for name in names}


def open_published(where: str) -> PublishedFolder:
    """Read configuration and headers.

    Args:
        where: a folder, or `owner/name` on the model hub, which is downloaded.

    Raises:
        InputError: none there, weights as pickles, in verl's shards or under adapters, or files
            that do not agree.
    """
    is_here = Path(where).is_dir()
    path = model_folder(where, (*SMALL_FILES, *_CARDS, WEIGHTS))
    if not (path / "config.json").is_file():
        msg = f"{where} wants a config.json, it has none: is it the folder of a whole model?"
        raise InputError(msg)
    config = read_json_object(path / "config.json")
    check_has_weights(path)
    tensors = _tensors(path)
    refuse_adapters(where, tensors)
    name = path.resolve().name if is_here else where
    return PublishedFolder(
        path=path, name=name, config=config, tensors=tensors, licence=_licence(path, where)
    )


def _tensors(path: Path) -> dict[str, TensorPlace]:
    """All tensors by the headers of the files, held against the index where there is one."""
    index: dict[str, Any] = {}
    if (path / INDEX).is_file():
        index = dict(read_json_object(path / INDEX).get("weight_map") or {})
    files = sorted(set(index.values())) if index else [file.name for file in weight_files(path)]
    found: dict[str, TensorPlace] = {}
    for name in files:
        for tensor, shape in _header(path / Path(str(name)).name).items():
            if tensor in found:
                msg = f"{path} has {tensor} twice, in {found[tensor].shard} and in {name}"
                raise InputError(msg)
            found[tensor] = TensorPlace(shard=Path(str(name)).name, shape=shape)
    if index and found.keys() != index.keys():
        wrong = sorted(found.keys() ^ index.keys())
        msg = (
            f"{path}: {INDEX} and the files do not agree about {first_names(wrong)}: copy it again"
        )
        raise InputError(msg)
    return found


def _header(path: Path) -> dict[str, tuple[int, ...]]:
    if not path.is_file():
        msg = f"{path} is missing: download or copy the folder again"
        raise InputError(msg)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        msg = f"{path} is damaged: {error}"
        raise InputError(msg) from error


def _licence(path: Path, where: str) -> str:
    """As the folder's card says it, else as it is known of the model's name, else unknown."""
    card = path / "README.md"
    if card.is_file():
        text = card.read_text("utf-8", errors="replace")[:20_000]
        head = text.split("---")[1] if text.startswith("---") and text.count("---") > 1 else ""
        said = [match.strip() for match in _LICENCE.findall(head)]
        if said:
            return " / ".join(dict.fromkeys(said))
    lower = where.lower().rstrip("/")
    for known, licence in _KNOWN_LICENCES.items():
        owner, _, name = known.partition("/")
        if lower == known or Path(lower).name == name or f"models--{owner}--{name}" in lower:
            return licence
    return UNKNOWN
