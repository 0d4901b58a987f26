# SPDX-License-Identifier: Apache-2.0
"""What runs in a probe's own process: it may crash or hang, and then nobody else does.

Opens one piece on one candidate, holds it against its golden step in launches of every size, then
times it when told to. Answers through a pipe. Needs no torch.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from foreseg.commands.bundle_selftest import SelfTest, self_test
from foreseg.engines.base import Array, Engine
from foreseg.engines.chosen import Candidate
from foreseg.engines.chosen_opening import open_candidate
from foreseg.engines.load import Bundle
from foreseg.engines.manifest import Manifest, Sam2Geometry
from foreseg.engines.openvino import LAUNCHES, PRECISIONS, PROCESSOR
from foreseg.engines.openvino_api import import_openvino
from foreseg.errors import ForesegError
from foreseg.tracker.golden import GoldenStep, check_step

_TINY = 1e-12  # below it a reference is zero


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PieceJob:
    """One piece on one candidate."""

    name: str
    graph: bytes
    candidate: Candidate
    geometry: Sam2Geometry
    threads: int
    step: GoldenStep


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClipJob:
    """All pieces, each on its candidate, tracking the drawn clip."""

    folder: Path
    manifest: Manifest
    graphs: tuple[tuple[str, bytes, Candidate], ...]
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why something does not run here."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What OpenVINO says of one of its devices."""

    device: str
    name: str
    precisions: tuple[str, ...]  # of ours


def serve_piece(pipe: Connection, job: PieceJob) -> None:
    """Send the worst error, or `Refused`; then for each number received the ms of so many runs."""
    try:
        engine = open_candidate(job.name, job.graph, job.candidate, job.geometry, job.threads)
        step = rows_of(engine, job.step, 1)
        pipe.send(max(worst_error(engine, rows_of(engine, job.step, n)) for n in LAUNCHES))
        while (count := pipe.recv()) is not None:
            pipe.send([_timed_ms(engine, step.inputs, job.threads) for _ in range(count)])
    except ForesegError as error:
        pipe.send(Refused(reason=str(error)))
    except EOFError:
        return  # the one who asks has gone


def serve_clip(pipe: Connection, job: ClipJob) -> None:
    """Send a `SelfTest`, or `Refused`."""
    answer: SelfTest | Refused
    try:
        engines = tuple(
            open_candidate(name, graph, candidate, job.manifest.geometry, job.threads)
            for name, graph, candidate in job.graphs
        )
        answer = self_test(Bundle(manifest=job.manifest, engines=engines), job.folder)
    except ForesegError as error:
        answer = Refused(reason=str(error))
    pipe.send(answer)


def serve_devices(pipe: Connection, _: None) -> None:
    """Send the devices that OpenVINO has here, or `Refused`."""
    try:
        core = import_openvino().Core()
    except ForesegError as error:
        pipe.send(Refused(reason=str(error)))
        return
    found = []
    for device in core.available_devices:
        has = {str(word) for word in core.get_property(device, "OPTIMIZATION_CAPABILITIES")}
        precisions = tuple(ours for ours in PRECISIONS if ours.upper() in has)
        if device == PROCESSOR and "bf16" in precisions:
            precisions = tuple(p for p in precisions if p != "fp16")  # slower than either here
        name = str(core.get_property(device, "FULL_DEVICE_NAME"))
        found.append(Device(device=device, name=name, precisions=precisions))
    pipe.send(tuple(found))


def rows_of(engine: Engine, step: GoldenStep, rows: int) -> GoldenStep:
    """A step with so many rows; those that it has come again and again."""
    by_row = {spec.name for spec in (*engine.inputs, *engine.outputs) if spec.shape[:1] == ("B",)}
    inputs: Mapping[str, Array] = {
        name: _repeated(value, rows) if name in by_row else value
        for name, value in step.inputs.items()
    }
    outputs = {
        name: value[np.arange(rows) % len(value)] if name in by_row else value
        for name, value in step.outputs.items()
    }
    return replace(step, inputs=inputs, outputs=outputs)


def worst_error(engine: Engine, step: GoldenStep) -> float:
    """RMS of the difference of the worst output over the RMS of its reference; may be infinite.

    Raises:
        EngineError: the engine takes or gives other tensors.
    """
    shares = [o.rms / max(o.reference_rms, _TINY) for o in check_step(engine, step)]
    return max(share if np.isfinite(share) else float("inf") for share in shares)


def _repeated(value: Array, rows: int) -> Array:
    repeated: Array = value[np.arange(rows) % len(value)]
    return repeated


def _timed_ms(engine: Engine, inputs: Mapping[str, Array], threads: int) -> float:
    """With one thread the processor's time, which neighbours hardly change, else the clock's."""
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    start = clock()
    engine.run(inputs)
    return (clock() - start) / 1e6
