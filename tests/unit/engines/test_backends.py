# SPDX-License-Identifier: Apache-2.0
"""Which back-end opens a bundle, what it is told, and the driver's calls as ctypes makes them."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.gpu_double import HostCuda
from tests.unit.engines.test_manifest import make_manifest

from foreseg.config import TrackerConfig
from foreseg.engines import load as loading
from foreseg.engines import onnx_providers
from foreseg.engines.base import TensorSpec
from foreseg.engines.cuda import DriverCuda
from foreseg.engines.cuda_memory import CudaDevice
from foreseg.engines.load import Backend, bundle_folder, load_bundle, load_configured
from foreseg.engines.local_device import LocalDevice
from foreseg.engines.manifest import read_manifest, write_manifest
from foreseg.engines.onnx_providers import (
    cache_folder,
    cache_prefix,
    cuda_provider,
    tensorrt_provider,
)
from foreseg.errors import ConfigError, EngineError, MissingExtraError

ORIN = LocalDevice(name="Orin, 16 SMs", compute="sm87")
FEAT = TensorSpec(name="feat", shape=(1, 8, 4, 4), dtype="float32")
COORDS = TensorSpec(name="coords", shape=("B", "P", 2), dtype="float32")


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The nano bundle, on a machine without a GPU."""

    def refuse() -> None:
        msg = "no CUDA device here"
        raise EngineError(msg)

    monkeypatch.setattr(loading, "open_cuda", refuse)
    pytest.importorskip("onnxruntime")
    if not bundle_folder("nano").exists():
        pytest.skip("no nano tracker is shipped")
    return bundle_folder("nano")


@pytest.mark.parametrize("backend", ["cuda", "onnx-tensorrt"])
def test_no_back_end_falls_back_unasked(
    backend: str, shipped: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(EngineError, match="no CUDA device here"):
        load_bundle(shipped, backend=backend)
    with load_bundle(shipped, backend=backend, allow_fallback=True) as bundle:
        assert (bundle.backend.asked.value, bundle.backend.used) == (backend, Backend.CPU)
        assert f"{backend} does not start: no CUDA device here" in str(bundle.backend)
        assert {engine.provider for engine in bundle.engines} == {"CPUExecutionProvider"}
    assert caplog.text.count(f"cpu instead of {backend}") == 1


def test_what_is_asked_for_has_no_reason(shipped: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = TrackerConfig(bundle=str(shipped), backend="cpu", allow_fallback=True)
    with load_configured(settings) as bundle:
        assert str(bundle.backend) == "cpu"
        assert bundle.device is None
    assert caplog.text == ""


def test_engines_that_were_opened_are_closed_before_the_next_back_end_is_tried(
    shipped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that outlives its stream may crash the process when it is collected."""
    cuda = HostCuda()
    cuda.make_current()  # as DriverCuda does when it opens
    monkeypatch.setattr(loading, "open_cuda", lambda: cuda)
    real, told = loading.OnnxEngine, []

    class Half:
        def __init__(self, name: str, *_: object, device: CudaDevice, **__: object) -> None:
            if name == "decoder":
                msg = "no room for the decoder"
                raise EngineError(msg)
            self.name, self.device = name, device

        def close(self) -> None:
            self.device.enter()  # fails where the device is closed already
            told.append(self.name)

    monkeypatch.setattr(
        loading, "OnnxEngine", lambda *a, **k: (Half if "device" in k else real)(*a, **k)
    )
    with load_bundle(shipped, backend="cuda", allow_fallback=True) as bundle:
        assert bundle.backend.used is Backend.CPU
        assert "no room for the decoder" in bundle.backend.reason
    assert told == ["memory_attention", "image_encoder"]
    assert cuda.live() == {"memory": 0, "streams": 0, "graphs": 0, "open": 0}


@pytest.mark.parametrize(
    ("field", "told"),
    [
        ("image_size", r"pixels \(1, 3, 225, 225\) float32, the graph of 'image_encoder'"),
        ("num_recent", "memory_attention"),
        ("mask_size", "decoder"),
    ],
)
def test_a_manifest_of_other_graphs_is_refused_at_once(
    field: str, told: str, shipped: Path, tmp_path: Path
) -> None:
    """Otherwise numpy or OpenCV would fail on the first frame, without a word of the bundle."""
    folder = Path(shutil.copytree(shipped, tmp_path / "bundle"))
    manifest = read_manifest(folder)
    size = getattr(manifest.geometry, field) + 1
    geometry = replace(manifest.geometry, **{field: size})
    write_manifest(folder, replace(manifest, geometry=geometry))
    with pytest.raises(EngineError, match=f"does not fit together: .*{told}"):
        load_bundle(folder, allow_fallback=True)


@pytest.mark.parametrize("backend", ["gpu", "", "CUDA"])
def test_an_unknown_back_end_is_named(backend: str) -> None:
    with pytest.raises(ConfigError, match=rf"one of cpu, cuda, .* got '{backend}'"):
        load_bundle("nano", backend=backend)


def test_torch_is_not_needed_until_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(loading.importlib, "import_module", refuse)
    with pytest.raises(MissingExtraError, match=r"foreseg\[export\]"):
        load_bundle("some.pt", backend=Backend.TORCH)


def test_tensorrts_cache_is_keyed_by_graph_version_and_device() -> None:
    piece = make_manifest().pieces[0]
    prefix = cache_prefix(piece, "10.3.0", ORIN)
    assert prefix == f"{piece.sha256[:16]}-10.3.0-sm87-Orin_16_SMs"
    others = {
        cache_prefix(replace(piece, sha256="f" * 64), "10.3.0", ORIN),
        cache_prefix(piece, "10.13.3", ORIN),
        cache_prefix(piece, "10.3.0", replace(ORIN, name="Orin, 8 SMs")),
    }
    assert len(others | {prefix}) == 4


def test_tensorrts_provider_is_told_shapes_precision_and_stream(tmp_path: Path) -> None:
    piece = replace(make_manifest().pieces[0], precision="fp16")
    made = tensorrt_provider(
        piece, (FEAT, COORDS), max_rows=8, stream=77, cache=tmp_path, prefix="p"
    )
    options = made.options
    assert made.name == "TensorrtExecutionProvider"
    assert (options["trt_profile_min_shapes"], options["trt_profile_max_shapes"]) == (
        "coords:1x1x2",
        "coords:8x16x2",
    )
    assert (options["trt_fp16_enable"], options["trt_int8_enable"]) == ("True", "False")
    assert (
        options["user_compute_stream"] == "77" == cuda_provider(77).options["user_compute_stream"]
    )
    assert options["trt_engine_cache_path"] == str(tmp_path)
    static = tensorrt_provider(
        replace(piece, precision="fp32"), (FEAT,), max_rows=8, stream=1, cache=tmp_path, prefix="p"
    ).options
    assert not [name for name in static if "profile" in name]
    assert static["trt_fp16_enable"] == "False"


def test_cache_lies_in_the_bundle_or_else_with_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    assert cache_folder(bundle) == bundle / "engines" / "onnxruntime"
    monkeypatch.setattr(onnx_providers.os, "access", lambda *_: False)
    monkeypatch.setattr(onnx_providers.Path, "home", lambda: tmp_path / "home")
    elsewhere = cache_folder(bundle)
    assert elsewhere.is_dir()
    assert elsewhere == tmp_path / "home/.cache/foreseg/bundle/engines/onnxruntime"


class FakeFunction:
    """A function of the driver; its types must be set before it is called."""

    def __init__(self, does: Callable[..., int]) -> None:
        self.does = does
        self.argtypes: tuple[object, ...] = ()
        self.restype: object = None

    def __call__(self, *arguments: object) -> int:
        assert self.restype is ctypes.c_int
        assert len(arguments) == len(self.argtypes)
        return self.does(*arguments)


class FakeDriver:
    """`libcuda`: hands out handles, and notes what is called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self.fails = ""
        self.functions: dict[str, FakeFunction] = {}

    def __getattr__(self, name: str) -> FakeFunction:
        if name.startswith("_"):
            raise AttributeError(name)
        return self.functions.setdefault(name, FakeFunction(self.does(name)))

    def does(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            if name in {"cuGetErrorName", "cuGetErrorString"}:
                arguments[1]._obj.value = b"CUDA_ERROR_OUT_OF_MEMORY"
                return 0
            plain = [a for a in arguments if not hasattr(a, "_obj")]
            self.calls.append((name, tuple(getattr(a, "value", a) for a in plain)))
            for argument in arguments:
                if hasattr(argument, "_obj"):
                    argument._obj.value = 0x7F00_0000_1000 + len(self.calls)
            return 2 if name == self.fails else 0

        return call


def test_the_driver_is_called_as_its_manual_says() -> None:
    driver = FakeDriver()
    cuda = DriverCuda(ORIN, driver)
    stream, address = cuda.create_stream(), cuda.allocate(64)
    assert stream > 2**32  # handles are 64 bits wide
    pinned = cuda.allocate_pinned(64)
    driver.calls.clear()
    cuda.upload(address, pinned, 64, stream)
    cuda.download(pinned, address, 64, stream)
    cuda.copy(address, address + 8, 8, stream)
    cuda.clear(address, 64, stream)
    cuda.begin_capture(stream)
    graph = cuda.end_capture(stream)
    cuda.launch(graph, stream)
    cuda.destroy_graph(graph)
    cuda.close()
    cuda.close()
    names = [name for name, _ in driver.calls]
    assert driver.calls[0] == ("cuMemcpyHtoDAsync_v2", (address, pinned, 64, stream))
    assert driver.calls[1] == ("cuMemcpyDtoHAsync_v2", (pinned, address, 64, stream))
    assert driver.calls[2] == ("cuMemcpyDtoDAsync_v2", (address, address + 8, 8, stream))
    assert driver.calls[3] == ("cuMemsetD8Async", (address, 0, 64, stream))
    assert names[4:8] == [
        "cuStreamBeginCapture_v2",
        "cuStreamEndCapture",
        "cuGraphInstantiateWithFlags",
        "cuGraphDestroy",  # the recording; the executable graph stays
    ]
    assert names[8:] == ["cuGraphLaunch", "cuGraphExecDestroy", "cuDevicePrimaryCtxRelease_v2"]


def test_a_failing_call_is_named_with_the_drivers_words() -> None:
    driver = FakeDriver()
    cuda = DriverCuda(ORIN, driver)
    driver.fails = "cuMemAlloc_v2"
    with pytest.raises(EngineError, match="cuMemAlloc_v2 failed with 2: CUDA_ERROR_OUT_OF_MEM"):
        cuda.allocate(1 << 40)
