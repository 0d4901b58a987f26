# SPDX-License-Identifier: Apache-2.0
"""Engines that TensorRT runs natively: `tensorrt` 10 and 11, or TensorRT for RTX.

Every input and output has one place in the device's memory, so that a CUDA graph, once captured,
stays valid; tensors of the device are copied there and away on the stream (a percent of the
arithmetic), host arrays pass through pinned memory. Plans are deserialised only after
`engines.built` has compared their hash. Knows nothing of what builds them.

Never executed on a GPU in this repository: its logic runs in tests against doubles of CUDA and of
TensorRT, and every name it uses is held against the real bindings. `foreseg bench BUNDLE
--backend tensorrt --selftest` on a device shows whether it works there.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from foreseg.engines.base import (
    DType,
    Tensor,
    TensorSpec,
    check_inputs,
    check_kept,
    on_host,
)
from foreseg.engines.built import FLAVOURS, BuiltEngine, BuiltEngines, find_built, read_engine
from foreseg.engines.cuda import Cuda
from foreseg.engines.cuda_memory import CudaDevice, CudaTensor, PinnedBuffer
from foreseg.engines.manifest import Manifest
from foreseg.engines.tensorrt_api import (
    CudaEngine,
    ExecutionContext,
    TensorRt,
    TensorRtForRtx,
)
from foreseg.errors import EngineError, ForesegError, MissingExtraError

MAX_SHAPES = 8  # kept ready with a context and a graph each: 1 to 8 rows, or a few with prompts

_DTYPES = {  # TensorRT's name -> numpy's
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
_DYNAMIC = -1  # as TensorRT shows a named dimension
_BYTE: DType = np.dtype(np.uint8)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Place:
    """Where a tensor of the engine lies, at its largest, and its pinned counterpart."""

    spec: TensorSpec
    dtype: DType
    memory: CudaTensor  # (bytes,)
    pinned: PinnedBuffer


@dataclass(slots=True, kw_only=True, eq=False)
class _Shape:
    """A context that is set to one set of sizes, and its CUDA graph once there is one."""

    context: ExecutionContext
    shapes: dict[str, tuple[int, ...]]  # of the outputs
    num_runs: int = 0
    graph: int | None = None


class TensorRtEngine:
    """One built engine.

    Args:
        record: what it was built as.
        plan: the serialised engine, already verified.
        trt: the module `tensorrt` or `tensorrt_rtx`.
        device: where it runs; shared by the engines of a bundle, and closed after them.

    Raises:
        EngineError: the plan does not load here, or is not what its record says.
    """

    def __init__(
        self, record: BuiltEngine, plan: bytes, *, trt: TensorRt, device: CudaDevice
    ) -> None:
        self._record = record
        self._trt = trt
        self._device = device
        device.enter()
        self._logger = trt.Logger(trt.Logger.WARNING)  # these three must outlive the contexts
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            msg = (
                f"engine {record.piece!r} does not load in TensorRT {trt.__version__} on"
                f" {device.cuda.device.name} ({device.cuda.device.compute}): its log above says why"
            )
            raise EngineError(msg)
        self._engine: CudaEngine | None = engine
        _check_record(engine, record)
        self._own_graphs = hasattr(trt, "CudaGraphStrategy")  # then one context serves all sizes
        self._captures = not self._own_graphs
        self._scratch = device.empty((max(1, engine.device_memory_size_v2),), _BYTE)
        largest = {axis.name: axis.max for axis in record.profile}
        self._inputs = [self._place(spec, largest) for spec in record.inputs]
        self._outputs = [self._place(spec, largest) for spec in record.outputs]
        self._ready: OrderedDict[tuple[tuple[str, int], ...], _Shape] = OrderedDict()
        self._is_staged = False  # pinned memory of the inputs may still be read
        _log.info("engine %r runs on %s", record.piece, self.provider)

    @property
    def name(self) -> str:
        """The piece it is."""
        return self._record.piece

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` wants."""
        return self._record.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""
        return self._record.outputs

    @property
    def provider(self) -> str:
        """TensorRT's name and version, and the device."""
        kind = "TensorRT-RTX" if self._own_graphs else "TensorRT"
        return f"{kind} {self._trt.__version__} on {self._device.cuda.device.name}"

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run once; see `Engine.run`. Waits only if an output goes to the host."""
        if self._engine is None:
            msg = f"engine {self.name!r} is closed"
            raise EngineError(msg)
        sizes = check_inputs(self.name, self.inputs, inputs)
        check_kept(self.name, self.outputs, keep)
        self._check_ranges(sizes)
        self._device.enter()
        self._wait_for_staging()
        for place in self._inputs:
            self._feed(place, inputs[place.spec.name])
        shape = self._shape_for(self._engine, sizes)
        self._launch(shape)
        results: dict[str, Tensor] = {}
        landed = []
        for place in self._outputs:
            name = place.spec.name
            if name in keep:
                results[name] = self._kept(place, shape.shapes[name])
            else:
                self._download(place, shape.shapes[name])
                landed.append(place)
        if landed:
            self._synchronize()
        for place in landed:
            name = place.spec.name
            results[name] = place.pinned.array(shape.shapes[name], place.dtype).copy()
        return results

    def close(self) -> None:
        """Free contexts, graphs and buffers; the device's memory goes back to its pool."""
        if self._engine is None:
            return
        self._device.enter()
        self._device.cuda.synchronize(self._device.stream)
        for shape in self._ready.values():
            self._drop_graph(shape)
        self._ready.clear()
        for place in (*self._inputs, *self._outputs):
            self._device.free_pinned(place.pinned)
        self._inputs, self._outputs = [], []
        self._engine = None
        del self._scratch

    def _place(self, spec: TensorSpec, largest: Mapping[str, int]) -> _Place:
        dtype = cast("DType", np.dtype(spec.dtype))
        num_bytes = max(1, math.prod(spec.resolved(largest)) * dtype.itemsize)
        return _Place(
            spec=spec,
            dtype=dtype,
            memory=self._device.empty((num_bytes,), _BYTE),
            pinned=self._device.pinned(num_bytes),
        )

    def _check_ranges(self, sizes: Mapping[str, int]) -> None:
        for axis in self._record.profile:
            size = sizes.get(axis.name, axis.min)
            if not axis.min <= size <= axis.max:
                msg = (
                    f"engine {self.name!r} was built for {axis.name} of {axis.min} to {axis.max},"
                    f" got {size}: build it again with a larger range"
                )
                raise EngineError(msg)

    def _wait_for_staging(self) -> None:
        """Pinned memory of the inputs may be written again."""
        if self._is_staged:
            self._synchronize()

    def _synchronize(self) -> None:
        self._device.cuda.synchronize(self._device.stream)
        self._is_staged = False

    def _feed(self, place: _Place, value: Tensor) -> None:
        """Queue an input's way to its place."""
        cuda, stream = self._device.cuda, self._device.stream
        if isinstance(value, CudaTensor) and value.device is self._device:
            cuda.copy(place.memory.address, value.address, value.nbytes, stream)
            return
        array = on_host(value)
        np.copyto(place.pinned.array(array.shape, place.dtype), array)
        cuda.upload(place.memory.address, place.pinned.address, array.nbytes, stream)
        self._is_staged = True

    def _kept(self, place: _Place, shape: tuple[int, ...]) -> CudaTensor:
        kept = self._device.empty(shape, place.dtype)
        self._device.cuda.copy(
            kept.address, place.memory.address, kept.nbytes, self._device.stream
        )
        return kept

    def _download(self, place: _Place, shape: tuple[int, ...]) -> None:
        num_bytes = math.prod(shape) * place.dtype.itemsize
        self._device.cuda.download(
            place.pinned.address, place.memory.address, num_bytes, self._device.stream
        )

    def _shape_for(self, engine: CudaEngine, sizes: Mapping[str, int]) -> _Shape:
        """A context set to these sizes: the newest `MAX_SHAPES` are kept."""
        key = tuple(sorted(sizes.items()))
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        if len(self._ready) < (1 if self._own_graphs else MAX_SHAPES):
            context = self._new_context(engine)
        else:
            _, oldest = self._ready.popitem(last=False)
            self._synchronize()  # its graph may still be running
            self._drop_graph(oldest)
            context = oldest.context
        self._ready[key] = _Shape(context=context, shapes=self._set_shapes(context, sizes))
        return self._ready[key]

    def _new_context(self, engine: CudaEngine) -> ExecutionContext:
        """A context over the engine's one scratch memory: contexts never run at the same time."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._own_graphs:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            graphs = cast("TensorRtForRtx", self._trt).CudaGraphStrategy
            config.cuda_graph_strategy = graphs.WHOLE_GRAPH_CAPTURE
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        if context is None:
            msg = f"engine {self.name!r}: TensorRT made no context, its log above says why"
            raise EngineError(msg)
        context.set_device_memory(self._scratch.address, self._scratch.nbytes)
        for place in (*self._inputs, *self._outputs):
            if not context.set_tensor_address(place.spec.name, place.memory.address):
                msg = f"engine {self.name!r}: TensorRT refused the memory of {place.spec.name}"
                raise EngineError(msg)
        return context

    def _set_shapes(
        self, context: ExecutionContext, sizes: Mapping[str, int]
    ) -> dict[str, tuple[int, ...]]:
        """Set the inputs' shapes; returns those of the outputs, as TensorRT has them."""
        for place in self._inputs:
            shape = place.spec.resolved(sizes)
            if not context.set_input_shape(place.spec.name, shape):
                msg = f"engine {self.name!r}: TensorRT refused {place.spec.name} of shape {shape}"
                raise EngineError(msg)
        shapes = {}
        for place in self._outputs:
            name = place.spec.name
            shapes[name] = tuple(int(size) for size in context.get_tensor_shape(name))
            wanted = place.spec.resolved(sizes)
            if shapes[name] != wanted:
                msg = (
                    f"engine {self.name!r}: TensorRT gives {name} of {shapes[name]}, not {wanted}"
                )
                raise EngineError(msg)
        return shapes

    def _launch(self, shape: _Shape) -> None:
        """Queue the graph: as it is at first, captured at the second time, replayed then."""
        cuda, stream = self._device.cuda, self._device.stream
        shape.num_runs += 1
        if shape.graph is None and self._captures and shape.num_runs > 1:
            self._capture(shape)
        if shape.graph is not None:
            cuda.launch(shape.graph, stream)
        else:
            self._enqueue(shape)

    def _enqueue(self, shape: _Shape) -> None:
        if not shape.context.execute_async_v3(self._device.stream):
            msg = f"engine {self.name!r} failed in TensorRT, its log above says why"
            raise EngineError(msg)

    def _capture(self, shape: _Shape) -> None:
        """Record the launch as a CUDA graph; where that fails, it is not tried again."""
        cuda, stream = self._device.cuda, self._device.stream
        try:
            cuda.begin_capture(stream)
            try:
                self._enqueue(shape)
            finally:
                graph = cuda.end_capture(stream)
        except EngineError as error:
            self._captures = False
            _log.warning("engine %r runs without CUDA graphs: %s", self.name, error)
            return
        shape.graph = graph

    def _drop_graph(self, shape: _Shape) -> None:
        if shape.graph is not None:
            self._device.cuda.destroy_graph(shape.graph)
            shape.graph = None


def open_built(
    folder: Path, manifest: Manifest, cuda: Cuda, modules: Sequence[tuple[str, TensorRt]]
) -> tuple[CudaDevice, BuiltEngines, tuple[TensorRtEngine, ...]]:
    """Open the engines that were built of a bundle for this device.

    Args:
        folder: of the bundle.
        manifest: of the bundle.
        cuda: the device.
        modules: flavour and module of every TensorRT that is installed, in order of preference.

    Raises:
        EngineError: none was built for this device and version, or they are stale or damaged.
    """
    reasons = []
    for flavour, trt in modules:
        try:
            built = find_built(
                folder,
                manifest,
                flavour=flavour,
                version=trt.__version__,
                device=cuda.device.compute,
                device_name=cuda.device.name,
            )
        except EngineError as error:
            reasons.append(str(error))
            continue
        plans = [read_engine(folder, built, engine) for engine in built.engines]
        device = CudaDevice(cuda)
        engines: list[TensorRtEngine] = []
        try:
            for record, plan in zip(built.engines, plans, strict=True):
                engines.append(TensorRtEngine(record, plan, trt=trt, device=device))
        except ForesegError:
            for engine in engines:
                engine.close()
            device.close()
            raise
        return device, built, tuple(engines)
    raise EngineError("; ".join(reasons))


def installed_modules() -> tuple[tuple[str, TensorRt], ...]:
    """Flavour and module of every TensorRT that can be imported.

    Raises:
        MissingExtraError: there is none.
    """
    found = []
    for flavour in FLAVOURS:
        try:
            found.append((flavour, cast("TensorRt", importlib.import_module(flavour))))
        except ImportError as error:
            _log.debug("%s cannot be imported: %s", flavour, error)
    if not found:
        package, extra = "tensorrt", "tensorrt"
        raise MissingExtraError(package, extra, "running built engines")
    return tuple(found)


def _check_record(engine: CudaEngine, record: BuiltEngine) -> None:
    """Compare names, directions, types and shapes with the record.

    Raises:
        EngineError: they differ.
    """
    wanted = {
        spec.name: (
            mode,
            spec.dtype,
            tuple(_DYNAMIC if isinstance(d, str) else d for d in spec.shape),
        )
        for mode, specs in (("INPUT", record.inputs), ("OUTPUT", record.outputs))
        for spec in specs
    }
    got = {}
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        kind = engine.get_tensor_dtype(name).name
        got[name] = (
            engine.get_tensor_mode(name).name,
            _DTYPES.get(kind, kind),
            tuple(int(size) for size in engine.get_tensor_shape(name)),
        )
    if got != wanted:
        msg = f"engine {record.piece!r} is not what its record says: it has {got}, not {wanted}"
        raise EngineError(msg)
