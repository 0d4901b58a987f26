# SPDX-License-Identifier: Apache-2.0
"""A real Ray cluster of two machines' worth of processes, of which one goes away half-way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra [cluster] is not installed")
import ray
from ray.cluster_utils import Cluster

from foreseg.errors import InputError
from foreseg.work.base import Outcome, in_order
from foreseg.work.ray_cluster import MAX_TRIES, RayExecutor

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
STORE = 80 * 1024 * 1024  # bytes of each machine's object store
TINY = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head, and a second machine that may be lost."""
    made = Cluster(initialize_head=True, head_node_args=TINY)
    made.add_node(num_cpus=1, object_store_memory=STORE)
    made.wait_for_nodes()
    yield made
    if ray.is_initialized():
        ray.shutdown()
    made.shutdown()


def who(number: int) -> tuple[int, str]:
    return number, os.environ.get("RAY_NODE_ID", "") or str(os.getppid())


def die_at_three(number: int, folder: Path, times: int) -> int:
    if number == 3:
        marks = len(list(folder.iterdir()))
        if marks < times:
            (folder / str(marks)).touch()
            os.kill(os.getpid(), signal.SIGKILL)
    return number


def refuse(number: int) -> int:
    msg = f"no {number}"
    raise InputError(msg)


def outcomes_of(cluster: Cluster, task: object, items: range) -> list[Outcome[int]]:
    return list(in_order(RayExecutor(cluster.address).run(task, items)))


def test_a_task_that_is_lost_is_done_again_and_one_that_always_is_has_no_value(
    cluster: Cluster, tmp_path: Path
) -> None:
    for times in (1, MAX_TRIES):
        (folder := tmp_path / str(times)).mkdir()
        task = partial(die_at_three, folder=folder, times=times)
        outcomes = outcomes_of(cluster, task, range(6))
        assert outcomes[3].has_died == (times == MAX_TRIES)
        assert outcomes[3].num_tries == (MAX_TRIES if times == MAX_TRIES else 2)
        assert [o.values for o in outcomes if o.index != 3] == [(n,) for n in (0, 1, 2, 4, 5)]
    with pytest.raises(InputError, match="no 0"):
        outcomes_of(cluster, refuse, range(3))


def test_nobody_at_the_address_is_told() -> None:
    with pytest.raises(InputError, match=r"--ray wants the address of a running cluster.*:1'"):
        list(RayExecutor("127.0.0.1:1").run(refuse, [1]))
