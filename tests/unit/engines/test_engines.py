# SPDX-License-Identifier: Apache-2.0
"""Engines refuse what does not fit them, and the tracker launches them no more than it must."""

from __future__ import annotations

import builtins
import importlib
import resource
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.sam2_models import make_frame
from tests.unit.engines.test_manifest import make_manifest

from foreseg.engines.base import Array, TensorSpec, check_inputs
from foreseg.engines.load import Bundle
from foreseg.engines.onnx import OnnxEngine, Provider
from foreseg.errors import ConfigError, EngineError, MissingExtraError
from foreseg.geometry import BoxXyxy
from foreseg.prompts import SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg.tracker.sam2 import Sam2Tracker

STATM = Path("/proc/self/statm")
POINTS = TensorSpec(name="coords", shape=("B", "P", 2), dtype="float32")
LABELS = TensorSpec(name="labels", shape=("B", "P"), dtype="int32")


def doubling_graph() -> bytes:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "doubling",
        [helper.make_tensor_value_info("x", kind, ["B", 3])],
        [helper.make_tensor_value_info("y", kind, ["B", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def wide_graph() -> bytes:
    """Sums 2 ** 24 squares of `x`, by way of two tensors of 67 MB."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Expand", ["x", "size"], ["many"]),
            helper.make_node("Mul", ["many", "many"], ["squares"]),
            helper.make_node("ReduceSum", ["squares"], ["y"], keepdims=0),
        ],
        "wide",
        [helper.make_tensor_value_info("x", kind, [1])],
        [helper.make_tensor_value_info("y", kind, [])],
        [helper.make_tensor("size", onnx.TensorProto.INT64, [1], [2**24])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return bytes(model.SerializeToString())


def coords(*shape: int, dtype: str = "float32") -> dict[str, Array]:
    return {"coords": np.zeros(shape, dtype), "labels": np.zeros(shape[:2], "int32")}


def test_inputs_that_fit_pass() -> None:
    check_inputs("decoder", (POINTS, LABELS), coords(2, 5, 2))


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (coords(2, 2), r"wants coords \(B, P, 2\) float32, got \(2, 2\) float32"),
        (coords(2, 5, 3), r"got \(2, 5, 3\) float32"),
        (coords(2, 5, 2, dtype="float64"), r"got \(2, 5, 2\) float64"),
        ({**coords(2, 5, 2), "labels": np.zeros((2, 4), "int32")}, r"with B = 2, P = 5"),
        ({"coords": np.zeros((1, 1, 2), "float32")}, r"missing \['labels'\]"),
        ({**coords(2, 5, 2), "masks": np.zeros(1, "float32")}, r"unknown \['masks'\]"),
    ],
)
def test_inputs_that_do_not_fit_are_named(inputs: Mapping[str, Array], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        check_inputs("decoder", (POINTS, LABELS), inputs)


def test_onnx_engine_runs_and_says_what_runs_it() -> None:
    pytest.importorskip("onnxruntime")
    engine = OnnxEngine("doubling", doubling_graph())
    assert engine.provider == "CPUExecutionProvider"
    assert engine.inputs == (TensorSpec(name="x", shape=("B", 3), dtype="float32"),)
    assert [spec.name for spec in engine.outputs] == ["y"]
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(engine.run({"x": x})["y"], 2 * x)
    with pytest.raises(EngineError, match="doubling"):
        engine.run({"x": x.astype(np.float16)})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run({"x": x})


@pytest.mark.skipif(not STATM.exists(), reason="what a process holds is read as Linux tells it")
def test_an_engine_gives_its_buffers_back_if_it_is_told_to() -> None:
    pytest.importorskip("onnxruntime")

    def held_mb() -> float:
        return int(STATM.read_text().split()[1]) * resource.getpagesize() / 1e6

    grown = {}
    for gives_back in (True, False):
        engine = OnnxEngine("wide", wide_graph(), gives_back=gives_back)
        before = held_mb()
        for _ in range(3):
            y = engine.run({"x": np.array([2.0], np.float32)})["y"]
            assert float(np.asarray(y)) == pytest.approx(4 * 2**24)
        grown[gives_back] = held_mb() - before
        engine.close()
    assert grown[False] > 120, grown
    assert grown[True] < grown[False] - 50, grown  # the first buffer that it had it keeps


def test_threads_of_an_engine_leave_the_cores_to_the_next_one() -> None:
    pytest.importorskip("onnxruntime")
    engine, never = OnnxEngine("wide", wide_graph(), threads=2), threading.Event()
    spent = []
    for _ in range(5):
        engine.run({"x": np.array([2.0], np.float32)})
        began = time.process_time()
        never.wait(0.05)  # threads that spin take nearly all of it
        spent.append(time.process_time() - began)
    engine.close()
    assert min(spent) < 0.01, spent


def test_onnx_engine_refuses_a_silent_fallback() -> None:
    pytest.importorskip("onnxruntime")
    with pytest.raises(EngineError, match="wants CUDAExecutionProvider, this ONNX Runtime has"):
        OnnxEngine(
            "doubling", doubling_graph(), providers=(Provider(name="CUDAExecutionProvider"),)
        )


def test_graph_that_does_not_parse_is_an_engine_error() -> None:
    pytest.importorskip("onnxruntime")
    for content in (b"", b"rubbish", doubling_graph()[:-20]):
        with pytest.raises(EngineError, match="doubling"):
            OnnxEngine("doubling", content)


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 thread"):
        OnnxEngine("doubling", b"", threads=0)


def test_missing_runtime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, package: str | None = None) -> object:
        if name == "onnxruntime":
            raise ImportError(name)
        return builtins.__import__(name, fromlist=[package or ""])

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"foreseg\[cpu\]"):
        OnnxEngine("doubling", b"")


class ScriptedEngine:
    """Answers with arrays that a function makes of the inputs; counts its launches."""

    provider = "script"
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(
        self, name: str, answer: Callable[[Mapping[str, Array]], dict[str, Array]]
    ) -> None:
        self.name = name
        self.answer = answer
        self.launches = 0

    def run(self, inputs: Mapping[str, Array], *, keep: Collection[str] = ()) -> dict[str, Array]:
        self.launches += 1
        assert set(keep) <= self.answer(inputs).keys()
        return self.answer(inputs)

    def close(self) -> None:
        pass


class World:
    """A bundle of scripted engines: one square object, whose score a test can set."""

    def __init__(self) -> None:
        self.object_logit = 3.0
        self.memory = 0.5
        f32 = np.float32

        def encode(_: Mapping[str, Array]) -> dict[str, Array]:
            feat = np.zeros((1, 128, 4, 4), f32)
            stride4, stride8 = np.zeros((1, 16, 16, 16), f32), np.zeros((1, 32, 8, 8), f32)
            return {"stride4": stride4, "stride8": stride8, "feat": feat, "feat_no_memory": feat}

        def attend(inputs: Mapping[str, Array]) -> dict[str, Array]:
            assert inputs["memory_valid"].sum(axis=1).min() >= 1
            return {"conditioned": np.zeros((len(inputs["memory"]), 128, 4, 4), f32)}

        def decode(inputs: Mapping[str, Array]) -> dict[str, Array]:
            rows = len(inputs["feat"])
            logits = np.full((rows, 16, 16), -5, f32)
            logits[:, 4:12, 4:12] = 5
            if not self.object_logit > 0:
                logits[:] = -1024
            return {
                "mask_logits": logits,
                "score": np.full(rows, 0.9, f32),
                "object_logit": np.full(rows, self.object_logit, f32),
                "pointer_out": np.zeros((rows, 128), f32),
            }

        def memorise(inputs: Mapping[str, Array]) -> dict[str, Array]:
            return {"memory": np.full((len(inputs["hard"]), 16, 64), self.memory, f32)}

        self.engines = {
            "image_encoder": ScriptedEngine("image_encoder", encode),
            "memory_attention": ScriptedEngine("memory_attention", attend),
            "decoder": ScriptedEngine("decoder", decode),
            "memory_encoder": ScriptedEngine("memory_encoder", memorise),
        }
        self.bundle = Bundle(manifest=make_manifest(), engines=tuple(self.engines.values()))

    def launches(self) -> list[int]:
        return [engine.launches for engine in self.engines.values()]


BOX = SpatialPrompt(box=BoxXyxy(10, 10, 40, 40))
KEYS = [TrackKey(name) for name in "abc"]


@pytest.fixture
def world() -> World:
    pytest.importorskip("cv2")
    return World()


def test_prompting_and_tracking_one_frame_encode_it_once(world: World) -> None:
    tracker = Sam2Tracker(world.bundle)
    for key in KEYS:
        tracker.prompt(make_frame(0), key, BOX)
    tracker.track(make_frame(0), KEYS)
    assert world.launches() == [1, 0, 3, 3]


def test_rows_share_one_launch_of_each_engine(world: World) -> None:
    tracker = Sam2Tracker(world.bundle)
    for key in KEYS:
        tracker.prompt(make_frame(0), key, BOX)
    tracker.track(make_frame(1), KEYS)
    assert world.launches() == [2, 1, 4, 4]
    smaller = Sam2Tracker(world.bundle, max_batch=2)
    for key in KEYS:
        smaller.prompt(make_frame(0), key, BOX)
    smaller.track(make_frame(1), KEYS)
    assert world.launches() == [4, 3, 9, 9]


def test_frames_fall_out_of_the_cache_by_bytes(world: World) -> None:
    tracker = Sam2Tracker(world.bundle, feature_cache_bytes=1)
    tracker.prompt(make_frame(0), KEYS[0], BOX)
    tracker.track(make_frame(1), KEYS[:1])
    tracker.prompt(make_frame(0), KEYS[1], BOX)
    assert world.launches()[0] == 3
    roomy = Sam2Tracker(world.bundle, feature_cache_bytes=10 << 20)
    roomy.prompt(make_frame(0), KEYS[0], BOX)
    roomy.track(make_frame(1), KEYS[:1])
    roomy.prompt(make_frame(0), KEYS[1], BOX)
    assert world.launches()[0] == 5


def test_absent_object_has_an_empty_mask(world: World) -> None:
    tracker = Sam2Tracker(world.bundle)
    tracker.prompt(make_frame(0), KEYS[0], BOX)
    world.object_logit = -2.0
    result = tracker.track(make_frame(1), KEYS[:1])
    tracked = result.objects[0]
    assert tracked.mask.is_absent
    assert tracked.box is None
    assert tracked.area_px == 0
    assert tracked.object_logit == -2.0
    assert not result.label_map.any()
    world.object_logit = 3.0
    assert tracker.track(make_frame(2), KEYS[:1]).objects[0].area_px > 0


def test_values_that_are_not_finite_count_as_absent_and_are_not_remembered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = Sam2Tracker(world.bundle)
    tracker.prompt(make_frame(0), KEYS[0], BOX)
    world.object_logit, world.memory = np.nan, np.nan
    tracked = tracker.track(make_frame(1), KEYS[:1]).objects[0]
    assert tracked.mask.is_absent
    assert np.isfinite(tracked.object_logit)
    assert np.isfinite(tracked.score)
    assert "not finite" in caplog.text
    with pytest.raises(EngineError, match="not finite"):
        tracker.prompt(make_frame(1), KEYS[1], BOX)
    assert tracker.keys == (KEYS[0],)
    world.object_logit, world.memory = 3.0, 0.5
    assert tracker.track(make_frame(2), KEYS[:1]).objects[0].area_px > 0


def test_bundle_without_a_piece_is_refused(world: World) -> None:
    bundle = replace(world.bundle, engines=world.bundle.engines[:3])
    with pytest.raises(EngineError, match="memory_encoder"):
        Sam2Tracker(bundle)
    with pytest.raises(ConfigError, match="max_objects"):
        Sam2Tracker(world.bundle, max_objects=0)


def test_more_than_255_objects_get_a_16_bit_map(world: World) -> None:
    tracker = Sam2Tracker(world.bundle, max_objects=256)
    keys = [TrackKey(str(i)) for i in range(256)]
    for key in keys:
        tracker.prompt(make_frame(0), key, BOX)
    assert tracker.track(make_frame(0), keys).label_map.dtype == np.uint16
