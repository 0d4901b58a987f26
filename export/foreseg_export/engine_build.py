# SPDX-License-Identifier: Apache-2.0
"""Builds a TensorRT engine of a graph: with `tensorrt` 10 or 11, or with `tensorrt_rtx`.

One way for all three: the network is strongly typed, so precision lives in the graph and no
precision flag and no calibrator is touched. Knows nothing of bundles, nor of where engines lie.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from foreseg.engines.base import Dimension, TensorSpec
from foreseg.engines.built import AxisRange
from foreseg.errors import EngineError, InputError
from foreseg_export.tensorrt_api import (
    Builder,
    IBuilderConfig,
    INetworkDefinition,
    ITensor,
    ITimingCache,
    Package,
)

ROWS_AXIS, POINTS_AXIS = "B", "P"

_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
    "UINT8": "uint8",
}
_MAX_QUOTED = 600  # characters of TensorRT's own words

_log = logging.getLogger(__name__)

Progress = Callable[[str, int, int], bool]  # phase, step, steps in it; False: stop


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions:
    """What holds for every piece."""

    axes: Mapping[str, AxisRange]  # of each axis that a graph may name
    workspace_mb: int | None = None  # that a layer may use; None: the device's memory
    optimization_level: int | None = None  # 0 to 5; None: TensorRT's own


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Engine:
    """A built engine, not yet written."""

    content: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: tuple[AxisRange, ...]
    num_layers: int  # before fusion
    build_s: float


class EngineBuilder:
    """Builds engines one after another with one package, for one choice of devices.

    Args:
        package: `tensorrt` or `tensorrt_rtx`.
        devices: compute capabilities. `tensorrt` builds for the local device, and this must be it.
        options: what holds for every piece.

    Raises:
        EngineError: TensorRT does not start, for want of a device or its driver.
        InputError: an option, or a device, that this package has no use for.
    """

    def __init__(self, package: Package, devices: tuple[str, ...], options: BuildOptions) -> None:
        self._package = package
        self._devices = devices
        self._options = options
        self._errors: list[str] = []
        self._logger = _new_logger(package, self._errors)
        try:
            self._builder: Builder = package.Builder(self._logger)
        except (TypeError, RuntimeError) as error:
            msg = f"TensorRT {package.__version__} does not start here: {self._said() or error}"
            raise EngineError(msg) from error
        config = self._builder.create_builder_config()
        self._is_ahead_of_time = hasattr(config, "num_compute_capabilities")
        if self._is_ahead_of_time and options.optimization_level is not None:
            msg = "TensorRT for RTX has no optimization level: leave it out"
            raise InputError(msg)
        self._timing: ITimingCache | None = None  # what one piece measured serves the next

    def build(self, piece: str, graph: bytes, progress: Progress | None = None) -> Engine:
        """Build one engine; takes seconds, or on a small device many minutes.

        Args:
            piece: its name, for messages.
            graph: ONNX, in one file.
            progress: called for every step of the builder; TensorRT swallows what it raises.

        Raises:
            EngineError: the graph is not understood, or no engine can be made of it.
            KeyboardInterrupt: `progress` said so.
        """
        start = time.monotonic()
        self._errors.clear()
        package = self._package
        flags = 1 << int(package.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = self._builder.create_network(flags)
        parser = package.OnnxParser(network, self._logger)
        if not parser.parse(graph):
            errors = [_brief(str(parser.get_error(i))) for i in range(parser.num_errors)]
            said = "; ".join(errors) or self._said()
            msg = f"TensorRT {package.__version__} does not understand {piece!r}: {said}"
            raise EngineError(msg)
        inputs = tuple(_input_spec(piece, t) for t in _all(network.get_input, network.num_inputs))
        config, profile = self._config(piece, inputs)
        outputs = _output_specs(piece, network, inputs)
        monitor = _new_monitor(package, progress or _go_on)
        config.progress_monitor = monitor
        content = self._builder.build_serialized_network(network, config)
        if monitor.was_stopped:
            raise KeyboardInterrupt
        if content is None:
            msg = f"TensorRT {package.__version__} builds no engine of {piece!r}: {self._said()}"
            raise EngineError(msg)
        for error in self._errors:
            _log.warning("TensorRT built %s, and said: %s", piece, error)
        return Engine(
            content=bytes(content),
            inputs=inputs,
            outputs=outputs,
            profile=profile,
            num_layers=network.num_layers,
            build_s=time.monotonic() - start,
        )

    def _config(
        self, piece: str, inputs: tuple[TensorSpec, ...]
    ) -> tuple[IBuilderConfig, tuple[AxisRange, ...]]:
        """How this piece is built, and the ranges of its named axes."""
        config = self._builder.create_builder_config()
        if self._is_ahead_of_time:
            self._set_devices(config)
        else:
            self._time_once(config)
            if self._options.optimization_level is not None:
                config.builder_optimization_level = self._options.optimization_level
        if self._options.workspace_mb is not None:
            pool = self._package.MemoryPoolType.WORKSPACE
            config.set_memory_pool_limit(pool, self._options.workspace_mb << 20)
        axes = {}
        for name in {dim for spec in inputs for dim in spec.shape if isinstance(dim, str)}:
            if name not in self._options.axes:
                msg = (
                    f"{piece!r} has an axis {name!r}; only {sorted(self._options.axes)} are known"
                )
                raise EngineError(msg)
            axes[name] = self._options.axes[name]
        if axes:
            profile = self._builder.create_optimization_profile()
            for spec in inputs:
                if any(isinstance(dim, str) for dim in spec.shape):
                    shapes = [_shape(spec, axes, end) for end in ("min", "opt", "max")]
                    profile.set_shape(spec.name, *shapes)
            if config.add_optimization_profile(profile) < 0:
                msg = f"TensorRT refuses the sizes {axes} of {piece!r}: {self._said()}"
                raise EngineError(msg)
        return config, tuple(axes[name] for name in sorted(axes))

    def _set_devices(self, config: IBuilderConfig) -> None:
        known = self._package.ComputeCapability.__members__
        config.num_compute_capabilities = len(self._devices)
        for i, device in enumerate(self._devices):
            capability = known.get(device.upper())
            if capability is None or not config.set_compute_capability(capability, i):
                names = [name.lower() for name in known if name.startswith("SM")]
                msg = f"TensorRT for RTX {self._package.__version__} builds for {names}, not {device}"
                raise InputError(msg)

    def _time_once(self, config: IBuilderConfig) -> None:
        if self._timing is None:
            self._timing = config.create_timing_cache(b"")
        config.set_timing_cache(self._timing, ignore_mismatch=False)

    def _said(self) -> str:
        """What TensorRT logged as errors."""
        return _brief("; ".join(self._errors)) or "it gives no reason"


def _all(get: Callable[[int], ITensor], count: int) -> list[ITensor]:
    return [get(i) for i in range(count)]


def _input_spec(piece: str, tensor: ITensor) -> TensorSpec:
    shape: list[Dimension] = []
    for i, size in enumerate(tensor.shape):
        if size >= 0:
            shape.append(size)
            continue
        name = tensor.get_dimension_name(i)
        if not name:
            msg = (
                f"{piece!r} has an input {tensor.name!r} whose axis {i} has neither size nor name"
            )
            raise EngineError(msg)
        shape.append(name)
    return TensorSpec(name=tensor.name, shape=tuple(shape), dtype=_dtype(piece, tensor))


def _output_specs(
    piece: str, network: INetworkDefinition, inputs: tuple[TensorSpec, ...]
) -> tuple[TensorSpec, ...]:
    """Of all outputs. TensorRT names no axis of theirs: the first one may be the inputs' rows."""
    has_rows = any(spec.shape[:1] == (ROWS_AXIS,) for spec in inputs)
    specs = []
    for tensor in _all(network.get_output, network.num_outputs):
        first, *others = tensor.shape or (0,)
        if min(others, default=0) < 0 or (first < 0 and not has_rows):
            msg = f"{piece!r} has an output {tensor.name!r} of a size that is not fixed"
            raise EngineError(msg)
        shape: tuple[Dimension, ...] = tuple(tensor.shape)
        if first < 0:
            shape = (ROWS_AXIS, *others)
        specs.append(TensorSpec(name=tensor.name, shape=shape, dtype=_dtype(piece, tensor)))
    return tuple(specs)


def _dtype(piece: str, tensor: ITensor) -> str:
    name = tensor.dtype.name
    if name not in _DTYPES:
        msg = f"{piece!r} has {tensor.name!r} of type {name}: not one of {list(_DTYPES)}"
        raise EngineError(msg)
    return _DTYPES[name]


def _shape(spec: TensorSpec, axes: Mapping[str, AxisRange], end: str) -> tuple[int, ...]:
    return tuple(
        int(getattr(axes[dim], end)) if isinstance(dim, str) else dim for dim in spec.shape
    )


def _brief(text: str) -> str:
    return " ".join(text.split())[:_MAX_QUOTED]


class _Monitor(Protocol):
    was_stopped: bool


def _go_on(phase: str, step: int, steps: int) -> bool:
    del phase, step, steps
    return True


def _new_logger(package: Package, errors: list[str]) -> object:
    """A logger of TensorRT's that keeps errors, and hands warnings to ours."""
    base: Any = package.ILogger

    class Logger(base):
        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (package.ILogger.ERROR, package.ILogger.INTERNAL_ERROR):
                errors.append(message)
            elif severity == package.ILogger.WARNING:
                _log.info("TensorRT: %s", message)

    return Logger()


def _new_monitor(package: Package, progress: Progress) -> _Monitor:
    """A progress monitor of TensorRT's."""
    base: Any = package.IProgressMonitor

    class Monitor(base):
        def __init__(self) -> None:
            base.__init__(self)
            self.was_stopped = False
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            del parent_phase
            self._steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            steps = self._steps.get(phase_name, step + 1)
            self.was_stopped |= not progress(phase_name, step + 1, steps)
            return not self.was_stopped

    monitor: _Monitor = Monitor()
    return monitor
