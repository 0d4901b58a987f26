# SPDX-License-Identifier: Apache-2.0
"""The loop: the one thread that owns all state, and carries out what the pipeline commands.

The tracker's thread and the reasoner's link post to its bounded inbox; frames and users' requests
come through the same inbox from any thread, which never waits. Knows nothing of ROS: a node, a
command line or a test gives it an `Output`.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from foreseg.clock import Clock, SystemClock
from foreseg.config import Config
from foreseg.cores import Share, cores_from_text
from foreseg.dialogue import AnswerFailed, FramesWanted
from foreseg.driving.executor import Executor, FrameEvictedError, Output
from foreseg.driving.guarded_thread import GuardedThread, ThreadHealth, check_share
from foreseg.driving.inbox import Inbox, WaitingFrame
from foreseg.driving.machine import Machine, this_machine
from foreseg.driving.reasoner_link import FromLink, MachineLooked, ReasonerLink
from foreseg.driving.requests import Request, Requests
from foreseg.driving.trace import TraceWriter
from foreseg.driving.tracker_thread import JobEnded, TrackerThread
from foreseg.errors import InputError
from foreseg.frames import CameraId, U8Array
from foreseg.history.windows import WindowPolicy
from foreseg.pipeline.degradation import Ladder
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskId,
    AskReasoner,
    CancelAsk,
    Command,
    Event,
    FrameArrived,
    FrameDropped,
    MachineRead,
    PublishAnswer,
    PublishMasks,
    ReasonerChanged,
    ReleaseWindow,
    Reply,
    RunTracker,
    Tick,
    TrackerFailed,
    TrackerFinished,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.reasoner.messages import (
    AskMessage,
    CancelMessage,
    Died,
    MoreFrames,
    PartMessage,
    Ready,
)
from foreseg.telemetry import DropCause, LatencySummary, StageTimer
from foreseg.texts import reason_from_error

_log = logging.getLogger(__name__)

TICK_S = 0.05
LOG_PERIOD_NS = 1_000_000_000  # between two failures in the log; all are counted

_Message = JobEnded | FromLink | Request | FrameDropped


def _tell_rung(ladder: Ladder) -> None:
    what = ladder.rung.name.lower().replace("_", " ")
    _log.warning("the machine: %s%s", what, f" ({ladder.reason})" if ladder.reason else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """How the worker is, for diagnostics; array-free."""

    state: State
    received_to_published: LatencySummary  # monotonic, frame handed over -> masks handed out
    num_messages_dropped: int
    reasoner_pid: int | None
    failure: str  # the last error of the loop itself, "" if none
    num_failures: int  # of the loop itself
    threads: tuple[ThreadHealth, ...]
    trace_gap: str  # why the trace has ended, "" if it goes on, or there is none
    trace_skipped: int  # steps that are not in it


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
        """Make it; nothing runs yet.

        Raises:
            ConfigError: the system does not give the tracker or the reasoner the cores, or the
                niceness, that the settings want.
        """
        tracker, reasoner = config.tracker, config.reasoner
        share = Share(cores=cores_from_text(tracker.cores, "tracker.cores"), nice=tracker.nice)
        check_share(share, "the tracker (tracker.cores, tracker.nice)")
        cores = cores_from_text(reasoner.cores, "reasoner.cores")
        check_share(Share(cores=cores), "the reasoner (reasoner.cores)")
        self._state = State.start(config, tuple(cameras))
        self._executor = executor
        self._output = output
        self._clock = clock or SystemClock()
        self._trace = trace
        self._cameras = frozenset(cameras)
        self._inbox: Inbox[_Message] = Inbox()
        self._own: deque[Event] = deque()  # what the loop says to itself
        self._stopping = threading.Event()
        self._timer = StageTimer()
        self._failure = ""
        self._num_failures = 0
        self._logged_ns: int | None = None  # when a failure was
        self._policy: WindowPolicy | None = None  # the reasoner's, once it is ready
        self.requests = Requests(executor, self._inbox.offer, self._stopping)
        self._tracker = TrackerThread(
            executor, self._clock, self._inbox.put, self._stopping, share
        )
        self._reasoner = ReasonerLink(
            config.reasoner,
            reasoner_options or {},
            machine=machine or this_machine(),
            clock=self._clock,
            post=self._inbox.put,
            stopping=self._stopping,
        )
        loop = GuardedThread("loop", self._run_loop, self._stopping)
        self._threads = (loop, self._tracker.thread, self._reasoner.thread)

    # ---- for any thread ----

    def start(self) -> None:
        """Start the threads and the reasoner's process."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop threads and process, and wait for them; open requests are refused."""
        self._stopping.set()
        self._inbox.close()
        ended = [thread.join(timeout_s) for thread in self._threads]
        self._reasoner.stop_process()
        self.requests.close()
        if self._trace is not None:
            self._trace.close()
        if not all(ended):
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
        self._inbox.offer(
            FrameDropped(camera=camera, cause=cause, at_ns=self._clock.monotonic_ns())
        )

    def snapshot(self) -> Snapshot:
        """How it is now."""
        return Snapshot(
            state=self._state,
            received_to_published=self._timer.summary(),
            num_messages_dropped=self._inbox.num_refused,
            reasoner_pid=self._reasoner.pid,
            failure=self._failure,
            num_failures=self._num_failures,
            threads=tuple(thread.health for thread in self._threads),
            trace_gap="" if self._trace is None else self._trace.gap,
            trace_skipped=0 if self._trace is None else self._trace.num_skipped,
        )

    # ---- the loop's thread ----

    def _run_loop(self) -> None:
        next_tick_ns = 0
        while not self._stopping.is_set():
            try:
                next_tick_ns = self._turn(next_tick_ns)
            except Exception as error:  # noqa: BLE001 (the thread's outermost frame)
                self._note(error)
        self._tracker.end()

    def _turn(self, next_tick_ns: int) -> int:
        """One message, and a tick if it is time; returns when the next one is due."""
        message = self._inbox.take(TICK_S)
        if message is not None:
            try:
                self._handle(message)
            except Exception as error:  # noqa: BLE001 (who waits for it must not wait for ever)
                self._note(error)
                self._give_up(message, reason_from_error(error))
        now = self._clock.monotonic_ns()
        if now < next_tick_ns:
            return next_tick_ns
        self._step(Tick(at_ns=now))
        return now + round(TICK_S * 1e9)

    def _note(self, error: Exception) -> None:
        """Count a failure of the loop, and log it unless one was logged just now."""
        self._failure, now = reason_from_error(error), self._clock.monotonic_ns()
        self._num_failures += 1
        if self._logged_ns is None or now - self._logged_ns >= LOG_PERIOD_NS:
            self._logged_ns = now
            _log.error("the loop goes on after an error", exc_info=error)

    def _give_up(self, message: _Message | WaitingFrame, reason: str) -> None:
        """A message could not be handled: end what waits for it."""
        now = self._clock.monotonic_ns()
        if isinstance(message, JobEnded):
            job_id = message.prepared.job.id
            self._step(TrackerFailed(job_id=job_id, reason=reason, is_evicted=False, at_ns=now))
        elif isinstance(message, PartMessage):
            failed = AnswerFailed(reason=reason)
            self._step(AnswerPartArrived(ask_id=AskId(message.ask_id), part=failed, at_ns=now))
        elif isinstance(message, Request):
            self.requests.complete(Reply(request_id=message.id, success=False, message=reason))
        elif isinstance(message, WaitingFrame):
            self._step(FrameDropped(camera=message.camera, cause=DropCause.FAILED, at_ns=now))

    def _handle(self, message: _Message | WaitingFrame) -> None:
        if isinstance(message, WaitingFrame):
            self._handle_frame(message)
        elif isinstance(message, JobEnded):
            self._handle_job(message)
        elif isinstance(message, Ready):
            self._policy = message.window_policy
            now = self._clock.monotonic_ns()
            changed = ReasonerChanged(is_up=True, reason=message.kind, at_ns=now)
            self._step(replace(changed, caution=message.caution))
        elif isinstance(message, Died):
            now = self._clock.monotonic_ns()
            self._step(ReasonerChanged(is_up=False, reason=message.reason, at_ns=now))
        elif isinstance(message, PartMessage):
            self._handle_part(message)
        elif isinstance(message, MachineLooked):
            now = self._clock.monotonic_ns()
            self._step(MachineRead(readings=message.readings, at_ns=now))
        elif isinstance(message, FrameDropped):
            self._step(replace(message, at_ns=self._clock.monotonic_ns()))
        else:
            self._step(message.make(self._clock.monotonic_ns()))

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

    def _handle_job(self, ended: JobEnded) -> None:
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
            self._send(MoreFrames(ask_id=ask_id, window=window, side_px=message.part.side_px))

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
            reason, now = reason_from_error(error), self._clock.monotonic_ns()
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
            self.requests.complete(command)

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
        self._tracker.give(prepared)

    def _execute_ask(self, command: AskReasoner) -> None:
        ask_id, now = command.ask_id, self._clock.monotonic_ns()
        assert self._policy is not None  # noqa: S101 (`Ready` sets it before anything is asked)
        window = self._executor.take_window(ask_id, command.query, self._policy)
        self._own.append(self._executor.window_taken(ask_id, window, now))
        self._send(AskMessage(ask_id=ask_id, query=command.query, window=window))

    def _send(self, message: AskMessage | MoreFrames | CancelMessage) -> None:
        if not self._reasoner.send(message):
            part = AnswerFailed(reason="the connection to the reasoner is full")
            ask_id, now = AskId(message.ask_id), self._clock.monotonic_ns()
            self._own.append(AnswerPartArrived(ask_id=ask_id, part=part, at_ns=now))
