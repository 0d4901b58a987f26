# SPDX-License-Identifier: Apache-2.0
"""EdgeTAM as a bundle: the command exports it, the same tracker runs it, `transformers` agrees.

The model is small and random: that shows that the arithmetic is the same, not that it is good.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is a torch model")
for name in ("transformers", "onnx", "onnxscript", "onnxruntime", "cv2"):
    pytest.importorskip(name, reason="exporting a bundle needs it")

from tests.support.edgetam_models import (  # noqa: E402
    GRID,
    NUM_FREE,
    tiny_edgetam,
    tiny_edgetam_bundle,
)
from tests.support.sam2_models import make_frame  # noqa: E402

from foreseg.engines.built import built_folders, read_built  # noqa: E402
from foreseg.engines.load import Bundle, load_bundle  # noqa: E402
from foreseg.engines.onnx import OnnxEngine  # noqa: E402
from foreseg.frames import Frame  # noqa: E402
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg.masks import mask_from_box, rle_from_mask  # noqa: E402
from foreseg.prompts import Point, PointLabel, SpatialPrompt  # noqa: E402
from foreseg.tracker.base import TrackKey  # noqa: E402
from foreseg.tracker.drawn_clip import moving_shapes  # noqa: E402
from foreseg.tracker.memory_bank import MemoryBank  # noqa: E402
from foreseg.tracker.preprocess import pixels_from_image, points_from_prompt  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402
from foreseg_export import build_command  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.graphs import OPSET, export_piece, piece_specs  # noqa: E402
from foreseg_export.parity import GATES, compare  # noqa: E402
from foreseg_torch.tracker.sam2_geometry import keep_memory_slots  # noqa: E402
from foreseg_torch.tracker.sam2_half import in_half  # noqa: E402
from foreseg_torch.tracker.sam2_reference import Sam2Reference  # noqa: E402
from foreseg_torch.tracker.video_models import cut  # noqa: E402

pytestmark = pytest.mark.slow  # exports a small model

# both keep memory in float32, so only the order of sums differs, on logits of deviation 1
TOLERANCE = 1e-4
# the memory of a mask prompt is made of logits on the model's grid: corners are rounded off
MASK_TOLERANCE = 3e-2
HALF_TOLERANCE = 5e-2
SIDE = 64
SQUARE = (SIDE, SIDE)
BOX = SpatialPrompt(box=BoxXyxy(8, 18, 30, 44))
POINTS = SpatialPrompt(points=(Point(40.0, 30.0), Point(10.0, 50.0, PointLabel.BACKGROUND)))
CORNER = SpatialPrompt(box=BoxXyxy(30, 2, 60, 20))
# object -> the frame that it is prompted on, and its prompt
STARTS = {TrackKey("a"): (0, BOX), TrackKey("b"): (3, POINTS), TrackKey("c"): (9, CORNER)}
A = TrackKey("a")
OWN = ("memory_attention", "memory_encoder")  # the pieces that are not SAM2's


@pytest.fixture(scope="module")
def bundle() -> Iterator[Bundle]:
    with load_bundle(tiny_edgetam_bundle()) as opened:
        yield opened


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_edgetam()


def frame(index: int) -> Frame:
    return make_frame(index, size_wh=SQUARE)


def give(reference: Sam2Reference, prompt: SpatialPrompt) -> None:
    points = points_from_prompt(prompt, SQUARE, SIDE)
    reference.prompt_points(0, points.coords, points.labels)


def step(reference: Sam2Reference, bundle: Bundle, index: int) -> np.ndarray:
    logits, _ = reference.step(pixels_from_image(frame(index).image, bundle.manifest.geometry))
    return logits[0]


def test_bundle_says_what_it_is_and_passed_the_gate(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert (manifest.family, manifest.opset) == ("edgetam", OPSET)
    assert manifest.geometry.memory_tokens == NUM_FREE + GRID**2
    assert manifest.parity.passed
    assert (manifest.parity.frames, manifest.parity.objects) == (20, 3)
    assert manifest.parity.masks >= 40
    assert "EdgeTamVideoModel" in manifest.parity.reference
    assert manifest.parity.max_abs_logit < TOLERANCE < manifest.parity.reference_rms_logit


def test_three_objects_of_different_ages_share_launches(
    bundle: Bundle, model: torch.nn.Module
) -> None:
    tracker = Sam2Tracker(bundle)
    references = {key: Sam2Reference(model) for key in STARTS}
    for index in range(20):
        for key, (start, prompt) in STARTS.items():
            if index == start:
                tracker.prompt(frame(index), key, prompt)
                give(references[key], prompt)
        known = list(tracker.keys)
        tracker.track(frame(index), known)
        for key in known:
            wanted = step(references[key], bundle, index)
            assert np.abs(tracker.logits_of(key) - wanted).max() < TOLERANCE, (key, index)
    assert len(tracker.keys) == 3


def test_refining_a_tracked_frame_recalls_latents(bundle: Bundle, model: torch.nn.Module) -> None:
    tracker, reference = Sam2Tracker(bundle), Sam2Reference(model)
    give(reference, BOX)
    tracker.prompt(frame(0), A, BOX)
    for index in range(4):
        step(reference, bundle, index)
        tracker.track(frame(index), [A])
    tracker.prompt(frame(3), A, POINTS)
    points = points_from_prompt(POINTS, SQUARE, SIDE)
    wanted = reference.refine(0, points.coords, points.labels)
    assert np.abs(tracker.logits_of(A) - wanted).max() < TOLERANCE


def test_mask_prompt_becomes_latents(bundle: Bundle, model: torch.nn.Module) -> None:
    tracker, reference = Sam2Tracker(bundle), Sam2Reference(model)
    mask = mask_from_box(BoxXyxy(16, 20, 40, 48), SQUARE)
    reference.prompt_mask(0, mask.astype(np.float32))
    tracker.prompt(frame(0), A, SpatialPrompt(mask=rle_from_mask(mask)))
    for index in range(6):
        tracker.track(frame(index), [A])
        wanted = step(reference, bundle, index)
        assert np.abs(tracker.logits_of(A) - wanted).max() < MASK_TOLERANCE


@pytest.mark.parametrize("forget", ["memory", "free", "gridded", "pointer", "position"])
def test_comparison_would_notice_wrong_memory(
    bundle: Bundle, model: torch.nn.Module, monkeypatch: pytest.MonkeyPatch, forget: str
) -> None:
    read = MemoryBank.read

    def wrong(bank: MemoryBank, rows: list[int], *, again: bool = False):  # noqa: ANN202
        batch = read(bank, rows, again=again)
        memory, valid = np.array(batch.memory), batch.valid.copy()
        if forget == "memory":
            valid[:, 1:] = 0
        elif forget == "free":
            memory[:, :, :NUM_FREE] = 0
        elif forget == "gridded":
            memory[:, :, NUM_FREE:] = memory[:, :, NUM_FREE:][:, :, ::-1]
        elif forget == "pointer":
            return replace(batch, pointer_valid=np.zeros_like(batch.pointer_valid))
        else:
            return replace(batch, position=np.zeros_like(batch.position))
        return replace(batch, memory=memory, valid=valid)

    monkeypatch.setattr(MemoryBank, "read", wrong)
    parity = compare(model, bundle, moving_shapes(frames=6))
    assert parity.max_abs_logit > 20 * TOLERANCE


def test_half_precision_and_a_short_memory_pass_their_gate(bundle: Bundle, tmp_path: Path) -> None:
    shorter = tiny_edgetam()
    keep_memory_slots(shorter, 3)
    modules, specs = cut(shorter), piece_specs(shorter)
    engines = []
    for engine in bundle.engines:
        path = tmp_path / f"{engine.name}.onnx"
        if engine.name in OWN:
            export_piece(in_half(modules[engine.name]), specs[engine.name], path)
            engines.append(OnnxEngine(engine.name, path.read_bytes()))
        else:
            engines.append(engine)
    geometry = replace(bundle.manifest.geometry, num_recent=2)
    manifest = replace(bundle.manifest, geometry=geometry)
    half = replace(bundle, manifest=manifest, engines=tuple(engines))
    parity = compare(shorter, half, moving_shapes(frames=8))
    assert TOLERANCE < parity.max_abs_logit < HALF_TOLERANCE
    assert parity.mean_iou >= GATES["fp16"]


def test_size_that_windows_do_not_divide_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, out = tiny_edgetam_bundle().parent / "checkpoint", tmp_path / "out"
    words = ["--checkpoint", str(checkpoint), "--out", str(out), "--image-size", "336"]
    assert main(["sam2", *words]) == 2
    told = capsys.readouterr().err
    assert "a multiple of 32 is wanted by this checkpoint, got 336" in told
    assert told.count("\n") == 1
    assert not out.exists()


def test_pieces_of_its_own_build_for_the_a100(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="builds engines without a GPU")
    monkeypatch.setattr(build_command, "local_device", lambda: None)
    folder = Path(shutil.copytree(tiny_edgetam_bundle(), tmp_path / "bundle"))
    words = ["--target", "a100", "--max-objects", "4", "--pieces", ",".join(OWN)]
    assert main(["build", str(folder), *words]) == 0
    (engines,) = built_folders(folder)
    built = read_built(engines)
    assert [engine.piece for engine in built.engines] == list(OWN)
    memory = {spec.name: spec.shape for spec in built.engines[0].inputs}["memory"]
    assert tuple(memory) == ("B", 7, NUM_FREE + GRID**2, 64)
