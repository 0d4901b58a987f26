# SPDX-License-Identifier: Apache-2.0
"""Native TensorRT against strict doubles of CUDA and TensorRT, and its names against the real one.

Nothing here shows that it works on a GPU; it shows that the numbers, the order of work and the
lifetimes of memory are right if CUDA and TensorRT do what they promise.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the double of TensorRT computes with it")

from tests.support.gpu_double import DEVICE, FakeTensorRt, HostCuda
from tests.support.sam2_models import make_frame

from foreseg.engines import load as loading
from foreseg.engines import tensorrt_api
from foreseg.engines.base import TensorSpec
from foreseg.engines.built import (
    BUILT_FORMAT_VERSION,
    ENGINES_FOLDER,
    AxisRange,
    BuiltEngine,
    BuiltEngines,
    write_built,
)
from foreseg.engines.cuda_memory import CudaDevice, CudaTensor
from foreseg.engines.load import Backend, bundle_folder, load_bundle
from foreseg.engines.manifest import read_manifest, read_piece
from foreseg.engines.onnx import OnnxEngine
from foreseg.engines.store import HostStore
from foreseg.engines.tensorrt import TensorRtEngine
from foreseg.engines.tensorrt_contexts import MAX_SHAPES
from foreseg.errors import EngineError
from foreseg.geometry import BoxXyxy
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg.tracker.sam2 import Sam2Tracker

ROWS = AxisRange(name="B", min=1, opt=2, max=12)
POINTS = AxisRange(name="P", min=1, opt=1, max=16)
PROFILE = {"B": ROWS, "P": POINTS}
NOTHING_LEFT = {"memory": 0, "streams": 0, "graphs": 0, "open": 0}
X = TensorSpec(name="x", shape=("B", 3), dtype="float32")
SHIFT = TensorSpec(name="shift", shape=(1, 3), dtype="float32")
Y = TensorSpec(name="y", shape=("B", 3), dtype="float32")
Z = TensorSpec(name="z", shape=("B", 3), dtype="float32")


@pytest.fixture(scope="module")
def graph() -> bytes:
    """y = x + shift, z = x * x."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["y"]),
        helper.make_node("Mul", ["x", "x"], ["z"]),
    ]
    made = helper.make_graph(
        nodes,
        "arithmetic",
        [value("x", kind, ["B", 3]), value("shift", kind, [1, 3])],
        [value("y", kind, ["B", 3]), value("z", kind, ["B", 3])],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def record_of(plan: bytes, **changes: object) -> BuiltEngine:
    record = BuiltEngine(
        piece="arithmetic",
        file="arithmetic.engine",
        sha256=hashlib.sha256(plan).hexdigest(),
        num_bytes=len(plan),
        graph_sha256="0" * 64,
        inputs=(X, SHIFT),
        outputs=(Y, Z),
        profile=(ROWS,),
        build_s=1.0,
        num_layers=2,
    )
    return replace(record, **changes)


class World:
    """A device, and engines on it."""

    def __init__(self, graph: bytes, *, is_rtx: bool = False) -> None:
        self.cuda = HostCuda()
        self.device = CudaDevice(self._current())
        self.trt = FakeTensorRt(self.cuda, PROFILE, is_rtx=is_rtx)
        self.engine = TensorRtEngine(record_of(graph), graph, trt=self.trt, device=self.device)

    def _current(self) -> HostCuda:
        self.cuda.make_current()
        return self.cuda

    def close(self) -> None:
        self.engine.close()
        self.device.close()
        assert self.cuda.live() == NOTHING_LEFT


@pytest.fixture
def world(graph: bytes) -> Iterator[World]:
    made = World(graph)
    yield made
    made.close()


def feed(rows: int, value: float = 1.0) -> dict[str, np.ndarray]:
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3) + np.float32(value)
    return {"x": x, "shift": np.full((1, 3), 10 * value, np.float32)}


def test_every_number_of_rows_gives_its_own_results(world: World) -> None:
    for rows in (1, 3, 12, 2, 3, 1, 3):
        inputs = feed(rows, rows)
        outputs = world.engine.run(inputs)
        assert np.array_equal(outputs["y"], inputs["x"] + 10 * rows)
        assert np.array_equal(outputs["z"], inputs["x"] ** 2)


def test_what_is_kept_goes_from_launch_to_launch_without_a_wait(world: World) -> None:
    first = world.engine.run(feed(2), keep=("y", "z"))
    waits = world.cuda.num_waits
    second = world.engine.run(
        {"x": first["y"], "shift": np.zeros((1, 3), np.float32)}, keep=("y", "z")
    )
    assert isinstance(second["y"], CudaTensor)
    assert world.cuda.num_waits == waits + 1  # pinned memory of the first run's inputs, no more
    x = feed(2)["x"]
    assert np.array_equal(second["z"].numpy(), (x + 10) ** 2)
    assert np.array_equal(first["z"].numpy(), x**2)
    assert np.array_equal(first["y"][1].numpy(), x[1] + 10)


def test_inputs_on_their_way_are_not_overwritten_by_the_next_run(world: World) -> None:
    kept = [world.engine.run(feed(2, value), keep=("y", "z"))["z"] for value in (1, 2, 3)]
    for value, z in zip((1, 2, 3), kept, strict=True):
        assert np.array_equal(z.numpy(), feed(2, value)["x"] ** 2)


def test_another_thread_than_the_one_that_loaded_may_run_it(world: World) -> None:
    results = []

    def run() -> None:
        results.append(world.engine.run(feed(2), keep=("z",))["z"].numpy())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert np.array_equal(results[0], feed(2)["x"] ** 2)


def test_a_shape_is_captured_at_its_second_run_and_replayed(world: World) -> None:
    for _ in range(5):
        world.engine.run(feed(2))
    assert (world.cuda.num_captures, world.cuda.num_launches) == (1, 4)
    world.engine.run(feed(3))
    assert (world.cuda.num_captures, world.cuda.num_launches) == (1, 4)
    world.engine.run(feed(2))
    assert (world.cuda.num_captures, world.cuda.num_launches) == (1, 5)


def test_contexts_and_graphs_are_bounded(world: World) -> None:
    x, shift = world.device.empty((ROWS.max, 3)), world.device.empty((1, 3))
    world.device.copy(x, feed(ROWS.max)["x"])
    world.device.copy(shift, feed(1)["shift"])
    for _ in range(2):
        for rows in range(1, ROWS.max + 1):
            for _ in range(3):  # nothing of this waits
                inputs = {"x": x.rows(0, rows), "shift": shift}
                outputs = world.engine.run(inputs, keep=("y", "z"))
        assert np.array_equal(outputs["z"].numpy(), feed(rows)["x"] ** 2)
    assert len(world.trt.engines[0].contexts) == MAX_SHAPES
    assert len(world.cuda.graphs) == MAX_SHAPES


def test_a_stream_that_cannot_be_recorded_is_run_plainly(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.cuda.capture_error = "not permitted"
    for _ in range(4):
        outputs = world.engine.run(feed(2))
    assert np.array_equal(outputs["z"], feed(2)["x"] ** 2)
    assert caplog.text.count("without CUDA graphs: not permitted") == 1


def test_tensorrt_for_rtx_captures_by_itself_in_one_context(graph: bytes) -> None:
    world = World(graph, is_rtx=True)
    for rows in (1, 1, 1, 5, 1):
        assert np.array_equal(world.engine.run(feed(rows))["z"], feed(rows)["x"] ** 2)
    assert len(world.trt.engines[0].contexts) == 1
    assert world.cuda.num_captures == 0
    assert "RTX" in world.engine.provider
    world.close()


def test_nothing_is_allocated_after_the_first_runs(world: World) -> None:
    def step() -> None:
        kept = world.engine.run(feed(2), keep=("y", "z"))
        world.engine.run({"x": kept["y"], "shift": feed(2)["shift"]}, keep=("z",))

    step()
    step()
    memory, pool = len(world.cuda.memory), world.device.num_allocated
    for _ in range(50):
        step()
    assert (len(world.cuda.memory), world.device.num_allocated) == (memory, pool)


def test_more_rows_than_the_engine_was_built_for_are_refused(world: World) -> None:
    with pytest.raises(EngineError, match="built for B of 1 to 12, got 13"):
        world.engine.run(feed(13))
    assert np.array_equal(world.engine.run(feed(1))["z"], feed(1)["x"] ** 2)


def test_a_plan_that_is_not_its_record_is_refused(graph: bytes) -> None:
    cuda = HostCuda()
    cuda.make_current()
    device, trt = CudaDevice(cuda), FakeTensorRt(cuda, PROFILE)
    with pytest.raises(EngineError, match=r"does not load in TensorRT 10\.13\.3\.9 on Double"):
        TensorRtEngine(record_of(b"rubbish"), b"rubbish", trt=trt, device=device)
    for wrong in ({"inputs": (X,)}, {"outputs": (Y, replace(Z, dtype="float16"))}):
        with pytest.raises(EngineError, match="not what its record says"):
            TensorRtEngine(record_of(graph, **wrong), graph, trt=trt, device=device)
    device.close()
    assert cuda.live() == NOTHING_LEFT


def test_a_tensor_outlives_its_engine_but_not_its_device(graph: bytes) -> None:
    world = World(graph)
    z = world.engine.run(feed(2), keep=("z",))["z"]
    world.engine.close()
    world.engine.close()
    assert np.array_equal(z.numpy(), feed(2)["x"] ** 2)
    with pytest.raises(EngineError, match="'arithmetic' is closed"):
        world.engine.run(feed(2))
    world.close()
    with pytest.raises(EngineError, match="closed with its bundle"):
        z.numpy()


def test_a_tensor_of_another_device_takes_the_way_through_the_host(world: World) -> None:
    cuda = HostCuda()
    cuda.make_current()
    other = CudaDevice(cuda)
    x = other.empty((2, 3))
    other.copy(x, feed(2)["x"])
    assert np.array_equal(world.engine.run({**feed(2), "x": x})["z"], feed(2)["x"] ** 2)
    other.close()


def test_store_on_the_device_does_what_the_one_on_the_host_does() -> None:
    cuda = HostCuda()
    cuda.make_current()
    device = CudaDevice(cuda)
    near, far = HostStore(4, 3, (2, 5)), device.make_store(4, 3, (2, 5))
    assert near.num_bytes == far.num_bytes
    rng = np.random.default_rng(0)
    for step in range(200):
        row, other, slot = (int(n) for n in rng.integers(0, (4, 4, 3)))
        value = rng.standard_normal((2, 5), np.float32)
        on_device = device.empty((2, 5))
        device.copy(on_device, value)
        for store in (near, far):
            if step % 5 == 3:
                store.clear(row)
            elif step % 5 == 4:
                store.copy(row, other)
            else:
                store.write(row, slot, value if store is near or step % 2 else on_device)
        for rows in ([0, 1, 2, 3], [row], [3, 1], [2, 3]):
            assert np.array_equal(near.read(rows), far.read(rows).numpy())
    with pytest.raises(IndexError):
        far.read([0])[4]
    device.close()


@pytest.fixture
def built_nano(tmp_path: Path) -> Path:
    """The shipped bundle with "engines": plans that the double can read."""
    if not bundle_folder("nano").exists():
        pytest.skip("no nano tracker is shipped")
    folder = tmp_path / "nano"
    shutil.copytree(bundle_folder("nano"), folder)
    manifest = read_manifest(folder)
    made = folder / ENGINES_FOLDER / f"tensorrt-{FakeTensorRt.__version__}-{DEVICE.compute}"
    made.mkdir(parents=True)
    engines = []
    for piece in manifest.pieces:
        plan = read_piece(folder, piece)
        (made / f"{piece.name}.engine").write_bytes(plan)
        known = OnnxEngine(piece.name, plan)
        named = {dim for spec in known.inputs for dim in spec.shape if isinstance(dim, str)}
        engines.append(
            record_of(
                plan,
                piece=piece.name,
                file=f"{piece.name}.engine",
                graph_sha256=piece.sha256,
                inputs=known.inputs,
                outputs=known.outputs,
                profile=tuple(axis for name, axis in PROFILE.items() if name in named),
            )
        )
    built = BuiltEngines(
        format_version=BUILT_FORMAT_VERSION,
        flavour="tensorrt",
        version=FakeTensorRt.__version__,
        device=DEVICE.compute,
        device_name=DEVICE.name,
        max_rows=2,
        created="2026-11-21T00:00:00+00:00",
        builder="a test",
        engines=tuple(engines),
    )
    write_built(made, built)
    return folder


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> HostCuda:
    """A machine with the double's GPU and `tensorrt`."""
    cuda = HostCuda()
    trt = FakeTensorRt(cuda, PROFILE)

    def open_cuda() -> HostCuda:
        cuda.is_closed = False
        cuda.make_current()
        return cuda

    monkeypatch.setattr(loading, "open_cuda", open_cuda)
    monkeypatch.setattr(loading, "installed_modules", lambda: (("tensorrt", trt),))
    runtime = importlib.import_module("onnxruntime")  # its own CUDA must not see these streams
    monkeypatch.setattr(runtime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    return cuda


def test_tracker_on_the_device_gives_the_masks_of_the_one_on_the_host(
    built_nano: Path, gpu: HostCuda
) -> None:
    pytest.importorskip("cv2")
    keys = [TrackKey(name) for name in "abc"]
    boxes = [BoxXyxy(6, 20, 34, 50), BoxXyxy(40, 20, 90, 60), BoxXyxy(8, 2, 30, 20)]
    with load_bundle(built_nano) as host, load_bundle(built_nano, backend="tensorrt") as device:
        assert device.backend.used is Backend.TENSORRT
        assert device.max_rows == 2
        trackers = [Sam2Tracker(bundle, max_objects=5) for bundle in (host, device)]
        logits = []
        for tracker in trackers:
            for key, box in zip(keys, boxes, strict=True):
                tracker.prompt(make_frame(0), key, SpatialPrompt(box=box))
            seen = []
            for index in range(1, 4):
                order = keys if index < 3 else [keys[2], keys[0]]  # rows that are no neighbours
                tracker.track(make_frame(index), order)
                seen += [tracker.logits_of(key) for key in order]
            tracker.fork(keys[0], TrackKey("branch"))
            tracker.drop(keys[1])
            tracker.track(make_frame(4), [TrackKey("branch"), keys[2]])
            seen += [tracker.logits_of(TrackKey("branch")), tracker.logits_of(keys[2])]
            tracker.prompt(make_frame(4), keys[2], SpatialPrompt(box=boxes[0]))
            seen.append(tracker.logits_of(keys[2]))
            logits.append(np.stack(seen))
        # ONNX Runtime sums in another order for three rows than for two and one
        assert np.abs(logits[0] - logits[1]).max() < 1e-3
        assert np.abs(logits[0]).max() > 1
        del trackers, tracker
    assert gpu.live() == NOTHING_LEFT


def test_engines_of_another_graph_are_refused_or_replaced_by_what_may_be(
    built_nano: Path, gpu: HostCuda, caplog: pytest.LogCaptureFixture
) -> None:
    engine = next(built_nano.glob("engines/*/decoder.engine"))
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1
    engine.write_bytes(bytes(content))
    with pytest.raises(EngineError, match=r"foreseg-export build .* --flavour tensorrt"):
        load_bundle(built_nano, backend="tensorrt")
    assert gpu.live() == NOTHING_LEFT
    with (
        caplog.at_level(logging.WARNING),
        load_bundle(built_nano, backend="tensorrt", allow_fallback=True) as bundle,
    ):
        assert (bundle.backend.asked, bundle.backend.used) == (Backend.TENSORRT, Backend.CPU)
        assert "tensorrt does not start" in bundle.backend.reason
        assert "cuda does not start" in bundle.backend.reason
        assert "cpu instead of tensorrt" in caplog.text
    assert gpu.live() == NOTHING_LEFT


def names_of(protocol: type) -> set[str]:
    own = {name for name in vars(protocol) if not name.startswith("_")}
    return own | {name for name in protocol.__annotations__ if name != "__version__"}


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_every_name_is_one_of_tensorrts(module: str) -> None:
    trt = pytest.importorskip(module)
    api = tensorrt_api
    walked = {
        api.ExecutionContext: trt.IExecutionContext,
        api.CudaEngine: trt.ICudaEngine,
        api.RuntimeConfig: trt.IRuntimeConfig,
        api.Runtime: trt.Runtime,
        api.Strategies: trt.ExecutionContextAllocationStrategy,
        api.LoggerClass: trt.Logger,
        api.TensorRt: trt,
    }
    if module == "tensorrt_rtx":
        walked |= {api.TensorRtForRtx: trt, api.GraphStrategies: trt.CudaGraphStrategy}
    else:
        walked.pop(api.RuntimeConfig)
    for protocol, real in walked.items():
        missing = {name for name in names_of(protocol) if not hasattr(real, name)}
        if module == "tensorrt":
            missing -= {"create_runtime_config"}
        assert missing == set(), f"{real} has none of these"
    assert {"INPUT", "OUTPUT"} <= set(trt.TensorIOMode.__members__)
    assert {"FLOAT", "HALF", "INT32", "INT64", "BOOL", "UINT8"} <= set(trt.DataType.__members__)
    assert trt.TensorIOMode.INPUT.name == "INPUT"


@pytest.mark.parametrize("module", ["tensorrt", "tensorrt_rtx"])
def test_the_real_tensorrt_refuses_a_plan_that_is_none(module: str) -> None:
    trt = pytest.importorskip(module)
    cuda = HostCuda()
    cuda.make_current()
    device = CudaDevice(cuda)
    with pytest.raises(EngineError, match="does not load in TensorRT"):
        TensorRtEngine(record_of(b"none"), b"none" * 100, trt=trt, device=device)
    device.close()


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from foreseg.engines.tensorrt_opening import installed_modules
    from foreseg.errors import MissingExtraError

    def refuse(name: str) -> object:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"foreseg\[tensorrt\]"):
        installed_modules()
