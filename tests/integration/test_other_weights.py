# SPDX-License-Identifier: Apache-2.0
"""A folder of a text model that is none yet, or not only that: refused by name, with what to do."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="a model needs it: pip install 'foreseg[vlm]'")
pytest.importorskip("transformers", reason="a model needs it: pip install 'foreseg[vlm]'")

from safetensors.torch import load_file, save_file  # noqa: E402
from tests.support.tiny_vlm import save_tiny_vlm, tiny_tokenizer  # noqa: E402

from foreseg.errors import ConfigError, InputError  # noqa: E402
from foreseg.reasoner.base import ReasonerSpec  # noqa: E402
from foreseg.reasoner.load import build_reasoner  # noqa: E402
from foreseg_torch.vlm.loading import Precision, load_vlm  # noqa: E402

WEIGHTS = "model.safetensors"


def as_verl(folder: Path, *, with_config: bool = True) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "model_world_size_4_rank_0.pt").write_bytes(b"")
    if not with_config:
        (folder / "config.json").unlink()


def as_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))


def as_adapter(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    add_adapter(folder)


def add_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "some/where"}')
    (folder / "adapter_model.safetensors").write_bytes(b"")


def add_tensor(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        state = load_file(folder / WEIGHTS) | {name: torch.ones(2, 2)}
        save_file(state, folder / WEIGHTS, {"format": "pt"})

    return change


def drop_tensor(folder: Path) -> None:
    state = load_file(folder / WEIGHTS)
    del state[next(name for name in state if name.endswith("model.norm.weight"))]
    save_file(state, folder / WEIGHTS, {"format": "pt"})


def grow_tokenizer(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained(folder)


def as_published(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "sa2va_chat"}
    (folder / "config.json").write_text(json.dumps(config))


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "verl": (as_verl, r"verl's training shards .*: merge them where they were trained"),
    "bare verl": (lambda f: as_verl(f, with_config=False), "verl's training shards"),
    "pickle": (as_pickle, r"as a pickle \(pytorch_model.bin\).*: ask its publisher"),
    "adapter": (as_adapter, "an adapter alone: merge it into its base"),
    "adapter beside": (add_adapter, r"\(adapter_config.json\) beside its weights.*: merge it"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "wants weights in .safetensors files"),
    "LoRA": (
        add_tensor("model.language_model.layers.0.self_attn.q_proj.lora_A.default.weight"),
        r"never merged \(model.language_model.layers.0.self_attn.q_proj.lora_A.*: merge them",
    ),
    "extra": (
        add_tensor("value_head.weight"),
        r"1 tensors that a 'qwen2_5_vl' does not have \(value_head.weight\)",
    ),
    "missing": (drop_tensor, r"lacks 1 tensors, model.language_model.norm.weight .*: download"),
    "other rows": (grow_tokenizer, "its tokenizer knows 265 tokens, its embeddings have 263 rows"),
    "Sa2VA's": (as_published, "convert it once .foreseg-export seg --from"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_what_is_no_whole_model_is_refused_with_what_to_do(tmp_path: Path, what: str) -> None:
    change, message = FOLDERS[what]
    folder = save_tiny_vlm(tmp_path / "model")
    change(folder)
    with pytest.raises(InputError, match=message):
        load_vlm(str(folder), precision=Precision.BF16, device="cpu")


def test_a_published_folder_is_no_model_of_a_seg_method_before_it_is_converted(
    tmp_path: Path,
) -> None:
    folder = save_tiny_vlm(tmp_path / "model")
    as_published(folder)
    options = {"model": str(folder), "method": "sa2va", "device": "cpu"}
    (tmp_path / "model.json").write_text(json.dumps(options))
    with pytest.raises(ConfigError, match="is converted by `foreseg-export seg --from`"):
        build_reasoner(ReasonerSpec(kind=f"transformers:{tmp_path / 'model.json'}"))
