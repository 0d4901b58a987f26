# SPDX-License-Identifier: Apache-2.0
"""The handle by which a parent owns a reasoner in a process of its own.

The process is a fresh interpreter (nothing forked, `__main__` not run again), so that it has its
own CUDA context and thread counts, and can crash, hang or run out of memory alone. The handle
starts no thread: it is driven by `send`, and by `receive` from one reader. Does not know when a
dead process should be started again (`restart`), what happens inside it (`child`), or how all that
it has started ends with it (`process_group`).
"""

from __future__ import annotations

import json
import logging
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from foreseg.clock import Clock, SystemClock
from foreseg.dialogue import AnswerPart, FramesWanted
from foreseg.errors import ConfigError
from foreseg.reasoner.base import ReasonerSpec
from foreseg.reasoner.channel import Channel, ChannelClosedError, OversizedError
from foreseg.reasoner.exchange import ENDINGS
from foreseg.reasoner.memory_ceiling import MemoryCeiling
from foreseg.reasoner.messages import (
    Alive,
    AskMessage,
    CancelMessage,
    Died,
    MoreFrames,
    NotBuilt,
    PartMessage,
    Ping,
    Ready,
    Stop,
    ToReasoner,
)
from foreseg.reasoner.process_group import JOIN_GROUP, ProcessGroup
from foreseg.texts import reason_from_error

STOP_S = 0.5  # within which a process takes the word to leave
EXIT_S = 1.0  # within which one that has closed its end exits

_LOG = logging.getLogger(__name__)

_BOOT = (  # thread counts must stand before numpy loads; the path is the parent's own
    f"{JOIN_GROUP} import json, sys; boot = json.loads(sys.argv[1]); sys.path[:] = boot['path'];"
    " os.environ.update(boot['environment']);"
    " from foreseg.reasoner.child import main; main(boot['descriptor'], boot['nice'], boot['cores'])"
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PARTS = get_args(AnswerPart)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Bounds on a reasoner's process, and how it shares the machine."""

    start_timeout_s: float = 120.0  # until `Ready`; loading a large model counts
    hang_timeout_s: float = 60.0  # without a part while answering, or without a reply to a ping
    ping_period_s: float = 5.0  # of silence while idle
    send_timeout_s: float = 5.0  # for a process that does not read
    nice: int = 5  # 0 to 19
    num_threads: int = 0  # of numeric libraries; 0 = their own choice
    cores: frozenset[int] = frozenset()  # that it may use, of this process's; none: all of them
    max_memory_mb: int = 0  # private resident memory, 10^6 bytes; 0 = no ceiling

    def __post_init__(self) -> None:
        for name in ("start_timeout_s", "hang_timeout_s", "ping_period_s", "send_timeout_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                msg = f"{name} wants a finite number of seconds above 0, got {value}"
                raise ConfigError(msg)
        if not 0 <= self.nice <= 19:  # noqa: PLR2004 (the system's bound)
            msg = f"nice wants 0 to 19, got {self.nice}"
            raise ConfigError(msg)
        for name in ("num_threads", "max_memory_mb"):
            if getattr(self, name) < 0:
                msg = f"{name} wants 0 or more, got {getattr(self, name)}"
                raise ConfigError(msg)

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that the process gets on top of the parent's."""
        if not self.num_threads:
            return {}
        return dict.fromkeys(_THREAD_VARIABLES, str(self.num_threads))


class ReasonerProcess:
    """One reasoner process at a time, started again by its owner after each death.

    `receive` belongs to one reader thread; the other methods may be called from any. What goes
    wrong with the process is never raised: it is a `Died` from `receive`, once.
    """

    def __init__(
        self,
        spec: ReasonerSpec,
        settings: ProcessSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._spec = spec
        self._settings = settings or ProcessSettings()
        self._clock = clock or SystemClock()
        self._reading = threading.Lock()  # held while the pipe is read or closed
        self._writing = threading.Lock()  # held while the pipe is written or the state changes
        self._group: ProcessGroup | None = None
        self._channel: Channel | None = None
        self._ceiling = MemoryCeiling(self._settings.max_memory_mb)
        self._since_ns = 0  # the last sign of life, or message that wants one
        self._is_ready = self._is_pinged = self._owes_part = self._is_stopping = False
        self._ask_id: int | None = None
        self._reason = ""  # why we killed it
        self._can_restart = True

    @property
    def is_started(self) -> bool:
        """True from `start` until `receive` has told the death, or `stop`."""
        return self._channel is not None

    @property
    def pid(self) -> int | None:
        """Process id, None when there is no process."""
        group = self._group
        return None if group is None else group.pid

    @property
    def is_alive(self) -> bool:
        """True while the process runs."""
        group = self._group
        return group is not None and not group.has_exited()

    def start(self) -> None:
        """Start a process; `Ready` or `Died` follows from `receive`.

        Raises:
            ConfigError: if there is one already, or no interpreter to start.
        """
        if self._channel is not None:
            msg = "a reasoner process is started only after the last one has died or was stopped"
            raise ConfigError(msg)
        if not sys.executable:
            msg = "a reasoner process wants a Python interpreter, got an empty sys.executable"
            raise ConfigError(msg)
        ours, theirs = socket.socketpair()
        self._is_ready = self._is_pinged = self._owes_part = self._is_stopping = False
        self._ask_id, self._reason, self._can_restart = None, "", True
        self._group, self._channel = None, Channel(ours)
        self._since_ns = self._clock.monotonic_ns()
        with theirs:
            descriptor = theirs.fileno()
            try:
                self._group = ProcessGroup(self._command(descriptor), [descriptor])
            except OSError as error:
                self._reason = f"could not be started: {error}"
        with self._writing:
            self._write(self._spec, self._settings.send_timeout_s)

    def send(self, message: AskMessage | MoreFrames | CancelMessage) -> bool:
        """Hand over a message; waits at most about `send_timeout_s`.

        Returns:
            False if it cannot be taken: not ready, dead, or (asking) busy with another one.

        Raises:
            Exception: what pickling raises of a message that cannot be; nothing was sent then.
        """
        with self._writing:
            is_ours = message.ask_id == self._ask_id
            if not self._is_ready or is_ours == isinstance(message, AskMessage):
                return False
            if isinstance(message, AskMessage) and self._ask_id is not None:
                return False
            if not self._write(message, self._settings.send_timeout_s):
                return False
            if isinstance(message, AskMessage):
                self._ask_id = message.ask_id
            if not self._owes_part:
                self._owes_part, self._since_ns = True, self._clock.monotonic_ns()
            return True

    def receive(self, timeout_s: float) -> Ready | PartMessage | Died | None:
        """Wait for what the process says next; None if there is nothing yet, so call again.

        Also pings an idle process, and kills one that has hung or holds too much memory.
        """
        with self._reading:
            if self._channel is None:
                return None
            self._weigh()
            try:
                if not self._channel.poll(timeout_s) and not self._has_last_words(self._channel):
                    self._watch()
                    return None
                message = self._channel.receive()
            except ChannelClosedError:
                return self._buried()
            except OversizedError as error:
                self._kill(f"sent {error}")
                return self._buried()
            except Exception as error:  # noqa: BLE001 (unpickling raises anything)
                self._kill(f"sent something unreadable: {reason_from_error(error)}")
                return self._buried()
            with self._writing:
                return self._noted(message)

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask the process to leave, kill it after `timeout_s`, and forget it: no `Died` follows.

        An answer is cut off at its next part.
        """
        with self._writing:
            self._is_stopping = True
            self._write(Stop(), STOP_S)
        group = self._group
        if group is not None and not self._reason:
            group.end(timeout_s)
        self.kill()
        with self._reading:
            self._buried()

    def kill(self) -> None:
        """Kill the process and what it has started; `Died` follows from `receive`."""
        group = self._group
        if group is not None:
            group.kill()

    # The rest is called with the pipe's locks held.

    def _command(self, descriptor: int) -> list[str]:
        boot = {
            "path": list(sys.path),
            "environment": dict(self._settings.environment),
            "descriptor": descriptor,
            "nice": self._settings.nice,
            "cores": sorted(self._settings.cores),
        }
        return [sys.executable, "-c", _BOOT, json.dumps(boot)]

    def _write(self, message: ToReasoner | ReasonerSpec, timeout_s: float) -> bool:
        if self._channel is None:
            return False
        try:
            self._channel.send(message, timeout_s)
        except TimeoutError:  # half a message may be on its way: the channel is of no more use
            self._kill(f"did not read for {timeout_s:g} s")
            return False
        except ChannelClosedError:
            return False
        return True

    def _has_last_words(self, channel: Channel) -> bool:
        """True if a whole message came just now, from a process that may have exited.

        Raises:
            ChannelClosedError: it has exited without one; who else holds its end does not count.
        """
        if self._group is not None and not self._group.has_exited():
            return False
        if channel.poll(0):
            return True
        raise ChannelClosedError

    def _noted(self, message: object) -> Ready | PartMessage | None:
        """The message if the owner should see it."""
        self._is_pinged, self._since_ns = False, self._clock.monotonic_ns()
        if isinstance(message, Ready):
            self._is_ready = True
            return message
        if isinstance(message, NotBuilt):
            self._reason, self._can_restart = message.reason, False
        elif isinstance(message, PartMessage) and isinstance(message.part, _PARTS):
            if message.ask_id != self._ask_id:
                return None
            self._owes_part = not isinstance(message.part, (FramesWanted, *ENDINGS))
            if isinstance(message.part, ENDINGS):
                self._ask_id = None
            return message
        elif not isinstance(message, Alive):
            _LOG.warning("the reasoner process sent a malformed %s", type(message).__name__)
        return None

    def _weigh(self) -> None:
        """Judge how much memory the process holds."""
        group = self._group
        if group is not None and not self._reason:
            excess = self._ceiling.excess(group.pid, self._clock.monotonic_ns())
            if excess:
                with self._writing:
                    self._kill(excess)

    def _watch(self) -> None:
        """Judge a silence."""
        with self._writing:
            settings = self._settings
            silence_s = (self._clock.monotonic_ns() - self._since_ns) / 1e9
            if not self._is_ready:
                if silence_s > settings.start_timeout_s:
                    self._kill(
                        f"was not ready within start_timeout_s, {settings.start_timeout_s:g} s"
                    )
            elif self._owes_part or self._is_pinged:
                if silence_s > settings.hang_timeout_s:
                    self._kill(f"hung: no sign of life for {silence_s:.1f} s")
            elif silence_s > settings.ping_period_s:
                self._is_pinged, self._since_ns = True, self._clock.monotonic_ns()
                self._write(Ping(), self._settings.send_timeout_s)

    def _kill(self, reason: str) -> None:
        self._reason = self._reason or f"{reason}; killed"
        self.kill()

    def _buried(self) -> Died | None:
        """Close and reap what is left of the process; None if it was stopped."""
        group = self._group
        code = None if group is None else group.end(EXIT_S)
        with self._writing:
            if self._channel is not None:
                self._channel.close()
            died = Died(
                reason=self._reason or _reason_from_exit(code),
                ask_id=self._ask_id,
                can_restart=self._can_restart,
            )
            self._channel = self._group = self._ask_id = None
            self._is_ready = False
            return None if self._is_stopping else died


def _reason_from_exit(code: int | None) -> str:
    if code is None:
        return "never ran"
    if code < 0:
        name = signal.Signals(-code).name if -code in list(signal.Signals) else "unknown"
        return f"killed by signal {-code} ({name})"
    return f"left with exit code {code}"
