# SPDX-License-Identifier: Apache-2.0
"""What every executor keeps to, and what each does about the death of a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from foreseg.errors import ConfigError, InputError
from foreseg.work.base import Executor, Outcome, SerialExecutor, in_order
from foreseg.work.choose import executor_from
from foreseg.work.processes import ProcessExecutor
from foreseg.work.threads import ThreadExecutor

EXECUTORS = {
    "serial": SerialExecutor,
    "threads": partial(ThreadExecutor, 3),
    "processes": partial(ProcessExecutor, 2),
}


def squared(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    msg = f"no {number}"
    raise InputError(msg)


def die_once(number: int, folder: Path) -> int:
    """The process that is first at 3 dies; who comes again does not."""
    mark = folder / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("kind", EXECUTORS)
def test_every_item_has_one_outcome(kind: str) -> None:
    executor: Executor = EXECUTORS[kind]()
    outcomes = list(in_order(executor.run(squared, range(7))))
    assert [outcome.index for outcome in outcomes] == list(range(7))
    assert [outcome.values for outcome in outcomes] == [(n * n,) for n in range(7)]
    assert {outcome.num_tries for outcome in outcomes} == {1}
    assert list(executor.run(squared, [])) == []


@pytest.mark.parametrize("kind", EXECUTORS)
def test_what_a_task_raises_ends_the_run(kind: str) -> None:
    executor: Executor = EXECUTORS[kind]()
    with pytest.raises(InputError, match="no 1"):
        list(executor.run(refuse, [1]))


@pytest.mark.parametrize("kind", ["serial", "threads"])
def test_items_are_taken_when_there_is_room(kind: str) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    run = EXECUTORS[kind]().run(squared, items())
    next(run)
    assert len(taken) <= 4
    run.close()
    assert len(taken) <= 4


def test_a_run_that_ends_early_tells_its_threads() -> None:
    executor = ThreadExecutor(2)
    run = executor.run(squared, range(10))
    next(run)
    assert not executor.stopping.is_set()
    run.close()
    assert executor.stopping.is_set()


def test_outcomes_come_in_order_whatever_came_first() -> None:
    early = [Outcome(index=i, values=(i,)) for i in (2, 0, 3, 1)]
    assert [outcome.index for outcome in in_order(early)] == [0, 1, 2, 3]


@pytest.mark.slow
def test_what_a_dying_process_was_at_is_done_again(tmp_path: Path) -> None:
    task = partial(die_once, folder=tmp_path)
    outcomes = list(in_order(ProcessExecutor(2).run(task, range(6))))
    assert [outcome.values for outcome in outcomes] == [(n,) for n in range(6)]
    assert outcomes[3].num_tries == 2
    assert sum(outcome.num_tries - 1 for outcome in outcomes) <= 2  # one beside it at most


@pytest.mark.slow
def test_who_dies_alone_too_has_no_value() -> None:
    outcomes = list(in_order(ProcessExecutor(2).run(die_at_three, range(5))))
    assert [outcome.has_died for outcome in outcomes] == [False, False, False, True, False]
    assert outcomes[3].num_tries == 2


def test_a_command_line_chooses() -> None:
    assert isinstance(executor_from(workers=1, ray=""), SerialExecutor)
    assert isinstance(executor_from(workers=2, ray=""), ProcessExecutor)
    with pytest.raises(InputError, match="--workers wants at least 1"):
        executor_from(workers=0, ray="")
    with pytest.raises(ConfigError, match="threads want at least 1"):
        ThreadExecutor(0)
