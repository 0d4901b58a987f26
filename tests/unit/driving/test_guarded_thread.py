# SPDX-License-Identifier: Apache-2.0
"""A thread goes on after whatever its function raises."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from foreseg.driving import guarded_thread
from foreseg.driving.guarded_thread import GuardedThread

WAIT_S = 20.0


class Raising(logging.Handler):
    """As a handler that cannot write a line."""

    def emit(self, record: logging.LogRecord) -> None:
        codec = "utf-8"
        raise UnicodeEncodeError(codec, record.getMessage(), 0, 1, "surrogates not allowed")


@pytest.fixture
def broken_log() -> Iterator[None]:
    handler = Raising()
    logging.getLogger("foreseg").addHandler(handler)
    yield
    logging.getLogger("foreseg").removeHandler(handler)


@pytest.mark.usefixtures("broken_log")
@pytest.mark.parametrize(
    "error", [EOFError(), MemoryError(), SystemExit(2), RecursionError("deep"), OSError("a\udcff")]
)
def test_it_is_run_again_until_it_returns(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarded_thread, "PAUSE_S", 0.001)
    turns: list[int] = []

    def run() -> None:
        turns.append(1)
        if len(turns) < 4:
            raise error

    thread = GuardedThread("worker", run, threading.Event())
    assert not thread.health.is_alive
    thread.start()
    assert thread.join(WAIT_S)
    health = thread.health
    assert (len(turns), health.num_failures, health.is_alive) == (4, 3, False)
    assert health.last.startswith(type(error).__name__)
    assert "\udcff" not in health.last


def test_a_failure_while_stopping_is_the_end() -> None:
    stopping = threading.Event()
    stopping.set()

    def run() -> None:
        msg = "too late"
        raise RuntimeError(msg)

    thread = GuardedThread("worker", run, stopping)
    thread.start()
    assert thread.join(WAIT_S)
    assert thread.health.num_failures == 1
