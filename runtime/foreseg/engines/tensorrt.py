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

import logging
import math
from collections.abc import Collection, Mapping
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
from foreseg.engines.built import BuiltEngine
from foreseg.engines.cuda_memory import CudaDevice, CudaTensor
from foreseg.engines.tensorrt_api import CudaEngine, TensorRt
from foreseg.engines.tensorrt_contexts import Contexts, Place, captures_by_itself
from foreseg.errors import EngineError

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
        _check_record(engine, record)
        largest = {axis.name: axis.max for axis in record.profile}
        self._inputs = [self._place(spec, largest) for spec in record.inputs]
        self._outputs = [self._place(spec, largest) for spec in record.outputs]
        self._contexts: Contexts | None = Contexts(
            record.piece,
            engine,
            trt=trt,
            device=device,
            inputs=self._inputs,
            outputs=self._outputs,
        )
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
        kind = "TensorRT-RTX" if captures_by_itself(self._trt) else "TensorRT"
        return f"{kind} {self._trt.__version__} on {self._device.cuda.device.name}"

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run once; see `Engine.run`. Waits only if an output goes to the host."""
        if self._contexts is None:
            msg = f"engine {self.name!r} is closed"
            raise EngineError(msg)
        sizes = check_inputs(self.name, self.inputs, inputs)
        check_kept(self.name, self.outputs, keep)
        self._check_ranges(sizes)
        self._device.enter()
        self._wait_for_staging()
        for place in self._inputs:
            self._feed(place, inputs[place.spec.name])
        shapes = self._contexts.launch(sizes)
        results: dict[str, Tensor] = {}
        landed = []
        for place in self._outputs:
            name = place.spec.name
            if name in keep:
                results[name] = self._kept(place, shapes[name])
            else:
                self._download(place, shapes[name])
                landed.append(place)
        if landed:
            self._synchronize()
        for place in landed:
            name = place.spec.name
            results[name] = place.pinned.array(shapes[name], place.dtype).copy()
        return results

    def close(self) -> None:
        """Free contexts, graphs and buffers; the device's memory goes back to its pool."""
        if self._contexts is None:
            return
        self._device.enter()
        self._device.cuda.synchronize(self._device.stream)
        self._contexts.close()
        for place in (*self._inputs, *self._outputs):
            self._device.free_pinned(place.pinned)
        self._inputs, self._outputs = [], []
        self._contexts = None

    def _place(self, spec: TensorSpec, largest: Mapping[str, int]) -> Place:
        dtype = cast("DType", np.dtype(spec.dtype))
        num_bytes = max(1, math.prod(spec.resolved(largest)) * dtype.itemsize)
        return Place(
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

    def _feed(self, place: Place, value: Tensor) -> None:
        """Queue an input's way to its place."""
        cuda, stream = self._device.cuda, self._device.stream
        if isinstance(value, CudaTensor) and value.device is self._device:
            cuda.copy(place.memory.address, value.address, value.nbytes, stream)
            return
        array = on_host(value)
        np.copyto(place.pinned.array(array.shape, place.dtype), array)
        cuda.upload(place.memory.address, place.pinned.address, array.nbytes, stream)
        self._is_staged = True

    def _kept(self, place: Place, shape: tuple[int, ...]) -> CudaTensor:
        kept = self._device.empty(shape, place.dtype)
        self._device.cuda.copy(
            kept.address, place.memory.address, kept.nbytes, self._device.stream
        )
        return kept

    def _download(self, place: Place, shape: tuple[int, ...]) -> None:
        num_bytes = math.prod(shape) * place.dtype.itemsize
        self._device.cuda.download(
            place.pinned.address, place.memory.address, num_bytes, self._device.stream
        )


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
