# SPDX-License-Identifier: Apache-2.0
"""Engines that OpenVINO executes, on an Intel or AMD processor; its GPU and NPU were never met.

Models are compiled for fixed shapes alone: with named axes OpenVINO 2026.4 gives our memory
encoder's output the rows of the run before, and crashes in bfloat16. So rows (axis B) go through
in launches of 4, 2 and 1, and those are compiled when the engine opens; another number of points
is compiled when it comes. Knows nothing of which piece is worth running here: `foreseg-export
build --target x86` finds out.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar, cast

import numpy as np

from foreseg.engines.base import (
    Array,
    Tensor,
    TensorSpec,
    check_inputs,
    check_kept,
    on_host,
)
from foreseg.engines.openvino_api import Model, OpenVino, Port, Request, import_openvino
from foreseg.errors import ConfigError, EngineError

PROCESSOR = "CPU"  # as OpenVINO names it
PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}  # ours -> OpenVINO's
LAUNCHES = (4, 2, 1)  # rows, the largest first; four objects cost little less than twice two
MAX_SHAPES = 8  # that are kept compiled
BOX_POINTS = 2  # a box is two points
ROWS, POINTS = "B", "P"

R = TypeVar("R")
_FAILURES = (RuntimeError, ValueError, TypeError)

_log = logging.getLogger(__name__)


class OpenVinoEngine:
    """One ONNX graph in OpenVINO.

    Args:
        name: the piece it is; stands in every error.
        graph: the serialised ONNX model.
        inputs: what the graph takes; OpenVINO forgets the names of axes.
        outputs: what it gives, in the order in which `run` shall give them.
        precision: of the arithmetic, a key of `PRECISIONS`; a graph's int8 products stay int8.
        threads: at least 1.
        device: as OpenVINO names it.

    Raises:
        MissingExtraError: openvino is not installed.
        EngineError: the graph does not load here, or is not what `inputs` and `outputs` say.
    """

    def __init__(
        self,
        name: str,
        graph: bytes,
        *,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        precision: str = "fp32",
        threads: int = 1,
        device: str = PROCESSOR,
    ) -> None:
        if threads < 1 or precision not in PRECISIONS:
            msg = (
                f"an engine of OpenVINO wants at least 1 thread and one of {list(PRECISIONS)},"
                f" got {threads} and {precision!r}"
            )
            raise ConfigError(msg)
        openvino = import_openvino()
        self._name, self._inputs, self._outputs = name, inputs, outputs
        self._device = device
        # After bfloat16 a kernel killed the thread at its next signal, without a word (docs/log.md);
        # signals go to the main thread, so that one lets another work.
        self._aside = ThreadPoolExecutor(1, "openvino") if precision == "bf16" else None
        self._provider = f"OpenVINO {_short(openvino)} {device} {precision}"
        self._config = _config(device, precision, threads)
        self._core = openvino.Core()
        try:
            self._model: Model | None = self._core.read_model(graph)
        except _FAILURES as error:
            msg = f"engine {name!r} does not load in OpenVINO {_short(openvino)}: {_brief(error)}"
            raise EngineError(msg) from error
        _check_ports(name, self._model.inputs, inputs)
        self._order = _check_ports(name, self._model.outputs, outputs)
        self._requests: OrderedDict[tuple[tuple[int, ...], ...], Request] = OrderedDict()
        for sizes in self._usual_sizes():
            self._request({spec.name: spec.resolved(sizes) for spec in inputs})
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
        """OpenVINO's version, the device and the precision."""
        return self._provider

    def run(
        self, inputs: Mapping[str, Tensor], *, keep: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """Run once, in as many launches as the rows need; see `Engine.run`."""
        self._opened()
        sizes = check_inputs(self._name, self._inputs, inputs)
        check_kept(self._name, self._outputs, keep)
        feed: dict[str, Array] = {}
        for name, value in inputs.items():
            feed[name] = cast("Array", np.ascontiguousarray(on_host(value)))
        rows = sizes.get(ROWS)
        if rows is None:
            parts = [self._launch(feed)]
        else:
            parts = [self._launch(self._part(feed, *ends)) for ends in launches(rows)]
        outputs: dict[str, Tensor] = {}
        for i, spec in enumerate(self._outputs):
            values = [part[i] for part in parts]
            joined = values[0]
            if len(values) > 1:
                joined = cast("Array", np.concatenate(values))
            wanted = spec.resolved(sizes)
            if joined.shape != wanted:
                msg = (
                    f"engine {self._name!r} gave {spec.name} {joined.shape} in"
                    f" {self._provider}, not {wanted}"
                )
                raise EngineError(msg)
            outputs[spec.name] = joined
        return outputs

    def close(self) -> None:
        """Free what was compiled."""
        if self._aside is not None:
            self._aside.shutdown()
        self._requests.clear()
        self._model = None

    def _opened(self) -> Model:
        if self._model is None:
            msg = f"engine {self._name!r} is closed"
            raise EngineError(msg)
        return self._model

    def _usual_sizes(self) -> Iterator[dict[str, int]]:
        """What a stream needs, so that nothing is compiled while it runs."""
        names = {dim for spec in self._inputs for dim in spec.shape if isinstance(dim, str)}
        if POINTS in names:  # with all rows a step without a prompt: one point that is none
            yield {ROWS: 1, POINTS: BOX_POINTS}
        for rows in LAUNCHES if ROWS in names else (1,):
            yield {ROWS: rows, POINTS: 1}

    def _part(self, feed: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
        by_row = {spec.name for spec in self._inputs if spec.shape[:1] == (ROWS,)}
        taken: dict[str, Array] = {}
        for name, value in feed.items():
            taken[name] = value[start:stop] if name in by_row else value
        return taken

    def _launch(self, feed: dict[str, Array]) -> list[Array]:
        request = self._request({name: value.shape for name, value in feed.items()})
        try:
            infer = partial(request.infer, feed, share_inputs=True, share_outputs=True)
            values = self._apart(infer)
            return [values[i].copy() for i in self._order]
        except _FAILURES as error:
            msg = f"engine {self._name!r} failed in {self._provider}: {_brief(error)}"
            raise EngineError(msg) from error

    def _apart(self, work: Callable[[], R]) -> R:
        """The work's result; bfloat16 never in the main thread."""
        if self._aside is None or threading.current_thread() is not threading.main_thread():
            return work()
        return self._aside.submit(work).result()

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Request:
        """Compiled for these shapes; the oldest one goes where there are too many."""
        key = tuple(shapes[spec.name] for spec in self._inputs)
        request = self._requests.get(key)
        if request is None:
            try:
                request = self._apart(partial(self._compiled, shapes))
            except _FAILURES as error:
                msg = f"engine {self._name!r} is refused by {self._provider}: {_brief(error)}"
                raise EngineError(msg) from error
            self._requests[key] = request
            if len(self._requests) > MAX_SHAPES:
                self._requests.popitem(last=False)
        self._requests.move_to_end(key)
        return request

    def _compiled(self, shapes: Mapping[str, tuple[int, ...]]) -> Request:
        model = self._opened().clone()
        model.reshape({name: list(shape) for name, shape in shapes.items()})
        return self._core.compile_model(model, self._device, self._config).create_infer_request()


def launches(rows: int) -> Iterator[tuple[int, int]]:
    """First row, and the one after the last, of each launch: as many as still fit each time."""
    start = 0
    while start < rows:
        count = next(size for size in LAUNCHES if size <= rows - start)
        yield start, start + count
        start += count


def _config(device: str, precision: str, threads: int) -> dict[str, str | int | bool]:
    config: dict[str, str | int | bool] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],  # bf16 by itself where there is AMX
    }
    if device == PROCESSOR:
        config["INFERENCE_NUM_THREADS"] = threads
        config["NUM_STREAMS"] = 1
        config["ENABLE_CPU_PINNING"] = False  # the robot's other processes want cores, too
    return config


def _check_ports(
    name: str, ports: Collection[Port], specs: tuple[TensorSpec, ...]
) -> tuple[int, ...]:
    """Compare a model's inputs or outputs with what they should be.

    Returns:
        Where each of `specs` stands among the ports.

    Raises:
        EngineError: names, types or sizes differ.
    """
    places = {port_name: i for i, port in enumerate(ports) for port_name in port.names}
    got = {port_name: port for port in ports for port_name in port.names}
    for spec in specs:
        port = got.get(spec.name)
        fits = port is not None and port.element_type.to_dtype() == np.dtype(spec.dtype)
        if port is None or not fits or not _same_sizes(port, spec):
            msg = f"engine {name!r} should have {spec}, OpenVINO reads {port} of its graph"
            raise EngineError(msg)
    if len(ports) != len(specs):
        msg = f"engine {name!r} should have {[spec.name for spec in specs]}, has {sorted(got)}"
        raise EngineError(msg)
    return tuple(places[spec.name] for spec in specs)


def _same_sizes(port: Port, spec: TensorSpec) -> bool:
    lengths = [length.get_length() if length.is_static else None for length in port.partial_shape]
    return len(lengths) == len(spec.shape) and all(
        length is None or isinstance(dim, str) or length == dim
        for length, dim in zip(lengths, spec.shape, strict=True)
    )


def _short(openvino: OpenVino) -> str:
    return openvino.__version__.partition("-")[0]


def _brief(error: Exception) -> str:
    """OpenVINO's own words, without where in its sources they were said."""
    lines = [line for line in str(error).splitlines() if line and "Exception from" not in line]
    return " ".join(lines)[:600] or str(error)[:600]
