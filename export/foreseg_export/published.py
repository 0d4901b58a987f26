# SPDX-License-Identifier: Apache-2.0
"""Converts a folder that Sa2VA's code exported into one that foreseg loads: `seg.json` and its parts.

Names and shapes are compared with what transformers wants before any weight is read; then the
language model goes from file to file, one at a time, and SAM2 and the projection follow as one
piece. Nothing of the source is run.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from foreseg.errors import InputError
from foreseg.methods.grounding import View
from foreseg.reasoner.options import MethodOptions, method_from_options
from foreseg.reasoner.prompt_card import CARD, PromptCard, words_hash
from foreseg.texts import first_names
from foreseg_export.published_config import (
    generation_config,
    stop_strings_of,
    target_config,
    written_tokenizer,
)
from foreseg_export.published_folder import INDEX, UNKNOWN, PublishedFolder, open_published
from foreseg_export.published_layout import Family, Part, Placement, family_of, placements
from foreseg_torch.json_file import read_json_object
from foreseg_torch.new_folder import new_folder
from foreseg_torch.seg.decode import SA2VA_DECODE
from foreseg_torch.seg.store import PROJECTION, write_record
from foreseg_torch.tracker.sam2_meta import (
    IMAGE_SIZE,
    check_meta,
    config_from_meta,
    model_from_meta,
)
from foreseg_torch.vlm.loading import loading, quiet
from foreseg_torch.vlm.manifest import files_of

FRAME_PIXELS = 401_408  # of a video's frame: Sa2VA's most in training, its least at inference
SQUARE_PIXELS = 448 * 448  # InternVL's square
SHOWN_SIDE_PX = 1024
FORMS = {"sa2va": "bare", "visa": "bare", "fevos": "think-first"}
NUM_FRAMES = {"sa2va": 5, "visa": 0, "fevos": 5}
PIECE_BYTES = 1 << 30  # of the language model, in memory before it is written
_WHOLE = "model.safetensors"
_LEFT_OUT_WHY = "SAM2's own mask decoder, with which Sa2VA-i tracks: [SEG] has another"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """All that is known before weights are read."""

    source: PublishedFolder
    family: Family
    config: Any  # of transformers
    placed: Mapping[str, Placement]

    def names(self, part: Part) -> list[str]:
        """The source's tensors of a part."""
        return [name for name, placement in self.placed.items() if placement.part is part]


def convert_published(
    where: str,
    out: Path,
    *,
    method: str = "sa2va",
    report: Callable[[str], None] = lambda _: None,
) -> PublishedFolder:
    """Convert a published model into the new folder `out`, in bf16; what it was made of.

    Args:
        where: a folder, or `owner/name` on the model hub.
        out: must not exist, or be an empty folder.
        method: in whose words it is asked: `sa2va`, `visa` or `fevos`.
        report: is told each step, the licence among them.

    Raises:
        InputError: it is no such folder, or a tensor is missing, unknown, twice there or of another
            shape; or `out` cannot be written.
    """
    source = open_published(where)
    plan = _planned(source)
    report(_licence_told(source))
    with new_folder(out) as folder:
        vlm = folder / "vlm"
        vlm.mkdir()
        tokenizer = written_tokenizer(source, vlm, plan.config, plan.family)
        stops = stop_strings_of(source, plan.family, tokenizer)
        generation_config(plan.config, tokenizer).save_pretrained(vlm)
        _write_images(plan, vlm)
        num_shards = _write_language(plan, vlm)
        report(
            f"wrote {len(plan.names(Part.VLM))} tensors of the language model, {num_shards} files"
        )
        _write_heads(plan, folder)
        report(f"wrote {len(plan.names(Part.SAM2))} tensors of SAM2, and the projection")
        (folder / CARD).write_text(_card(method, plan.family).to_json(), encoding="utf-8")
        write_record(
            folder,
            method=method,
            is_trained=True,
            notes=f"converted from {source.name}",
            decode=replace(SA2VA_DECODE, stop_strings=stops),
            more={"source": _source_record(plan)},
        )
    return source


def _planned(source: PublishedFolder) -> _Plan:
    """Compare every name and shape with what is wanted."""
    family = family_of(source.config, source.name)
    plan = _Plan(
        source=source,
        family=family,
        config=target_config(source, family),
        placed=placements(source.tensors, family, source.name),
    )
    rows = [
        source.tensors[name].shape[0]
        for name in plan.names(Part.VLM)
        if plan.placed[name].names[0].endswith("embed_tokens.weight")
    ]
    if rows:  # rows are what they are; a configuration may lag behind
        plan.config.get_text_config().vocab_size = rows[0]
    _check_language(plan)
    _check_sam2(plan)
    _check_projection(plan)
    return plan


def _check_language(plan: _Plan) -> None:
    with quiet(), loading(plan.source.path), torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(plan.config, trust_remote_code=False)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found: dict[str, tuple[int, ...]] = {}
    origin: dict[str, str] = {}
    for name in plan.names(Part.VLM):
        targets = plan.placed[name].names
        shape = plan.source.tensors[name].shape
        cut = (shape[0] // len(targets), *shape[1:]) if shape else shape
        for target in targets:
            found[target], origin[target] = cut, name
    _check_same(plan, "language model", wanted, found, origin)


def _check_projection(plan: _Plan) -> None:
    width = plan.config.get_text_config().hidden_size
    names = plan.names(Part.PROJECTION)
    found = {plan.placed[name].names[0]: plan.source.tensors[name].shape for name in names}
    origin = {plan.placed[name].names[0]: name for name in names}
    hidden = _sam2_width(plan)
    wanted = {
        "0.weight": (width, width),
        "0.bias": (width,),
        "2.weight": (hidden, width),
        "2.bias": (hidden,),
    }
    _check_same(plan, "projection (text_hidden_fcs)", wanted, found, origin)


def _check_same(
    plan: _Plan,
    what: str,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    origin: Mapping[str, str],
) -> None:
    """Refuse what is missing, unknown or of another shape, by name."""
    missing = sorted(wanted.keys() - found.keys())
    unknown = sorted({origin[name] for name in found.keys() - wanted.keys()})
    wrong = sorted(
        f"{origin[name]} {found[name]} for {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    )
    faults = (("it lacks", missing), ("unknown are", unknown), ("wrong shapes are", wrong))
    said = [f"{fault} {first_names(names)}" for fault, names in faults if names]
    if said:
        msg = (
            f"{plan.source.name}: its {what} is not that of its config.json: {'; '.join(said)}:"
            " download or copy the folder again, or ask its publisher"
        )
        raise InputError(msg)


def _sam2_state(plan: _Plan, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {plan.placed[name].names[0]: value for name, value in values.items()}


def _check_sam2(plan: _Plan) -> None:
    state = _sam2_state(plan, plan.source.as_meta(plan.names(Part.SAM2)))
    decoder = {n for n in state if n.startswith("sam_mask_decoder.")}
    other = {plan.placed[name].names[0] for name in plan.names(Part.LEFT_OUT)}
    try:
        if other and other != decoder:
            msg = f"its two mask decoders differ in {first_names(sorted(other ^ decoder))}"
            raise InputError(msg)  # noqa: TRY301 (told with the folder, as the others)
        check_meta(state, config_from_meta(state, IMAGE_SIZE))
    except InputError as error:
        msg = f"{plan.source.name}: its SAM2 does not fit: {error}"
        raise InputError(msg) from error


def _sam2_width(plan: _Plan) -> int:
    (name,) = (
        name
        for name in plan.names(Part.SAM2)
        if plan.placed[name].names[0] == "sam_prompt_encoder.not_a_point_embed.weight"
    )
    return plan.source.tensors[name].shape[1]


def _write_language(plan: _Plan, vlm: Path) -> int:
    """Write the language model in files of about `PIECE_BYTES`, in the source's order; how many."""
    files: dict[str, str] = {}
    total = 0
    piece: dict[str, Tensor] = {}
    for source, value in _read(plan, Part.VLM):
        targets = plan.placed[source].names
        for target, cut in zip(targets, value.chunk(len(targets)), strict=True):
            piece[target] = cut.to(torch.bfloat16).contiguous()
        if sum(map(_num_bytes, piece.values())) >= PIECE_BYTES:
            total += _write_piece(piece, vlm, files)
            piece = {}
    if piece:
        total += _write_piece(piece, vlm, files)
    names = sorted(set(files.values()))
    if len(names) == 1:
        (vlm / names[0]).rename(vlm / _WHOLE)
        return 1
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(files.items()))}
    (vlm / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return len(names)


def _write_piece(piece: dict[str, Tensor], vlm: Path, files: dict[str, str]) -> int:
    """Write the next file, and note what lies in it; its bytes."""
    name = f"model-{len(set(files.values())) + 1:05d}.safetensors"
    save_file(piece, vlm / name, metadata={"format": "pt"})
    files.update(dict.fromkeys(piece, name))
    return sum(map(_num_bytes, piece.values()))


def _num_bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _write_heads(plan: _Plan, folder: Path) -> None:
    """SAM2 and the projection, in float32."""
    read = {name: value.float().contiguous() for name, value in _read(plan, Part.PROJECTION)}
    save_file(_sam2_state(plan, read), folder / PROJECTION)
    read = {name: value.float() for name, value in _read(plan, Part.SAM2)}
    state = _sam2_state(plan, read)
    with quiet():
        sam2 = model_from_meta(state, config_from_meta(state, IMAGE_SIZE))
        sam2.save_pretrained(folder / "sam2")


def _read(plan: _Plan, part: Part) -> Iterator[tuple[str, Tensor]]:
    """A part's tensors, one at a time, file after file."""
    wanted = plan.names(part)
    for shard in plan.source.shards:
        held = [name for name in wanted if plan.source.tensors[name].shard == shard]
        if held:
            yield from plan.source.read(shard, held)


def _write_images(plan: _Plan, vlm: Path) -> None:
    """How pixels are normalised, where the source says it; else it is known of the family."""
    place = plan.source.path / "preprocessor_config.json"
    settings = read_json_object(place) if place.is_file() else {}
    kept = {name: settings[name] for name in ("image_mean", "image_std") if name in settings}
    (vlm / "preprocessor_config.json").write_text(json.dumps(kept), encoding="utf-8")


def _card(method: str, family: Family) -> PromptCard:
    """How the reasoner asks it."""
    options = MethodOptions(method=method, form=FORMS[method], num_frames=NUM_FRAMES[method])
    view = View(image_side_px=SHOWN_SIDE_PX)
    forcing_nothing = replace(options, forces_token=False)
    return PromptCard(
        method=method,
        form=FORMS[method],
        num_frames=NUM_FRAMES[method],
        image_side_px=SHOWN_SIDE_PX,
        frame_pixels=SQUARE_PIXELS if family is Family.INTERNVL else FRAME_PIXELS,
        words=words_hash(method_from_options(forcing_nothing, view)),
    )


def _source_record(plan: _Plan) -> dict[str, object]:
    """What it was made of, for people."""
    counts = Counter(placement.part for placement in plan.placed.values())
    left_out = sorted(plan.names(Part.LEFT_OUT))
    return {
        "name": plan.source.name,
        "licence": plan.source.licence,
        "is_non_commercial": plan.source.is_non_commercial,
        "tensors": {part.value: counts[part] for part in Part},
        "left_out": {"why": _LEFT_OUT_WHY if left_out else "", "names": left_out},
        "files": [asdict(file) for file in files_of(plan.source.path)],
    }


def _licence_told(source: PublishedFolder) -> str:
    if source.licence == UNKNOWN:
        return (
            f"LICENCE of {source.name}: UNKNOWN (its folder says none): ask its publisher before"
            " you use it"
        )
    if source.is_non_commercial:
        return f"LICENCE of {source.name}: {source.licence}: NOT FOR COMMERCIAL USE"
    return f"licence of {source.name}: {source.licence}"
