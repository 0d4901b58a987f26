# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export seg --from` refuses by name what it cannot convert whole, and leaves nothing behind."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.meta_sam2 import know_tiny_trunk
from tests.support.once import made_once
from tests.support.tiny_sa2va import SAM2, save_tiny_sa2va
from tests.support.tiny_vlm import save_tiny_vlm, tiny_tokenizer

from foreseg.errors import InputError
from foreseg_export import published
from foreseg_export.checkpoints import open_checkpoint
from foreseg_export.cli import main

SHARD = "model-00001-of-00002.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture(autouse=True)
def _tiny_sam2(monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny_trunk(monkeypatch)
    monkeypatch.setattr(published, "IMAGE_SIZE", 64)


def copied(folder: Path) -> Path:
    whole = made_once("tiny-sa2va", lambda place: save_tiny_sa2va(place / "source"))
    shutil.copytree(whole / "source", folder)
    return folder


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change what the first shard holds, and the index with it."""
    state = load_file(folder / SHARD)
    change(state)
    save_file(state, folder / SHARD, {"format": "pt"})
    index = json.loads((folder / INDEX).read_text())
    kept = {k: v for k, v in index["weight_map"].items() if v != SHARD}
    index["weight_map"] = kept | dict.fromkeys(state, SHARD)
    (folder / INDEX).write_text(json.dumps(index))


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


def refused(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["seg", "--from", str(folder), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert not out.exists()
    assert "Traceback" not in said
    return said


TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], object], str]] = {
    "missing": (
        lambda s: s.pop(f"{SAM2}sam_mask_decoder.iou_token.weight"),
        "its SAM2 does not fit: it lacks mask_decoder.iou_token.weight",
    ),
    "extra": (
        lambda s: s.update({"vision_proj.weight": torch.ones(2)}),
        "holds 1 tensors that a folder of Sa2VA's (qwen2_5_vl) does not have: vision_proj.weight",
    ),
    "extra in the language model": (
        lambda s: s.update({"model.visual.extra.weight": torch.ones(2)}),
        "unknown are model.visual.extra.weight",
    ),
    "extra in SAM2": (
        lambda s: s.update({f"{SAM2}memory_encoder.extra.weight": torch.ones(1, 64)}),
        "its SAM2 does not fit: unknown are memory_encoder.extra.weight",
    ),
    "of another shape": (
        lambda s: s.update({f"{SAM2}no_mem_embed": torch.ones(1, 1, 7)}),
        "wrong shapes are no_mem_embed (1, 1, 7)",
    ),
    "twice there": (
        lambda s: s.update({"model.visual.blocks.0.norm1.weight": torch.ones(32)}),
        "two tensors for model.visual.blocks.0.norm1.weight",
    ),
    "LoRA": (
        lambda s: s.update({"model.lm_head.lora_A.default.weight": torch.ones(2, 2)}),
        "adapters that were never merged (model.lm_head.lora_A.default.weight)",
    ),
    "modules_to_save": (
        lambda s: s.update({"model.lm_head.modules_to_save.default.weight": torch.ones(2, 2)}),
        "merge them where it was trained (peft's merge_and_unload)",
    ),
}


@pytest.mark.parametrize("what", TENSORS)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, message = TENSORS[what]
    source = copied(tmp_path / "source")
    edit_tensors(source, change)
    assert message in refused(source, tmp_path / "out", capsys)


def drop_weights(folder: Path) -> None:
    for path in (*folder.glob("*.safetensors"), folder / INDEX):
        path.unlink()


def as_verl(folder: Path) -> None:
    drop_weights(folder)
    (folder / "model_world_size_4_rank_0.pt").write_bytes(b"")


def as_pickle(folder: Path) -> None:
    drop_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(print))


def as_adapter(folder: Path) -> None:
    drop_weights(folder)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")


def cut_shard(folder: Path) -> None:
    data = (folder / SHARD).read_bytes()
    (folder / SHARD).write_bytes(data[: len(data) // 2])


def swap_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    tiny_tokenizer().save_pretrained(folder)


def drop_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def as_bare(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """Likewise, without the config.json, as trainers leave it."""

    def changed(folder: Path) -> None:
        change(folder)
        (folder / "config.json").unlink()

    return changed


FOLDERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "verl": (as_verl, "verl's training shards (model_world_size_4_rank_0.pt), which are pickles"),
    "bare verl": (as_bare(as_verl), "verl's training shards (model_world_size_4_rank_0.pt)"),
    "bare adapter": (as_bare(as_adapter), "holds an adapter alone: merge it into its base"),
    "adapter beside": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        "holds an adapter (adapter_config.json) beside its weights",
    ),
    "pickle": (as_pickle, "a pickle (pytorch_model.bin), which can run code and is not opened"),
    "adapter": (as_adapter, "holds an adapter alone: merge it into its base"),
    "no weights": (drop_weights, "wants weights in .safetensors files, it has none"),
    "cut": (cut_shard, f"{SHARD} is damaged"),
    "lost shard": (lambda f: (f / SHARD).unlink(), f"{SHARD} is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "wants a config.json, it has none"),
    "other rows": (swap_tokenizer, "its tokenizer knows 263 tokens, its embeddings have 268 rows"),
    "no tokenizer": (drop_tokenizer, "wants a tokenizer.json"),
    "not Sa2VA's": (
        lambda f: edit_config(f, model_type="qwen2_5_vl"),
        "is a 'qwen2_5_vl', wanted is one that Sa2VA's code exported ('sa2va_chat')",
    ),
    "another family": (
        lambda f: edit_config(f, text_config={"model_type": "llama"}),
        "has the language model 'llama'",
    ),
    "no parts": (
        lambda f: edit_config(f, text_config=None),
        "wants text_config and vision_config",
    ),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_folders_that_are_something_else_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    change, message = FOLDERS[what]
    source = copied(tmp_path / "source")
    change(source)
    assert message in refused(source, tmp_path / "out", capsys)


def test_options_that_exclude_each_other_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vlm = save_tiny_vlm(tmp_path / "vlm")
    out = ["--out", str(tmp_path / "out")]
    for words in (
        ["seg", "--from", "x", "--vlm", str(vlm), "--sam2", "s", *out],
        ["seg", "--from", "x", "--vlm", str(vlm), *out],
        ["seg", "--vlm", str(vlm), *out],
        ["seg", *out],
    ):
        assert main(words) == 2
        assert "seg wants --from, or --vlm and --sam2" in capsys.readouterr().err
    assert main(["seg", "--vlm", str(vlm), "--sam2", "s", "--method", "sa2va", *out]) == 2
    assert "--method sa2va wants --from" in capsys.readouterr().err
    assert "no model at" in refused(Path("no/where/at all"), tmp_path / "out", capsys)
    assert main(["seg", "--from", "x", "--precision", "fp32", *out]) == 2
    assert "--from makes bf16, nf4, int8, got --precision fp32" in capsys.readouterr().err


def test_the_sam2_of_a_folder_that_segments_is_no_tracker(tmp_path: Path) -> None:
    source = copied(tmp_path / "source")
    assert main(["seg", "--from", str(source), "--out", str(tmp_path / "made")]) == 0
    with pytest.raises(InputError, match="mask decoder was trained to read"):
        open_checkpoint(tmp_path / "made" / "sam2")
