# SPDX-License-Identifier: Apache-2.0
"""The reasoner kind `transformers:FILE`, from its options to masks, with tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="a model needs it: pip install 'foreseg[vlm]'")
for name in ("transformers", "bitsandbytes", "accelerate", "cv2"):
    pytest.importorskip(name, reason="a model needs it: pip install 'foreseg[vlm]'")

import cv2  # noqa: E402
from tests.support.reasoners import query, window_of  # noqa: E402
from tests.support.tiny_vlm import KINDS, save_tiny_vlm  # noqa: E402

from foreseg import cli  # noqa: E402
from foreseg.dialogue import QueryId, TargetsFound  # noqa: E402
from foreseg.driving.label_origins import LabelOrigins  # noqa: E402
from foreseg.errors import ForesegError  # noqa: E402
from foreseg.frames import DEFAULT_CAMERA, FrameIndex  # noqa: E402
from foreseg.methods.grounding import Coordinates  # noqa: E402
from foreseg.reasoner.base import ReasonerSpec  # noqa: E402
from foreseg.reasoner.exchange import checked_ask  # noqa: E402
from foreseg.reasoner.load import build_reasoner, known_kinds  # noqa: E402
from foreseg_torch.reasoner import TransformersOptions, view_of  # noqa: E402
from foreseg_torch.vlm.loading import Precision, load_vlm  # noqa: E402

SIZE_WH = (160, 120)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny_vlm(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


def scripted(monkeypatch: pytest.MonkeyPatch, said: str, folder: Path) -> None:
    """Let the sampler choose the tokens of a text, whatever the model makes likely."""
    loaded = load_vlm(str(folder), precision=Precision.FP32, device="cpu")
    tokens = iter([*loaded.tokenizer(said).input_ids, *loaded.end_ids])

    def chosen(logits: torch.Tensor, *_: object) -> tuple[int, float]:
        token = next(tokens)
        assert 0 <= token < logits.shape[-1]
        return token, -0.5

    monkeypatch.setattr("foreseg_torch.vlm.language_model.chosen", chosen)


def clip_in(folder: Path) -> Path:
    """A red square at (40, 30) to (80, 70)."""
    path = folder / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 30.0, SIZE_WH)
    image = np.full((*SIZE_WH[::-1], 3), 90, np.uint8)
    image[30:70, 40:80] = (40, 40, 220)
    for _ in range(12):
        writer.write(image)
    writer.release()
    return path


def settings_in(folder: Path, **options: object) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps(options), "utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_read_in_the_models_own_units(
    kind: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_vlm(str(folders[kind]), precision=Precision.FP32, device="cpu")
    unit = loaded.geometry.unit_px
    budget = 12 * unit**2  # 4 x 3 tokens a frame
    options = {"model": str(folders[kind]), "precision": "fp32", "query_pixels": 6 * budget}
    view = view_of(loaded, TransformersOptions(num_frames=6, query_pixels=6 * budget))
    right, bottom = (4 * unit, 3 * unit) if kind == "qwen2_5_vl" else (1000, 1000)
    assert view.coordinates is (Coordinates.PIXELS if kind == "qwen2_5_vl" else Coordinates.MILLI)
    answer = f'{{"keyframe_timestamp": 1, "bbox_2d_list": [[0, 0, {right / 2}, {bottom}]]}}'
    scripted(monkeypatch, f"<think>x</think><answer>{answer}</answer>", folders[kind])
    spec = ReasonerSpec(kind="transformers", options={**options, "num_frames": 6})
    image = np.zeros((300, 400, 3), np.uint8)
    parts = list(checked_ask(build_reasoner(spec), query("what?"), window_of([image] * 2)))
    (found,) = [part for part in parts if isinstance(part, TargetsFound)]
    assert found.prompts[0].box == pytest.approx((0, 0, 200, 300))
    assert found.confidence == pytest.approx(np.exp(-0.5))


def test_a_published_model_is_asked_by_its_recipe(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = tmp_path / "Veason-R1"
    folder.symlink_to(folders["qwen2_5_vl"])
    scripted(
        monkeypatch,
        "<think>x</think><answer>{'keyframe_timestamp': 4, 'bbox_2d_list': [[0, 0, 280, 140]]}",
        folder,
    )
    with caplog.at_level("INFO"):
        reasoner = build_reasoner(
            ReasonerSpec(kind="transformers", options={"model": str(folder)})
        )
    assert "is asked by the recipe veason-560" in caplog.text
    assert " as bf16 on" in caplog.text  # not nf4, which nobody published
    image = np.zeros((300, 400, 3), np.uint8)
    parts = list(checked_ask(reasoner, query("what?"), window_of([image] * 2)))
    (found,) = [part for part in parts if isinstance(part, TargetsFound)]
    assert found.prompts[0].box == pytest.approx((0, 0, 200, 75))
    options = {"model": str(folder), "frame_pixels": 200_704}
    with pytest.raises(ForesegError, match=r"shows squares of 560 px.*leave a frame 200704"):
        build_reasoner(ReasonerSpec(kind="transformers", options=options))


def test_foreseg_run_brings_masks_from_a_model_in_this_process(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")
    zero = LabelOrigins().origin(DEFAULT_CAMERA, QueryId("query-1"), FrameIndex(0), FrameIndex(0))
    label = 6 - int(zero)
    answer = (
        f'{{"keyframe_timestamp": {label}, "bbox_2d_list": [[42, 28, 84, 65]]}}'  # of 168 x 112
    )
    scripted(monkeypatch, f"<think>Red.</think>\n<answer>{answer}</answer>", folders["qwen2_5_vl"])
    (tmp_path / "here").symlink_to(folders["qwen2_5_vl"])
    settings = settings_in(tmp_path, model="./here", threads=1)  # quantised to nf4 on the way
    out = tmp_path / "out"
    arguments = ["run", str(clip_in(tmp_path)), "--query", "the red one", "--no-video"]
    arguments += ["--reasoner", f"transformers:{settings}", "--out", str(out)]
    assert cli.main(arguments) == cli.DONE
    told = json.loads((out / "answers.jsonl").read_text("utf-8").splitlines()[-1])
    assert told["status"] == "OK", told
    masks = sorted((out / "masks").rglob("*.png"))
    mask = cv2.imread(str(masks[-1]), cv2.IMREAD_UNCHANGED)
    rows, columns = np.nonzero(mask.reshape(*mask.shape[:2], -1).any(axis=2))
    assert abs(columns.mean() - 60) < 8
    assert abs(rows.mean() - 50) < 8


def test_what_a_random_model_says_is_a_failed_answer(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")
    settings = settings_in(
        tmp_path, model=str(folders["qwen3_vl"]), precision="bf16", method="videoseg", fast=True
    )
    out = tmp_path / "out"
    arguments = ["run", str(clip_in(tmp_path)), "--query", "q", "--no-video", "--out", str(out)]
    cli.main([*arguments, "--reasoner", f"transformers:{settings}"])
    told = json.loads((out / "answers.jsonl").read_text("utf-8").splitlines()[-1])
    assert told["status"] == "FAILED"
    assert "the completion has no answer" in told["reason"] or "the answer" in told["reason"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "wants a model"),
        ({"model": "/no/such/folder"}, "no model at '/no/such/folder'"),
        ({"model": "./", "precision": "int4"}, "auto, nf4, int8, bf16, fp32, got 'int4'"),
        ({"model": "./"}, "has no config.json"),
        ({"model": "m/n", "device": "tpu"}, "device wants auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"model": "./", "method": "other"}, "veason, videoseg, visa, fevos, sa2va, got 'other'"),
        ({"model": "./", "coordinates": "cm"}, "auto, pixels, milli, got 'cm'"),
        ({"model": "./", "frame_pixels": "9"}, "frame_pixels wants int, got '9'"),
        ({"model": "./", "threads": -1}, "threads wants 0 to 256, got -1"),
        ({"model": "TINY", "max_memory_mb": 1}, "max_memory_mb allows 1"),
        ({"model": "TINY", "query_pixels": 5000}, "wanted are at least 784"),
        ({"mdoel": "./"}, "got 'mdoel'"),
    ],
)
def test_foreseg_run_says_what_is_wrong_with_the_options(
    options: dict[str, object],
    message: str,
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if options.get("model") == "TINY":
        options = {**options, "model": str(folders["qwen2_5_vl"])}
    settings = settings_in(tmp_path, **options)
    arguments = ["run", str(clip_in(tmp_path)), "--query", "q", "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--reasoner", f"transformers:{settings}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import foreseg_torch

    monkeypatch.setitem(__import__("sys").modules, "foreseg_torch.reasoner", None)
    monkeypatch.delattr(foreseg_torch, "reasoner", raising=False)
    with pytest.raises(ForesegError, match=r"pip install 'foreseg\[vlm\]'"):
        build_reasoner(ReasonerSpec(kind="transformers"))
    assert "transformers" in known_kinds()
