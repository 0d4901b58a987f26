# SPDX-License-Identifier: Apache-2.0
"""What runs in a probe's process and goes wrong there: crashes, hangs, lies."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection


def crash(_: Connection, job: int) -> None:
    """End as a library does that meets an instruction it lacks, or a bad address."""
    signal.signal(job, signal.SIG_DFL)
    os.kill(os.getpid(), job)


def leave(_: Connection, job: int) -> None:
    """End with this exit code, without a word."""
    os._exit(job)


def hang(pipe: Connection, _: int) -> None:
    """Say nothing, until the other end goes."""
    pipe.poll(None)


def crash_when_timed(pipe: Connection, _: object) -> None:
    """Be right, then crash at the first run that is timed."""
    pipe.send(0.001)
    pipe.recv()
    os.kill(os.getpid(), signal.SIGKILL)
