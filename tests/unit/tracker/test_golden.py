# SPDX-License-Identifier: Apache-2.0
"""Golden data: every machine draws the same clip, and a wrong engine does not pass the self-test."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import pytest

from foreseg import cli
from foreseg.engines.base import Tensor
from foreseg.engines.load import Bundle, bundle_folder, load_bundle
from foreseg.engines.manifest import MANIFEST_NAME, read_manifest, read_piece, sha256_of
from foreseg.errors import EngineError

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[video]'")
pytest.importorskip("onnxruntime", reason="needs ONNX Runtime: pip install 'foreseg[cpu]'")

from foreseg.commands import bundle_bench
from foreseg.commands.bundle_selftest import self_test
from foreseg.tracker.drawn_clip import moving_shapes
from foreseg.tracker.golden import (
    MIN_AREA_PX,
    RecordingEngine,
    check_step,
    golden_bytes,
    golden_from_bytes,
    overlaps,
)

# of 20 frames: a change here makes every exported bundle's golden data useless
CLIP_SHA256 = "b9ac460a90159f7492e214a9e6a3757c73e64aae242c9ee132f77547bd3d8202"


class Skewed(RecordingEngine):
    """An engine whose first output is off by a constant, as a broken kernel's may be."""

    def __init__(self, engine, offset: float) -> None:  # noqa: ANN001 (an Engine)
        super().__init__(engine)
        self.offset = offset

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        outputs = super().run(inputs, keep=keep)
        first = next(iter(outputs))
        return {**outputs, first: outputs[first] + np.float32(self.offset)}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder("nano"), tmp_path / "bundle"))


def rewrite_golden(folder: Path, content: bytes) -> None:
    """A golden file that the manifest vouches for."""
    path = folder / "golden.npz"
    path.write_bytes(content)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest["golden"].update(num_bytes=len(content), sha256=sha256_of(path))
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))


def test_the_clip_is_the_same_on_every_machine() -> None:
    clip = moving_shapes()
    assert clip.sha256() == CLIP_SHA256
    assert {frame.shape for frame in clip.frames} == {(240, 320, 3)}
    assert moving_shapes(seed=1).sha256() != clip.sha256()


def test_shapes_move_and_stay_in_the_picture() -> None:
    clip = moving_shapes()
    first, last = (clip.frames[i].astype(int) for i in (0, -1))
    assert (np.abs(first - last).sum(axis=2) > 30).mean() > 0.02
    prompts = [(p.box is not None, len(p.points)) for p in clip.prompts]
    assert prompts == [(True, 0), (False, 1), (True, 1)]


def test_golden_data_reads_back_and_is_written_alike_twice() -> None:
    folder = bundle_folder("nano")
    content = read_piece(folder, read_manifest(folder).golden)
    golden = golden_from_bytes(content, "here")
    assert golden_from_bytes(golden_bytes(golden), "there").masks == golden.masks
    assert golden_bytes(golden) == golden_bytes(golden_from_bytes(golden_bytes(golden), "there"))
    assert len(content) < 3e6
    for step in golden.steps:
        for value in step.inputs.values():
            if value.dtype == np.float32:
                assert np.array_equal(value, value.astype(np.float16))
    attention = next(step for step in golden.steps if step.piece == "memory_attention")
    assert attention.inputs["memory"].shape[0] == 2
    assert attention.inputs["memory_valid"].all(), "a full memory"


def test_small_objects_of_the_reference_do_not_count() -> None:
    folder = bundle_folder("nano")
    golden = golden_from_bytes(read_piece(folder, read_manifest(folder).golden), "here")
    row = golden.masks[0]
    small = dataclasses.replace(row[0], counts="")
    assert [i for _, i, _ in overlaps((row,), ((small, *row[1:]),))] == [1, 2]
    assert [iou for *_, iou in overlaps((row,), (row,))] == [1.0] * 3
    assert MIN_AREA_PX == 400


@pytest.mark.slow
def test_the_shipped_bundle_passes_and_a_broken_engine_does_not() -> None:
    folder = bundle_folder("nano")
    with load_bundle() as bundle:
        good = self_test(bundle, folder)
        broken = dataclasses.replace(
            bundle,
            engines=tuple(
                Skewed(engine, 4.0) if engine.name == "memory_attention" else engine
                for engine in bundle.engines
            ),
        )
        bad = self_test(broken, folder)
    assert good.passed
    assert good.masks == 60
    assert all(o.rms < 1e-3 * o.reference_rms for piece in good.pieces for o in piece.outputs)
    assert not bad.passed
    off = {p.name: p.outputs[0].max_abs for p in bad.pieces}
    assert off["memory_attention"] == pytest.approx(4.0, abs=1e-2)
    assert off["decoder"] < 1e-2


def test_an_engine_for_one_object_is_checked_with_one_row() -> None:
    with load_bundle() as bundle:
        seen = tuple(RecordingEngine(engine) for engine in bundle.engines)
        one = dataclasses.replace(bundle, engines=seen, max_rows=1)
        golden = golden_from_bytes(
            read_piece(bundle_folder("nano"), bundle.manifest.golden), "here"
        )
        for engine, step in zip(seen, golden.steps, strict=True):
            for output in check_step(engine, step, max_rows=one.max_rows):
                assert output.rms < 1e-3 * output.reference_rms
    attention = seen[1].newest
    assert attention["memory"].shape[0] == attention["pointer"].shape[0] == 1
    assert attention["feat"].shape[0] == 1


def test_values_that_are_not_finite_do_not_pass() -> None:
    with load_bundle() as bundle:
        engines = tuple(
            Skewed(e, np.inf) if e.name == "memory_encoder" else e for e in bundle.engines
        )
        found = self_test(dataclasses.replace(bundle, engines=engines), bundle_folder("nano"))
    assert not found.passed
    assert "not finite" in found.failure
    off = {piece.name: piece.outputs[0].max_abs for piece in found.pieces}
    assert off["memory_encoder"] == np.inf
    assert off["decoder"] < 1e-2


def test_a_machine_that_cannot_track_still_gets_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load_broken(*words: object, **more: object) -> Bundle:
        bundle = load_bundle(*words, **more)  # type: ignore[arg-type]
        broken = "memory_encoder"
        engines = tuple(Skewed(e, np.inf) if e.name == broken else e for e in bundle.engines)
        return dataclasses.replace(bundle, engines=engines)

    monkeypatch.setattr(bundle_bench, "load_bundle", load_broken)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", "--selftest"]) == 1
    told = json.loads((tmp_path / "foreseg_selftest.json").read_text())
    assert told["rows"] == []
    assert "not finite" in told["self_test"]["failure"]
    assert len(told["self_test"]["pieces"]) == 4
    assert "self-test NOT PASSED" in capsys.readouterr().out


def test_a_checkpoint_has_nothing_to_be_held_against(tmp_path: Path) -> None:
    with load_bundle() as bundle:
        golden = dataclasses.replace(bundle.manifest.golden, file="")
        manifest = dataclasses.replace(bundle.manifest, golden=golden)
        with pytest.raises(EngineError, match="the reference itself"):
            self_test(dataclasses.replace(bundle, manifest=manifest), tmp_path)


def test_a_damaged_golden_file_is_refused(copy: Path) -> None:
    (copy / "golden.npz").write_bytes(b"PK rubbish")
    with load_bundle(copy) as bundle, pytest.raises(EngineError, match=r"golden\.npz"):
        self_test(bundle, copy)
    rewrite_golden(copy, b"PK rubbish")
    with load_bundle(copy) as bundle, pytest.raises(EngineError, match="no golden data"):
        self_test(bundle, copy)


def test_golden_data_of_another_clip_or_without_a_piece_is_refused(copy: Path) -> None:
    content = read_piece(copy, read_manifest(copy).golden)
    golden = golden_from_bytes(content, "here")
    rewrite_golden(copy, golden_bytes(dataclasses.replace(golden, masks=golden.masks[:5])))
    with load_bundle(copy) as bundle, pytest.raises(EngineError, match="another clip"):
        self_test(bundle, copy)
    rewrite_golden(copy, golden_bytes(dataclasses.replace(golden, steps=golden.steps[1:])))
    with load_bundle(copy) as bundle, pytest.raises(EngineError, match="image_encoder"):
        self_test(bundle, copy)


@pytest.mark.slow
def test_the_command_writes_one_report_and_its_exit_code_is_the_gate(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["bench", str(copy), "--selftest", "--objects", "1", "--frames", "1"]
    assert cli.main([*words, "--reasoner", "kinematic"]) == 0
    told = json.loads((tmp_path / "foreseg_selftest.json").read_text())
    assert told["self_test"]["passed"] is True
    assert told["self_test"]["mean_iou"] > 0.999
    assert told["rows"][0]["whole"]["p50_ms"] > 0
    assert told["about"]["versions"]["onnxruntime"]
    assert told["reasoner"]["kind"] == "kinematic"
    assert all(answer["iou"] > 0.5 for answer in told["reasoner"]["answers"])
    blind = ["--reasoner", "tests.support.reasoners:cautious"]  # it finds nothing
    assert cli.main([*words, *blind]) == 1
    told = json.loads((tmp_path / "foreseg_selftest.json").read_text())
    assert (told["self_test"]["passed"], told["reasoner"]["is_checked"]) == (True, False)
    assert cli.main(["bench", str(copy), *blind]) == 2  # nothing would be reported
    manifest = json.loads((copy / MANIFEST_NAME).read_text())
    manifest["parity"]["gate_mean_iou"] = 1.0
    (copy / MANIFEST_NAME).write_text(json.dumps(manifest))
    words = ["bundle", *words]
    assert cli.main([*words, "--json", "report.json"]) == 1
    assert "NOT PASSED" in capsys.readouterr().out
    assert json.loads((tmp_path / "report.json").read_text())["self_test"]["passed"] is False
