# SPDX-License-Identifier: Apache-2.0
"""The part of OpenVINO that is used here, as types, and its import without its telemetry.

`import openvino` tells Google Analytics that it was imported, unasked, where its package
`openvino-telemetry` is there; here it finds none, and takes its own stub.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Protocol, cast

from foreseg.engines.base import Array, DType
from foreseg.errors import MissingExtraError

_TELEMETRY = "openvino_telemetry"


class Length(Protocol):
    """A dimension of a shape."""

    @property
    def is_static(self) -> bool:
        """False for a named axis."""

    def get_length(self) -> int:
        """If it is static."""


class ElementType(Protocol):
    """Of a tensor."""

    def to_dtype(self) -> DType:
        """As numpy has it."""


class Port(Protocol):
    """An input or output of a model."""

    @property
    def names(self) -> set[str]:
        """As the graph names it."""

    @property
    def partial_shape(self) -> Iterable[Length]:
        """Its dimensions."""

    @property
    def element_type(self) -> ElementType:
        """Of its elements."""


class Model(Protocol):
    """A graph that was read."""

    @property
    def inputs(self) -> Sequence[Port]:
        """In the graph's order."""

    @property
    def outputs(self) -> Sequence[Port]:
        """In the graph's order."""

    def clone(self) -> Model:
        """A copy."""

    def reshape(self, shapes: dict[str, list[int]]) -> None:
        """Fix the shapes of its inputs."""


class Request(Protocol):
    """Room for one run at a time."""

    def infer(
        self, inputs: Mapping[str, Array], *, share_inputs: bool, share_outputs: bool
    ) -> Mapping[int, Array]:
        """The outputs, by their place."""


class Compiled(Protocol):
    """A model for a device."""

    def create_infer_request(self) -> Request:
        """Room for a run."""


class Core(Protocol):
    """OpenVINO's devices."""

    @property
    def available_devices(self) -> list[str]:
        """CPU, GPU, NPU, ..."""

    def get_property(self, device: str, name: str) -> str | list[str]:
        """What a device says of itself."""

    def read_model(self, model: bytes) -> Model:
        """Of a serialised ONNX model."""

    def compile_model(
        self, model: Model, device: str, config: Mapping[str, str | int | bool]
    ) -> Compiled:
        """For one device."""


class OpenVino(Protocol):
    """The module `openvino`."""

    @property
    def __version__(self) -> str:
        """With the build."""

    def Core(self) -> Core:  # noqa: N802 (its name)
        """Its devices."""


def import_openvino() -> OpenVino:
    """The module; nothing is sent.

    Raises:
        MissingExtraError: it is not installed, or its libraries do not load.
    """
    hidden = _TELEMETRY not in sys.modules
    if hidden:
        sys.modules[_TELEMETRY] = cast("ModuleType", None)  # its import fails
    try:
        return cast("OpenVino", importlib.import_module("openvino"))
    except ImportError as error:
        package, extra = "openvino", "openvino"
        raise MissingExtraError(package, extra, "running engines in OpenVINO") from error
    finally:
        if hidden:
            sys.modules.pop(_TELEMETRY, None)


def is_openvino_installed() -> bool:
    """True if the package is there; nothing is imported."""
    return importlib.util.find_spec("openvino") is not None
