# SPDX-License-Identifier: Apache-2.0
"""A process in a group of its own, which ends as a whole: with its leader, when told to, and with us.

Whatever the process starts is in its group (unless it leaves it), so nothing is left behind when
it dies or is stopped. Should *we* die, even by SIGKILL, a keeper beside the group sees our end of
its pipe close, and kills the group: also one that is stopped, or that lets no Python thread run.

A process that has exited is not reaped before its group is killed: until then its id, which is
the group's, cannot belong to anybody else.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

POLL_S = 0.01
KILL_S = 5.0  # within which a killed process is gone, unless the system holds it
JOIN_GROUP = "import os; os.setpgid(0, 0);"  # how the process begins

_KEEPER = """
import os, signal, sys
os.setpgid(0, 0)
group = int(sys.argv[1])
sys.stdin.buffer.read()
for kill in (os.killpg, os.kill):  # the latter for one that has not made its group yet
    try:
        kill(group, signal.SIGKILL)
        break
    except ProcessLookupError:
        pass
"""

_LOG = logging.getLogger(__name__)


class ProcessGroup:
    """A process that has been started, and its group. Any thread may call any method.

    Args:
        command: of a process that begins with `JOIN_GROUP`.
        pass_fds: descriptors that it inherits, besides the standard ones.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, command: Sequence[str], pass_fds: Sequence[int]) -> None:
        self._lock = threading.Lock()
        self._leader = subprocess.Popen(  # noqa: S603 (our own interpreter and code)
            list(command), stdin=subprocess.DEVNULL, pass_fds=list(pass_fds)
        )
        self.pid = self._leader.pid
        self._keeper = _started_keeper(self.pid)

    def has_exited(self) -> bool:
        """True once the process itself has; others of its group may live."""
        with self._lock:
            return self._has_exited()

    def kill(self) -> None:
        """Kill all of the group."""
        with self._lock:
            self._kill()

    def end(self, timeout_s: float) -> int | None:
        """Wait for the process to exit by itself, kill what is left, and give its exit code.

        None if the system does not let go of it.
        """
        end_s = time.monotonic() + timeout_s
        pause = threading.Event()
        while not self.has_exited():
            if time.monotonic() >= end_s:
                _LOG.warning("process %d did not leave within %g s: killed", self.pid, timeout_s)
                break
            pause.wait(POLL_S)
        with self._lock:
            self._kill()
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.kill()
                _reap(keeper)
                if keeper.stdin is not None:
                    keeper.stdin.close()
            return _reap(self._leader)

    def _has_exited(self) -> bool:
        if self._leader.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # where it is missing, the group's id is free a moment early
            return self._leader.poll() is not None
        try:
            state = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # somebody else has reaped it
            return True
        return state is not None

    def _kill(self) -> None:
        if self._leader.returncode is not None:
            return
        try:
            os.killpg(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has not made its group yet
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _reap(killed: subprocess.Popen[bytes]) -> int | None:
    try:
        return killed.wait(KILL_S)
    except subprocess.TimeoutExpired:
        _LOG.error("process %d was killed and is still there after %g s", killed.pid, KILL_S)
        return None


def _started_keeper(group: int) -> subprocess.Popen[bytes] | None:
    command = [sys.executable, "-I", "-S", "-c", _KEEPER, str(group)]
    try:
        return subprocess.Popen(command, stdin=subprocess.PIPE)  # noqa: S603 (our own code)
    except OSError as error:
        _LOG.warning(
            "nobody will end the reasoner's processes should this one be killed: %s", error
        )
        return None
