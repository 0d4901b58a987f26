# SPDX-License-Identifier: Apache-2.0
"""The contract of an engine: named tensors in, named tensors out, checked once at this boundary.

A tensor is a numpy array, or lies where the engine runs and goes to the next engine from there.
Knows nothing of what a graph computes, nor of the file it came from.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import EngineError

Array = (  # the dtype of each tensor stands in its spec
    NDArray[np.float32]
    | NDArray[np.float16]
    | NDArray[np.int32]
    | NDArray[np.int64]
    | NDArray[np.bool_]
    | NDArray[np.uint8]
)
DType: TypeAlias = (  # in quotes: numpy below 1.22 has no types of dtypes at run time
    "np.dtype[np.float32] | np.dtype[np.float16] | np.dtype[np.int32] | np.dtype[np.int64]"
    " | np.dtype[np.bool_] | np.dtype[np.uint8]"
)


class DeviceTensor(Protocol):
    """An array in a device's memory. It stays valid as long as it is referred to."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""

    @property
    def dtype(self) -> DType:
        """Of its elements."""

    @property
    def nbytes(self) -> int:
        """Its size."""

    def numpy(self) -> Array:
        """A copy on the host; waits for what makes the tensor."""

    def __getitem__(self, index: int) -> DeviceTensor:
        """A part along the first axis, not copied."""


Tensor = Array | DeviceTensor
Dimension = int | str  # a name stands for any size; equal names in one call, equal sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, shape and dtype of one input or output."""

    name: str
    shape: tuple[Dimension, ...]
    dtype: str  # as numpy names it

    def __str__(self) -> str:
        return f"{self.name} {_shape_text(self.shape)} {self.dtype}"

    def resolved(self, sizes: Mapping[str, int]) -> tuple[int, ...]:
        """Its shape, with a size for every name.

        Raises:
            EngineError: a name has no size.
        """
        unknown = [dim for dim in self.shape if isinstance(dim, str) and dim not in sizes]
        if unknown:
            msg = f"tensor {self} has sizes that no input tells: {unknown}"
            raise EngineError(msg)
        return tuple(sizes[dim] if isinstance(dim, str) else dim for dim in self.shape)


class Engine(Protocol):
    """A graph that is ready to run. Not thread-safe: one owner at a time."""

    @property
    def name(self) -> str:
        """The piece it is, such as 'decoder'."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What `run` wants."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What `run` returns."""

    @property
    def provider(self) -> str:
        """What executes it, such as 'CPUExecutionProvider'."""

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run once.

        Args:
            inputs: by name; tensors of a device from engines of the same bundle only.
            keep: outputs that may stay where the engine runs; the others are numpy arrays.

        Raises:
            EngineError: wrong names, shapes or dtypes, or the back-end failed.
        """

    def close(self) -> None:
        """Free what it holds; `run` fails afterwards. Closing twice is allowed."""


def check_inputs(
    engine_name: str, specs: tuple[TensorSpec, ...], inputs: Mapping[str, Tensor]
) -> dict[str, int]:
    """Compare tensors with the specs.

    Returns:
        The sizes of the named dimensions.


    Raises:
        EngineError: with what was wanted, and what came.
    """
    names = {spec.name for spec in specs}
    if inputs.keys() != names:
        missing, extra = sorted(names - inputs.keys()), sorted(inputs.keys() - names)
        msg = f"engine {engine_name!r} wants the inputs {sorted(names)}: missing {missing}, unknown {extra}"
        raise EngineError(msg)
    sizes: dict[str, int] = {}
    for spec in specs:
        value = inputs[spec.name]
        if value.dtype != np.dtype(spec.dtype) or not _fits(spec.shape, value.shape, sizes):
            msg = f"engine {engine_name!r} wants {spec}, got {value.shape} {value.dtype}"
            if sizes:
                msg += f" (with {', '.join(f'{k} = {v}' for k, v in sorted(sizes.items()))})"
            raise EngineError(msg)
    return sizes


def check_kept(engine_name: str, specs: tuple[TensorSpec, ...], keep: Collection[str]) -> None:
    """Compare the names of outputs to keep with the specs.

    Raises:
        EngineError: one is unknown.
    """
    names = [spec.name for spec in specs]
    unknown = sorted(set(keep) - set(names))
    if unknown:
        msg = f"engine {engine_name!r} has the outputs {names}: {unknown} cannot be kept"
        raise EngineError(msg)


def on_host(tensor: Tensor) -> Array:
    """The tensor as a numpy array; copied only if it lies elsewhere."""
    return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()


def _fits(wanted: tuple[Dimension, ...], got: tuple[int, ...], sizes: dict[str, int]) -> bool:
    if len(wanted) != len(got):
        return False
    return all(
        size == (sizes.setdefault(dim, size) if isinstance(dim, str) else dim)
        for dim, size in zip(wanted, got, strict=True)
    )


def _shape_text(shape: tuple[Dimension, ...]) -> str:
    inner = ", ".join(str(dim) for dim in shape)
    return f"({inner},)" if len(shape) == 1 else f"({inner})"
