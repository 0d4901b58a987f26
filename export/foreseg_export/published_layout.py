# SPDX-License-Identifier: Apache-2.0
"""How Sa2VA's published folders name their tensors, and what transformers calls them: tables.

Layouts were read in Sa2VA's public export, `tools/convert_to_hf.py`, and Sa2VA-i's
`modify_sa2va_weights.py`. Does not read or write weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from foreseg.errors import InputError
from foreseg.texts import first_names
from foreseg_torch.vlm.loading import PUBLISHED


class Family(Enum):
    """Of the language model, as transformers names it."""

    QWEN2_5_VL = "qwen2_5_vl"
    QWEN3_VL = "qwen3_vl"
    INTERNVL = "internvl"


class Part(Enum):
    """Where a tensor goes."""

    VLM = "vlm"
    PROJECTION = "projection"
    SAM2 = "sam2"
    LEFT_OUT = "left_out"  # known, named in `seg.json`, and of no use here


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What becomes of one tensor."""

    part: Part
    names: tuple[str, ...]  # several: it is cut into as many along its first axis


_SAM2 = "grounding_encoder.sam2_model."
_OTHER_DECODER = "sam_mask_decoder_modified."  # Sa2VA-i: [SEG]'s own; the plain one is SAM2's
_DECODER = "sam_mask_decoder."
_PROJECTION = "text_hidden_fcs."
_QWEN_PREFIX = "model."
# After `model.` is stripped: as exported since transformers 4.52 (unchanged), and before.
_QWEN: tuple[tuple[str, str], ...] = (
    (r"^visual\.", "model.visual."),
    (r"^model\.(layers|embed_tokens|norm)\.", r"model.language_model.\1."),
)
# InternVL's own code -> transformers' InternVLForConditionalGeneration: all are applied, in order.
_INTERNVL: tuple[tuple[str, str], ...] = (
    (r"^vision_model\.embeddings\.class_embedding$", "@embeddings.cls_token"),
    (r"^vision_model\.embeddings\.position_embedding$", "@embeddings.position_embeddings"),
    (r"^vision_model\.embeddings\.patch_embedding\.", "@embeddings.patch_embeddings.projection."),
    (r"^vision_model\.encoder\.layers\.(\d+)\.", r"@encoder.layer.\1."),
    (r"^(@.*)\.attn\.proj\.", r"\1.attention.projection_layer."),
    (r"^(@.*)\.attn\.([qk]_norm|qkv)\.", r"\1.attention.\2."),
    (r"^(@.*)\.ls([12])$", r"\1.lambda_\2"),
    (r"^(@.*)\.norm1\.", r"\1.layernorm_before."),
    (r"^(@.*)\.norm2\.", r"\1.layernorm_after."),
    (r"^@", "model.vision_tower."),
    (r"^mlp1\.0\.", "model.multi_modal_projector.layer_norm."),
    (r"^mlp1\.1\.", "model.multi_modal_projector.linear_1."),
    (r"^mlp1\.3\.", "model.multi_modal_projector.linear_2."),
    (r"^language_model\.model\.", "model.language_model."),
    (r"^language_model\.lm_head\.", "lm_head."),
)
_INTERNVL_ROOTS = ("vision_model.", "mlp1.", "language_model.")
_QKV = ".attention.qkv."  # is cut in three
# A published folder's own names
_FAMILY_OF_TEXT = {
    "qwen2_5_vl_text": Family.QWEN2_5_VL,
    "qwen2_5_vl": Family.QWEN2_5_VL,
    "qwen3_vl_text": Family.QWEN3_VL,
}


def family_of(config: Mapping[str, Any], where: str) -> Family:
    """The family of a published configuration.

    Raises:
        InputError: it is no export of Sa2VA's, or of a family that is not known here.
    """
    if isinstance(config.get("llm_config"), dict) and config.get("model_type") == PUBLISHED:
        _check_internvl(config, where)
        return Family.INTERNVL
    kind = config.get("model_type")
    if kind != PUBLISHED:
        msg = (
            f"{where} is a {kind!r}, wanted is one that Sa2VA's code exported ({PUBLISHED!r}): a"
            " language model alone is joined by --vlm and --sam2, or answers in text by itself"
        )
        raise InputError(msg)
    text = config.get("text_config")
    if not isinstance(text, dict) or not isinstance(config.get("vision_config"), dict):
        msg = f"{where}: its config.json wants text_config and vision_config, it lacks one"
        raise InputError(msg)
    named = str(text.get("model_type", ""))
    if named not in _FAMILY_OF_TEXT:
        known = ", ".join(_FAMILY_OF_TEXT)
        msg = f"{where} has the language model {named!r}: known are {known}"
        raise InputError(msg)
    return _FAMILY_OF_TEXT[named]


def placements(names: Iterable[str], family: Family, where: str) -> dict[str, Placement]:
    """What becomes of each tensor of a folder.

    Raises:
        InputError: names that no part knows, or two tensors for one place.
    """
    every = list(names)
    has_two = any(name.startswith(_SAM2 + _OTHER_DECODER) for name in every)
    placed = {name: _placement(name, family, has_two_decoders=has_two) for name in every}
    unknown = sorted(name for name, placement in placed.items() if placement is None)
    if unknown:
        msg = (
            f"{where} holds {len(unknown)} tensors that a folder of Sa2VA's ({family.value}) does"
            f" not have: {first_names(unknown)}; nothing is left out unasked"
        )
        raise InputError(msg)
    found = {name: placement for name, placement in placed.items() if placement is not None}
    sources: dict[tuple[Part, str], str] = {}
    for name, placement in found.items():
        for target in placement.names:
            other = sources.setdefault((placement.part, target), name)
            if other != name:
                msg = f"{where} has two tensors for {target}: {other} and {name}"
                raise InputError(msg)
    return found


def _placement(name: str, family: Family, *, has_two_decoders: bool) -> Placement | None:
    if name.startswith(_PROJECTION):
        return Placement(part=Part.PROJECTION, names=(name.removeprefix(_PROJECTION),))
    if name.startswith(_SAM2):
        inner = re.sub(r"\.g_weight$", ".gamma", name.removeprefix(_SAM2))
        if has_two_decoders and inner.startswith(_DECODER):
            return Placement(part=Part.LEFT_OUT, names=(inner,))
        inner = inner.replace(_OTHER_DECODER, _DECODER, 1)
        return Placement(part=Part.SAM2, names=(inner,))
    target = _language_name(name, family)
    return None if target is None else Placement(part=Part.VLM, names=target)


def _language_name(name: str, family: Family) -> tuple[str, ...] | None:
    is_internvl = family is Family.INTERNVL
    roots = _INTERNVL_ROOTS if is_internvl else (_QWEN_PREFIX,)
    if not name.startswith(roots):
        return None
    target = name if is_internvl else name.removeprefix(_QWEN_PREFIX)
    for pattern, replacement in _INTERNVL if is_internvl else _QWEN:
        target = re.sub(pattern, replacement, target)
    if _QKV in target:
        return tuple(target.replace(_QKV, f".attention.{one}_proj.") for one in "qkv")
    return (target,)


def _check_internvl(config: Mapping[str, Any], where: str) -> None:
    """Refuse what InternVL's public code can be, and transformers' InternVL is not.

    Raises:
        InputError: says which, and what to take instead.
    """
    named = (config["llm_config"].get("architectures") or ["nothing"])[0]
    if named == "InternLM2ForCausalLM":
        msg = (
            f"{where} has the language model InternLM2 (Sa2VA-8B and -26B of InternVL2.5), whose"
            " tokenizer is code of its own: take an InternVL3 or a Qwen variant"
        )
        raise InputError(msg)
    if named != "Qwen2ForCausalLM":
        msg = f"{where} has the language model {named}: known with InternVL is Qwen2ForCausalLM"
        raise InputError(msg)
    if any(config.get(name) for name in ("use_llm_lora", "use_backbone_lora")):
        msg = (
            f"{where} is under adapters by its config.json: merge them, and give the merged folder"
        )
        raise InputError(msg)
    wanted = {"ps_version": "v2", "select_layer": -1, "downsample_ratio": 0.5}
    for name, value in wanted.items():
        found = config.get(name)
        if found != value:
            msg = (
                f"{where} has {name} {found!r}, which transformers' InternVL does not do: wanted is"
                f" {value!r}; take another of Sa2VA's folders"
            )
            raise InputError(msg)
