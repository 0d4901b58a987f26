# SPDX-License-Identifier: Apache-2.0
"""Plays frames through the pipeline on a simulated clock, in one thread: for files and evaluation.

The same pipeline as on a robot. Work is really done, but its duration on the simulated clock is
what `Latencies` says: as measured, or given, so that a slow reasoner or another device can be
simulated, and a run with given latencies repeats exactly.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from foreseg.dialogue import AnswerFailed, AnswerPart, FramesWanted, Query, QueryId
from foreseg.driving.executor import Executor, FrameEvictedError, Output
from foreseg.errors import ForesegError
from foreseg.frames import CameraId, FrameIndex, U8Array
from foreseg.history.reduction import reduce_window
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskId,
    AskReasoner,
    Command,
    Event,
    FrameArrived,
    ObjectsAdded,
    PromptStep,
    PublishAnswer,
    PublishMasks,
    QueryAdded,
    QueryRemoved,
    ReasonerChanged,
    ReleaseWindow,
    Reply,
    RequestId,
    RunTracker,
    Tick,
    TrackerFailed,
    TrackerFinished,
    TrackerJob,
    TrackStep,
)
from foreseg.pipeline.observing import is_observing
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.pipeline.tracks import NS
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.reasoner.base import Reasoner
from foreseg.reasoner.exchange import checked_ask
from foreseg.texts import reason_from_error

_log = logging.getLogger(__name__)

TICK_NS = NS // 20  # where only time has to pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Latencies:
    """Durations on the simulated clock; None = as long as the work really took."""

    tracker_ns: int | None = None  # of a step of the tracker's network: a prompt, or one frame
    reasoner_ns: int | None = None  # from question to answer


class StepLog(Protocol):
    """Takes every step of the pipeline: a `TraceWriter`, or a list in memory."""

    def write_step(self, event: Event, commands: tuple[Command, ...]) -> None:
        """One event with the commands it led to."""


class Player:
    """Frames in, masks and answers out; time moves with the frames' stamps."""

    def __init__(
        self,
        state: State,
        executor: Executor,
        output: Output,
        *,
        reasoner: Reasoner | None = None,
        latencies: Latencies | None = None,
        trace: StepLog | None = None,
    ) -> None:
        self._state = state
        self._executor = executor
        self._output = output
        self._reasoner = reasoner
        self._latencies = latencies or Latencies()
        self._trace = trace
        self._now_ns = 0
        self._queue: list[tuple[int, int, Callable[[int], Event]]] = []
        self._sequence = 0
        self._shift_ns = 0  # from stamps to the simulated clock
        self._next_request = 1
        self._replies: dict[RequestId, Reply] = {}
        if reasoner is not None:
            self._take(ReasonerChanged(is_up=True, reason="in process", at_ns=0))

    @property
    def state(self) -> State:
        """The pipeline's state now."""
        return self._state

    @property
    def is_idle(self) -> bool:
        """True if no work is on its way."""
        return not self._queue

    def feed(
        self, camera: CameraId, image: U8Array, stamp_ns: int, frame_id: str = ""
    ) -> FrameIndex | None:
        """Give the next frame, arriving at its stamp; its index, or None if it was refused.

        Time never runs backward: where stamps do (a file that starts anew), or where time has
        run ahead of them (`settle`), frames go on arriving at their distances from now on.
        """
        self._shift_ns = max(self._shift_ns, self._now_ns - stamp_ns)
        self.advance(stamp_ns + self._shift_ns)
        event = self._executor.push(
            camera, image, stamp_ns=stamp_ns, at_ns=self._now_ns, frame_id=frame_id
        )
        self._take(event)
        if isinstance(event, FrameArrived):
            measured = self._executor.measure_scene(event, self._state.queries)
            if measured is not None:
                self._take(measured)
        self._take(Tick(at_ns=self._now_ns))
        self.advance(self._now_ns)
        return event.frame.index if isinstance(event, FrameArrived) else None

    def advance(self, until_ns: int) -> None:
        """Let everything happen that is due by then; a time before now changes nothing."""
        while self._queue and self._queue[0][0] <= until_ns:
            at_ns, _, make = heapq.heappop(self._queue)
            self._now_ns = max(self._now_ns, at_ns)
            self._take(make(self._now_ns))
        self._now_ns = max(self._now_ns, until_ns)

    def settle(self, limit_s: float = 120.0) -> None:
        """Let all work end that is on its way, but no longer than the limit."""
        end_ns = self._now_ns + round(limit_s * NS)
        while self._queue or is_observing(self._state):
            next_ns = self._queue[0][0] if self._queue else self._now_ns + TICK_NS
            if next_ns > end_ns:
                return
            self.advance(next_ns)
            self._take(Tick(at_ns=self._now_ns))

    def ask(self, query: Query) -> RequestId:
        """Add a query; `reply` has the outcome (for a single query: its answer)."""
        request_id = self._request()
        self._take(
            QueryAdded(
                query=query,
                request_id=request_id,
                wants_answer=query.period_s == 0,
                at_ns=self._now_ns,
            )
        )
        return request_id

    def remove_query(self, query_id: QueryId) -> RequestId:
        """Remove a query."""
        request_id = self._request()
        self._take(QueryRemoved(query_id=query_id, request_id=request_id, at_ns=self._now_ns))
        return request_id

    def add_object(
        self,
        camera: CameraId,
        prompt: SpatialPrompt,
        object_id: str = "",
        *,
        frame_index: FrameIndex | None = None,
        frame_stamp_ns: int = 0,
    ) -> RequestId:
        """Point at an object on the newest frame, or on another one by its index and stamp.

        Given before its frame is fed, the object has its mask from that frame on.
        """
        request_id = self._request()
        self._take(
            ObjectsAdded(
                camera=camera,
                frame_index=frame_index,
                frame_stamp_ns=frame_stamp_ns,
                object_ids=(ObjectId(object_id),),
                prompts=(prompt,),
                request_id=request_id,
                at_ns=self._now_ns,
            )
        )
        return request_id

    def reply(self, request_id: RequestId) -> Reply | None:
        """What became of a request, once; None while it is open."""
        return self._replies.pop(request_id, None)

    def _request(self) -> RequestId:
        request_id = RequestId(self._next_request)
        self._next_request += 1
        return request_id

    def _take(self, event: Event) -> None:
        self._state, commands = step(self._state, event)
        if self._trace is not None:
            self._trace.write_step(event, commands)
        for command in commands:
            self._execute(command)

    def _execute(self, command: Command) -> None:
        if isinstance(command, RunTracker):
            self._run_tracker(command)
        elif isinstance(command, AskReasoner):
            self._ask(command)
        elif isinstance(command, ReleaseWindow):
            self._executor.release_window(command.ask_id)
        elif isinstance(command, PublishMasks):
            self._output.publish_masks(self._executor.render(command))
        elif isinstance(command, PublishAnswer):
            self._output.publish_answer(command.answer)
        elif isinstance(command, Reply):
            self._replies[command.request_id] = command

    def _run_tracker(self, command: RunTracker) -> None:
        began = time.perf_counter_ns()
        job_id = command.job.id
        try:
            prepared = self._executor.prepare_job(command.job)
        except FrameEvictedError as error:
            reason = str(error)
            self._post(
                0,
                lambda at: TrackerFailed(job_id=job_id, reason=reason, is_evicted=True, at_ns=at),
            )
            return
        try:
            output = self._executor.run_job(prepared)
        except ForesegError as error:
            reason = str(error)
            self._executor.finish_job(prepared, None)
            self._post(
                0,
                lambda at: TrackerFailed(job_id=job_id, reason=reason, is_evicted=False, at_ns=at),
            )
            return
        self._executor.finish_job(prepared, output)
        took = time.perf_counter_ns() - began
        given = self._latencies.tracker_ns
        elapsed = took if given is None else given * _num_network_steps(command.job)
        self._post(
            elapsed,
            lambda at: TrackerFinished(
                job_id=job_id, results=output.results, elapsed_ns=elapsed, at_ns=at
            ),
        )

    def _ask(self, command: AskReasoner) -> None:
        assert self._reasoner is not None  # noqa: S101 (only an up reasoner is asked)
        began = time.perf_counter_ns()
        for part, after_ns in self._parts(command, self._reasoner, began):
            given = self._latencies.reasoner_ns
            self._post(
                after_ns if given is None else given,
                partial(_part_arrived, command.ask_id, part),
            )

    def _parts(
        self, command: AskReasoner, reasoner: Reasoner, began: int
    ) -> list[tuple[AnswerPart, int]]:
        ask_id, query = command.ask_id, command.query
        parts: list[tuple[AnswerPart, int]] = []
        max_side = self._state.config.reasoner.max_side_px
        window = self._executor.take_window(ask_id, query, reasoner.window_policy)
        taken = self._executor.window_taken(ask_id, window, self._now_ns)
        self._post(0, partial(_as_it_is, taken))
        stream = checked_ask(reasoner, query, reduce_window(window, max_side))
        try:
            part = next(stream)
            while True:
                parts.append((part, time.perf_counter_ns() - began))
                if isinstance(part, FramesWanted):
                    more = self._executor.more_frames(ask_id, part.indices)
                    also = self._executor.window_taken(ask_id, more, self._now_ns)
                    self._post(0, partial(_as_it_is, also))
                    part = stream.send(reduce_window(more, part.side_px or max_side))
                else:
                    part = next(stream)
        except StopIteration:
            return parts
        except (ForesegError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            _log.exception("the reasoner failed on query %r", query.text)
            failed = AnswerFailed(reason=reason_from_error(error))
            return [*parts, (failed, time.perf_counter_ns() - began)]

    def _post(self, after_ns: int, make: Callable[[int], Event]) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self._now_ns + after_ns, self._sequence, make))


def _part_arrived(ask_id: AskId, part: AnswerPart, at_ns: int) -> Event:
    return AnswerPartArrived(ask_id=ask_id, part=part, at_ns=at_ns)


def _as_it_is(event: Event, _at_ns: int) -> Event:
    return event


def _num_network_steps(job: TrackerJob) -> int:
    return sum(isinstance(item, (PromptStep, TrackStep)) for item in job.steps)
