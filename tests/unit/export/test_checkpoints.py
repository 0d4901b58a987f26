# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of every form open, whole and at the size asked for; everything else is refused."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="checkpoints are torch models")
for name in ("transformers", "onnx", "cv2"):
    pytest.importorskip(name, reason="exporting a checkpoint needs it")

import huggingface_hub  # noqa: E402 (transformers brings it)
from tests.support.meta_sam2 import OF_21, know_tiny_trunk, save_meta, tiny_state  # noqa: E402
from tests.support.sam2_models import tiny_hiera, tiny_nano  # noqa: E402

from foreseg.errors import InputError  # noqa: E402
from foreseg_export import checkpoints  # noqa: E402
from foreseg_export.checkpoints import open_checkpoint  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_torch.tracker.sam2_geometry import keep_memory_slots  # noqa: E402
from foreseg_torch.tracker.sam2_meta import KNOWN_TRUNKS  # noqa: E402
from foreseg_torch.tracker.sam2_reference import Sam2Reference  # noqa: E402

HUB_ID = "someone/tiny-sam2"


class Evil:
    """Creates a file when it is unpickled by a loader that runs what it reads."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


@pytest.fixture(autouse=True)
def _tiny_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    know_tiny_trunk(monkeypatch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "checkpoint"
    tiny_hiera().save_pretrained(path)
    return path


def meta_file(path: Path, **changes: torch.Tensor | None) -> Path:
    """Meta's form of a checkpoint, with some tensors changed or (None) left out."""
    state = tiny_state()
    for key, value in changes.items():
        state.pop(key, None)
        if value is not None:
            state[key] = value
    return save_meta(state, path)


def refusal(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What the command says to this checkpoint, on its one line."""
    capsys.readouterr()
    out = path.parent / "out"
    assert main(["sam2", "--checkpoint", str(path), "--out", str(out), *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("foreseg-export: ")
    assert told.count("\n") == 1
    assert not out.exists()
    return told


def test_every_tensor_of_metas_checkpoint_has_one_place(tmp_path: Path) -> None:
    state = tiny_state()
    model = open_checkpoint(save_meta(state, tmp_path / "a.pt"), image_size=256).model
    # the four points become one tensor, and the one position matrix stands in two places
    assert (
        sum(v.numel() for v in model.state_dict().values())
        == sum(v.numel() for v in state.values())
        + state["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"].numel()
    )
    points = model.prompt_encoder.point_embed.weight
    for kind in range(4):
        wanted = state[f"sam_prompt_encoder.point_embeddings.{kind}.weight"]
        assert torch.equal(points[kind : kind + 1], wanted)


def test_half_precision_checkpoint_becomes_float32(tmp_path: Path) -> None:
    state = {name: value.half() for name, value in tiny_state().items()}
    model = open_checkpoint(save_meta(state, tmp_path / "a.pt"), image_size=256).model
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}


def test_sam2_is_told_from_sam21_by_its_tensors(tmp_path: Path) -> None:
    new = open_checkpoint(meta_file(tmp_path / "new.pt"), image_size=256).model
    absent = dict.fromkeys(OF_21)
    old = open_checkpoint(meta_file(tmp_path / "old.pt", **absent), image_size=256).model
    for model, is_new in ((new, True), (old, False)):
        assert model.config.enable_temporal_pos_encoding_for_object_pointers is is_new
        assert (model.occlusion_spatial_embedding_parameter is not None) is is_new


def test_missing_unknown_and_misshapen_tensors_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = meta_file(
        tmp_path / "a.pt",
        **{
            "no_obj_ptr": None,
            "my_extra.weight": torch.zeros(3),
            "memory_attention.norm.weight": torch.zeros(5),
        },
    )
    told = refusal(path, capsys, "--image-size", "256")
    assert "it lacks no_object_pointer" in told
    assert "unknown are my_extra.weight" in told
    assert "memory_attention.norm.weight (5,) for (128,)" in told


def test_trunk_of_no_known_size_is_refused_with_the_known_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(KNOWN_TRUNKS, (16, (1, 1, 2, 1)))
    told = refusal(meta_file(tmp_path / "a.pt"), capsys)
    assert "16 channels and (1, 1, 2, 1) blocks" in told
    assert "base_plus 112 x (2, 3, 16, 3)" in told


def test_hostile_pickles_are_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mark = tmp_path / "it_ran"
    bare, hidden, old = tmp_path / "bare.pt", tmp_path / "hidden.pt", tmp_path / "old.pth"
    bare.write_bytes(pickle.dumps({"model": Evil(mark)}))
    torch.save({"model": {"weight": torch.zeros(1)}, "hook": Evil(mark)}, hidden)
    torch.save({"model": Evil(mark)}, old, _use_new_zipfile_serialization=False)
    pickle.loads(bare.read_bytes())  # noqa: S301 (the mark is one that would be seen)
    assert mark.exists()
    mark.unlink()
    assert "pickles are not opened" in refusal(bare, capsys)
    assert "objects besides tensors" in refusal(hidden, capsys)
    assert "pickles are not opened" in refusal(old, capsys)
    assert not mark.exists()


def test_files_that_are_no_checkpoint_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = meta_file(tmp_path / "whole.pt").read_bytes()
    script, other, empty = (tmp_path / f"{name}.pt" for name in ("script", "other", "empty"))
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("script/constants.pkl", b"")
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("readme.txt", b"hello")
    empty.touch()
    cut, flipped = tmp_path / "cut.pt", tmp_path / "flipped.pt"
    cut.write_bytes(whole[:-100])
    head = whole.index(b"data.pkl") + 100
    flipped.write_bytes(whole[:head] + bytes(50) + whole[head + 50 :])
    numbers, bert = tmp_path / "numbers.pt", tmp_path / "bert.pt"
    torch.save([1, 2], numbers)
    torch.save({"model": {"bert.weight": torch.zeros(2)}}, bert)
    text = tmp_path / "sam2.onnx"
    text.touch()
    cases = {
        tmp_path / "nowhere.pt": "no checkpoint at",
        Path("nowhere/sam2.pt"): "no checkpoint at",
        script: "TorchScript",
        other: "damaged",
        empty: "zip form",
        cut: "zip form",
        flipped: "damaged|objects besides",
        numbers: "got list",
        bert: "no SAM2 checkpoint of Meta's",
        text: "no known form",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError, match=reason):
            open_checkpoint(path)
        told = refusal(tmp_path / path, capsys)
        assert re.search(reason, told), told


def test_folders_that_are_no_checkpoint_are_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    cases = {
        "image": ({"model_type": "sam2"}, "single images"),
        "edge_image": ({"model_type": "edgetam"}, "single images"),
        "other": ({"model_type": "bert"}, "not 'sam2_video' or 'edgetam_video'"),
        "no_weights": (config, "does not load"),
        "odd": (config | {"image_size": "big"}, "does not load"),
        "two_sided": (config | {"image_size": [64, 32]}, "square"),
        "list": ([], "JSON object"),
    }
    for name, (content, reason) in cases.items():
        path = tmp_path / name
        path.mkdir()
        (path / "config.json").write_text(json.dumps(content))
        assert reason in refusal(path, capsys)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "config.json" in refusal(empty, capsys)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"image_mean": [0.5, "0.5", 0.5]}, "image_mean wants three numbers"),
        ({"image_mean": 0.5}, "image_mean wants three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "an image_std above 0"),
    ],
)
def test_a_normalisation_that_cannot_be_is_refused(
    settings: dict[str, object],
    told: str,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Silently taken as SAM2's own, it would spoil every mask."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    path = copy / "preprocessor_config.json"
    path.write_text(json.dumps(settings))
    assert told in refusal(copy, capsys)
    path.write_text(json.dumps({"image_mean": None, "image_std": [0.5, 0.25, 0.125]}))
    checkpoint = open_checkpoint(copy)
    assert checkpoint.pixel_mean == checkpoints.IMAGENET_MEAN
    assert checkpoint.pixel_std == (0.5, 0.25, 0.125)


def test_folder_with_weights_left_out_is_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    path = tmp_path / "part"
    path.mkdir()
    (path / "config.json").write_bytes((folder / "config.json").read_bytes())
    tensors = load_file(str(folder / "model.safetensors"))
    del tensors["no_object_pointer"]
    save_file(tensors, str(path / "model.safetensors"), metadata={"format": "pt"})
    assert "it lacks the tensors no_object_pointer" in refusal(path, capsys)


def test_hub_id_is_read_from_the_cache_without_a_network(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "models--someone--tiny-sam2"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    (cache / "snapshots").mkdir()
    (cache / "snapshots" / ("0" * 40)).symlink_to(folder, target_is_directory=True)
    fetch = checkpoints.cached_files
    monkeypatch.setattr(
        checkpoints, "cached_files", lambda name, files: fetch(name, files, cache_dir=tmp_path)
    )
    checkpoint = open_checkpoint(Path(HUB_ID))
    assert checkpoint.name == HUB_ID
    assert (checkpoint.path / "model.safetensors").exists()
    with pytest.raises(
        InputError,
        match=r"no folder 'someone/else', and the model hub cannot be reached from here",
    ):
        open_checkpoint(Path("someone/else"))


@pytest.mark.parametrize("form", ["meta", "folder", "nano"])
def test_another_size_is_the_same_model_on_another_grid(
    form: str, tmp_path: Path, folder: Path
) -> None:
    path = {
        "meta": lambda: meta_file(tmp_path / "a.pt"),
        "folder": lambda: folder,
        "nano": lambda: tiny_nano(tmp_path / "nano.safetensors"),
    }[form]()
    model = open_checkpoint(path, image_size=288, memory_slots=3).model
    assert model.image_size == model.config.image_size == 288
    assert model.backbone_feature_sizes == [[72, 72], [36, 36], [18, 18]]
    assert model.num_maskmem == len(model.memory_temporal_positional_encoding) == 3
    reference = Sam2Reference(model)
    reference.prompt_points(0, np.array([[90.0, 80.0]], np.float32), np.array([1], np.int32))
    pixels = np.random.default_rng(0).normal(size=(1, 3, 288, 288)).astype(np.float32)
    for _ in range(2):
        logits, _ = reference.step(pixels)
    assert logits.shape == (1, 72, 72)
    assert np.isfinite(logits).all()


def test_sizes_that_cannot_be_are_refused(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nano = tiny_nano(tmp_path / "nano.safetensors")
    pt = meta_file(tmp_path / "a.pt")
    for path, unit in ((folder, 32), (nano, 16), (pt, 32)):
        for size in (128, 1000, 1056):
            told = refusal(path, capsys, "--image-size", str(size))
            assert f"256 to 1024 px that is a multiple of {unit}" in told
            assert str(size) in told
    for slots in (1, 8):
        told = refusal(folder, capsys, "--memory-slots", str(slots))
        assert "2 to 7 memory slots are possible with this checkpoint" in told
        assert told.rstrip().endswith(str(slots))
    for words in (("--image-size", "big"), ("--image-size", "0"), ("--memory-slots", "-1")):
        with pytest.raises(SystemExit) as leaving:
            main(["sam2", "--checkpoint", str(pt), "--out", str(tmp_path / "out"), *words])
        assert leaving.value.code == 2


def test_own_size_of_a_checkpoint_needs_no_check(folder: Path) -> None:
    assert open_checkpoint(folder, image_size=64).model.image_size == 64


def test_fewer_slots_keep_the_nearest_positions_and_the_prompted_frames() -> None:
    model = tiny_hiera()
    table = model.memory_temporal_positional_encoding.detach().clone()
    keep_memory_slots(model, 4)
    kept = model.memory_temporal_positional_encoding
    assert torch.equal(kept, table[[0, 1, 2, 6]])
