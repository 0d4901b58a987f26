# SPDX-License-Identifier: Apache-2.0
"""The exported pieces in foreseg's tracker follow `transformers`' own streaming, and the gate bites.

The models are small and random: they show that the arithmetic is the same, not that it is good.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is a torch model")
for name in ("transformers", "onnx", "onnxscript", "onnxruntime", "cv2"):
    pytest.importorskip(name, reason="exporting a bundle needs it")

from tests.support.sam2_models import make_frame, tiny_bundle, tiny_hiera  # noqa: E402

from foreseg.engines.load import Bundle, bundle_folder, load_bundle  # noqa: E402
from foreseg.engines.manifest import read_manifest, sha256_of  # noqa: E402
from foreseg.errors import InputError  # noqa: E402
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg.masks import mask_from_box, rle_from_mask  # noqa: E402
from foreseg.prompts import Point, PointLabel, SpatialPrompt  # noqa: E402
from foreseg.tracker.base import TrackKey  # noqa: E402
from foreseg.tracker.drawn_clip import moving_shapes  # noqa: E402
from foreseg.tracker.memory_bank import MemoryBank  # noqa: E402
from foreseg.tracker.preprocess import pixels_from_image, points_from_prompt  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402
from foreseg_export.checkpoints import open_checkpoint  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.graphs import IR_VERSION  # noqa: E402
from foreseg_export.parity import compare  # noqa: E402
from foreseg_torch.tracker.sam2_reference import Sam2Reference  # noqa: E402

pytestmark = pytest.mark.slow  # exports two small models

CHECKPOINT = Path(__file__).parents[2] / "training" / "checkpoints" / "nano_tracker.safetensors"
# float32 sums in another order and memory that the reference rounds to bfloat16, on logits of
# root mean square 1.4; wrong memory changes them by more than a hundred times this.
TOLERANCE = 2e-3
PROMPT_TOLERANCE = 1e-4  # no memory involved
# the memory of a mask prompt is made of logits on the model's grid: corners are rounded off
MASK_TOLERANCE = 3e-2
SIDE = 64
SQUARE = (SIDE, SIDE)
A, B = TrackKey("a"), TrackKey("b")


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with load_bundle(tiny_bundle("hiera")) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_hiera()


def frame(index: int):  # noqa: ANN201 (a Frame)
    return make_frame(index, size_wh=SQUARE)


def give(reference: Sam2Reference, object_id: int, prompt: SpatialPrompt) -> None:
    points = points_from_prompt(prompt, SQUARE, SIDE)
    reference.prompt_points(object_id, points.coords, points.labels)


def step(reference: Sam2Reference, bundle: Bundle, index: int) -> np.ndarray:
    logits, _ = reference.step(pixels_from_image(frame(index).image, bundle.manifest.geometry))
    return logits


BOX = SpatialPrompt(box=BoxXyxy(8, 18, 30, 44))
OTHER = SpatialPrompt(points=(Point(40.0, 30.0), Point(10.0, 50.0, PointLabel.BACKGROUND)))


def test_bundle_passed_the_gate_and_its_masks_mean_something(
    bundle: Bundle, model: torch.nn.Module
) -> None:
    parity = bundle.manifest.parity
    assert parity.passed
    assert parity.masks >= 40
    assert parity.max_abs_logit < TOLERANCE < parity.reference_rms_logit
    clip = moving_shapes(frames=3)
    again = compare(model, bundle, clip)
    assert again.max_abs_logit < TOLERANCE


def test_objects_of_different_ages_share_launches(bundle: Bundle, model: torch.nn.Module) -> None:
    tracker = Sam2Tracker(bundle)
    old, young = Sam2Reference(model), Sam2Reference(model)
    give(old, 0, BOX)
    tracker.prompt(frame(0), A, BOX)
    for index in range(14):
        if index == 5:
            give(young, 0, OTHER)
            tracker.prompt(frame(index), B, OTHER)
        tracker.track(frame(index), [A, B] if index >= 5 else [A])
        wanted = step(old, bundle, index)
        assert np.abs(tracker.logits_of(A) - wanted[0]).max() < TOLERANCE
        if index >= 5:
            wanted = step(young, bundle, index)
            assert np.abs(tracker.logits_of(B) - wanted[0]).max() < TOLERANCE


def test_refining_a_tracked_frame_recalls_memory_as_the_reference_does(
    bundle: Bundle, model: torch.nn.Module
) -> None:
    tracker, reference = Sam2Tracker(bundle), Sam2Reference(model)
    give(reference, 0, BOX)
    tracker.prompt(frame(0), A, BOX)
    for index in range(4):
        step(reference, bundle, index)
        tracker.track(frame(index), [A])
    tracker.prompt(frame(3), A, OTHER)
    points = points_from_prompt(OTHER, SQUARE, SIDE)
    wanted = reference.refine(0, points.coords, points.labels)
    assert np.abs(tracker.logits_of(A) - wanted).max() < TOLERANCE


def test_mask_prompt_is_remembered_as_the_reference_does(
    bundle: Bundle, model: torch.nn.Module
) -> None:
    tracker, reference = Sam2Tracker(bundle), Sam2Reference(model)
    mask = mask_from_box(BoxXyxy(16, 20, 40, 48), SQUARE)
    reference.prompt_mask(0, mask.astype(np.float32))
    tracker.prompt(frame(0), A, SpatialPrompt(mask=rle_from_mask(mask)))
    wanted = step(reference, bundle, 0)
    assert np.abs(tracker.logits_of(A) - wanted[0]).max() < PROMPT_TOLERANCE
    for index in range(1, 8):
        tracker.track(frame(index), [A])
        wanted = step(reference, bundle, index)
        assert np.abs(tracker.logits_of(A) - wanted[0]).max() < MASK_TOLERANCE


@pytest.mark.parametrize("forget", ["memory", "pointer", "position"])
def test_comparison_would_notice_wrong_memory(
    bundle: Bundle, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, forget: str
) -> None:
    read = MemoryBank.read

    def wrong(bank: MemoryBank, rows: list[int], *, again: bool = False):  # noqa: ANN202
        batch = read(bank, rows, again=again)
        if forget == "memory":
            valid = batch.valid.copy()
            valid[:, 1:] = 0
            return replace(batch, valid=valid)
        if forget == "pointer":
            return replace(batch, pointer_valid=np.zeros_like(batch.pointer_valid))
        return replace(batch, position=np.zeros_like(batch.position))

    monkeypatch.setattr(MemoryBank, "read", wrong)
    parity = compare(model, bundle, moving_shapes(frames=6))
    assert parity.max_abs_logit > 5 * TOLERANCE


def test_bundle_holds_no_trace_of_the_machine_that_made_it(bundle: Bundle) -> None:
    for path in tiny_bundle("hiera").iterdir():
        content = path.read_bytes()
        here = str(Path(__file__).resolve().parents[2]).encode()
        for word in (b"site-packages", here, str(Path.home()).encode() + b"/", b"Traceback"):
            assert word not in content, (path.name, word)
    assert bundle.manifest.source_name == "checkpoint"


def test_graphs_are_of_an_age_that_old_runtimes_open() -> None:
    for path in tiny_bundle("nano").glob("*.onnx"):
        onnx = pytest.importorskip("onnx")
        assert onnx.load(str(path)).ir_version == IR_VERSION


def test_shipped_bundle_follows_its_checkpoint() -> None:
    manifest = read_manifest(bundle_folder("nano"))
    if manifest.source_sha256 != sha256_of(CHECKPOINT):
        pytest.fail("the shipped nano bundle was made from another checkpoint: export it again")
    with load_bundle("nano") as shipped:
        parity = compare(open_checkpoint(CHECKPOINT).model, shipped, moving_shapes(frames=12))
    assert parity.passed


def test_command_line_reports_and_records_what_it_made(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tiny_bundle("nano")
    checkpoint = out.parent / "nano.safetensors"
    told = (out.parent / "log.txt").read_text()
    for word in ("[1/4] image_encoder", "[4/4] memory_encoder", "parity", "wrote"):
        assert word in told
    manifest = read_manifest(out)
    assert manifest.parity.passed
    assert manifest.source_sha256 == sha256_of(checkpoint)
    assert {piece.stored for piece in manifest.pieces} == {"fp16"}
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "bundle",
        "log.txt",
        "nano.safetensors",
    ]
    assert main(["sam2", "--checkpoint", str(checkpoint), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


def test_what_is_no_checkpoint_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.numpy import save_file

    pickle = tmp_path / "sam2.pt"
    pickle.write_bytes(b"\x80\x04K\x01.")
    rubbish = tmp_path / "rubbish.safetensors"
    rubbish.write_bytes(b"rubbish")
    other = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, str(other))
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    cases = {
        tmp_path / "nowhere": "no checkpoint at",
        pickle: "pickles",
        rubbish: "not a nano SAM2 checkpoint",
        other: "not a nano SAM2 checkpoint",
        folder: "'bert'",
        tmp_path: "config.json",
    }
    for path, reason in cases.items():
        with pytest.raises(InputError, match=reason):
            open_checkpoint(path)
        assert main(["sam2", "--checkpoint", str(path), "--out", str(tmp_path / "out")]) == 2
        told = capsys.readouterr().err
        assert reason in told
        assert told.startswith("foreseg-export: ")
