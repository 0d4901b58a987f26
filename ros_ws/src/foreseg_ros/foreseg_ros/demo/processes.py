# SPDX-License-Identifier: Apache-2.0
"""The demo's other processes: started in sessions of their own, and surely gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from foreseg.errors import StreamError

GRACE_S = 8.0  # from SIGINT to SIGKILL
TAIL_CHARS = 1500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Child:
    """A process of ours and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_running(self) -> bool:
        """True until it ends."""
        return self.process.poll() is None

    def check(self, *, may_end: bool = False) -> None:
        """Notice that it has died; `may_end` allows a clean end.

        Raises:
            StreamError: with the end of its log.
        """
        code = self.process.poll()
        if code is not None and not (may_end and code == 0):
            msg = f"the {self.name} process ended with exit code {code}; its log ends:\n{self.tail()}"
            raise StreamError(msg)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8", errors="replace")[-TAIL_CHARS:].strip()


class Children:
    """Starts processes; as a context, ends all of them, and what they have started, with it."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self._environment = dict(environment)
        self._logs = logs
        self._children: list[Child] = []
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, module: str, arguments: Sequence[str]) -> Child:
        """Run a Python module."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches the client alone, which ends the others
            )
        child = Child(name=name, process=process, log=log)
        self._children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """Ask it to end, wait, and kill what is left of its group."""
        _signal_group(child, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.process.wait(GRACE_S)
        _signal_group(child, signal.SIGKILL)  # also what it has started and left behind
        child.process.wait()
        if child in self._children:
            self._children.remove(child)

    def __enter__(self) -> Children:  # noqa: PYI034 (Self is younger than Python 3.10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # an impatient second Ctrl-C
        try:
            for child in self._children:  # all at once, then one by one
                _signal_group(child, signal.SIGINT)
            for child in reversed(list(self._children)):
                self.stop(child)
        finally:
            signal.signal(signal.SIGINT, before)


def _signal_group(child: Child, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):  # the group is gone
        os.killpg(child.process.pid, number)
