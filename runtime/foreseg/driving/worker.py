# SPDX-License-Identifier: Apache-2.0
"""The threads: one loop owns all state; a tracker thread and a reasoner connection post to it.

Callbacks of any thread hand frames and requests over through a bounded inbox and never wait.
Knows nothing of ROS: a node, a command line or a test gives it an `Output`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from foreseg.clock import Clock, SystemClock
from foreseg.config import Config
from foreseg.dialogue import AnswerFailed, FramesWanted, Query, QueryId
from foreseg.driving.executor import Executor, FrameEvictedError, JobOutput, Output, PreparedJob
from foreseg.driving.inbox import Inbox, WaitingFrame
from foreseg.driving.machine import Machine, this_machine
from foreseg.driving.trace import TraceWriter
from foreseg.errors import ForesegError, InputError
from foreseg.frames import CameraId, U8Array
from foreseg.history.reduction import reduce_window
from foreseg.history.windows import WindowPolicy
from foreseg.pipeline.degradation import Ladder, MachineReadings
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskId,
    AskReasoner,
    CancelAsk,
    Command,
    EnableSet,
    Event,
    FrameArrived,
    FrameDropped,
    MachineRead,
    ObjectRemoved,
    ObjectsAdded,
    PublishAnswer,
    PublishMasks,
    QueryAdded,
    QueryRemoved,
    ReasonerChanged,
    ReleaseWindow,
    Reply,
    RequestId,
    ResetRequested,
    RunTracker,
    Tick,
    TrackerFailed,
    TrackerFinished,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.messages import (
    AskMessage,
    CancelMessage,
    Died,
    MoreFrames,
    PartMessage,
    Ready,
)
from foreseg.reasoner.process import ProcessSettings, ReasonerProcess
from foreseg.reasoner.restart import RestartPolicy
from foreseg.telemetry import DropCause, LatencySummary, StageTimer

_log = logging.getLogger(__name__)

TICK_S = 0.05
POLL_S = 0.02
MACHINE_PERIOD_NS = 1_000_000_000  # between two looks at memory and heat

ReplyCallback = Callable[[Reply], None]


def _tell_rung(ladder: Ladder) -> None:
    what = ladder.rung.name.lower().replace("_", " ")
    _log.warning("the machine: %s%s", what, f" ({ladder.reason})" if ladder.reason else "")


def _machine_read(readings: MachineReadings, at_ns: int) -> Event:
    return MachineRead(readings=readings, at_ns=at_ns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _JobEnded:
    prepared: PreparedJob
    output: JobOutput | None
    reason: str
    elapsed_ns: int


_Message = _JobEnded | Ready | PartMessage | Died | Callable[[int], Event]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How the worker is, for diagnostics; array-free."""

    state: State
    received_to_published: LatencySummary  # monotonic, frame handed over -> masks handed out
    num_messages_dropped: int
    reasoner_pid: int | None
    failure: str  # the last error of the loop itself, "" if none


class Worker:
    """Runs the pipeline in real time. `start`, hand things over from any thread, `stop`."""

    def __init__(
        self,
        config: Config,
        cameras: Sequence[CameraId],
        executor: Executor,
        output: Output,
        *,
        clock: Clock | None = None,
        trace: TraceWriter | None = None,
        reasoner_options: Mapping[str, str | int | float | bool] | None = None,
        machine: Machine | None = None,
    ) -> None:
        self._config = config
        self._state = State.start(config, tuple(cameras))
        self._executor = executor
        self._output = output
        self._clock = clock or SystemClock()
        self._trace = trace
        self._machine = machine or this_machine()
        self._cameras = frozenset(cameras)
        self._inbox: Inbox[_Message] = Inbox()
        self._own: deque[Event] = deque()  # what the loop says to itself
        self._jobs: queue.Queue[PreparedJob | None] = queue.Queue(maxsize=1)
        self._outbox: queue.Queue[AskMessage | MoreFrames | CancelMessage] = queue.Queue(64)
        self._replies: dict[RequestId, ReplyCallback] = {}
        self._next_request = 1
        self._request_lock = threading.Lock()
        self._stopping = threading.Event()
        self._timer = StageTimer()
        self._failure = ""
        self._policy: WindowPolicy | None = None  # the reasoner's, once it is ready
        self._waiting: AskMessage | None = None  # until the process is done with a cancelled one
        self._process = ReasonerProcess(
            ReasonerSpec(
                kind=config.reasoner.kind,
                options=dict(reasoner_options or {}),
                calibration=config.reasoner.calibration,
            ),
            ProcessSettings(
                start_timeout_s=config.reasoner.start_timeout_s,
                nice=config.reasoner.nice,
                num_threads=config.reasoner.threads,
                max_memory_mb=config.reasoner.max_memory_mb,
            ),
        )
        self._threads = [
            threading.Thread(target=target, name=f"foreseg-{name}", daemon=True)
            for name, target in (
                ("loop", self._run_loop),
                ("tracker", self._run_tracker),
                ("reasoner", self._run_reasoner),
            )
        ]

    # ---- for any thread ----

    def start(self) -> None:
        """Start the threads and the reasoner's process."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop threads and process, and wait for them; open requests are refused."""
        self._stopping.set()
        self._inbox.close()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(timeout_s)
        self._process.stop()
        with self._request_lock:
            left, self._replies = self._replies, {}
        for request_id, callback in left.items():
            callback(Reply(request_id=request_id, success=False, message="foreseg stopped"))
        if self._trace is not None:
            self._trace.close()
        if any(thread.is_alive() for thread in self._threads):
            _log.error("a thread did not end within %.1f s", timeout_s)

    def submit_frame(
        self, camera: CameraId, image: U8Array, stamp_ns: int, frame_id: str = ""
    ) -> None:
        """Hand a frame over; `image` must not change afterwards. Never waits.

        Raises:
            InputError: unknown camera.
        """
        if camera not in self._cameras:
            msg = f"no camera {camera!r}; cameras are {', '.join(sorted(self._cameras))}"
            raise InputError(msg)
        frame = WaitingFrame(
            camera=camera,
            image=image,
            stamp_ns=stamp_ns,
            frame_id=frame_id,
            received_ns=self._clock.monotonic_ns(),
        )
        for _ in range(self._inbox.put_frame(frame)):
            self.drop_frame(camera, DropCause.INBOX_FULL)

    def drop_frame(self, camera: CameraId, cause: DropCause) -> None:
        """Count a frame that was refused before it could be handed over."""
        self._inbox.offer(lambda at: FrameDropped(camera=camera, cause=cause, at_ns=at))

    def ask(
        self, query: Query, on_reply: ReplyCallback, *, wants_answer: bool, timeout_s: float = 0.0
    ) -> None:
        """Add a query; the callback gets the answer, or with `wants_answer` off the acceptance."""
        self._request(
            lambda request_id, at: QueryAdded(
                query=query,
                request_id=request_id,
                wants_answer=wants_answer,
                timeout_s=timeout_s,
                at_ns=at,
            ),
            on_reply,
        )

    def remove_query(self, query_id: QueryId, on_reply: ReplyCallback) -> None:
        """Remove a query."""
        self._request(
            lambda request_id, at: QueryRemoved(
                query_id=query_id, request_id=request_id, at_ns=at
            ),
            on_reply,
        )

    def add_objects(
        self,
        camera: CameraId,
        prompts: Sequence[tuple[ObjectId, SpatialPrompt]],
        on_reply: ReplyCallback,
        *,
        stamp_ns: int = 0,
    ) -> None:
        """Prompt objects on the frame with this stamp (0 = the newest)."""

        def make(request_id: RequestId, at: int) -> Event:
            try:
                frame = self._executor.find_frame(camera, stamp_ns) if stamp_ns else None
                basis = frame or self._executor.newest_frame(camera)
                if stamp_ns and frame is None:
                    msg = f"no frame of {camera!r} with the stamp {stamp_ns} ns is at hand"
                    raise InputError(msg)  # noqa: TRY301 (refused like a bad prompt)
                fitted = tuple(prompt.checked(basis.size_wh) for _, prompt in prompts)
            except InputError as error:
                self._complete(Reply(request_id=request_id, success=False, message=str(error)))
                return Tick(at_ns=at)
            return ObjectsAdded(
                camera=camera,
                frame_index=None if frame is None else frame.index,
                frame_stamp_ns=basis.stamp_ns,
                object_ids=tuple(object_id for object_id, _ in prompts),
                prompts=fitted,
                request_id=request_id,
                at_ns=at,
            )

        self._request(make, on_reply)

    def remove_object(self, object_id: ObjectId, on_reply: ReplyCallback) -> None:
        """Drop an object."""
        self._request(
            lambda request_id, at: ObjectRemoved(
                object_id=object_id, request_id=request_id, at_ns=at
            ),
            on_reply,
        )

    def reset(self, on_reply: ReplyCallback) -> None:
        """Forget all tracks."""
        self._request(
            lambda request_id, at: ResetRequested(request_id=request_id, at_ns=at), on_reply
        )

    def enable(self, enabled: bool, on_reply: ReplyCallback) -> None:  # noqa: FBT001
        """Go on or pause."""
        self._request(
            lambda request_id, at: EnableSet(enabled=enabled, request_id=request_id, at_ns=at),
            on_reply,
        )

    def snapshot(self) -> Snapshot:
        """How it is now."""
        return Snapshot(
            state=self._state,
            received_to_published=self._timer.summary(),
            num_messages_dropped=self._inbox.num_refused,
            reasoner_pid=self._process.pid,
            failure=self._failure,
        )

    def _request(self, make: Callable[[RequestId, int], Event], on_reply: ReplyCallback) -> None:
        with self._request_lock:
            request_id = RequestId(self._next_request)
            self._next_request += 1
            self._replies[request_id] = on_reply
        if self._stopping.is_set() or not self._inbox.offer(lambda at: make(request_id, at)):
            message = (
                "foreseg is stopping" if self._stopping.is_set() else "too many requests wait"
            )
            self._complete(Reply(request_id=request_id, success=False, message=message))

    # ---- the loop's thread ----

    def _run_loop(self) -> None:
        next_tick_ns = 0
        while not self._stopping.is_set():
            try:
                next_tick_ns = self._turn(next_tick_ns)
            except Exception as error:  # noqa: BLE001 (the thread's outermost frame)
                self._note(error)
        self._jobs.put(None)

    def _turn(self, next_tick_ns: int) -> int:
        """One message, and a tick if it is time; returns when the next one is due."""
        message = self._inbox.take(TICK_S)
        if message is not None:
            self._handle(message)
        now = self._clock.monotonic_ns()
        if now < next_tick_ns:
            return next_tick_ns
        self._step(Tick(at_ns=now))
        return now + round(TICK_S * 1e9)

    def _note(self, error: Exception) -> None:
        self._failure = f"{type(error).__name__}: {error}"
        _log.error("the loop goes on after an error", exc_info=error)

    def _handle(self, message: _Message | WaitingFrame) -> None:
        if isinstance(message, WaitingFrame):
            self._handle_frame(message)
        elif isinstance(message, _JobEnded):
            self._handle_job(message)
        elif isinstance(message, Ready):
            self._policy = message.window_policy
            now = self._clock.monotonic_ns()
            self._step(ReasonerChanged(is_up=True, reason=message.kind, at_ns=now))
        elif isinstance(message, Died):
            now = self._clock.monotonic_ns()
            self._step(ReasonerChanged(is_up=False, reason=message.reason, at_ns=now))
        elif isinstance(message, PartMessage):
            self._handle_part(message)
        else:
            self._step(message(self._clock.monotonic_ns()))

    def _handle_frame(self, frame: WaitingFrame) -> None:
        if not self._state.enabled:
            cause = DropCause.DISABLED
            self._step(FrameDropped(camera=frame.camera, cause=cause, at_ns=frame.received_ns))
            return
        event = self._executor.push(
            frame.camera,
            frame.image,
            stamp_ns=frame.stamp_ns,
            at_ns=frame.received_ns,
            frame_id=frame.frame_id,
        )
        self._step(event)
        if isinstance(event, FrameArrived):
            measured = self._executor.measure_scene(event, self._state.queries)
            if measured is not None:
                self._step(measured)

    def _handle_job(self, ended: _JobEnded) -> None:
        self._executor.finish_job(ended.prepared, ended.output)
        job_id, now = ended.prepared.job.id, self._clock.monotonic_ns()
        if ended.output is None:
            self._step(
                TrackerFailed(job_id=job_id, reason=ended.reason, is_evicted=False, at_ns=now)
            )
            return
        self._step(
            TrackerFinished(
                job_id=job_id,
                results=ended.output.results,
                elapsed_ns=ended.elapsed_ns,
                at_ns=now,
            )
        )

    def _handle_part(self, message: PartMessage) -> None:
        ask_id, now = AskId(message.ask_id), self._clock.monotonic_ns()
        self._step(AnswerPartArrived(ask_id=ask_id, part=message.part, at_ns=now))
        asking = self._state.asking
        is_current = asking is not None and asking.ask_id == ask_id
        if isinstance(message.part, FramesWanted) and is_current:
            window = self._executor.more_frames(ask_id, message.part.indices)
            self._step(self._executor.window_taken(ask_id, window, now))
            self._send(MoreFrames(ask_id=ask_id, window=window))

    def _step(self, event: Event) -> None:
        """Take an event, and those that carrying out its commands leads to at once."""
        self._own.append(event)
        while self._own:
            event = self._own.popleft()
            before = self._state.ladder.rung
            self._state, commands = step(self._state, event)
            if self._state.ladder.rung is not before:
                _tell_rung(self._state.ladder)
            if self._trace is not None:
                self._trace.write_step(event, commands)
            for command in commands:
                self._execute_safely(command)

    def _execute_safely(self, command: Command) -> None:
        """What fails in one command, such as an output, must not keep the others from their end."""
        try:
            self._execute(command)
        except Exception as error:  # noqa: BLE001 (an output's or callback's)
            self._note(error)
            reason, now = f"{type(error).__name__}: {error}", self._clock.monotonic_ns()
            if isinstance(command, RunTracker):
                self._own.append(
                    TrackerFailed(
                        job_id=command.job.id, reason=reason, is_evicted=False, at_ns=now
                    )
                )
            elif isinstance(command, AskReasoner):
                part = AnswerFailed(reason=reason)
                self._own.append(AnswerPartArrived(ask_id=command.ask_id, part=part, at_ns=now))

    def _execute(self, command: Command) -> None:
        if isinstance(command, RunTracker):
            self._execute_job(command)
        elif isinstance(command, AskReasoner):
            self._execute_ask(command)
        elif isinstance(command, CancelAsk):
            self._send(CancelMessage(ask_id=command.ask_id))
        elif isinstance(command, ReleaseWindow):
            self._executor.release_window(command.ask_id)
        elif isinstance(command, PublishMasks):
            self._output.publish_masks(self._executor.render(command))
            took_ns = self._clock.monotonic_ns() - command.frame.received_ns
            self._timer.add(took_ns)
        elif isinstance(command, PublishAnswer):
            self._output.publish_answer(command.answer)
        elif isinstance(command, Reply):
            self._complete(command)

    def _execute_job(self, command: RunTracker) -> None:
        job_id = command.job.id
        try:
            prepared = self._executor.prepare_job(command.job)
        except FrameEvictedError as error:
            now = self._clock.monotonic_ns()
            self._own.append(
                TrackerFailed(job_id=job_id, reason=str(error), is_evicted=True, at_ns=now)
            )
            return
        self._jobs.put(prepared)  # never waits: the pipeline has one job at a time

    def _execute_ask(self, command: AskReasoner) -> None:
        ask_id, now = command.ask_id, self._clock.monotonic_ns()
        assert self._policy is not None  # noqa: S101 (`Ready` sets it before anything is asked)
        window = self._executor.take_window(ask_id, command.query, self._policy)
        self._own.append(self._executor.window_taken(ask_id, window, now))
        self._send(AskMessage(ask_id=ask_id, query=command.query, window=window))

    def _send(self, message: AskMessage | MoreFrames | CancelMessage) -> None:
        try:
            self._outbox.put_nowait(message)
        except queue.Full:
            part = AnswerFailed(reason="the connection to the reasoner is full")
            ask_id, now = AskId(message.ask_id), self._clock.monotonic_ns()
            self._own.append(AnswerPartArrived(ask_id=ask_id, part=part, at_ns=now))

    def _complete(self, reply: Reply) -> None:
        with self._request_lock:
            callback = self._replies.pop(reply.request_id, None)
        if callback is not None:
            callback(reply)

    # ---- the tracker's thread ----

    def _run_tracker(self) -> None:
        while True:
            prepared = self._jobs.get()
            if prepared is None:
                return
            began = self._clock.monotonic_ns()
            output, reason = None, ""
            try:
                output = self._executor.run_job(prepared)
            except ForesegError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 (the thread's outermost frame)
                reason = f"{type(error).__name__}: {error}"
                _log.exception("a tracker job failed")
            elapsed_ns = self._clock.monotonic_ns() - began
            self._inbox.put(
                _JobEnded(prepared=prepared, output=output, reason=reason, elapsed_ns=elapsed_ns)
            )

    # ---- the reasoner connection's thread ----

    def _run_reasoner(self) -> None:
        restart = RestartPolicy()
        ready_ns: int | None = None
        start_ns: int | None = self._clock.monotonic_ns()
        message: Ready | PartMessage | Died | None
        look_ns = self._clock.monotonic_ns()
        while not self._stopping.is_set():
            now = self._clock.monotonic_ns()
            if now >= look_ns:
                look_ns = now + MACHINE_PERIOD_NS
                readings = self._machine.read()
                self._inbox.put(partial(_machine_read, readings))
            if start_ns is not None and now >= start_ns:
                start_ns = None
                message = self._start_process()
            else:
                self._forward()
                message = self._process.receive(POLL_S)
                if message is None and self._process.pid is None:
                    self._stopping.wait(POLL_S)
            if isinstance(message, Ready):
                ready_ns = now
            elif isinstance(message, Died):
                _log.warning("the reasoner process is gone: %s", message.reason)
                restart = restart.after_death(ready_ns=ready_ns, died_ns=now)
                ready_ns, self._waiting = None, None
                start_ns = now + restart.wait_ns if message.can_restart else None
            if message is not None:
                self._inbox.put(message)

    def _start_process(self) -> Died | None:
        try:
            self._process.start()
        except ForesegError as error:
            return Died(reason=str(error), can_restart=False)
        return None

    def _forward(self) -> None:
        """Pass on what the loop wants said; an asking waits until a cancelled one has ended."""
        while True:
            try:
                message = self._outbox.get_nowait()
            except queue.Empty:
                break
            if isinstance(message, CancelMessage):
                if self._waiting is not None and self._waiting.ask_id == message.ask_id:
                    self._waiting = None
                    continue
            else:
                window = reduce_window(message.window, self._config.reasoner.max_side_px)
                message = replace(message, window=window)
            if not self._process.send(message) and isinstance(message, AskMessage):
                self._waiting = message
        if self._waiting is not None and self._process.send(self._waiting):
            self._waiting = None
