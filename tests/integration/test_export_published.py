# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export seg --from`: folders in Sa2VA's published layout become ones that foreseg loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.meta_sam2 import know_tiny_trunk
from tests.support.sam2_models import make_frame
from tests.support.tiny_sa2va import SAM2, head_tensors, save_tiny_sa2va
from tests.support.tiny_vlm import KINDS
from transformers import AutoModelForImageTextToText

from foreseg.dialogue import NoTarget, Query, QueryId, TargetsFound
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.language.base import Message, Role
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.load import build_reasoner
from foreseg_export import published
from foreseg_export.cli import main
from foreseg_export.seg_quality import Drawn, seg_quality
from foreseg_export.vlm_quality import drawn_set
from foreseg_torch.seg.decode import SA2VA_DECODE
from foreseg_torch.seg.language_model import SegLanguageModel
from foreseg_torch.seg.store import LoadedSegVlm, load_seg_vlm
from foreseg_torch.tracker.sam2_meta import config_from_meta, model_from_meta
from foreseg_torch.vlm import loading
from foreseg_torch.vlm.loading import Precision

CLEAR = Path("/proc/self/clear_refs")
MB = 1e6
NOISE_MB = 15.0  # of the allocator
SIZE = 64  # of SAM2's square in these tests; published ones have 1024
FRAMES = tuple(make_frame(i) for i in range(2))


@pytest.fixture(autouse=True)
def _tiny_sam2(monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny_trunk(monkeypatch)
    monkeypatch.setattr(published, "IMAGE_SIZE", SIZE)


def converted(source: Path, out: Path, *words: str) -> Path:
    assert main(["seg", "--from", str(source), "--out", str(out), *words]) == 0
    return out


def loaded_of(folder: Path) -> LoadedSegVlm:
    return load_seg_vlm(folder, precision=Precision.BF16, device="cpu")


@pytest.mark.parametrize(
    ("kind", "old_names"), [(KINDS[0], False), (KINDS[0], True), (KINDS[1], False)]
)
def test_every_tensor_of_a_qwen_folder_is_placed_bit_for_bit(
    tmp_path: Path, kind: str, *, old_names: bool
) -> None:
    original = save_tiny_sa2va(tmp_path / "source", kind, old_names=old_names)
    made = loaded_of(converted(tmp_path / "source", tmp_path / "made"))
    assert made.loaded.model.config.model_type == kind
    state = made.loaded.model.state_dict()
    assert state.keys() == original.state_dict().keys()
    for name, value in original.state_dict().items():
        assert torch.equal(state[name], value), name
    tables = (made.loaded.model.lm_head.weight, made.loaded.model.get_input_embeddings().weight)
    assert not torch.equal(*tables), "tied: the output layer was lost"
    record = json.loads((tmp_path / "made" / "seg.json").read_text())
    heads = head_tensors()
    counts = record["source"]["tensors"]
    assert counts == {
        "vlm": len(state),
        "projection": 4,
        "sam2": len(heads) - 4,
        "left_out": 0,
    }
    for name in ("0.weight", "0.bias", "2.weight", "2.bias"):
        stored = made.model.head.projection.state_dict()[name]
        assert torch.equal(stored, heads[f"text_hidden_fcs.{name}"])
    assert made.model.head.decode == SA2VA_DECODE


@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_states_are_those_of_the_original(tmp_path: Path, kind: str) -> None:
    save_tiny_sa2va(tmp_path / "source", kind).save_pretrained(tmp_path / "original")
    original = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "original", dtype=torch.bfloat16
    ).eval()
    made = loaded_of(converted(tmp_path / "source", tmp_path / "made"))
    model = SegLanguageModel(made)
    content = (FRAMES[0].image, FRAMES[1].image, "\nPlease segment it.")
    inputs = model.inputs([Message(role=Role.USER, content=content)]).as_arguments()
    said = torch.tensor([model.loaded.tokenizer("Sure, [SEG].").input_ids])
    ids = torch.cat((inputs["input_ids"], said), dim=1)
    inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    inputs["mm_token_type_ids"] = torch.nn.functional.pad(
        inputs["mm_token_type_ids"], (0, said.shape[1])
    )
    with torch.no_grad():
        wanted = original(**inputs, output_hidden_states=True)
        found = made.loaded.model(**inputs, output_hidden_states=True)
    assert torch.equal(found.logits, wanted.logits)
    at = ids[0] == made.model.token_id
    assert int(at.sum()) == 1
    assert torch.equal(found.hidden_states[-1][0, at], wanted.hidden_states[-1][0, at])


@pytest.mark.parametrize("has_two_decoders", [False, True])
def test_sam2_and_projection_draw_what_the_published_ones_draw(
    tmp_path: Path, *, has_two_decoders: bool
) -> None:
    save_tiny_sa2va(tmp_path / "source", has_two_decoders=has_two_decoders)
    made = loaded_of(converted(tmp_path / "source", tmp_path / "made"))
    heads = head_tensors(has_two_decoders=has_two_decoders)
    own = "sam_mask_decoder_modified." if has_two_decoders else "sam_mask_decoder."
    state = {}
    for name, value in heads.items():
        inner = name.removeprefix(SAM2).replace(".g_weight", ".gamma")
        if not name.startswith(SAM2):
            continue
        if inner.startswith("sam_mask_decoder") and not inner.startswith(own):
            continue
        state[inner.replace(own, "sam_mask_decoder.")] = value
    reference = model_from_meta(state, config_from_meta(state, SIZE))
    stored = made.model.head.sam.state_dict()
    for name, value in reference.state_dict().items():
        if name in stored:
            assert torch.equal(stored[name], value), name
    assert len(stored) < len(reference.state_dict())  # the memory is kept in the file alone
    whole = load_file(tmp_path / "made" / "sam2" / "model.safetensors")
    for name, value in whole.items():
        assert torch.equal(value, reference.state_dict()[name]), name
    record = json.loads((tmp_path / "made" / "seg.json").read_text())["source"]
    left_out = [name for name in heads if f"{SAM2}sam_mask_decoder." in name]
    assert record["left_out"]["names"] == (sorted(left_out) if has_two_decoders else [])
    assert ("tracks" in record["left_out"]["why"]) == has_two_decoders


def test_the_record_has_hashes_and_licence_and_nothing_of_the_folder_was_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_sa2va(tmp_path / "source")
    converted(tmp_path / "source", tmp_path / "made")
    said = capsys.readouterr().out
    assert "licence of source: apache-2.0" in said
    assert f"bf16, from {tmp_path / 'source'}" in said
    record = json.loads((tmp_path / "made" / "seg.json").read_text())
    assert record["is_trained"] is True
    source = record["source"]
    assert (source["name"], source["licence"]) == ("source", "apache-2.0")
    assert source["is_non_commercial"] is False
    hashed = {file["name"]: file["sha256"] for file in source["files"]}
    assert {"config.json", "model-00001-of-00002.safetensors", "modeling_sa2va_qwen.py"} <= set(
        hashed
    )
    assert all(len(value) == 64 for value in hashed.values())
    config = json.loads((tmp_path / "made" / "vlm" / "config.json").read_text())
    assert "auto_map" not in config
    assert "template" not in config
    assert config["tie_word_embeddings"] is False
    assert not list((tmp_path / "made").rglob("*.py"))
    ends = json.loads((tmp_path / "made" / "vlm" / "generation_config.json").read_text())
    tokenizer = loaded_of(tmp_path / "made").loaded.tokenizer
    found = set(tokenizer.convert_ids_to_tokens(ends["eos_token_id"]))
    assert found == {"<|endoftext|>", "<|im_end|>"}


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("---\nlicense: cc-by-nc-4.0\n---\n", "cc-by-nc-4.0: NOT FOR COMMERCIAL USE"),
        (
            "---\nlicense: other\nlicense_name: qwen-research\n---\n",
            "other / qwen-research: NOT FOR COMMERCIAL USE",
        ),
        ("# no front matter, license: apache-2.0\n", "UNKNOWN (its folder says none)"),
    ],
)
def test_licences_are_said_aloud(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], card: str, said: str
) -> None:
    save_tiny_sa2va(tmp_path / "source")
    (tmp_path / "source" / "README.md").write_text(card)
    converted(tmp_path / "source", tmp_path / "made")
    assert said in capsys.readouterr().out


def test_what_is_known_of_a_model_is_said_where_its_folder_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_tiny_sa2va(tmp_path / "FeVOS-R1")
    (tmp_path / "FeVOS-R1" / "README.md").unlink()
    converted(tmp_path / "FeVOS-R1", tmp_path / "made")
    assert "cc-by-nc-sa-4.0" in capsys.readouterr().out


@pytest.mark.parametrize(("method", "kind"), [("sa2va", KINDS[0]), ("fevos", KINDS[1])])
def test_the_reasoner_asks_a_converted_folder_as_its_card_says(
    tmp_path: Path, method: str, kind: str
) -> None:
    save_tiny_sa2va(tmp_path / "source", kind)
    converted(tmp_path / "source", tmp_path / "made", "--method", method)
    options = {"model": str(tmp_path / "made"), "method": method, "device": "cpu"}
    (tmp_path / "model.json").write_text(json.dumps(options))
    reasoner = build_reasoner(ReasonerSpec(kind=f"transformers:{tmp_path / 'model.json'}"))
    window = FrameWindow(frames=FRAMES, origin_index=FrameIndex(0))
    question = Query(id=QueryId("q"), text="the ball", max_reasoning_tokens=4)
    parts = list(reasoner.ask(question, window))
    said = [type(part).__name__ for part in parts]
    assert not any(isinstance(part, TargetsFound) for part in parts), "nothing is forced"
    assert said[-1] == "AnswerFailed" or any(isinstance(part, NoTarget) for part in parts), said


GROWTH = """
import gc, sys
from pathlib import Path
import pytest
from tests.support.meta_sam2 import know_tiny_trunk
from foreseg_export import published
from foreseg_export.cli import main

def peak_mb():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e6

small, first, source, made = sys.argv[1:]
know_tiny_trunk(pytest.MonkeyPatch())
published.IMAGE_SIZE = 64
assert main(["seg", "--from", small, "--out", first]) == 0  # what is imported late is imported now
published.PIECE_BYTES = 70e6
gc.collect()
Path("/proc/self/clear_refs").write_text("5")
before = peak_mb()
assert main(["seg", "--from", source, "--out", made]) == 0
print("grown", peak_mb() - before)
"""


def save_wide(folder: Path, num_layers: int) -> tuple[float, float]:
    """A model whose layers are 200 MB each, one to a file, in float32; all and the largest file, MB."""
    save_tiny_sa2va(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= {"num_hidden_layers": num_layers, "intermediate_size": 262_144}
    del config["text_config"]["layer_types"]
    (folder / "config.json").write_text(json.dumps(config))
    state: dict[str, torch.Tensor] = {}
    for path in folder.glob("*.safetensors"):
        state |= load_file(path)
        path.unlink()
    layer = "model.model.language_model.layers."
    template = {k: v for k, v in state.items() if k.startswith(f"{layer}0.")}
    rest = {k: v for k, v in state.items() if not k.startswith(layer)}
    weight_map, sizes = dict.fromkeys(rest, "model-0.safetensors"), []
    save_file(rest, folder / "model-0.safetensors", {"format": "pt"})
    for number in range(num_layers):
        held = {}
        for name, value in template.items():
            shape = [262_144 if side == 2 * 64 and "mlp" in name else side for side in value.shape]
            held[name.replace(f"{layer}0.", f"{layer}{number}.")] = torch.zeros(shape)
        file = folder / f"model-{number + 1}.safetensors"
        save_file(held, file, {"format": "pt"})
        weight_map |= dict.fromkeys(held, file.name)
        sizes.append(file.stat().st_size / MB)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return sum(sizes), max(sizes)


@pytest.mark.skipif(not CLEAR.exists(), reason="peak memory is reset by Linux alone")
def test_files_are_read_one_at_a_time(tmp_path: Path) -> None:
    whole, largest = save_wide(tmp_path / "source", num_layers=3)
    save_tiny_sa2va(tmp_path / "small")
    folders = [str(tmp_path / name) for name in ("small", "first", "source", "made")]
    # in a process of its own: what other tests left to the allocator counted, now and then
    words = [sys.executable, "-c", GROWTH, *folders]
    run = subprocess.run(words, check=False, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    grown = float(run.stdout.split("grown")[1])
    assert whole > 2.9 * largest > 580, "the model is too small to tell"
    # a file, and a piece of what is written: that ends behind the tensor that fills it, in bfloat16
    piece = 70 + largest / 3 / 2
    assert grown < largest + piece + NOISE_MB, f"{grown:.0f} MB for files of {largest:.0f}"
    weights = list((tmp_path / "made" / "vlm").glob("model-*.safetensors"))
    assert len(weights) == 4  # 302 MB of layers in pieces of 100, and what is beside them
    assert load_seg_vlm(tmp_path / "made", device="cpu").loaded.model.num_parameters() > 75e6


def test_four_bits_are_a_choice_and_say_what_they_cost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("bitsandbytes", reason="four bits are its")
    save_tiny_sa2va(tmp_path / "source")
    coarse = converted(tmp_path / "source", tmp_path / "nf4", "--precision", "nf4")
    said = capsys.readouterr().out
    assert "as nf4: 18 masks overlap those of bf16 by" in said
    record = json.loads((coarse / "seg.json").read_text())
    quality = record["quality"]
    assert (quality["precision"], quality["num_masks"]) == ("nf4", 18)
    assert 0 <= quality["smallest_mask_iou"] <= quality["mask_iou"] <= 1
    assert 0 < quality["state_cosine"] < 0.9999, "four bits cost nothing: they were not used"
    assert quality["bytes_ratio"] < 1
    assert record["source"]["licence"] == "apache-2.0"
    made = load_seg_vlm(coarse, device="cpu")
    assert made.loaded.precision is Precision.NF4
    assert made.loaded.is_stored
    assert made.model.head.decode == SA2VA_DECODE
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    whole = converted(tmp_path / "source", tmp_path / "bf16")
    converted(whole, tmp_path / "again", "--precision", "nf4")
    for name, value in load_file(tmp_path / "again" / "vlm" / "model.safetensors").items():
        assert torch.equal(value, load_file(coarse / "vlm" / "model.safetensors")[name]), name
    for source, words, message in (
        (whole, [], "is a folder of foreseg's already"),
        (coarse, ["--precision", "nf4"], "is quantised"),
    ):
        out = ["--out", str(tmp_path / "other")]
        assert main(["seg", "--from", str(source), *out, *words]) == 2
        assert message in capsys.readouterr().err


def test_what_a_coarser_model_costs_is_the_overlap_of_the_masks_and_the_angle_of_the_states() -> (
    None
):
    whole, half, none = (np.zeros((4, 4), bool) for _ in range(3))
    whole[:2], half[:1] = True, True
    states = (torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
    fine = Drawn(states=states, masks=(whole, none), num_bytes=100)
    coarse = Drawn(states=(torch.tensor([1.0, 1.0]), states[1]), masks=(half, none), num_bytes=40)
    found = seg_quality(fine, coarse, precision="nf4", asked=drawn_set())
    assert (found.num_masks, found.mask_iou, found.smallest_mask_iou) == (2, 0.75, 0.5)
    assert found.state_cosine == pytest.approx((2**-0.5 + 1) / 2)
    assert found.bytes_ratio == 0.4


def test_a_name_on_the_hub_is_downloaded_without_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "models--FudanCVL--FeVOS-R1" / "snapshots" / "0"
    save_tiny_sa2va(source)
    (source / "README.md").unlink()
    asked: list[tuple[str, list[str]]] = []

    def download(where: str, allow_patterns: list[str]) -> str:
        asked.append((where, allow_patterns))
        return str(source)

    monkeypatch.setattr(loading, "snapshot_download", download)
    converted(Path("FudanCVL/FeVOS-R1"), tmp_path / "made")
    ((where, patterns),) = asked
    assert where == "FudanCVL/FeVOS-R1"
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith((".py", ".bin", ".pt")) for pattern in patterns)
    assert "NOT FOR COMMERCIAL USE" in capsys.readouterr().out
    record = json.loads((tmp_path / "made" / "seg.json").read_text())["source"]
    assert (record["name"], record["is_non_commercial"]) == ("FudanCVL/FeVOS-R1", True)
