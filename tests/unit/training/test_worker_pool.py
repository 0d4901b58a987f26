# SPDX-License-Identifier: Apache-2.0
"""Workers that work, raise, die, hang or cannot start: the pool goes on, counts, and never waits."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from foreseg.errors import ConfigError, InputError
from foreseg_training import worker_pool
from foreseg_training.worker_pool import WorkerPool


def obey(task: tuple[str, object]) -> object:
    """What a task says; runs in a worker."""
    word, value = task
    if word == "raise":
        msg = f"cannot do {value}"
        raise ValueError(msg)
    if word == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "die once":  # the mark outlives the worker
        mark = Path(str(value))
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    if word == "hang":
        signal.pause()
    if word == "pid":
        return os.getpid()
    return value


def make() -> Callable[[tuple[str, object]], object]:
    return obey


def refuse() -> Callable[[object], object]:
    msg = "no tracker here"
    raise InputError(msg)


def die() -> Callable[[object], object]:
    os._exit(3)


def hang() -> Callable[[object], object]:
    signal.pause()
    raise AssertionError


Pool = WorkerPool[tuple[str, object], object]


@pytest.fixture(scope="module")
def shared() -> Iterator[Pool]:
    with WorkerPool(make, num_workers=2, task_timeout_s=30) as pool:
        yield pool


@pytest.fixture
def pool(shared: Pool) -> Pool:
    shared.failures.clear()
    return shared


def test_results_come_in_the_order_of_the_tasks(pool: Pool) -> None:
    tasks: list[tuple[str, object]] = [("say", i) for i in range(40)]
    assert pool.run(tasks) == list(range(40))
    assert pool.run([]) == []
    assert pool.failures == {}


def test_workers_are_other_processes_and_stay(pool: Pool) -> None:
    found = set(pool.run([("pid", None)] * 20))
    assert found <= set(pool.pids)
    assert os.getpid() not in found
    before = pool.pids
    pool.run([("pid", None)])
    assert pool.pids == before


def test_a_task_that_raises_is_given_up_and_its_worker_goes_on(pool: Pool) -> None:
    before = pool.pids
    assert pool.run([("raise", 7), ("say", 1)]) == [None, 1]
    assert pool.failures == {"ValueError: cannot do 7": 1}
    assert pool.pids == before


def test_a_task_whose_worker_dies_is_tried_once_more(pool: Pool, tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    assert pool.run([("say", 0), ("die once", mark), ("say", 2)]) == [0, mark, 2]
    assert pool.failures == {"worker replaced": 1}


def test_a_task_that_kills_twice_is_given_up_and_the_others_are_done(pool: Pool) -> None:
    tasks: list[tuple[str, object]] = [("die", None), *(("say", i) for i in range(6))]
    assert pool.run(tasks) == [None, *range(6)]
    (reason,) = set(pool.failures) - {"worker replaced"}
    assert "died" in reason
    assert (pool.failures["worker replaced"], pool.failures[reason]) == (2, 1)
    assert pool.run([("say", 1)]) == [1]


def test_a_worker_that_is_killed_between_two_batches_is_replaced(pool: Pool) -> None:
    for pid in pool.pids:
        os.kill(pid, signal.SIGKILL)
    assert pool.run([("say", 1)]) == [1]
    assert pool.failures["worker replaced"] in {1, 2}  # of one, nothing was wanted yet


def test_a_task_that_hangs_is_given_up_in_time() -> None:
    with WorkerPool(make, num_workers=1, task_timeout_s=1.0) as pool:
        assert pool.run([("hang", None), ("say", 1)]) == [None, 1]
        assert pool.failures["it took longer than 1 s"] == 1
        assert pool.failures["worker replaced"] >= 2


def test_what_cannot_start_is_told_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot start: InputError: no tracker here"):
        WorkerPool(refuse, num_workers=1).start()
    monkeypatch.setattr(worker_pool, "MAX_START_DEATHS", 2)
    with pytest.raises(InputError, match=r"2 workers in a row died.*\(3\)"):
        WorkerPool(die, num_workers=1).start()
    monkeypatch.setattr(worker_pool, "MAX_START_DEATHS", 1)
    with pytest.raises(InputError, match="died or hung at their start"):
        WorkerPool(hang, num_workers=1, start_timeout_s=0.5).start()


def test_a_closed_pool_has_no_process_and_starts_again() -> None:
    pool = WorkerPool(make, num_workers=1)
    pool.start()
    (pid,) = pool.pids
    pool.close()
    assert pool.pids == ()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert pool.run([("say", 3)]) == [3]
    pool.close()


OWNER = """
import signal
from tests.unit.training.test_worker_pool import WorkerPool, make
if __name__ == "__main__":
    pool = WorkerPool(make, num_workers=1)
    pool.start()
    print(*pool.pids, flush=True)
    signal.pause()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="waiting for another's child is Linux's")
def test_workers_end_with_an_owner_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "owner.py"
    path.write_text(OWNER, "utf-8")
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, path], stdout=subprocess.PIPE, env=paths) as owner:
        assert owner.stdout is not None
        watched = os.pidfd_open(int(owner.stdout.readline()))
        owner.kill()
    ended, _, _ = select.select([watched], [], [], 30)
    os.close(watched)
    assert ended


def test_numbers_that_cannot_be_are_refused() -> None:
    for wrong in ({"num_workers": 0}, {"num_workers": 1, "task_timeout_s": 0.0}):
        with pytest.raises(ConfigError, match="at least 1 worker"):
            partial(WorkerPool, make)(**wrong)  # type: ignore[arg-type]
