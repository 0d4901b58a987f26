# SPDX-License-Identifier: Apache-2.0
"""A pool over an executor: results in order, and a reason for each task that has none."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from foreseg.errors import ConfigError, InputError
from foreseg.work.base import SerialExecutor
from foreseg.work.processes import ProcessExecutor
from foreseg_training.executor_pool import ExecutorPool

STARTS = []


def obey(word: str) -> str:
    if word == "raise":
        msg = "cannot do that"
        raise ValueError(msg)
    if word == "hang":
        signal.pause()
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return word


def make() -> Callable[[str], str]:
    STARTS.append(os.getpid())
    return obey


def refuse() -> Callable[[str], str]:
    msg = "no tracker here"
    raise InputError(msg)


def test_results_come_in_order_and_it_is_made_once() -> None:
    STARTS.clear()
    with ExecutorPool(make, SerialExecutor()) as pool:
        assert pool.run(["a", "b"]) == ["a", "b"]
        assert pool.run(["c"]) == ["c"]
        assert pool.run([]) == []
    assert len(STARTS) == 1
    assert not pool.failures


def test_what_raises_or_hangs_is_given_up_with_its_reason() -> None:
    with ExecutorPool(make, SerialExecutor(), task_timeout_s=0.1) as pool:
        assert pool.run(["a", "raise", "hang", "b"]) == ["a", None, None, "b"]
    assert pool.failures == {
        "ValueError: cannot do that": 1,
        "TimeoutError: it took longer than 0.1 s": 1,
    }
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_who_cannot_start_says_why() -> None:
    with (
        pytest.raises(InputError, match="cannot start: InputError: no tracker here"),
        ExecutorPool(refuse, SerialExecutor()),
    ):
        pass
    with pytest.raises(ConfigError, match="task_timeout_s wants more than 0"):
        ExecutorPool(make, SerialExecutor(), task_timeout_s=0)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_task_alone() -> None:
    with ExecutorPool(make, ProcessExecutor(1)) as pool:
        assert pool.run(["a", "die", "b"]) == ["a", None, "b"]
    assert sum(count for reason, count in pool.failures.items() if "died" in reason) == 1
