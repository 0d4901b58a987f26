# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export vlm` with tiny models: what is saved is what was quantised, and says so."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a model needs it: pip install 'foreseg[vlm]'")
for name in ("transformers", "bitsandbytes", "accelerate", "cv2"):
    pytest.importorskip(name, reason="a quantised model needs it: pip install 'foreseg[vlm]'")

from tests.support.tiny_vlm import KINDS, save_tiny_vlm  # noqa: E402

from foreseg.errors import EngineError  # noqa: E402
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg.reasoner.base import ReasonerSpec, caution_in  # noqa: E402
from foreseg.reasoner.load import build_reasoner  # noqa: E402
from foreseg.reasoner.recipe import RECIPE, SHIPPED  # noqa: E402
from foreseg.reasoner.scene_check import CHECK  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.vlm import save_quantised  # noqa: E402
from foreseg_export.vlm_quality import (  # noqa: E402
    box_agreement,
    clip_set,
    drawn_set,
    measured_quality,
)
from foreseg_torch.vlm.loading import LoadedVlm, Precision, load_vlm  # noqa: E402
from foreseg_torch.vlm.manifest import MANIFEST_NAME, read_vlm_manifest  # noqa: E402


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_vlm(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def made(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With its report, made by the command."""
    out = tmp_path_factory.mktemp("made") / "tiny-nf4"
    words = ["vlm", "--model", str(source), "--out", str(out), "--report-tokens", "8"]
    assert main([*words, "--threads", "1"]) == 0
    return out


def tensors(loaded: LoadedVlm) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loaded.model.state_dict().items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", [Precision.NF4, Precision.INT8])
def test_what_is_loaded_again_is_bit_for_bit_what_was_quantised(
    kind: str, precision: Precision, tmp_path: Path
) -> None:
    folder, out = save_tiny_vlm(tmp_path / "source", kind), tmp_path / "out"
    words = ["vlm", "--model", str(folder), "--precision", precision.value, "--no-report"]
    assert main([*words, "--out", str(out)]) == 0
    fresh = load_vlm(str(folder), precision=precision, device="cpu")
    again = load_vlm(str(out), device="cpu")
    assert again.precision is precision
    assert again.geometry == fresh.geometry
    before, after = tensors(fresh), tensors(again)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        assert torch.equal(fresh.model(ids).logits, again.model(ids).logits)


def test_a_checked_folder_says_what_it_is_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folder, out = save_tiny_vlm(tmp_path / "source"), tmp_path / "out"
    brief = json.loads((SHIPPED / "qwen-grounding.json").read_text("utf-8"))
    brief = {**brief, "answer_tokens": 8, "image_side_px": 112}
    (folder / RECIPE).write_text(json.dumps(brief), "utf-8")
    words = ["vlm", "--model", str(folder), "--no-report", "--check", "--out", str(out)]
    assert main(words) == 1  # random weights see nothing; the folder stays
    assert "the box: no target" in capsys.readouterr().out
    told = json.loads((out / CHECK).read_text("utf-8"))
    assert told["is_checked"] is False
    assert all(answer["seconds"] > 0 for answer in told["answers"])
    with caplog.at_level("WARNING"):
        reasoner = build_reasoner(ReasonerSpec(kind="transformers", options={"model": str(out)}))
    assert "UNCHECKED: on drawn scenes" in caplog.text  # and the manifest still fits its files
    assert caution_in(reasoner).startswith("UNCHECKED")


def test_a_recipe_travels_with_its_model(tmp_path: Path) -> None:
    folder, out = save_tiny_vlm(tmp_path / "source"), tmp_path / "out"
    shutil.copyfile(SHIPPED / "veason-560.json", folder / RECIPE)
    words = ["vlm", "--model", str(folder), "--no-report"]
    assert main([*words, "--out", str(out)]) == 0
    assert (out / RECIPE).read_bytes() == (folder / RECIPE).read_bytes()
    assert RECIPE in {file.name for file in read_vlm_manifest(out).files}
    (folder / RECIPE).write_text("{}", "utf-8")
    assert main([*words, "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_a_model_that_has_run_is_not_saved(source: Path, tmp_path: Path) -> None:
    loaded = load_vlm(str(source), precision=Precision.NF4, device="cpu")
    weight = loaded.model.model.language_model.layers[0].mlp.up_proj.weight
    with torch.inference_mode():
        loaded.model(torch.arange(5)[None])
    if not getattr(weight.quant_state, "packing_format_for_cpu", False):
        pytest.skip("this CPU has no AVX-512 with bfloat16: nothing is repacked")
    with pytest.raises(EngineError, match="before its first forward"):
        save_quantised(loaded, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_says_what_it_was_made_of_and_how_well_it_agrees(
    made: Path, source: Path
) -> None:
    manifest = read_vlm_manifest(made)
    assert (manifest.name, manifest.precision) == ("tiny-nf4", "nf4")
    assert manifest.source_name == source.name
    assert {file.name for file in manifest.files} == {
        path.name for path in made.iterdir() if path.name != MANIFEST_NAME
    }
    original = load_vlm(str(source), precision=Precision.BF16, device="cpu").model
    assert manifest.num_parameters == original.num_parameters()
    (quality,) = manifest.quality
    assert quality.num_prompts == 6
    assert 6 <= quality.tokens <= 6 * 9
    assert 0 < quality.mean_kl < 5
    assert 0 < quality.token_agreement < 1  # 4 bits of random weights
    assert 0.5 < quality.bytes_ratio < 0.9  # most of a tiny model is not quantised
    report = (made / "quality.md").read_text("utf-8")
    assert f"{quality.token_agreement:.3f}" in report
    assert "not compared" in report  # a random model finds no keyframe


def test_a_model_agrees_with_itself_wholly(source: Path) -> None:
    same = load_vlm(str(source), precision=Precision.BF16, device="cpu")
    asked = dataclasses.replace(drawn_set(), queries=("what falls?",))
    quality = measured_quality(same, same, asked, max_tokens=6)
    assert (quality.num_prompts, quality.token_agreement, quality.mean_kl) == (2, 1.0, 0.0)
    assert (quality.verdict_agreement, quality.bytes_ratio) == (1.0, 1.0)


def test_boxes_agree_by_overlap_over_the_larger_number() -> None:
    one, half, far = BoxXyxy(0, 0, 10, 10), BoxXyxy(0, 0, 10, 5), BoxXyxy(50, 50, 60, 60)
    assert box_agreement([one], [one]) == 1
    assert box_agreement([one], [half]) == 0.5
    assert box_agreement([one, far], [far, half]) == 0.75
    assert box_agreement([one, far], [one]) == 0.5
    assert box_agreement([one, half], [one]) == 0.5  # one box answers for one


def test_clips_are_looked_at_over_their_whole_length(tmp_path: Path) -> None:
    import cv2

    for number in range(11):
        image = np.full((30, 40, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
    asked = clip_set([str(tmp_path)], ["what?"])
    (window,) = asked.windows
    assert [int(frame.image[0, 0, 0]) // 20 for frame in window.frames] == [0, 2, 4, 6, 8, 10]
    assert asked.queries == ("what?",)


def _cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(bytes(content))


def _reword(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("user", "User").replace("role", "r0le"))


def _add(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"x")


def _lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, "model.safetensors wants"),
        (_flip, "model.safetensors wants sha256"),
        (_reword, "chat_template.jinja wants"),
        (_add, "holds 'adapter_model.safetensors', which its manifest does not list"),
        (_lose, "tokenizer.json wants .* got no such file"),
    ],
)
def test_a_folder_that_was_changed_is_refused(
    made: Path, tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    load_vlm(str(folder), device="cpu")
    damage(folder)
    with pytest.raises(EngineError, match=message):
        load_vlm(str(folder), device="cpu")


def test_wrong_input_is_one_sentence_and_leaves_nothing(
    made: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "mine.txt").touch()
    for words, message in (
        (["--model", str(tmp_path / "none")], "no model at"),
        (["--model", str(tmp_path)], "has no config.json"),
        (["--model", str(made)], "is quantised already, to nf4"),
        (["--model", str(made), "--precision", "int8"], "is quantised to nf4"),
        (["--model", str(source), "--device", "tpu"], "device wants auto, cpu, cuda"),
        (["--model", str(source), "--validation", "none.mp4"], "no file, folder or camera"),
        (["--model", str(source), "--query", "what?"], "give --validation"),
        (["--model", str(source), "--validation", "c", "--no-report"], "exclude each other"),
        (["--model", str(source), "--out", str(taken)], "exists: remove it"),
        (["--model", str(source), "--out", str(taken / "mine.txt" / "x")], "cannot be written"),
    ):
        given = words if "--out" in words else [*words, "--out", str(out)]
        assert main(["vlm", *given]) == 2, words
        error = capsys.readouterr().err
        assert message in error
        assert error.strip().splitlines()[-1].startswith("foreseg-export: ")
        assert "Traceback" not in error
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}


def test_a_manifest_of_another_format_is_refused(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(made, folder)
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 9}))
    with pytest.raises(EngineError, match="format version 9"):
        load_vlm(str(folder))
