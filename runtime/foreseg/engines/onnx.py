# SPDX-License-Identifier: Apache-2.0
"""Engines that ONNX Runtime executes.

ONNX Runtime quietly falls back to the CPU when a provider cannot load; here that is an error.
On a device, tensors are bound to its memory, so that what is kept never leaves it.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, cast

import numpy as np

from foreseg.engines.base import (
    Array,
    Dimension,
    DType,
    Tensor,
    TensorSpec,
    check_inputs,
    check_kept,
    on_host,
)
from foreseg.engines.cuda_memory import CudaDevice, CudaTensor
from foreseg.errors import ConfigError, EngineError, MissingExtraError

CPU_PROVIDER = "CPUExecutionProvider"
KEPT_UP_TO_PX = 512  # side of a tracker's input up to which its engines keep their buffers

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
    "tensor(uint8)": "uint8",
}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An execution provider of ONNX Runtime, and what it is told."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


CPU = Provider(name=CPU_PROVIDER)


class _Node(Protocol):
    """What ONNX Runtime tells of an input or output."""

    name: str
    type: str
    shape: list[int | str | None]


class _Binding(Protocol):
    """The part of `onnxruntime.IOBinding` that is used here."""

    def bind_cpu_input(self, name: str, array: Array) -> None: ...

    def bind_input(
        self, name: str, kind: str, device: int, dtype: DType, shape: list[int], address: int
    ) -> None: ...

    def bind_output(
        self, name: str, kind: str, device: int, dtype: DType, shape: list[int], address: int
    ) -> None: ...


class _Session(Protocol):
    """The part of `onnxruntime.InferenceSession` that is used here."""

    def get_inputs(self) -> list[_Node]: ...

    def get_outputs(self) -> list[_Node]: ...

    def get_providers(self) -> list[str]: ...

    def run(
        self, names: list[str], feed: dict[str, Array], options: object = None
    ) -> list[Array]: ...

    def io_binding(self) -> _Binding: ...

    def run_with_iobinding(self, binding: _Binding) -> None: ...


class OnnxEngine:
    """One ONNX graph in an ONNX Runtime session.

    Args:
        name: the piece it is; stands in every error.
        graph: the serialised ONNX model.
        providers: execution providers in order of preference; the first must be the one used.
        threads: intra-op threads, at least 1. Operators run one after the other.
        device: whose memory tensors are bound to; None: numpy arrays in and out.
        gives_back: on the CPU, buffers go back to the system after each run. They come as new, zeroed
            pages with the next, which costs small graphs up to half of their time, and large ones nothing
            that was seen; of several engines only the largest one's then count at the peak.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        EngineError: the graph does not load, or another provider was given than asked for.
    """

    def __init__(
        self,
        name: str,
        graph: bytes,
        *,
        providers: Sequence[Provider] = (CPU,),
        threads: int = 1,
        device: CudaDevice | None = None,
        gives_back: bool = False,
    ) -> None:
        if threads < 1 or not providers:
            msg = (
                f"an engine wants a provider and at least 1 thread, got {providers} and {threads}"
            )
            raise ConfigError(msg)
        self._name = name
        runtime = _import_runtime()
        self._failures = _failure_types(runtime)
        session = _open_session(runtime, name, graph, providers, threads)
        self._session: _Session | None = session
        self._provider = _checked_provider(runtime, name, session, providers[0].name)
        self._device = device
        self._run_options: object = None
        if gives_back and self._provider == CPU_PROVIDER:
            options = runtime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            self._run_options = options
        self._memory = "cpu" if self._provider == CPU_PROVIDER else "cuda"
        self._inputs = tuple(_spec(name, node) for node in session.get_inputs())
        self._outputs = tuple(_spec(name, node) for node in session.get_outputs())
        self._output_names = [spec.name for spec in self._outputs]
        _log.info("engine %r runs on %s with %d thread(s)", name, self._provider, threads)

    @property
    def name(self) -> str:
        """The piece it is."""
        return self._name

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` wants."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""
        return self._outputs

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return self._provider

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run once; see `Engine.run`."""
        if self._session is None:
            msg = f"engine {self._name!r} is closed"
            raise EngineError(msg)
        sizes = check_inputs(self._name, self._inputs, inputs)
        check_kept(self._name, self._outputs, keep)
        try:
            if self._device is not None:
                return self._run_bound(self._session, self._device, inputs, sizes, keep)
            feed = {name: on_host(value) for name, value in inputs.items()}
            values = self._session.run(self._output_names, feed, self._run_options)
        except self._failures as error:
            msg = f"engine {self._name!r} failed in ONNX Runtime: {error}"
            raise EngineError(msg) from error
        outputs: dict[str, Tensor] = dict(zip(self._output_names, values, strict=True))
        return outputs

    def _run_bound(
        self,
        session: _Session,
        device: CudaDevice,
        inputs: Mapping[str, Tensor],
        sizes: Mapping[str, int],
        keep: Collection[str],
    ) -> dict[str, Tensor]:
        """Run from and to the device's memory; what is not kept lands in new arrays."""
        device.enter()
        binding = session.io_binding()
        for name, value in inputs.items():
            if isinstance(value, CudaTensor) and value.device is device:
                dtype, shape = value.dtype, list(value.shape)
                binding.bind_input(name, self._memory, 0, dtype, shape, value.address)
            else:
                array = cast("Array", np.ascontiguousarray(on_host(value)))
                binding.bind_cpu_input(name, array)
        outputs: dict[str, Tensor] = {}
        for spec in self._outputs:
            dtype, shape = cast("DType", np.dtype(spec.dtype)), list(spec.resolved(sizes))
            if spec.name in keep:
                kept = device.empty(tuple(shape), dtype)
                outputs[spec.name] = kept
                binding.bind_output(spec.name, self._memory, 0, dtype, shape, kept.address)
            else:
                array = np.empty(shape, dtype)
                outputs[spec.name] = array
                binding.bind_output(spec.name, "cpu", 0, dtype, shape, array.ctypes.data)
        session.run_with_iobinding(binding)
        return outputs

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _import_runtime() -> ModuleType:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        package, extra = "onnxruntime", "cpu"
        raise MissingExtraError(package, extra, "running an ONNX engine") from error


def _failure_types(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own classes have no common base of their own."""
    state = importlib.import_module(f"{runtime.__name__}.capi.onnxruntime_pybind11_state")
    named = (
        "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile",
        "NotImplemented", "RuntimeException", "EPFail",
    )  # fmt: skip
    return (ValueError, RuntimeError, *(getattr(state, n) for n in named if hasattr(state, n)))


def _open_session(
    runtime: ModuleType, name: str, graph: bytes, providers: Sequence[Provider], threads: int
) -> _Session:
    _check_available(runtime, name, providers[0].name)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_mem_pattern = False  # batches differ from call to call: plan no arena for each
    # Without an arena large buffers go back to the system after each call and come as new, zeroed
    # pages with the next: half the time of memory attention, and no less memory at the peak.
    options.enable_cpu_mem_arena = True
    # A bundle's sessions run in turn, each with threads of its own: those of one would spin on a
    # core for a while after its run, and the next one's wait for that core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; warnings are about optimisations not made
    try:
        wanted = [(provider.name, dict(provider.options)) for provider in providers]
        session = runtime.InferenceSession(graph, sess_options=options, providers=wanted)
    except _failure_types(runtime) as error:
        msg = f"engine {name!r} does not load in ONNX Runtime {runtime.__version__}: {error}"
        raise EngineError(msg) from error
    return cast("_Session", session)


def _check_available(runtime: ModuleType, name: str, wanted: str) -> None:
    available = runtime.get_available_providers()
    if wanted not in available:
        msg = (
            f"engine {name!r} wants {wanted}, this ONNX Runtime has {available}: install the one"
            " that has it ('foreseg[cuda]', without 'foreseg[cpu]'), or ask for another back-end"
        )
        raise EngineError(msg)


def _checked_provider(runtime: ModuleType, name: str, session: _Session, wanted: str) -> str:
    got = session.get_providers()[0]
    if got != wanted:
        msg = (
            f"engine {name!r} wants {wanted}, ONNX Runtime {runtime.__version__} gave {got}: a"
            " library of CUDA, cuDNN or TensorRT that it needs is missing or of another version"
        )
        raise EngineError(msg)
    return got


def _spec(engine_name: str, node: _Node) -> TensorSpec:
    if node.type not in _DTYPES:
        msg = f"engine {engine_name!r} has {node.name} of {node.type}: not one of {list(_DTYPES)}"
        raise EngineError(msg)
    shape: list[Dimension] = [dim if isinstance(dim, int) else str(dim) for dim in node.shape]
    return TensorSpec(name=node.name, shape=tuple(shape), dtype=_DTYPES[node.type])
