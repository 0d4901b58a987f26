# SPDX-License-Identifier: Apache-2.0
"""The few calls of CUDA's driver that engines need, on one device, through ctypes.

The driver library is on every machine that can run CUDA at all, so nothing has to be installed;
its primary context is the one that TensorRT and ONNX Runtime use. Knows nothing of tensors.
Never executed on a GPU in this repository: tests hold the calls against a double.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Protocol

from foreseg.engines.local_device import CUDA_LIBRARY, LocalDevice, local_device
from foreseg.errors import EngineError

_STREAM_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1  # what other threads do, such as allocate, does not break a capture
_PORTABLE = 1  # pinned for every context

_POINTER = ctypes.POINTER(ctypes.c_void_p)
_INTEGER = ctypes.POINTER(ctypes.c_int)
_ADDRESS = ctypes.c_uint64
_SIGNATURES: dict[
    str, Sequence[type[ctypes._CDataType]]
] = {  # of what is called; all return a CUresult
    "cuInit": (ctypes.c_uint,),
    "cuDeviceGet": (_INTEGER, ctypes.c_int),
    "cuDevicePrimaryCtxRetain": (_POINTER, ctypes.c_int),
    "cuDevicePrimaryCtxRelease_v2": (ctypes.c_int,),
    "cuCtxSetCurrent": (ctypes.c_void_p,),
    "cuMemAlloc_v2": (ctypes.POINTER(_ADDRESS), ctypes.c_size_t),
    "cuMemFree_v2": (_ADDRESS,),
    "cuMemHostAlloc": (_POINTER, ctypes.c_size_t, ctypes.c_uint),
    "cuMemFreeHost": (ctypes.c_void_p,),
    "cuMemcpyHtoDAsync_v2": (_ADDRESS, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoHAsync_v2": (ctypes.c_void_p, _ADDRESS, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemcpyDtoDAsync_v2": (_ADDRESS, _ADDRESS, ctypes.c_size_t, ctypes.c_void_p),
    "cuMemsetD8Async": (_ADDRESS, ctypes.c_ubyte, ctypes.c_size_t, ctypes.c_void_p),
    "cuStreamCreate": (_POINTER, ctypes.c_uint),
    "cuStreamSynchronize": (ctypes.c_void_p,),
    "cuStreamDestroy_v2": (ctypes.c_void_p,),
    "cuStreamBeginCapture_v2": (ctypes.c_void_p, ctypes.c_int),
    "cuStreamEndCapture": (ctypes.c_void_p, _POINTER),
    "cuGraphInstantiateWithFlags": (_POINTER, ctypes.c_void_p, ctypes.c_ulonglong),
    "cuGraphLaunch": (ctypes.c_void_p, ctypes.c_void_p),
    "cuGraphDestroy": (ctypes.c_void_p,),
    "cuGraphExecDestroy": (ctypes.c_void_p,),
    "cuGetErrorName": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
    "cuGetErrorString": (ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)),
}


class Cuda(Protocol):
    """One device. Addresses, streams and graphs are numbers; every failure is an EngineError."""

    @property
    def device(self) -> LocalDevice:
        """Which one."""

    def make_current(self) -> None:
        """Let the calling thread use the device; the others below need it."""

    def allocate(self, num_bytes: int) -> int:
        """Device memory, aligned to 256 bytes."""

    def free(self, address: int) -> None:
        """Give device memory back."""

    def allocate_pinned(self, num_bytes: int) -> int:
        """Host memory that copies need not stage."""

    def free_pinned(self, address: int) -> None:
        """Give such memory back."""

    def create_stream(self) -> int:
        """A queue of work."""

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""

    def synchronize(self, stream: int) -> None:
        """Wait until the stream is empty."""

    def upload(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queue a copy from the host to the device."""

    def download(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queue a copy from the device to the host."""

    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queue a copy within the device."""

    def clear(self, address: int, num_bytes: int, stream: int) -> None:
        """Queue zeros."""

    def begin_capture(self, stream: int) -> None:
        """Record what is queued from now on instead of executing it."""

    def end_capture(self, stream: int) -> int:
        """Stop recording: a graph that can be launched."""

    def launch(self, graph: int, stream: int) -> None:
        """Queue a graph."""

    def destroy_graph(self, graph: int) -> None:
        """Give a graph back."""

    def close(self) -> None:
        """Let the device go."""


class Library(Protocol):
    """The driver as ctypes shows it: functions by name."""

    def __getattr__(self, name: str) -> ctypes._NamedFuncPointer: ...


class DriverCuda:
    """`Cuda` by the driver's own library.

    Args:
        device: the one that CUDA numbers 0.
        library: the driver.

    Raises:
        EngineError: the device does not start.
    """

    def __init__(self, device: LocalDevice, library: Library) -> None:
        self._device = device
        self._library = library
        self._functions: dict[str, ctypes._NamedFuncPointer] = {}
        self._call("cuInit", 0)
        number = ctypes.c_int()
        self._call("cuDeviceGet", ctypes.byref(number), 0)
        self._number = number.value
        self._context: int | None = self._made("cuDevicePrimaryCtxRetain", self._number)
        self.make_current()

    @property
    def device(self) -> LocalDevice:
        """Which one."""
        return self._device

    def make_current(self) -> None:
        """Bind the primary context to the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, num_bytes: int) -> int:
        """Device memory."""
        address = _ADDRESS()
        self._call("cuMemAlloc_v2", ctypes.byref(address), num_bytes)
        return address.value

    def free(self, address: int) -> None:
        """Give it back."""
        self._call("cuMemFree_v2", address)

    def allocate_pinned(self, num_bytes: int) -> int:
        """Page-locked host memory."""
        return self._made("cuMemHostAlloc", num_bytes, _PORTABLE)

    def free_pinned(self, address: int) -> None:
        """Give it back."""
        self._call("cuMemFreeHost", address)

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""
        return self._made("cuStreamCreate", _STREAM_NON_BLOCKING)

    def destroy_stream(self, stream: int) -> None:
        """Give it back."""
        self._call("cuStreamDestroy_v2", stream)

    def synchronize(self, stream: int) -> None:
        """Wait."""
        self._call("cuStreamSynchronize", stream)

    def upload(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Host to device."""
        self._call("cuMemcpyHtoDAsync_v2", target, source, num_bytes, stream)

    def download(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Device to host."""
        self._call("cuMemcpyDtoHAsync_v2", target, source, num_bytes, stream)

    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Device to device."""
        self._call("cuMemcpyDtoDAsync_v2", target, source, num_bytes, stream)

    def clear(self, address: int, num_bytes: int, stream: int) -> None:
        """Zeros."""
        self._call("cuMemsetD8Async", address, 0, num_bytes, stream)

    def begin_capture(self, stream: int) -> None:
        """Record."""
        self._call("cuStreamBeginCapture_v2", stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self, stream: int) -> int:
        """Stop recording; the recording itself is not kept."""
        recorded = ctypes.c_void_p()
        self._call("cuStreamEndCapture", stream, ctypes.byref(recorded))
        try:
            return self._made("cuGraphInstantiateWithFlags", recorded, 0)
        finally:
            self._call("cuGraphDestroy", recorded)

    def launch(self, graph: int, stream: int) -> None:
        """Queue."""
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        """Give it back."""
        self._call("cuGraphExecDestroy", graph)

    def close(self) -> None:
        """Release the primary context; allowed twice."""
        if self._context is not None:
            self._context = None
            self._call("cuDevicePrimaryCtxRelease_v2", self._number)

    def _made(self, name: str, *arguments: object) -> int:
        """The handle or pointer that a call writes to its first argument."""
        handle = ctypes.c_void_p()
        self._call(name, ctypes.byref(handle), *arguments)
        return handle.value or 0

    def _call(self, name: str, *arguments: object) -> None:
        result = self._function(name)(*arguments)
        if result != 0:
            words = [self._error_text(f, result) for f in ("cuGetErrorName", "cuGetErrorString")]
            msg = f"CUDA's {name} failed with {result}: {' '.join(filter(None, words))}"
            raise EngineError(msg)

    def _error_text(self, name: str, result: int) -> str:
        text = ctypes.c_char_p()
        self._function(name)(result, ctypes.byref(text))
        return (text.value or b"").decode(errors="replace")

    def _function(self, name: str) -> ctypes._NamedFuncPointer:
        if name not in self._functions:
            function: ctypes._NamedFuncPointer = getattr(self._library, name)
            function.argtypes = _SIGNATURES[name]
            function.restype = ctypes.c_int
            self._functions[name] = function
        return self._functions[name]


def open_cuda() -> DriverCuda:
    """The GPU of this machine.

    Raises:
        EngineError: there is none, or its driver does not work.
    """
    device = local_device()
    if device is None:
        msg = f"no CUDA device here, or no driver for it ({CUDA_LIBRARY})"
        raise EngineError(msg)
    return DriverCuda(device, ctypes.CDLL(CUDA_LIBRARY))
