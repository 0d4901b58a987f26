# SPDX-License-Identifier: Apache-2.0
"""From a published configuration to the one that transformers reads without any code of its publisher.

Output layer and input embeddings of Sa2VA's models were both trained, so they are never tied here,
whatever a default says. Does not read weights.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import (
    GenerationConfig,
    InternVLConfig,
    Qwen2_5_VLConfig,
    Qwen2Config,
    Qwen3VLConfig,
)

from foreseg.errors import InputError
from foreseg.methods.seg_answers import TOKEN
from foreseg_export.published_folder import PublishedFolder
from foreseg_export.published_layout import Family
from foreseg_export.published_templates import CONTEXT, template_of
from foreseg_torch.vlm.loading import loading, quiet, read_tokenizer

END_TOKENS = ("<|im_end|>", "<|endoftext|>")
_CONFIGS = {Family.QWEN2_5_VL: Qwen2_5_VLConfig, Family.QWEN3_VL: Qwen3VLConfig}
_ARCHITECTURES = {
    Family.QWEN2_5_VL: "Qwen2_5_VLForConditionalGeneration",
    Family.QWEN3_VL: "Qwen3VLForConditionalGeneration",
}
_NOT_OURS = ("auto_map", "template", "model_type", "architectures", "tie_word_embeddings")
_VISION = {  # InternVL's own name -> transformers'
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "hidden_act": "hidden_act",
    "norm_type": "norm_type",
    "layer_norm_eps": "layer_norm_eps",
    "num_channels": "num_channels",
    "qkv_bias": "attention_bias",
    "qk_normalization": "use_qk_norm",
    "attention_dropout": "attention_dropout",
    "dropout": "hidden_dropout_prob",
}
_ROPE = {"rope_theta", "rope_scaling"}
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "chat_template.jinja", "chat_template.json"),
)


def target_config(source: PublishedFolder, family: Family) -> Any:  # noqa: ANN401 (of transformers)
    """The configuration of the language model, untied.

    Raises:
        InputError: it cannot be understood.
    """
    if family is Family.INTERNVL:
        return _internvl_config(source)
    values = {k: v for k, v in source.config.items() if k not in _NOT_OURS}
    values["text_config"] = {**values["text_config"], "tie_word_embeddings": False}
    values["tie_word_embeddings"] = False
    values["architectures"] = [_ARCHITECTURES[family]]
    with quiet(), loading(source.path):
        return _untied(_CONFIGS[family].from_dict(values), source)


def _internvl_config(source: PublishedFolder) -> Any:  # noqa: ANN401 (likewise)
    vision, whole = source.config.get("vision_config"), source.config
    if not isinstance(vision, dict):
        msg = f"{source.path}: its config.json wants vision_config"
        raise InputError(msg)
    known = {field.name for field in dataclasses.fields(Qwen2Config)} | _ROPE
    text = {k: v for k, v in whole["llm_config"].items() if k in known}
    text |= {"model_type": "qwen2", "tie_word_embeddings": False}
    renamed = {ours: vision[theirs] for theirs, ours in _VISION.items() if theirs in vision}
    size = whole.get("force_image_size") or vision.get("image_size")
    patch = vision.get("patch_size")
    if not isinstance(size, int) or not isinstance(patch, int) or size % (2 * patch):
        msg = f"{source.path}: frames of {size!r} px do not make pairs of patches of {patch!r} px"
        raise InputError(msg)
    renamed |= {
        "image_size": [size, size],
        "patch_size": [patch, patch],
        "use_mean_pooling": True,  # no norm after the last layer
    }
    ratio = float(whole["downsample_ratio"])
    with quiet(), loading(source.path):
        config = InternVLConfig(
            text_config=text,
            vision_config=renamed,
            image_seq_length=round((size // patch * ratio) ** 2),
            downsample_ratio=ratio,
            vision_feature_layer=-1,
            tie_word_embeddings=False,
            architectures=["InternVLForConditionalGeneration"],
        )
    return _untied(config, source)


def _untied(config: Any, source: PublishedFolder) -> Any:  # noqa: ANN401 (likewise)
    if config.tie_word_embeddings or config.get_text_config().tie_word_embeddings:
        msg = f"{source.path}: transformers ties the output layer to the embeddings all the same"
        raise InputError(msg)
    return config


def written_tokenizer(
    source: PublishedFolder,
    folder: Path,
    config: Any,  # noqa: ANN401 (likewise)
    family: Family,
) -> Any:  # noqa: ANN401 (likewise)
    """The tokenizer, read from copies of its data files beside our own configuration.

    Args:
        source: of the files.
        folder: gets the target's config.json and the tokenizer.
        config: of the target, which learns what stands for a frame.
        family: of the language model.

    Raises:
        InputError: none that is data alone, one without [SEG], or one of other rows.
    """
    found = [name for name in _TOKENIZER_FILES if (source.path / name).is_file()]
    if "tokenizer.json" not in found and "vocab.json" not in found:
        msg = f"{source.path} wants a tokenizer.json, or vocab.json and merges.txt, it has neither"
        raise InputError(msg)
    config.save_pretrained(folder)
    for name in found:
        shutil.copyfile(source.path / name, folder / name)
    tokenizer = read_tokenizer(folder, template=_template(source, family))
    for name in found:
        (folder / name).unlink()
    num_rows = config.get_text_config().vocab_size
    if len(tokenizer) != num_rows:
        msg = (
            f"{source.path}: its tokenizer knows {len(tokenizer)} tokens, its embeddings have"
            f" {num_rows} rows: one of the two is of another model; copy the folder again"
        )
        raise InputError(msg)
    if TOKEN not in tokenizer.get_vocab():
        msg = (
            f"{source.path}: its tokenizer does not know {TOKEN}, so it is no model that segments"
        )
        raise InputError(msg)
    if family is Family.INTERNVL:
        if CONTEXT not in tokenizer.get_vocab():
            msg = f"{source.path}: its tokenizer does not know {CONTEXT}, which stands for a frame"
            raise InputError(msg)
        config.image_token_id = tokenizer.convert_tokens_to_ids(CONTEXT)
        config.save_pretrained(folder)
    with quiet():
        tokenizer.save_pretrained(folder)
    return tokenizer


def stop_strings_of(source: PublishedFolder, family: Family, tokenizer: Any) -> tuple[str, ...]:  # noqa: ANN401
    """What ends a completion and is no token: InternVL's templates have such."""
    if family is not Family.INTERNVL:
        return ()
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    stops = template_of(source.config.get("template"), source.name).stop_strings
    return tuple(text for text in stops if text not in vocabulary)


def _template(source: PublishedFolder, family: Family) -> str | None:
    if family is not Family.INTERNVL:
        return None  # the tokenizer's own
    return template_of(source.config.get("template"), source.name).as_jinja()


def generation_config(config: Any, tokenizer: Any) -> Any:  # noqa: ANN401 (of transformers)
    """What ends a completion: the usual end tokens, and the tokenizer's own."""
    vocabulary: Mapping[str, int] = tokenizer.get_vocab()
    ends = {vocabulary[text] for text in END_TOKENS if text in vocabulary}
    if tokenizer.eos_token_id is not None:
        ends.add(int(tokenizer.eos_token_id))
    return GenerationConfig(
        eos_token_id=sorted(ends),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=config.get_text_config().bos_token_id,
    )
