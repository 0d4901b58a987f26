# SPDX-License-Identifier: Apache-2.0
"""The folder of a model that segments: `seg.json`, `vlm/`, `sam2/`, `projection.safetensors`.

Every file's hash stands in `seg.json` and is verified before anything is loaded; nothing in it is
a pickle. Knows nothing of prompts or generation.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Sam2Model

from foreseg.engines.fields import Fields, read_fields
from foreseg.errors import ConfigError, EngineError, InputError
from foreseg.methods.seg_answers import TOKEN
from foreseg_torch.new_folder import new_folder
from foreseg_torch.seg.decode import SegDecode, decode_from_fields
from foreseg_torch.seg.model import MaskHead, SegVlm
from foreseg_torch.tracker.nano_tracker import (
    load_nano_tracker,
    read_nano_tracker_config,
    save_nano_tracker,
)
from foreseg_torch.vlm.loading import LoadedVlm, Precision, load_vlm, loading, quiet
from foreseg_torch.vlm.manifest import ModelFile, files_of

SEG_NAME = "seg.json"
SEG_METHODS = ("visa", "fevos", "sa2va")
ASSEMBLED = ("visa", "fevos")  # of these, those that are trained here
HEAD = "mask_head"  # where a trainer puts the head on the language model
FORMAT_VERSION = 2
_FIRST_VERSION = 1  # without `decode`: as all were trained here
PROJECTION = "projection.safetensors"
_NANO = "nano.safetensors"
_PARTS = (".", "vlm", "sam2")
_ABOUT = ("RUN_CARD.md", "run_card.json")  # for people: may come later, nothing reads them
_SAM2_KINDS = ("sam2", "sam2_video")

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LoadedSegVlm:
    """A model that segments, with its tokenizer and what it was made for."""

    model: SegVlm
    loaded: LoadedVlm  # its language model
    method: str  # one of `SEG_METHODS`
    is_trained: bool  # False: the projection is random, and its masks mean nothing


def assemble_seg_vlm(
    vlm: str,
    sam2: Path,
    folder: Path,
    *,
    method: str,
    precision: Precision = Precision.BF16,
    seed: int = 0,
) -> None:
    """Make a folder from a language model and a SAM2; its projection is random: train it.

    Args:
        vlm: a folder, or `owner/name` on the hub.
        sam2: a folder that transformers saved, or a nano tracker's file.
        folder: to be written; must not exist, or be empty.
        method: one of `ASSEMBLED`.
        precision: of the language model's weights in the folder.
        seed: of the projection.

    Raises:
        ConfigError: no such method.
        InputError: no usable model there, a quantised one, or the folder is not empty.
    """
    if method not in ASSEMBLED:
        msg = f"method wants one of {', '.join(ASSEMBLED)}, got {method!r}"
        raise ConfigError(msg)
    with new_folder(folder) as place:
        loaded = load_vlm(vlm, precision=precision, device="cpu")
        if loaded.is_stored:
            msg = f"{vlm} is quantised already: give the model that it was made of"
            raise InputError(msg)
        token_id = _with_token(loaded)
        torch.manual_seed(seed)
        width = loaded.model.config.get_text_config().hidden_size
        model = SegVlm(loaded.model, _head(sam2, width), token_id)
        made = LoadedSegVlm(model=model, loaded=loaded, method=method, is_trained=False)
        _write(made, place, notes=f"untrained projection, seed {seed}")


def save_seg_vlm(
    made: LoadedSegVlm,
    folder: Path,
    *,
    notes: str,
    merge: bool = False,
    beside: Mapping[str, str] | None = None,
) -> None:
    """Write a trained model's folder.

    Args:
        made: with `is_trained`; its model may be under adapters of peft.
        folder: to be written; must not exist, or be empty.
        notes: what it was trained on, for people.
        merge: merge the adapters into the weights, in place.
        beside: texts of more files, by their names: a prompt card, a recipe.

    Raises:
        ConfigError: it is not trained, or its adapters are not to be merged.
        InputError: quantised weights, which a forward pass may have repacked; or the folder is
            not empty.
    """
    if made.loaded.precision.is_quantised:
        msg = (
            f"a model in use as {made.loaded.precision.value} is not saved: its weights may be"
            " repacked; save it in bf16, it can be quantised when it is loaded"
        )
        raise InputError(msg)
    if not made.is_trained:
        msg = f"{made.loaded.name} is not trained: `assemble_seg_vlm` writes such folders"
        raise ConfigError(msg)
    vlm = made.model.vlm
    if hasattr(vlm, "merge_and_unload"):
        if not merge:
            msg = f"{made.loaded.name} is under adapters, which a folder cannot hold: merge them"
            raise ConfigError(msg)
        vlm = vlm.merge_and_unload()
    if hasattr(vlm, HEAD):
        delattr(vlm, HEAD)  # it has a place of its own
    made = replace(made, loaded=replace(made.loaded, model=vlm))
    with new_folder(folder) as place:
        for name, text in (beside or {}).items():
            (place / name).write_text(text, encoding="utf-8")
        _write(made, place, notes=notes)


def load_mask_head(folder: Path, hidden_size: int) -> MaskHead:
    """The head of a folder, float32 on the CPU, of a language model of this width.

    Raises:
        EngineError: no such folder, or one that was changed since it was made.
        InputError: its parts do not fit.
    """
    return _stored_head(folder, hidden_size, _decode_of(_verified(folder)))


def seg_method_of(folder: Path) -> str | None:
    """The method that a folder was made for; None if it is no folder of a model that segments."""
    path = folder / SEG_NAME
    return read_fields(path, str(folder)).text("method") if path.is_file() else None


def load_seg_vlm(
    folder: Path,
    *,
    precision: Precision | None = None,
    device: str = "auto",
    max_memory_mb: float = 0.0,
) -> LoadedSegVlm:
    """Load a folder; the arguments are those of `load_vlm`. Projection and SAM2 stay in float32.

    Without a precision the language model has the one that it is stored in, else the folder's own
    (`SegDecode.precision`): its states are read by the mask decoder, which four bits disturb.

    Raises:
        EngineError: no such folder, or one that was changed since it was made.
        InputError: its parts do not fit.
    """
    fields = _verified(folder)
    decode = _decode_of(fields)
    loaded = load_vlm(
        str(folder / "vlm"),
        precision=precision,
        device=device,
        max_memory_mb=max_memory_mb,
        otherwise=decode.precision,
    )
    loaded = replace(loaded, name=folder.resolve().name, stop_strings=decode.stop_strings)
    head = _stored_head(folder, loaded.model.config.get_text_config().hidden_size, decode)
    head = head.to(loaded.device).eval().requires_grad_(False)  # noqa: FBT003 (torch takes it so)
    if loaded.precision.is_quantised:
        _LOG.warning(
            "%s as %s: its states, which the masks are decoded from, are not those of bf16",
            folder,
            loaded.precision.value,
        )
    is_trained = fields.flag("is_trained")
    if not is_trained:
        _LOG.warning("%s has an UNTRAINED projection: its masks mean nothing", folder)
    return LoadedSegVlm(
        model=SegVlm(loaded.model, head, loaded.tokenizer.convert_tokens_to_ids(TOKEN)).eval(),
        loaded=loaded,
        method=fields.text("method"),
        is_trained=is_trained,
    )


def _write(made: LoadedSegVlm, folder: Path, *, notes: str) -> None:
    """Write all parts, and `seg.json` last."""
    loaded, head = made.loaded, made.model.head
    with quiet():
        loaded.model.save_pretrained(folder / "vlm")
        loaded.tokenizer.save_pretrained(folder / "vlm")
        if head.nano_config is None:
            head.sam.save_pretrained(folder / "sam2")
        else:
            place = folder / "sam2" / _NANO
            save_nano_tracker(head.sam, head.nano_config, place, dtype=torch.float32)
    geometry = {"image_mean": loaded.geometry.mean, "image_std": loaded.geometry.std}
    (folder / "vlm" / "preprocessor_config.json").write_text(json.dumps(geometry), "utf-8")
    save_file(head.projection.state_dict(), folder / PROJECTION)
    write_record(
        folder, method=made.method, is_trained=made.is_trained, notes=notes, decode=head.decode
    )


def write_record(
    folder: Path,
    *,
    method: str,
    is_trained: bool,
    notes: str,
    decode: SegDecode,
    more: Mapping[str, object] | None = None,
) -> None:
    """Write `seg.json` of a folder whose other files are all there; `more` is for people."""
    record: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "method": method,
        "token": TOKEN,
        "is_trained": is_trained,
        "notes": notes,
        "decode": decode.as_record(),
        **(more or {}),
        "created": dt.datetime.now(tz=dt.timezone.utc).isoformat(timespec="seconds"),
        "exporters": [f"{name} {version(name)}" for name in ("torch", "transformers")],
        "files": {part: [asdict(file) for file in files_of(folder / part)] for part in _PARTS},
    }
    (folder / SEG_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _verified(folder: Path) -> Fields:
    """What `seg.json` says, once every file is found to be as it says."""
    path = folder / SEG_NAME
    fields = read_fields(path, f"no model that segments in {folder}")
    found_version, method = fields.integer("format_version"), fields.text("method")
    if not _FIRST_VERSION <= found_version <= FORMAT_VERSION:
        msg = (
            f"{path} has format version {found_version}, this foreseg reads {_FIRST_VERSION} to"
            f" {FORMAT_VERSION}"
        )
        raise EngineError(msg)
    if method not in SEG_METHODS or fields.text("token") != TOKEN:
        msg = f"{path} wants one of {SEG_METHODS} and the token {TOKEN}, got {method!r}"
        raise EngineError(msg)
    for part in _PARTS:
        listed = {
            (child.file_name("name"), child.integer("num_bytes"), child.text("sha256"))
            for child in fields.child("files").children(part)
        }
        place = folder / part
        found = {_key(file) for file in files_of(place)} if place.is_dir() else set()
        wrong = {name for name, _, _ in listed ^ found} - {SEG_NAME, *_ABOUT}
        if wrong:
            msg = f"{place / min(wrong)} is not as {SEG_NAME} says: make or copy the model again"
            raise EngineError(msg)
    return fields


def _decode_of(fields: Fields) -> SegDecode:
    """How the folder is decoded."""
    if fields.integer("format_version") == _FIRST_VERSION:
        return SegDecode()
    return decode_from_fields(fields.child("decode"))


def _key(file: ModelFile) -> tuple[str, int, str]:
    return file.name, file.num_bytes, file.sha256


def _stored_head(folder: Path, width: int, decode: SegDecode) -> MaskHead:
    is_nano = (folder / "sam2" / _NANO).is_file()
    head = _head(folder / "sam2" / _NANO if is_nano else folder / "sam2", width)
    head.decode = decode
    try:
        head.projection.load_state_dict(load_file(folder / PROJECTION))
    except (RuntimeError, SafetensorError) as error:
        msg = f"{folder / PROJECTION} does not fit the model beside it: {error}"
        raise InputError(msg) from error
    return head


def _head(sam2: Path, width: int) -> MaskHead:
    """A head with SAM2's weights and a random projection."""
    if not sam2.is_file():
        return MaskHead(_sam_from(sam2), width)
    try:
        return MaskHead(load_nano_tracker(sam2), width, read_nano_tracker_config(sam2))
    except (ValueError, SafetensorError) as error:
        msg = f"{sam2} is no nano tracker: {error}"
        raise InputError(msg) from error


def _sam_from(place: Path) -> Any:  # noqa: ANN401 (a Sam2Model)
    if not (place / "config.json").is_file():
        msg = f"{place} is no SAM2 that transformers saved: it has no config.json"
        raise InputError(msg)
    with quiet(), loading(place):
        config = AutoConfig.from_pretrained(
            str(place), local_files_only=True, trust_remote_code=False
        )
        kind = config.model_type
        if kind not in _SAM2_KINDS:
            msg = f"{place} is a {kind!r}: wanted is a SAM2 that transformers saved"
            raise InputError(msg)
        sam, found = Sam2Model.from_pretrained(
            str(place),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if found["missing_keys"]:
        msg = f"{place} is no whole SAM2: it lacks {min(map(str, found['missing_keys']))}"
        raise InputError(msg)
    return sam


def _with_token(loaded: LoadedVlm) -> int:
    """Teach a tokenizer and its model the token, if they do not have it; its id."""
    tokenizer, model = loaded.tokenizer, loaded.model
    if TOKEN in tokenizer.get_vocab():  # it may have been trained
        return int(tokenizer.convert_tokens_to_ids(TOKEN))
    tokenizer.add_tokens([TOKEN])
    token_id = int(tokenizer.convert_tokens_to_ids(TOKEN))
    if model.get_input_embeddings().num_embeddings <= token_id:  # some have rows to spare
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for table in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
            table[token_id] = table[:token_id].float().mean(0).to(table.dtype)
    return token_id
