# SPDX-License-Identifier: Apache-2.0
"""A real Ray cluster of two machines' worth of processes, of which one goes away half-way."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the extra [cluster] is not installed")
import ray
from ray.cluster_utils import Cluster
from tests.support.chat_server import ChatServer
from tests.support.teacher import replies, reply_of

from foreseg.errors import InputError
from foreseg.language.openai_server import ServerSettings
from foreseg.work.base import Outcome, Outcomes, in_order
from foreseg.work.ray_cluster import MAX_TRIES, RayExecutor
from foreseg.work.threads import ThreadExecutor
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.run import RunSpec, run
from foreseg_evaluation.system import read_system
from foreseg_simulation.generation import Command, generate
from foreseg_simulation.worlds import World
from foreseg_training.executor_pool import ExecutorPool
from foreseg_training.teacher.asking import AskOptions
from foreseg_training.teacher.make_chains import CHAINS, make_chains
from foreseg_training.teacher.run import Teacher

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


def bytes_of(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def results_of(folder: Path) -> dict[str, str]:
    """The episodes' files without the time that each took; as text, for NaN is not NaN."""
    found = {}
    for path in sorted((folder / "episodes").glob("*.json")):
        result = json.loads(path.read_text("utf-8"))
        del result["seconds"], result["scores"]["answer_s"]
        found[path.name] = json.dumps(result)
    return found


class Losing:
    """An executor that loses a machine of its cluster after the first outcome."""

    def __init__(self, cluster: Cluster, node: object) -> None:
        self.cluster, self.node = cluster, node
        self.tries: list[int] = []

    def run(self, task: object, items: object) -> Outcomes[object]:
        for outcome in RayExecutor(self.cluster.address).run(task, items):
            if not self.tries:
                self.cluster.remove_node(self.node, allow_graceful=False)
            self.tries.append(outcome.num_tries)
            yield outcome


def test_worlds_and_results_are_the_same_though_a_machine_is_lost(
    cluster: Cluster, tmp_path: Path
) -> None:
    command = Command(
        worlds=(World.SHAPES,), clips=6, streams=0, seed=2, split="val", size_wh=(160, 120)
    )
    generate(command, tmp_path / "here")
    losing = Losing(cluster, cluster.worker_nodes.copy().pop())
    generate(command, tmp_path / "there", executor=losing)
    assert len(losing.tries) == 6
    assert bytes_of(tmp_path / "there") == bytes_of(tmp_path / "here")
    second = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    spec = RunSpec(
        dataset=tmp_path / "here", form="fevos", split="val",
        system=read_system("repeat-first-mask"),
    )  # fmt: skip
    run(spec, tmp_path / "one")
    run(spec, tmp_path / "cluster", executor=Losing(cluster, second))
    assert results_of(tmp_path / "cluster") == results_of(tmp_path / "one")
    assert len(results_of(tmp_path / "one")) >= 6


def test_chains_are_the_same_though_a_machine_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    command = Command(
        worlds=(World.SHAPES,), clips=4, streams=0, seed=5, split="train", size_wh=(160, 120)
    )
    generate(command, tmp_path / "worlds")
    dataset = read_dataset(tmp_path / "worlds", "fevos", split="train")
    losing = Losing(cluster, cluster.worker_nodes.copy().pop())
    with ChatServer([replies(reply_of)]) as server:
        settings = ServerSettings(url=server.url, model="teacher", num_retries=0)
        for name, executor in (("here", ThreadExecutor(2)), ("there", losing)):
            asked = Teacher(settings=settings, executor=executor)
            make_chains(dataset, tmp_path / name, AskOptions(image_side_px=64), asked)
    assert len(losing.tries) == len(dataset.episodes)
    here, there = (tmp_path / name / CHAINS for name in ("here", "there"))
    assert here.read_bytes() == there.read_bytes()


def slowly(word: str) -> str:
    if word == "hang":
        signal.pause()
    return word


def make() -> Callable[[str], str]:
    return slowly


def test_a_pool_of_rewards_keeps_its_connection_and_its_time(cluster: Cluster) -> None:
    with ExecutorPool(make, RayExecutor(cluster.address), task_timeout_s=1.0) as pool:
        assert pool.run(["a", "hang", "b"]) == ["a", None, "b"]
        assert pool.run(["c"]) == ["c"]
        assert ray.is_initialized()
    assert pool.failures == {"TimeoutError: it took longer than 1 s": 1}
    assert not ray.is_initialized()
