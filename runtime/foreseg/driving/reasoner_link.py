# SPDX-License-Identifier: Apache-2.0
"""The connection to the reasoner's process: a thread that starts it, talks to it, starts it again.

It also looks at the machine once a second. Does not know what is asked, nor what answers mean.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from foreseg.clock import Clock
from foreseg.config import ReasonerConfig
from foreseg.cores import cores_from_text
from foreseg.dialogue import AnswerFailed
from foreseg.driving.guarded_thread import GuardedThread
from foreseg.driving.machine import Machine
from foreseg.errors import ForesegError
from foreseg.history.reduction import reduce_window
from foreseg.pipeline.degradation import MachineReadings
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
from foreseg.texts import reason_from_error

_log = logging.getLogger(__name__)

POLL_S = 0.02
MAX_WAITING = 64  # messages for the process
MACHINE_PERIOD_NS = 1_000_000_000  # between two looks at memory and heat


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLooked:
    """How the machine was found."""

    readings: MachineReadings


FromLink = Ready | PartMessage | Died | MachineLooked


class ReasonerLink:
    """Owns the reasoner's process.

    Args:
        config: which reasoner, and its bounds.
        options: for its factory.
        machine: looked at.
        clock: for pauses and periods.
        post: hands to the loop what the process says; may wait for room.
        stopping: set when the thread should end.
    """

    def __init__(
        self,
        config: ReasonerConfig,
        options: Mapping[str, str | int | float | bool],
        *,
        machine: Machine,
        clock: Clock,
        post: Callable[[FromLink], None],
        stopping: threading.Event,
    ) -> None:
        self._max_side_px = config.max_side_px
        self._machine = machine
        self._clock = clock
        self._post = post
        self._stopping = stopping
        self._outbox: queue.Queue[AskMessage | MoreFrames | CancelMessage] = queue.Queue(
            MAX_WAITING
        )
        self._waiting: AskMessage | None = None  # until the process is done with a cancelled one
        self._process = ReasonerProcess(
            ReasonerSpec(kind=config.kind, options=dict(options), calibration=config.calibration),
            ProcessSettings(
                start_timeout_s=config.start_timeout_s,
                nice=config.nice,
                num_threads=config.threads,
                cores=cores_from_text(config.cores, "reasoner.cores"),
                max_memory_mb=config.max_memory_mb,
            ),
        )
        self._restart = RestartPolicy()
        self._ready_ns: int | None = None  # since when the process is ready
        self._start_ns: int | None = clock.monotonic_ns()  # when one is to be started
        self._look_ns = clock.monotonic_ns()  # when the machine is looked at
        self.thread = GuardedThread("reasoner", self._run, stopping)

    @property
    def pid(self) -> int | None:
        """Of the process; None when there is none."""
        return self._process.pid

    def send(self, message: AskMessage | MoreFrames | CancelMessage) -> bool:
        """Hand a message over; never waits. False if too many wait already."""
        try:
            self._outbox.put_nowait(message)
        except queue.Full:
            return False
        return True

    def stop_process(self) -> None:
        """End the process; the thread must have ended, or be about to."""
        self._process.stop()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._turn()

    def _turn(self) -> None:
        """What is due now, and the next thing that the process says."""
        now = self._clock.monotonic_ns()
        if now >= self._look_ns:
            self._look_ns = now + MACHINE_PERIOD_NS
            self._post(MachineLooked(readings=self._machine.read()))
        message: Ready | PartMessage | Died | None
        if self._start_ns is not None and now >= self._start_ns:
            self._start_ns = None
            message = self._start_process()
        else:
            self._forward()
            message = self._process.receive(POLL_S)
            if message is None and self._process.pid is None:
                self._stopping.wait(POLL_S)
        if isinstance(message, Ready):
            self._ready_ns = now
        elif isinstance(message, Died):
            self._restart = self._restart.after_death(ready_ns=self._ready_ns, died_ns=now)
            self._ready_ns, self._waiting = None, None
            self._start_ns = now + self._restart.wait_ns if message.can_restart else None
        if message is not None:
            self._post(message)
        if isinstance(message, Died):
            _log.warning("the reasoner process is gone: %s", message.reason)

    def _start_process(self) -> Died | None:
        try:
            self._process.start()
        except ForesegError as error:
            return Died(reason=str(error), can_restart=False)
        except Exception as error:  # noqa: BLE001 (no descriptors or memory are left, for now)
            self._process.stop(timeout_s=0.0)
            return Died(reason=f"could not be started: {reason_from_error(error)}")
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
                self._process.send(message)
            else:
                self._forward_frames(message)
        if self._waiting is not None and self._process.send(self._waiting):
            self._waiting = None

    def _forward_frames(self, message: AskMessage | MoreFrames) -> None:
        """Pass on an asking, or more of its frames; what cannot be sent fails it."""
        try:
            side_px = message.side_px if isinstance(message, MoreFrames) else 0
            window = reduce_window(message.window, side_px or self._max_side_px)
            message = replace(message, window=window)
            if not self._process.send(message) and isinstance(message, AskMessage):
                self._waiting = message
        except Exception as error:  # noqa: BLE001 (of memory, of pickling)
            failed = AnswerFailed(reason=f"it could not be asked: {reason_from_error(error)}")
            self._post(PartMessage(ask_id=message.ask_id, part=failed))
            _log.exception("a question could not be sent to the reasoner")
