# SPDX-License-Identifier: Apache-2.0
"""Half and int8 pieces: what stays float32, what calibration changes, what the gate raises again."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the pieces are torch modules")
onnx = pytest.importorskip("onnx", reason="exporting a bundle needs it")
for name in ("transformers", "onnxscript", "onnxruntime", "cv2"):
    pytest.importorskip(name, reason="exporting a bundle needs it")

from tests.support.sam2_models import half_graph, tiny_bundle, tiny_hiera  # noqa: E402

from foreseg.engines.load import load_bundle  # noqa: E402
from foreseg.engines.manifest import read_manifest, read_piece  # noqa: E402
from foreseg.engines.onnx import OnnxEngine  # noqa: E402
from foreseg.errors import EngineError, InputError, StreamError  # noqa: E402
from foreseg.tracker.golden import GoldenStep, check_step, golden_from_bytes  # noqa: E402
from foreseg_export import precision  # noqa: E402
from foreseg_export import sam2 as sam2_export  # noqa: E402
from foreseg_export.calibration import MAX_FRAMES, calibration_pixels  # noqa: E402
from foreseg_export.cli import main  # noqa: E402
from foreseg_export.graphs import piece_specs  # noqa: E402
from foreseg_export.parity_page import PAGE_NAME  # noqa: E402
from foreseg_export.precision import CALIBRATION_METHODS, lowered_pieces, quantise  # noqa: E402
from foreseg_export.sam2 import ExportOptions, export_sam2  # noqa: E402
from foreseg_torch.tracker.sam2_half import Float32Island, in_half  # noqa: E402
from foreseg_torch.tracker.sam2_pieces import cut  # noqa: E402

pytestmark = pytest.mark.slow  # exports a small model

HALF = 2e-3  # of the root mean square: eleven bits, through a few dozen layers
INT8 = 0.15  # likewise, of random weights, which quantise badly


@pytest.fixture(scope="module")
def pieces() -> dict[str, torch.nn.Module]:
    return cut(tiny_hiera())


@pytest.fixture(scope="module")
def golden() -> dict[str, GoldenStep]:
    folder = tiny_bundle("nano")
    content = read_piece(folder, read_manifest(folder).golden)
    return {step.piece: step for step in golden_from_bytes(content, "here").steps}


def relative(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def test_half_pieces_take_and_give_float32_and_differ_by_a_rounding(
    pieces: dict[str, torch.nn.Module],
) -> None:
    torch.manual_seed(0)
    for name, spec in piece_specs(tiny_hiera()).items():
        with torch.no_grad():
            wanted, got = (p(**spec.inputs) for p in (pieces[name], in_half(pieces[name])))
        pairs = zip(got, wanted, strict=True) if isinstance(got, tuple) else [(got, wanted)]
        for a, b in pairs:
            assert a.dtype == torch.float32
            assert 0 < relative(a, b) < HALF, name


def test_islands_stay_float32(pieces: dict[str, torch.nn.Module]) -> None:
    for name, piece in pieces.items():
        half = in_half(piece)
        norms = [m for m in half.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert norms or name == "image_encoder"
        assert {m.weight.dtype for m in norms} <= {torch.float32}
        plain = [m for m in piece.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert all(torch.equal(a.weight, b.weight) for a, b in zip(norms, plain, strict=True))
        assert sum(isinstance(m, Float32Island) for m in half.modules()) == len(norms)
    decoder, half = pieces["decoder"], in_half(pieces["decoder"])
    for one in (decoder, half):
        one.side = 1024.0
    coords = torch.tensor([[[1001.3, 3.7], [512.1, 1023.4]]])
    labels = torch.ones(1, 2, dtype=torch.int32)
    points = [one._embed_points(coords, labels) for one in (decoder, half)]
    assert relative(points[1], points[0]) < 1e-6, "a half is 0.5 px off here"


def test_a_half_graph_runs_on_a_processor(pieces: dict[str, torch.nn.Module]) -> None:
    spec = piece_specs(tiny_hiera())["memory_encoder"]
    graph = half_graph("memory_encoder")
    model = onnx.load(str(graph))
    weights = {t.name: t.data_type for t in model.graph.initializer if np.prod(t.dims) > 512}
    assert set(weights.values()) == {onnx.TensorProto.FLOAT16}
    scales = {n.input[1] for n in model.graph.node if n.op_type == "LayerNormalization"}
    kinds = {t.data_type for t in model.graph.initializer if t.name in scales}
    assert kinds == {onnx.TensorProto.FLOAT}
    engine = OnnxEngine("memory_encoder", graph.read_bytes())
    assert {s.dtype for s in (*engine.inputs, *engine.outputs)} == {"float32"}
    with torch.no_grad():
        wanted = pieces["memory_encoder"](**spec.inputs)
    got = engine.run({name: value.numpy() for name, value in spec.inputs.items()})["memory"]
    assert relative(torch.from_numpy(np.asarray(got)), wanted) < HALF


def test_int8_ranges_come_from_the_calibration_by_its_method(
    golden: dict[str, GoldenStep], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, options = precision._RANGES["entropy"]  # with fewer bins it is faster
    monkeypatch.setitem(precision._RANGES, "entropy", (kind, {**options, "num_bins": 512}))
    graph, step = tiny_bundle("nano") / "image_encoder.onnx", golden["image_encoder"]
    pixels = [np.asarray(step.inputs["pixels"], np.float32)] * 2
    scales = {}
    for method in (*CALIBRATION_METHODS, "faint"):
        out = tmp_path / f"{method}.onnx"
        dim = method == "faint"
        quantise(
            graph,
            out,
            [p * 0.01 if dim else p for p in pixels],
            method="minmax" if dim else method,
        )
        model = onnx.load(str(out))
        assert {o.domain for o in model.opset_import} == {""}
        nodes = [n.input[1] for n in model.graph.node if n.op_type == "QuantizeLinear"]
        kept = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        scales[method] = np.asarray([float(kept[name]) for name in nodes])
        if not dim:
            engine = OnnxEngine("image_encoder", out.read_bytes())
            assert {s.dtype for s in (*engine.inputs, *engine.outputs)} == {"float32"}
            for output in check_step(engine, step):
                assert 0 < output.rms < INT8 * output.reference_rms, method
    assert scales["minmax"][0] == pytest.approx(np.abs(pixels[0]).max() / 127, rel=0.02)
    assert scales["faint"][0] == pytest.approx(scales["minmax"][0] * 0.01, rel=0.02)
    for method in ("entropy", "percentile"):
        assert (scales[method] <= scales["minmax"] * 1.001).all()
        assert (scales[method] < scales["minmax"] * 0.9995).any(), "outliers are cut off"


def test_only_the_image_encoder_becomes_int8() -> None:
    assert lowered_pieces("fp32", "a100") == {}
    assert set(lowered_pieces("fp16", "cpu").values()) == {"fp16"}
    assert lowered_pieces("int8", "cpu") == {"image_encoder": "int8"}
    on_gpu = lowered_pieces("int8", "a100")
    assert on_gpu.pop("image_encoder") == "int8"
    assert sorted(on_gpu.values()) == ["fp16"] * 3


def test_calibration_takes_some_frames_of_every_clip(tmp_path: Path) -> None:
    import cv2

    geometry = read_manifest(tiny_bundle("nano")).geometry
    folders = [tmp_path / "long", tmp_path / "short"]
    for folder, count in zip(folders, (60, 3), strict=True):
        folder.mkdir()
        for i in range(count):
            cv2.imwrite(str(folder / f"{i}.png"), np.full((8, 8, 3), i, np.uint8))
    words = [str(folder) for folder in folders]
    pixels, about = calibration_pixels(words, geometry, method="minmax")
    assert (about.sources, about.frames) == (("long", "short"), len(pixels))
    long = [round(float(p[0, 0, 0, 0] - pixels[0][0, 0, 0, 0]) * 255 * 0.229) for p in pixels]
    assert len(pixels) <= MAX_FRAMES
    assert long[-3:] == [0, 1, 2]
    assert long[:3] == [0, 2, 4]
    with pytest.raises(InputError, match="nothing is at"):
        calibration_pixels([str(tmp_path / "nosuch")], geometry, method="minmax")


def inverted_masks(source: Path, out: Path) -> None:
    """A decoder whose masks are the wrong way round."""
    model = onnx.load(str(source))
    for node in model.graph.node:
        for i, name in enumerate(node.output):
            if name == "mask_logits":
                node.output[i] = "mask_logits_right"
    node = onnx.helper.make_node("Neg", ["mask_logits_right"], ["mask_logits"])
    model.graph.node.append(node)
    out.write_bytes(model.SerializeToString())


@pytest.fixture
def harmful(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """An export whose tracing is done already, and whose lowered decoder is broken."""
    made = tiny_bundle("nano")

    def graph(shop, piece: str, precision: str):  # noqa: ANN001, ANN202 (private records)
        path = shop.scratch / f"{piece}.{precision}.onnx"
        source = made / f"{piece}.onnx"
        if (piece, precision) == ("decoder", "fp16"):
            inverted_masks(source, path)
        else:
            shutil.copyfile(source, path)
        return sam2_export._Graph(name=piece, precision=precision, stored="fp16", path=path)

    names = ("image_encoder", "memory_attention", "decoder", "memory_encoder")
    monkeypatch.setattr(
        sam2_export, "_trace_all", lambda shop: {n: graph(shop, n, "fp32") for n in names}
    )
    monkeypatch.setattr(
        sam2_export, "_lower", lambda shop: {n: graph(shop, n, "fp16") for n in names[1:]}
    )

    def run(out: Path, **options: Any) -> Path:
        wanted = ExportOptions(name="harmful", precision="fp16", frames=6, **options)
        lines: list[str] = []
        export_sam2(made.parent / "nano.safetensors", out, wanted, lines.append)
        (out.parent / "log.txt").write_text("\n".join(lines))
        return out

    return run


def test_only_the_piece_that_breaks_masks_goes_back_to_float32(
    harmful: Callable[..., Path], tmp_path: Path
) -> None:
    out = harmful(tmp_path / "out")
    manifest = read_manifest(out)
    assert {p.name: p.precision for p in manifest.pieces} == {
        "image_encoder": "fp32",
        "memory_attention": "fp16",
        "decoder": "fp32",
        "memory_encoder": "fp16",
    }
    assert manifest.parity.passed
    assert manifest.parity.gate_mean_iou == 0.99
    found = {s.piece: s.mean_iou for s in manifest.sensitivity}
    assert set(found) == {"memory_attention", "decoder", "memory_encoder"}
    assert found["decoder"] < 0.5
    assert min(found["memory_attention"], found["memory_encoder"]) > 0.99
    assert "decoder goes back to fp32" in (tmp_path / "log.txt").read_text()
    for piece in manifest.pieces:
        assert all(o.rms < 1e-2 * o.reference_rms for o in piece.outputs), piece.name
    page = (out / PAGE_NAME).read_text()
    assert page.count("data:image/jpeg;base64,") == 6
    assert "Sensitivity" in page
    assert f"{found['decoder']:.5f}" in page
    with load_bundle(out) as bundle:
        assert len(bundle.engines) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"fall_back": False}, "wanted 0.99"), ({"gate": 1.0}, "wanted 1.0")],
)
def test_a_bundle_that_does_not_follow_its_model_is_not_written(
    harmful: Callable[..., Path], tmp_path: Path, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(EngineError, match=reason):
        harmful(tmp_path / "out", **options)
    assert not any(tmp_path.iterdir())


def test_untrained_weights_keep_their_precision_whatever_their_masks(
    harmful: Callable[..., Path], tmp_path: Path
) -> None:
    manifest = read_manifest(harmful(tmp_path / "out", allow_failed_parity=True))
    assert manifest.piece("decoder").precision == "fp16"
    assert not manifest.parity.passed
    assert PAGE_NAME in {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--gate", "2"], "above 0 and at most 1"),
        (["--max-objects", "65"], "1 to 64 objects, got 65"),
        (["--calibration", "clip.mp4"], "calibration clips are for int8"),
        (["--precision", "int4"], "invalid choice"),
        (["--max-objects", "0"], "at least 1, got '0'"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["sam2", "--checkpoint", "c.pt", "--out", str(tmp_path / "out"), *words]
    try:
        code = main(line)
    except SystemExit as leaving:  # argparse
        code = leaving.code
    assert code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "clip", "told"),
    [
        ("out", "nosuch.mp4", "nothing is at"),
        ("out", "file", "as a video"),
        ("file/out", "clips", "nothing is exported to"),
        ("/proc/nosuch/out", "clips", "nothing is exported to"),
    ],
)
def test_what_is_wrong_is_known_before_anything_is_traced(
    out: str, clip: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no clip, no folder")
    checkpoint = tiny_bundle("nano").parent / "nano.safetensors"
    monkeypatch.setattr(sam2_export, "_trace_all", lambda _: pytest.fail("minutes were spent"))
    options = ExportOptions(name="n", precision="int8", calibration=(str(tmp_path / clip),))
    with pytest.raises((InputError, StreamError), match=told):
        export_sam2(checkpoint, tmp_path / out, options)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_stays(
    error: BaseException,
    harmful: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sam2_export, "write_page", stop)  # the last file of all
    with pytest.raises(InputError if isinstance(error, OSError) else KeyboardInterrupt):
        harmful(tmp_path / "out", allow_failed_parity=True)
    assert not any(tmp_path.iterdir())


def test_a_full_disk_is_noticed_before_half_a_graph_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision.shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    graph = tiny_bundle("nano") / "image_encoder.onnx"
    with pytest.raises(OSError, match="No space left") as caught:
        quantise(graph, tmp_path / "int8.onnx", [], method="minmax")
    assert caught.value.filename == str(tmp_path)


def test_parts_of_a_record_are_kept(golden: dict[str, GoldenStep]) -> None:
    step = golden["decoder"]
    folder = tiny_bundle("nano")
    engine = OnnxEngine("decoder", (folder / "decoder.onnx").read_bytes())
    short = {"score": step.outputs["score"]}
    with pytest.raises(EngineError, match="golden data"):
        check_step(engine, dataclasses.replace(step, outputs=short))
