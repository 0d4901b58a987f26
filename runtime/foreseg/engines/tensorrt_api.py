# SPDX-License-Identifier: Apache-2.0
"""The part of TensorRT's Python bindings that running an engine needs, as types.

The bindings come with stubs in some versions only; tests hold every name here against those that
are installed. Knows nothing of how they are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Named(Protocol):
    """A value of one of TensorRT's enumerations."""

    @property
    def name(self) -> str:
        """As TensorRT writes it."""


class ExecutionContext(Protocol):
    """The part of `IExecutionContext` that is used here."""

    def set_device_memory(self, memory: int, size: int) -> None:
        """Its scratch, `device_memory_size_v2` bytes at least."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        """False if the profile does not take it."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Sizes; -1 where they are not known."""

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """False if it is refused."""

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Queue a run; False if it failed."""


class RuntimeConfig(Protocol):
    """The part of `IRuntimeConfig` (TensorRT for RTX) that is used here."""

    cuda_graph_strategy: Named

    def set_execution_context_allocation_strategy(self, strategy: Named) -> None:
        """Who allocates the scratch."""


class CudaEngine(Protocol):
    """The part of `ICudaEngine` that is used here."""

    @property
    def num_io_tensors(self) -> int:
        """Inputs and outputs."""

    @property
    def device_memory_size_v2(self) -> int:
        """Bytes of scratch that a context needs."""

    def get_tensor_name(self, index: int) -> str:
        """Of an input or output."""

    def get_tensor_mode(self, name: str) -> Named:
        """INPUT or OUTPUT."""

    def get_tensor_dtype(self, name: str) -> Named:
        """Its type."""

    def get_tensor_shape(self, name: str) -> Sequence[int]:
        """Sizes; -1 where they are not known."""

    def create_runtime_config(self) -> RuntimeConfig:
        """How contexts are made; used with TensorRT for RTX only."""

    def create_execution_context(self, strategy: Named | RuntimeConfig) -> ExecutionContext | None:
        """None if it failed."""


class Runtime(Protocol):
    """The part of `Runtime` that is used here."""

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> CudaEngine | None:
        """None if it failed."""


class Strategies(Protocol):
    """`ExecutionContextAllocationStrategy`."""

    USER_MANAGED: Named


class GraphStrategies(Protocol):
    """`CudaGraphStrategy` of TensorRT for RTX."""

    WHOLE_GRAPH_CAPTURE: Named


class LoggerClass(Protocol):
    """`Logger`."""

    WARNING: Named

    def __call__(self, min_severity: Named) -> object:
        """Make one that prints."""


class RuntimeClass(Protocol):
    """`Runtime`."""

    def __call__(self, logger: object) -> Runtime:
        """Make one."""


class TensorRt(Protocol):
    """The part of the module `tensorrt`, or `tensorrt_rtx`, that is used here."""

    Logger: LoggerClass
    Runtime: RuntimeClass
    ExecutionContextAllocationStrategy: Strategies
    __version__: str


class TensorRtForRtx(TensorRt, Protocol):
    """What TensorRT for RTX has besides: it captures CUDA graphs by itself."""

    CudaGraphStrategy: GraphStrategies
