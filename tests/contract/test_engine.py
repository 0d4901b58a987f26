# SPDX-License-Identifier: Apache-2.0
"""What every engine owes its caller, on the decoder of a small random SAM2.

ONNX Runtime on numpy and bound to a device's memory, torch, OpenVINO in float32 (its lower precisions
are in `tests/unit/engines/test_openvino.py`), and native TensorRT. The device, and TensorRT, are doubles (`tests/support/gpu_double.py`): real ones have not been met yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is a torch model")
for needed in ("transformers", "onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(needed, reason="exporting a graph needs it")

from tests.support.gpu_double import FakeTensorRt, HostCuda  # noqa: E402
from tests.support.sam2_models import make_frame, tiny_bundle, tiny_hiera  # noqa: E402

from foreseg.engines.base import Array, Engine, Tensor, on_host  # noqa: E402
from foreseg.engines.built import AxisRange, BuiltEngine  # noqa: E402
from foreseg.engines.cuda_memory import CudaDevice  # noqa: E402
from foreseg.engines.load import Backend, load_bundle  # noqa: E402
from foreseg.engines.onnx import OnnxEngine  # noqa: E402
from foreseg.engines.openvino import OpenVinoEngine  # noqa: E402
from foreseg.engines.openvino_api import is_openvino_installed  # noqa: E402
from foreseg.engines.sam2_specs import sam2_specs  # noqa: E402
from foreseg.engines.store import HostStore  # noqa: E402
from foreseg.engines.tensorrt import TensorRtEngine  # noqa: E402
from foreseg.errors import EngineError, InputError  # noqa: E402
from foreseg.geometry import BoxXyxy  # noqa: E402
from foreseg.prompts import SpatialPrompt  # noqa: E402
from foreseg.tracker.base import TrackKey  # noqa: E402
from foreseg.tracker.sam2 import Sam2Tracker  # noqa: E402
from foreseg_export.checkpoints import Checkpoint  # noqa: E402
from foreseg_export.sam2 import geometry_of  # noqa: E402
from foreseg_torch.tracker.engine import TorchEngine, TorchStore, torch_bundle  # noqa: E402
from foreseg_torch.tracker.sam2_pieces import cut  # noqa: E402

pytestmark = pytest.mark.slow  # exports a small model

SIDE = 64
TOLERANCE = 2e-4  # float32 sums in another order, on logits of up to 20
PROFILE = {
    "B": AxisRange(name="B", min=1, opt=2, max=8),
    "P": AxisRange(name="P", min=1, opt=1, max=16),
}
KINDS = ("onnx", "onnx-bound", "torch", "openvino", "tensorrt-double", "tensorrt-rtx-double")


@dataclass
class Model:
    """A model, and its decoder as a module and as a graph."""

    checkpoint: Checkpoint
    decoder: torch.nn.Module
    graph: bytes

    @property
    def specs(self):  # noqa: ANN201
        return sam2_specs(geometry_of(self.checkpoint))["decoder"]


@pytest.fixture(scope="module")
def model() -> Model:
    sam2 = tiny_hiera()
    graph = tiny_bundle("hiera") / "decoder.onnx"
    half = (0.5, 0.5, 0.5)
    checkpoint = Checkpoint(
        model=sam2, name="tiny", path=Path("tiny"), pixel_mean=half, pixel_std=half
    )
    return Model(checkpoint=checkpoint, decoder=cut(sam2)["decoder"], graph=graph.read_bytes())


@pytest.fixture(params=KINDS)
def engine(request: pytest.FixtureRequest, model: Model) -> Iterator[Engine]:
    kind = request.param
    if kind == "onnx":
        yield OnnxEngine("decoder", model.graph)
    elif kind == "torch":
        inputs, outputs = model.specs
        yield TorchEngine("decoder", model.decoder, inputs=inputs, outputs=outputs)
    elif kind == "openvino":
        if not is_openvino_installed():
            pytest.skip("openvino is not installed: pip install 'foreseg[openvino]'")
        inputs, outputs = model.specs
        yield OpenVinoEngine("decoder", model.graph, inputs=inputs, outputs=outputs)
    else:
        cuda = HostCuda(is_lazy=kind != "onnx-bound")
        cuda.make_current()
        device = CudaDevice(cuda)
        if kind == "onnx-bound":
            made: Engine = OnnxEngine("decoder", model.graph, device=device)
        else:
            trt = FakeTensorRt(cuda, PROFILE, is_rtx="rtx" in kind)
            made = TensorRtEngine(record_of(model), model.graph, trt=trt, device=device)
        yield made
        made.close()
        device.close()
        assert cuda.live() == {"memory": 0, "streams": 0, "graphs": 0, "open": 0}


def record_of(model: Model) -> BuiltEngine:
    inputs, outputs = model.specs
    return BuiltEngine(
        piece="decoder",
        file="decoder.engine",
        sha256=hashlib.sha256(model.graph).hexdigest(),
        num_bytes=len(model.graph),
        graph_sha256="0" * 64,
        inputs=inputs,
        outputs=outputs,
        profile=tuple(PROFILE.values()),
        build_s=1.0,
        num_layers=1,
    )


def prompts(model: Model, rows: int, points: int, seed: int = 0) -> dict[str, Tensor]:
    rng = np.random.default_rng(seed)
    inputs: dict[str, Tensor] = {}
    for spec in model.specs[0]:
        shape = spec.resolved({"B": rows, "P": points})
        inputs[spec.name] = rng.standard_normal(shape, np.float32)
    inputs["point_coords"] = rng.uniform(0, SIDE, (rows, points, 2)).astype(np.float32)
    inputs["point_labels"] = rng.integers(-1, 4, (rows, points)).astype(np.int32)
    for flag in ("has_mask", "multimask"):
        inputs[flag] = rng.integers(0, 2, rows).astype(np.float32)
    return inputs


def test_names_shapes_and_types_are_those_of_the_model(engine: Engine, model: Model) -> None:
    assert (engine.inputs, engine.outputs) == model.specs
    assert engine.name == "decoder"
    assert engine.provider


def test_results_are_those_of_the_reference(engine: Engine, model: Model) -> None:
    for seed, (rows, points) in enumerate([(1, 1), (3, 2), (8, 16), (1, 1), (3, 2), (1, 1)]):
        inputs = prompts(model, rows, points, seed)
        with torch.inference_mode():
            wanted = model.decoder(
                *(torch.from_numpy(inputs[spec.name]) for spec in engine.inputs)
            )
        got = engine.run(inputs)
        assert list(got) == [spec.name for spec in engine.outputs]
        for value, reference, spec in zip(got.values(), wanted, engine.outputs, strict=True):
            assert isinstance(value, np.ndarray)
            assert value.shape == spec.resolved({"B": rows, "P": points})
            assert value.dtype == np.float32
            worst = float(np.abs(value - reference.numpy()).max())
            assert worst < TOLERANCE, f"{spec.name} of {rows} rows is off by {worst}"


def test_a_result_is_not_touched_by_the_next_run(engine: Engine, model: Model) -> None:
    first = engine.run(prompts(model, 2, 1, 1), keep=("mask_logits",))
    before = {name: on_host(value).copy() for name, value in first.items()}
    engine.run(prompts(model, 2, 1, 2), keep=("mask_logits",))
    assert all(np.array_equal(on_host(value), before[name]) for name, value in first.items())


def test_what_is_kept_can_be_put_in_again(engine: Engine, model: Model) -> None:
    inputs = prompts(model, 2, 1)
    first = engine.run(inputs, keep=("mask_logits", "score"))
    kept = first["mask_logits"]
    assert kept.shape == (2, SIDE // 4, SIDE // 4)
    assert kept.dtype == np.dtype(np.float32)
    assert kept.nbytes == on_host(kept).nbytes
    assert np.array_equal(on_host(kept[1]), on_host(kept)[1])
    again = {**inputs, "mask_input": kept, "has_mask": np.ones(2, np.float32)}
    by_hand: dict[str, Array] = {**again, "mask_input": on_host(kept)}
    for name, value in engine.run(again).items():
        assert np.array_equal(value, engine.run(by_hand)[name]), name


def test_wrong_inputs_are_named_and_leave_it_working(engine: Engine, model: Model) -> None:
    inputs = prompts(model, 2, 1)
    wanted = engine.run(inputs)["score"]
    short = {name: value for name, value in inputs.items() if name != "feat"}
    one = prompts(model, 1, 1)
    for wrong, reason in (
        (short, r"missing \['feat'\]"),
        ({**inputs, "extra": inputs["feat"]}, r"unknown \['extra'\]"),
        ({**inputs, "feat": inputs["feat"].astype(np.float64)}, "float64"),
        ({**inputs, "point_labels": inputs["point_labels"].astype(np.int64)}, "int64"),
        ({**inputs, "multimask": one["multimask"]}, "B = 2"),
        ({**inputs, "stride8": inputs["stride8"][:, :-1]}, "stride8"),
    ):
        with pytest.raises(EngineError, match=reason):
            engine.run(wrong)
    with pytest.raises(EngineError, match=r"'masks'.* cannot be kept"):
        engine.run(inputs, keep=("masks",))
    assert np.array_equal(engine.run(inputs)["score"], wanted)


def test_inputs_may_lie_in_any_order_of_memory(engine: Engine, model: Model) -> None:
    inputs = prompts(model, 2, 3)
    wanted = engine.run(inputs)["mask_logits"]
    odd = {
        name: np.asfortranarray(value) if value.ndim > 1 else value
        for name, value in inputs.items()
    }
    odd["feat"].flags.writeable = False
    assert np.array_equal(engine.run(odd)["mask_logits"], wanted)


def test_closed_twice_it_runs_no_more(engine: Engine, model: Model) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="'decoder' is closed"):
        engine.run(prompts(model, 1, 1))


def test_torch_store_does_what_the_one_on_the_host_does() -> None:
    near, far = HostStore(4, 3, (2, 5)), TorchStore(torch.device("cpu"), 4, 3, (2, 5))
    assert near.num_bytes == far.num_bytes
    rng = np.random.default_rng(0)
    for step in range(60):
        row, other, slot = (int(n) for n in rng.integers(0, (4, 4, 3)))
        value = rng.standard_normal((2, 5), np.float32)
        for store in (near, far):
            if step % 5 == 3:
                store.clear(row)
            elif step % 5 == 4:
                store.copy(row, other)
            else:
                store.write(row, slot, value)
        for rows in ([0, 1, 2, 3], [row], [3, 1]):
            assert np.array_equal(on_host(near.read(rows)), on_host(far.read(rows)))


def test_a_tracker_runs_on_torch_and_keeps_its_memory_there(model: Model) -> None:
    pytest.importorskip("cv2")
    geometry = geometry_of(model.checkpoint)
    with torch_bundle(model.checkpoint.model, geometry, name="tiny") as bundle:
        trackers = (Sam2Tracker(bundle), Sam2Tracker(replace(bundle, device=None)))
        keys = [TrackKey("a"), TrackKey("b")]
        logits = []
        for tracker in trackers:
            for key, box in zip(keys, [(6, 20, 34, 50), (40, 20, 90, 60)], strict=True):
                tracker.prompt(make_frame(0), key, SpatialPrompt(box=BoxXyxy(*box)))
            for index in (1, 2, 3):
                tracker.track(make_frame(index), keys)
            logits.append(np.stack([tracker.logits_of(key) for key in keys]))
        assert np.array_equal(*logits)
        assert bundle.engines[0].provider.startswith("torch ")


def test_a_checkpoint_is_a_bundle_for_torch(model: Model, tmp_path: Path) -> None:
    model.checkpoint.model.save_pretrained(tmp_path / "tiny")
    with load_bundle(tmp_path / "tiny", backend="torch") as bundle:
        assert bundle.backend.used is Backend.TORCH
        inputs = prompts(model, 2, 3)
        got = bundle.engine("decoder").run(inputs)["mask_logits"]
        wanted = OnnxEngine("decoder", model.graph).run(inputs)["mask_logits"]
        assert np.abs(got - wanted).max() < TOLERANCE
    with pytest.raises(InputError, match="no checkpoint at"):
        load_bundle(tmp_path / "nowhere", backend="torch")
