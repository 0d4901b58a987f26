# SPDX-License-Identifier: Apache-2.0
"""Doubles of CUDA and of TensorRT that punish sloppy use and compute real results.

`HostCuda`'s device memory is host memory, in pieces that are checked at every access; its streams
execute nothing before they are waited for, so that a missing wait, a buffer that is overwritten or
freed too early, and an order that is wrong give wrong numbers or fail. `FakeTensorRt` takes ONNX
graphs for plans and runs them with ONNX Runtime, from and to the addresses that it was given.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np

from foreseg.engines.base import TensorSpec
from foreseg.engines.built import AxisRange
from foreseg.engines.local_device import LocalDevice
from foreseg.engines.onnx import OnnxEngine
from foreseg.errors import EngineError

DEVICE = LocalDevice(name="Double, 1 SMs", compute="sm80")
_KINDS = {"float32": "FLOAT", "float16": "HALF", "int32": "INT32", "int64": "INT64"}

Task = Callable[[], None]


@dataclass
class Memory:
    """One allocation."""

    buffer: ctypes.Array
    num_bytes: int
    is_pinned: bool


class HostCuda:
    """`Cuda` on host memory; `is_lazy` = False executes at once, as ONNX Runtime needs it."""

    def __init__(self, *, is_lazy: bool = True) -> None:
        self.device = DEVICE
        self.is_lazy = is_lazy
        self.is_closed = False
        self.memory: dict[int, Memory] = {}
        self.streams: dict[int, list[Task]] = {}
        self.graphs: dict[int, list[Task]] = {}
        self.recording: list[Task] | None = None
        self.num_launches = 0
        self.num_captures = 0
        self.num_waits = 0
        self.capture_error: str | None = None  # set it: captures fail
        self._current = threading.local()
        self._next = 1

    def live(self) -> dict[str, int]:
        """What was not given back."""
        return {
            "memory": len(self.memory),
            "streams": len(self.streams),
            "graphs": len(self.graphs),
            "open": int(not self.is_closed),
        }

    def make_current(self) -> None:
        assert not self.is_closed
        self._current.is_set = True

    def allocate(self, num_bytes: int) -> int:
        return self._allocate(num_bytes, is_pinned=False)

    def allocate_pinned(self, num_bytes: int) -> int:
        return self._allocate(num_bytes, is_pinned=True)

    def free(self, address: int) -> None:
        self._check()
        assert not self.memory.pop(address).is_pinned

    def free_pinned(self, address: int) -> None:
        self._check()
        assert self.memory.pop(address).is_pinned

    def create_stream(self) -> int:
        self._check()
        self.streams[self._number()] = []
        return self._next - 1

    def destroy_stream(self, stream: int) -> None:
        self._check()
        assert self.streams.pop(stream) == [], "a stream with work in it"

    def synchronize(self, stream: int) -> None:
        self._check()
        assert self.recording is None, "CUDA refuses to wait while it records"
        self.num_waits += 1
        tasks, self.streams[stream] = self.streams[stream], []
        for task in tasks:
            task()

    def upload(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        assert self._is_within(target, num_bytes, is_pinned=False)
        self.queue(stream, lambda: self._move(target, source, num_bytes))

    def download(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        assert self._is_within(target, num_bytes, is_pinned=True), "it lands in pinned memory"
        self.queue(stream, lambda: self._move(target, source, num_bytes))

    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        assert self._is_within(source, num_bytes, is_pinned=False)
        self.queue(stream, lambda: self._move(target, source, num_bytes))

    def clear(self, address: int, num_bytes: int, stream: int) -> None:
        def task() -> None:
            self.bytes_at(address, num_bytes)[:] = 0

        self.queue(stream, task)

    def begin_capture(self, stream: int) -> None:
        self._check()
        assert stream in self.streams
        assert self.recording is None
        self.recording = []

    def end_capture(self, stream: int) -> int:
        self._check()
        assert stream in self.streams
        recorded, self.recording = self.recording, None
        assert recorded is not None
        if self.capture_error is not None:
            raise EngineError(self.capture_error)
        self.num_captures += 1
        self.graphs[self._number()] = recorded
        return self._next - 1

    def launch(self, graph: int, stream: int) -> None:
        self.num_launches += 1
        for task in self.graphs[graph]:
            self.queue(stream, task)

    def destroy_graph(self, graph: int) -> None:
        self._check()
        for queued in self.streams.values():
            assert not set(queued) & set(self.graphs[graph]), "it is still to be executed"
        del self.graphs[graph]

    def close(self) -> None:
        self.is_closed = True

    def queue(self, stream: int, task: Task) -> None:
        """Put work on a stream, or into the recording."""
        self._check()
        assert stream in self.streams
        if self.recording is not None:
            self.recording.append(task)
        elif self.is_lazy:
            self.streams[stream].append(task)
        else:
            task()

    def bytes_at(self, address: int, num_bytes: int) -> np.ndarray:
        """Device or pinned memory; fails if it is not wholly allocated."""
        assert self._is_within(address, num_bytes, is_pinned=None), "memory that is not allocated"
        return np.ctypeslib.as_array((ctypes.c_ubyte * num_bytes).from_address(address))

    def _is_within(self, address: int, num_bytes: int, *, is_pinned: bool | None) -> bool:
        return any(
            start <= address
            and address + num_bytes <= start + memory.num_bytes
            and is_pinned in (None, memory.is_pinned)
            for start, memory in self.memory.items()
        )

    def _move(self, target: int, source: int, num_bytes: int) -> None:
        for address in (target, source):
            if not self._is_within(address, num_bytes, is_pinned=None):
                assert address == source, "nothing lands in memory that is not ours"
        ctypes.memmove(target, source, num_bytes)

    def _allocate(self, num_bytes: int, *, is_pinned: bool) -> int:
        self._check()
        assert num_bytes > 0
        buffer = (ctypes.c_ubyte * num_bytes)()
        ctypes.memset(buffer, 0xA5, num_bytes)  # no memory comes zeroed
        address = ctypes.addressof(buffer)
        self.memory[address] = Memory(buffer, num_bytes, is_pinned)
        return address

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _check(self) -> None:
        assert not self.is_closed
        assert getattr(self._current, "is_set", False), "this thread has no context"


@dataclass
class FakeContext:
    """`IExecutionContext` over an ONNX graph."""

    engine: FakeEngine
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    addresses: dict[str, int] = field(default_factory=dict)
    scratch: tuple[int, int] | None = None
    is_settled: bool = False  # ran since its shapes were set: only then it may be recorded

    def set_device_memory(self, memory: int, size: int) -> None:
        self.scratch = (memory, size)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        spec = self.engine.spec(name)
        for size, dim in zip(shape, spec.shape, strict=True):
            axis = self.engine.profile.get(dim) if isinstance(dim, str) else None
            low, high = (dim, dim) if axis is None else (axis.min, axis.max)
            if not low <= size <= high:
                return False
        self.shapes[name] = shape
        self.is_settled = False
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes: dict[str, int] = {}
        for other, shape in self.shapes.items():
            for dim, size in zip(self.engine.spec(other).shape, shape, strict=True):
                if isinstance(dim, str):
                    assert sizes.setdefault(dim, size) == size
        return tuple(
            sizes.get(dim, -1) if isinstance(dim, str) else dim
            for dim in self.engine.spec(name).shape
        )

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self.addresses[name] = memory
        return memory % 8 == 0

    def execute_async_v3(self, stream_handle: int) -> bool:
        cuda, graph = self.engine.cuda, self.engine.graph
        if cuda.recording is not None and not self.is_settled:
            return False
        assert self.scratch is not None
        assert self.scratch[1] >= self.engine.device_memory_size_v2
        shapes = dict(self.shapes)
        outputs = {spec.name: self.get_tensor_shape(spec.name) for spec in graph.outputs}

        def task() -> None:
            cuda.bytes_at(*self.scratch)[:] = 0xEE  # every run uses it
            feed = {n: self._array(n, shape).copy() for n, shape in shapes.items()}
            results = graph.run(feed)
            for name, shape in outputs.items():
                self._array(name, shape)[...] = results[name]

        cuda.queue(stream_handle, task)
        self.is_settled = True
        return True

    def _array(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        dtype = np.dtype(self.engine.spec(name).dtype)
        num_bytes = int(np.prod(shape)) * dtype.itemsize
        return (
            self.engine.cuda.bytes_at(self.addresses[name], num_bytes).view(dtype).reshape(shape)
        )


class FakeEngine:
    """`ICudaEngine` over an ONNX graph."""

    device_memory_size_v2 = 1024

    def __init__(
        self, graph: OnnxEngine, cuda: HostCuda, profile: Mapping[str, AxisRange]
    ) -> None:
        self.graph = graph
        self.cuda = cuda
        self.profile = profile
        self.contexts: list[FakeContext] = []
        self.specs = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
        self.num_io_tensors = len(self.specs)

    def spec(self, name: str) -> TensorSpec:
        return self.specs[name]

    def get_tensor_name(self, index: int) -> str:
        return list(self.specs)[index]

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        is_input = name in {spec.name for spec in self.graph.inputs}
        return SimpleNamespace(name="INPUT" if is_input else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=_KINDS[self.spec(name).dtype])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(dim, str) else dim for dim in self.spec(name).shape)

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig()

    def create_execution_context(self, strategy: object) -> FakeContext:
        if isinstance(strategy, FakeRuntimeConfig):
            assert (strategy.strategy, strategy.cuda_graph_strategy) == ("own", "whole")
        else:
            assert strategy == "own"
        self.contexts.append(FakeContext(self))
        return self.contexts[-1]


@dataclass
class FakeRuntimeConfig:
    """`IRuntimeConfig` of TensorRT for RTX."""

    strategy: str = ""
    cuda_graph_strategy: str = ""

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.strategy = strategy


class FakeTensorRt:
    """The module: `tensorrt`, or with `is_rtx` `tensorrt_rtx`."""

    __version__ = "10.13.3.9"
    ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED="own")

    def __init__(
        self, cuda: HostCuda, profile: Mapping[str, AxisRange], *, is_rtx: bool = False
    ) -> None:
        self.engines: list[FakeEngine] = []
        self._cuda = cuda
        self._profile = profile
        if is_rtx:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    class Logger:
        """Prints."""

        WARNING = "warning"

        def __init__(self, min_severity: str) -> None:
            assert min_severity == "warning"

    def Runtime(self, logger: Logger) -> SimpleNamespace:  # noqa: N802 (as it is called there)
        assert isinstance(logger, self.Logger)
        return SimpleNamespace(deserialize_cuda_engine=self._deserialize)

    def _deserialize(self, plan: bytes) -> FakeEngine | None:
        try:
            graph = OnnxEngine("plan", plan)
        except EngineError:
            return None
        self.engines.append(FakeEngine(graph, self._cuda, self._profile))
        return self.engines[-1]
