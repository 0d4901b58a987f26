# SPDX-License-Identifier: Apache-2.0
"""A CUDA device's memory as tensors and as a store, and the one stream that all work goes through.

Everything is queued on one stream, in order: a block that is given back may be given out again at
once, and a slot may be overwritten right after a launch that reads it. Knows nothing of engines.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence

import numpy as np

from foreseg.engines.base import Array, DType, Tensor
from foreseg.engines.cuda import Cuda
from foreseg.engines.store import Store, are_consecutive
from foreseg.errors import EngineError

FLOAT32: DType = np.dtype(np.float32)


class _Block:
    """Device memory that goes back to its pool with the last tensor that refers to it."""

    __slots__ = ("_free", "address")

    def __init__(self, address: int, free: list[int]) -> None:
        self.address = address
        self._free = free

    def __del__(self) -> None:
        self._free.append(self.address)  # no call of CUDA: this may run in any thread


class CudaTensor:
    """A `DeviceTensor` in a CUDA device's memory."""

    __slots__ = ("_block", "_device", "_offset", "dtype", "shape")

    def __init__(
        self, device: CudaDevice, block: _Block, offset: int, shape: tuple[int, ...], dtype: DType
    ) -> None:
        self._device = device
        self._block = block
        self._offset = offset  # bytes
        self.shape = shape
        self.dtype = dtype

    @property
    def nbytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def address(self) -> int:
        """Where it lies in the device's memory."""
        return self._block.address + self._offset

    @property
    def device(self) -> CudaDevice:
        """Whose memory it is."""
        return self._device

    def numpy(self) -> Array:
        """A copy on the host; waits for the stream."""
        return self._device.download(self)

    def __getitem__(self, index: int) -> CudaTensor:
        """A part along the first axis, not copied."""
        row = self.rows(index, 1)
        row.shape = self.shape[1:]
        return row

    def rows(self, first: int, count: int) -> CudaTensor:
        """Some neighbours along the first axis, not copied.

        Raises:
            IndexError: beyond the end.
        """
        if not (self.shape and first >= 0 and count > 0 and first + count <= self.shape[0]):
            msg = f"rows {first} to {first + count} of a tensor of shape {self.shape}"
            raise IndexError(msg)
        offset = self._offset + first * (self.nbytes // self.shape[0])
        return CudaTensor(self._device, self._block, offset, (count, *self.shape[1:]), self.dtype)


class PinnedBuffer:
    """Host memory for copies to and from a device; `CudaDevice.pinned` makes it."""

    def __init__(self, address: int, num_bytes: int) -> None:
        self.address = address
        self.num_bytes = num_bytes
        memory = (ctypes.c_ubyte * num_bytes).from_address(self.address)
        self._bytes = np.ctypeslib.as_array(memory)

    def array(self, shape: tuple[int, ...], dtype: DType) -> Array:
        """Its beginning as an array, not copied."""
        part = self._bytes[: math.prod(shape) * dtype.itemsize]
        view: Array = part.view(dtype).reshape(shape)
        return view


class CudaDevice:
    """Tensors on one CUDA device, and its stream. Not thread-safe: one owner at a time.

    Blocks of device memory are kept for reuse, by size: a tracker asks for the same few sizes again
    and again, so after its first frames nothing is allocated.

    Args:
        cuda: the device.
    """

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.stream = cuda.create_stream()
        self._allocated: list[int] = []
        self._free: dict[int, list[int]] = {}  # size -> addresses
        self._pinned: set[int] = set()
        self._landing: PinnedBuffer | None = None  # for downloads
        self._is_closed = False

    @property
    def num_allocated(self) -> int:
        """Blocks of device memory that it holds."""
        return len(self._allocated)

    def enter(self) -> None:
        """Let the calling thread use the device.

        Raises:
            EngineError: it is closed.
        """
        if self._is_closed:
            msg = f"the device {self.cuda.device.name} was closed with its bundle"
            raise EngineError(msg)
        self.cuda.make_current()

    def empty(self, shape: tuple[int, ...], dtype: DType = FLOAT32) -> CudaTensor:
        """A tensor of any content."""
        self.enter()
        num_bytes = max(1, math.prod(shape) * dtype.itemsize)
        free = self._free.setdefault(num_bytes, [])
        if free:
            address = free.pop()
        else:
            address = self.cuda.allocate(num_bytes)
            self._allocated.append(address)
        return CudaTensor(self, _Block(address, free), 0, shape, dtype)

    def copy(self, target: CudaTensor, source: Tensor) -> None:
        """Queue a copy of equal size; from the host it is waited for."""
        self.enter()
        if isinstance(source, CudaTensor):
            self.cuda.copy(target.address, source.address, target.nbytes, self.stream)
            return
        array = np.ascontiguousarray(source if isinstance(source, np.ndarray) else source.numpy())
        self.cuda.upload(target.address, array.ctypes.data, target.nbytes, self.stream)
        self.cuda.synchronize(self.stream)

    def clear(self, target: CudaTensor) -> None:
        """Queue zeros."""
        self.enter()
        self.cuda.clear(target.address, target.nbytes, self.stream)

    def download(self, source: CudaTensor) -> Array:
        """A copy on the host."""
        self.enter()
        landing = self._landing
        if landing is None or landing.num_bytes < source.nbytes:
            if landing is not None:
                self.free_pinned(landing)
            self._landing = landing = self.pinned(source.nbytes)
        self.cuda.download(landing.address, source.address, source.nbytes, self.stream)
        self.cuda.synchronize(self.stream)
        values: Array = landing.array(source.shape, source.dtype).copy()
        return values

    def pinned(self, num_bytes: int) -> PinnedBuffer:
        """Host memory for copies."""
        self.enter()
        buffer = PinnedBuffer(self.cuda.allocate_pinned(num_bytes), num_bytes)
        self._pinned.add(buffer.address)
        return buffer

    def free_pinned(self, buffer: PinnedBuffer) -> None:
        """Give such memory back; its arrays must not be used any more."""
        self.enter()
        self._pinned.remove(buffer.address)
        self.cuda.free_pinned(buffer.address)

    def make_store(self, rows: int, slots: int, shape: tuple[int, ...]) -> Store:
        """Room in the device's memory."""
        return DeviceStore(self, rows, slots, shape)

    def close(self) -> None:
        """Give everything back, tensors in use included; allowed twice."""
        if self._is_closed:
            return
        self.cuda.make_current()
        self._is_closed = True
        self.cuda.synchronize(self.stream)
        for address in self._allocated:
            self.cuda.free(address)
        self._allocated.clear()
        self._free.clear()
        for address in self._pinned:
            self.cuda.free_pinned(address)
        self._pinned.clear()
        self._landing = None
        self.cuda.destroy_stream(self.stream)
        self.cuda.close()


class DeviceStore:
    """A `Store` in a device's memory.

    Args:
        device: where.
        rows: R.
        slots: K.
        shape: of one entry.
    """

    def __init__(self, device: CudaDevice, rows: int, slots: int, shape: tuple[int, ...]) -> None:
        self._device = device
        self._values = device.empty((rows, slots, *shape))
        device.clear(self._values)

    @property
    def num_bytes(self) -> int:
        """Size."""
        return self._values.nbytes

    def write(self, row: int, slot: int, value: Tensor) -> None:
        """Queue a copy into one slot."""
        self._device.copy(self._values[row][slot], value)

    def read(self, rows: Sequence[int]) -> CudaTensor:
        """These rows."""
        if are_consecutive(rows):
            return self._values.rows(rows[0], len(rows))
        gathered = self._device.empty((len(rows), *self._values.shape[1:]))
        for i, row in enumerate(rows):
            self._device.copy(gathered[i], self._values[row])
        return gathered

    def copy(self, source: int, target: int) -> None:
        """Queue a copy of a row."""
        self._device.copy(self._values[target], self._values[source])

    def clear(self, row: int) -> None:
        """Queue zeros for a row."""
        self._device.clear(self._values[row])
