# SPDX-License-Identifier: Apache-2.0
"""A model's folder may hold code of its own: it is never run, though someone answers "y"."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="needs transformers: pip install 'foreseg[vlm]'")

from tests.support.tiny_vlm import save_tiny_vlm

from foreseg.errors import InputError
from foreseg_export.checkpoints import open_checkpoint
from foreseg_torch.seg.store import _sam_from
from foreseg_torch.vlm.loading import load_vlm, read_config

CODE = """
from pathlib import Path
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
Path(__file__).with_name("ran").touch()
Path({ran!r}).touch()
class OwnConfig(PretrainedConfig):
    model_type = "own"
class OwnModel(PreTrainedModel):
    config_class = OwnConfig
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
# Opens a folder by one door, as a user's command would.
DOORS: dict[str, Callable[[Path], object]] = {
    "vlm": lambda folder: load_vlm(str(folder), precision=None),
    "config": read_config,
    "sam2": _sam_from,
    "tracker": open_checkpoint,
}


def edit(path: Path, **members: object) -> None:
    value = json.loads(path.read_text("utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**value, **members}), "utf-8")


def folder_with_code(folder: Path, where: str) -> Path:
    """A tiny model whose configuration, model or tokenizer is said to be in a file beside it."""
    save_tiny_vlm(folder)
    (folder / "own.py").write_text(CODE.format(ran=str(folder.parent / "ran")), "utf-8")
    config, tokenizer = folder / "config.json", folder / "tokenizer_config.json"
    if where == "tokenizer":
        names = {"AutoTokenizer": ["own.OwnTokenizer", "own.OwnTokenizer"]}
        edit(tokenizer, tokenizer_class="OwnTokenizer", auto_map=names)
    else:
        names = {"AutoConfig": "own.OwnConfig", "AutoModelForImageTextToText": "own.OwnModel"}
        edit(config, auto_map=names)
    if where == "configuration":
        edit(config, model_type="own")
    return folder


@pytest.mark.parametrize(
    ("where", "door"),
    [
        *(("configuration", door) for door in DOORS),
        ("model", "vlm"),
        ("tokenizer", "vlm"),
    ],
)
def test_code_in_a_folder_is_not_run_whatever_is_answered(
    where: str, door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_with_code(tmp_path / "model", where)
    asked: list[object] = []

    def yes(prompt: object = "") -> str:
        asked.append(prompt)
        return "y"

    monkeypatch.setattr("builtins.input", yes)
    said = ""
    try:
        DOORS[door](folder)
    except InputError as error:
        said = str(error)
    assert not (tmp_path / "ran").exists()
    assert asked == []
    if where == "configuration" and door != "tracker":  # that one knows its two families alone
        assert "code of its own, which is never done" in said
