# SPDX-License-Identifier: Apache-2.0
"""TensorRT's contexts, each set to one set of sizes, and the CUDA graphs that they are captured as.

Does not know what is copied to the places in the device's memory that the contexts read and write.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from foreseg.engines.base import DType, TensorSpec
from foreseg.engines.cuda_memory import CudaDevice, CudaTensor, PinnedBuffer
from foreseg.engines.tensorrt_api import CudaEngine, ExecutionContext, TensorRt, TensorRtForRtx
from foreseg.errors import EngineError

MAX_SHAPES = 8  # kept ready with a context and a graph each: 1 to 8 rows, or a few with prompts

_BYTE: DType = np.dtype(np.uint8)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
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


class Contexts:
    """The contexts of one engine, over one scratch memory: they never run at the same time.

    Args:
        name: of the engine, for messages.
        engine: makes contexts; must outlive them.
        trt: the module that made it.
        device: where it runs.
        inputs: where the tensors lie that it reads.
        outputs: where those lie that it writes.
    """

    def __init__(
        self,
        name: str,
        engine: CudaEngine,
        *,
        trt: TensorRt,
        device: CudaDevice,
        inputs: Sequence[Place],
        outputs: Sequence[Place],
    ) -> None:
        self._name = name
        self._engine = engine
        self._trt = trt
        self._device = device
        self._inputs, self._outputs = inputs, outputs
        self._own_graphs = captures_by_itself(trt)  # then one context serves all sizes
        self._captures = not self._own_graphs
        self._scratch = device.empty((max(1, engine.device_memory_size_v2),), _BYTE)
        self._ready: OrderedDict[tuple[tuple[str, int], ...], _Shape] = OrderedDict()

    def close(self) -> None:
        """Free contexts, graphs and scratch memory; nothing may run any more."""
        for shape in self._ready.values():
            self._drop_graph(shape)
        self._ready.clear()
        del self._scratch

    def launch(self, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """Queue a run with these sizes on the stream; returns the shapes of its outputs."""
        shape = self._shape_for(sizes)
        self._launch(shape)
        return shape.shapes

    def _shape_for(self, sizes: Mapping[str, int]) -> _Shape:
        """A context set to these sizes: the newest `MAX_SHAPES` are kept."""
        key = tuple(sorted(sizes.items()))
        if key in self._ready:
            self._ready.move_to_end(key)
            return self._ready[key]
        if len(self._ready) < (1 if self._own_graphs else MAX_SHAPES):
            context = self._new_context()
        else:
            _, oldest = self._ready.popitem(last=False)
            self._device.cuda.synchronize(self._device.stream)  # its graph may still be running
            self._drop_graph(oldest)
            context = oldest.context
        self._ready[key] = _Shape(context=context, shapes=self._set_shapes(context, sizes))
        return self._ready[key]

    def _new_context(self) -> ExecutionContext:
        """A context over the engine's one scratch memory: contexts never run at the same time."""
        strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._own_graphs:
            config = self._engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            graphs = cast("TensorRtForRtx", self._trt).CudaGraphStrategy
            config.cuda_graph_strategy = graphs.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(config)
        else:
            context = self._engine.create_execution_context(strategy)
        if context is None:
            msg = f"engine {self._name!r}: TensorRT made no context, its log above says why"
            raise EngineError(msg)
        context.set_device_memory(self._scratch.address, self._scratch.nbytes)
        for place in (*self._inputs, *self._outputs):
            if not context.set_tensor_address(place.spec.name, place.memory.address):
                msg = f"engine {self._name!r}: TensorRT refused the memory of {place.spec.name}"
                raise EngineError(msg)
        return context

    def _set_shapes(
        self, context: ExecutionContext, sizes: Mapping[str, int]
    ) -> dict[str, tuple[int, ...]]:
        """Set the inputs' shapes; returns those of the outputs, as TensorRT has them."""
        for place in self._inputs:
            shape = place.spec.resolved(sizes)
            if not context.set_input_shape(place.spec.name, shape):
                msg = f"engine {self._name!r}: TensorRT refused {place.spec.name} of shape {shape}"
                raise EngineError(msg)
        shapes = {}
        for place in self._outputs:
            name = place.spec.name
            shapes[name] = tuple(int(size) for size in context.get_tensor_shape(name))
            wanted = place.spec.resolved(sizes)
            if shapes[name] != wanted:
                msg = (
                    f"engine {self._name!r}: TensorRT gives {name} of {shapes[name]}, not {wanted}"
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
            msg = f"engine {self._name!r} failed in TensorRT, its log above says why"
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
            _log.warning("engine %r runs without CUDA graphs: %s", self._name, error)
            return
        shape.graph = graph

    def _drop_graph(self, shape: _Shape) -> None:
        if shape.graph is not None:
            self._device.cuda.destroy_graph(shape.graph)
            shape.graph = None


def captures_by_itself(trt: TensorRt) -> bool:
    """True for TensorRT for RTX, which makes and replays CUDA graphs inside a context."""
    return hasattr(trt, "CudaGraphStrategy")
