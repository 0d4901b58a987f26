# SPDX-License-Identifier: Apache-2.0
"""The part of TensorRT's Python API that builds engines, as types, and how the package is opened.

`tensorrt` 10, `tensorrt` 11 and `tensorrt_rtx` ship no annotations and agree in these names, but
for compute capabilities, which only `tensorrt_rtx` has. A test holds these types against the
packages that are installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import Protocol, SupportsInt, cast

from foreseg.errors import InputError

PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}  # flavour -> import


class DataType(Protocol):
    """Of a tensor's elements."""

    name: str  # such as FLOAT


class ITensor(Protocol):
    """A tensor of a network."""

    name: str
    shape: Sequence[int]  # -1: any
    dtype: DataType

    def get_dimension_name(self, index: int) -> str:
        """The name of an axis of an input; empty if the graph gives none."""


class INetworkDefinition(Protocol):
    """A network of layers."""

    num_inputs: int
    num_outputs: int
    num_layers: int

    def get_input(self, index: int) -> ITensor:
        """An input."""

    def get_output(self, index: int) -> ITensor:
        """An output."""


class OnnxParser(Protocol):
    """Fills a network with the layers of a graph."""

    num_errors: int

    def parse(self, model: bytes) -> bool:
        """False: see the errors."""

    def get_error(self, index: int) -> object:
        """One error; its text says all."""


class IOptimizationProfile(Protocol):
    """Ranges of the axes that are not fixed."""

    def set_shape(
        self, name: str, smallest: Sequence[int], tuned: Sequence[int], largest: Sequence[int]
    ) -> None:
        """Of one input; `set_shape_input` is for another kind."""


class ITimingCache(Protocol):
    """Times of kernels, measured on this device by this version."""


class IBuilderConfig(Protocol):
    """How an engine is built.

    In TensorRT for RTX timing caches and the optimisation level do nothing; compute capabilities
    are there only.
    """

    progress_monitor: object
    builder_optimization_level: int
    num_compute_capabilities: int

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        """Its number; -1 if it is refused."""

    def set_memory_pool_limit(self, pool: object, pool_size: int) -> None:
        """Bytes that a build may use."""

    def create_timing_cache(self, serialized: bytes) -> ITimingCache:
        """A new one if `serialized` is empty."""

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:  # noqa: FBT001
        """Use it, and add to it."""

    def set_compute_capability(self, capability: object, index: int) -> bool:
        """False if it is refused."""


class Builder(Protocol):
    """Builds engines of networks."""

    def create_network(self, flags: int) -> INetworkDefinition:
        """An empty network."""

    def create_optimization_profile(self) -> IOptimizationProfile:
        """An empty profile."""

    def create_builder_config(self) -> IBuilderConfig:
        """The defaults."""

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> bytes | None:
        """A buffer with the engine; None if it failed, for reasons that the logger got."""


class CreationFlags(Protocol):
    """Flags of a network, as numbers of bits."""

    STRONGLY_TYPED: SupportsInt


class MemoryPools(Protocol):
    """What a build may be limited in."""

    WORKSPACE: object


class ComputeCapabilities(Protocol):
    """`SM80` and its like, in `tensorrt_rtx`."""

    __members__: Mapping[str, object]


class Severities(Protocol):
    """Of what a logger gets; itself the base of loggers."""

    INTERNAL_ERROR: object
    ERROR: object
    WARNING: object


class Package(Protocol):
    """What is used of the package itself."""

    __version__: str
    ILogger: Severities
    IProgressMonitor: type
    NetworkDefinitionCreationFlag: CreationFlags
    MemoryPoolType: MemoryPools
    ComputeCapability: ComputeCapabilities  # of `tensorrt_rtx` only

    def Builder(self, logger: object) -> Builder:  # noqa: N802 (TensorRT's name)
        """Fails with a TypeError where there is no device, but in TensorRT for RTX."""

    def OnnxParser(self, network: INetworkDefinition, logger: object) -> OnnxParser:  # noqa: N802
        """A parser that fills this network."""


def is_installed(flavour: str) -> bool:
    """True if the package is there, whether or not it can be imported."""
    return importlib.util.find_spec(PACKAGES[flavour]) is not None


def open_package(flavour: str) -> Package:
    """Import a flavour of TensorRT.

    Raises:
        InputError: it is not installed, does not load, or is too old.
    """
    name = PACKAGES[flavour]
    try:
        package = importlib.import_module(name)
    except (ImportError, OSError) as error:
        msg = f"building engines of {flavour!r} needs the Python package {name!r}: {error}"
        raise InputError(msg) from error
    if not hasattr(getattr(package, "NetworkDefinitionCreationFlag", None), "STRONGLY_TYPED"):
        version = getattr(package, "__version__", "of no known version")
        msg = f"building engines needs TensorRT 10 or newer, {name!r} here is {version}"
        raise InputError(msg)
    return cast("Package", package)
