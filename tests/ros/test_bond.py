# SPDX-License-Identifier: Apache-2.0
"""The node's bond, held against bondpy, the reference for the other end of it.

Where the packages are not installed, `FORESEG_BOND_CORE=FOLDER` names the sources of bond_core: its
messages are built into a folder of their own, and this file runs once more with them and its bondpy.
"""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.duration import Duration

from tests.ros.built_interfaces import run_with_built
from tests.ros.ros_harness import NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

HAS_BOND = importlib.util.find_spec("bond") is not None
HAS_BONDPY = HAS_BOND and importlib.util.find_spec("bondpy") is not None
SOURCES = "FORESEG_BOND_CORE"
TIMEOUT_S = 2.0  # of heartbeats
WAIT = Duration(seconds=20)

needs_bondpy = pytest.mark.skipif(not HAS_BONDPY, reason="bond and bondpy are not installed")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[NodeProcess, Robot]]:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true", "bond:=true")
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        yield node, robot
    finally:
        robot.close()
        node.stop()


@pytest.fixture
def manager(running: tuple[NodeProcess, Robot]) -> Iterator[Callable[[], Any]]:
    """Makes a manager's end of the bond; it is formed."""
    from bondpy.bondpy import Bond

    made: list[Any] = []

    def formed() -> Any:
        bond = Bond(running[1].node, "/bond", "foreseg")
        bond.heartbeat_timeout = TIMEOUT_S
        bond.start()
        made.append(bond)
        assert bond.wait_until_formed(WAIT)
        return bond

    yield formed
    for bond in made:  # its own shutdown takes a subscription away under the executor
        if not bond.is_broken():
            bond.break_bond()
            assert bond.wait_until_broken(WAIT)


@needs_bondpy
def test_a_bond_lasts_while_the_node_is_active_and_ends_with_a_word(
    running: tuple[NodeProcess, Robot], manager: Callable[[], Any]
) -> None:
    _, robot = running
    bond = manager()
    assert not bond.wait_until_broken(Duration(seconds=1.5 * TIMEOUT_S)), "it beats on"

    def change(transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(robot.call(ChangeState, "/foreseg/change_state", request).success)

    assert change(Transition.TRANSITION_DEACTIVATE)
    assert bond.wait_until_broken(Duration(seconds=TIMEOUT_S / 2)), "before the heart stops"
    assert change(Transition.TRANSITION_ACTIVATE)
    manager()


@needs_bondpy
def test_a_killed_node_breaks_its_bond(
    running: tuple[NodeProcess, Robot], manager: Callable[[], Any]
) -> None:
    node, _ = running
    bond = manager()
    assert not bond.wait_until_broken(
        Duration(seconds=TIMEOUT_S / 2)
    )  # it times beats from the second on
    node.stop(signal.SIGKILL)
    assert bond.wait_until_broken(WAIT)


@pytest.mark.skipif(HAS_BOND, reason="bond is installed")
def test_a_bond_that_cannot_be_had_is_told_with_what_to_install(tmp_path: Path) -> None:
    node = NodeProcess(random_domain(), tmp_path / "node.log", "autostart:=true", "bond:=true")
    assert node.process.wait(40) == 1
    assert node.says("configure failed: parameter bond wants the package bond", "apt install")


@pytest.mark.slow
@pytest.mark.skipif(HAS_BONDPY, reason="bondpy is installed: the tests above ran with it")
def test_the_bond_holds_with_bondpy_from_its_sources(tmp_path: Path) -> None:
    sources = os.environ.get(SOURCES)
    if sources is None:
        pytest.skip(f"{SOURCES} names no folder with the sources of bond_core")
    core = Path(sources)
    paths = [core / "bondpy", core / "smclib"]
    told = run_with_built(core / "bond", tmp_path, Path(__file__), paths=paths)
    assert "2 passed" in told, told[-2000:]
