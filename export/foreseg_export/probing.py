# SPDX-License-Identifier: Apache-2.0
"""Tries candidates for a piece side by side, each in a process of its own, every wait bounded.

Knows nothing of bundles, nor of what is made of the findings.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from statistics import median
from typing import TypeVar

from foreseg.commands.bundle_selftest import SelfTest
from foreseg.engines.chosen import Candidate, Tried
from foreseg_export.probe_child import (
    ClipJob,
    Device,
    PieceJob,
    Refused,
    serve_clip,
    serve_devices,
    serve_piece,
)

ANSWER_S = 600.0  # to open a piece and hold it against its golden step, on a slow machine
END_S = 5.0  # for a process to end by itself
WARM_UP, ROUNDS = 2, 10
TURN_MS = 60.0  # of a candidate before it is another's turn
MAX_RUNS = 5  # in a turn
# RMS of the worst output over the reference's; the drawn clip judges finer, and the whole
LIMITS: Mapping[str, float] = {"fp32": 0.005, "bf16": 0.05, "fp16": 0.05}
INT8_LIMIT = 0.2

_Job = TypeVar("_Job", PieceJob, ClipJob, None)
_Serve = Callable[[Connection, _Job], None]


@dataclass(slots=True, eq=False)
class _Child:
    """A probe's process, and the pipe to it."""

    process: BaseProcess
    pipe: Connection

    def ask(self, number: int | None) -> Refused | None:
        """Send a number; what is wrong, if the process is gone."""
        try:
            self.pipe.send(number)
        except OSError:
            return Refused(reason=self._end())
        return None

    def answer(self) -> object:
        """Its next answer, or `Refused` if it crashed or says nothing."""
        if not self.pipe.poll(ANSWER_S):
            return Refused(reason=f"gave no answer within {ANSWER_S:g} s")
        try:
            answer: object = self.pipe.recv()
        except (EOFError, OSError):
            return Refused(reason=self._end())
        return answer

    def _end(self) -> str:
        self.process.join(END_S)
        code = self.process.exitcode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):  # a signal without a name
                return f"crashed: {signal.Signals(-code).name}"
        return f"ended with exit code {code}"


def find_devices() -> tuple[Device, ...] | Refused:
    """What OpenVINO can use here."""
    with _started(serve_devices, None) as child:
        answer = child.answer()
    if isinstance(answer, tuple):
        return answer
    return answer if isinstance(answer, Refused) else Refused(reason=f"said {answer!r:.60}")


def try_clip(job: ClipJob) -> SelfTest | Refused:
    """Track the drawn clip with these engines."""
    with _started(serve_clip, job) as child:
        answer = child.answer()
    if isinstance(answer, (SelfTest, Refused)):
        return answer
    return Refused(reason=f"said {answer!r:.60}")


def try_piece(jobs: Sequence[PieceJob]) -> tuple[Tried, ...]:
    """Time every candidate of a piece, in turns, so that all meet the same load of the machine."""
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(_started(serve_piece, job)) for job in jobs]
        first = [child.answer() for child in children]
        times: list[list[float]] = [[] for _ in jobs]
        refusals = [
            _refusal(job.candidate, answer) for job, answer in zip(jobs, first, strict=True)
        ]
        runs = [WARM_UP] * len(jobs)
        for turn in range(ROUNDS + 1):
            for i, child in enumerate(children):
                if refusals[i]:
                    continue
                answer = child.ask(runs[i]) or child.answer()
                if not isinstance(answer, list):
                    refusals[i] = answer.reason if isinstance(answer, Refused) else "said nonsense"
                    continue
                if turn:
                    times[i] += answer
                else:
                    runs[i] = max(1, min(MAX_RUNS, int(TURN_MS / max(median(answer), 0.01))))
        for child in children:
            child.ask(None)
    return tuple(
        Tried(
            candidate=job.candidate,
            ms=round(median(taken), 3) if taken else None,
            worst_error=answer if isinstance(answer, float) and answer < float("inf") else None,
            refusal=refusal,
        )
        for job, answer, taken, refusal in zip(jobs, first, times, refusals, strict=True)
    )


def _refusal(candidate: Candidate, answer: object) -> str:
    """Why a candidate is not even timed; "" if it is."""
    if isinstance(answer, Refused):
        return answer.reason
    if not isinstance(answer, float):
        return f"said {answer!r:.60}"
    limit = INT8_LIMIT if candidate.is_int8 else LIMITS[candidate.precision]
    if answer > limit:
        return f"computes it wrongly: off by {answer:.3g} of the reference, {limit:g} is allowed"
    return ""


@contextlib.contextmanager
def _started(serve: _Serve[_Job], job: _Job) -> Iterator[_Child]:
    """A process that serves a job, and is gone afterwards whatever happens."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()
    try:
        yield _Child(process=process, pipe=ours)
    finally:
        ours.close()
        process.join(END_S)
        if process.is_alive():
            process.kill()
            process.join()
