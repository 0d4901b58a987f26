# SPDX-License-Identifier: Apache-2.0
"""One node process and one robot for a module's tests; every test starts from a reset node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.ros.ros_harness import NodeProcess, Robot


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeProcess, Robot, Path]]:
    pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
    pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")
    from tests.ros.ros_harness import NodeProcess, Robot, random_domain

    folder = tmp_path_factory.mktemp("node")
    domain = random_domain()
    node = NodeProcess(
        domain,
        folder / "node.log",
        "autostart:=true",
        f"trace_path:={folder / 'trace.jsonl'}",
        "scheduler.warm_up_s:=0.3",
    )
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        yield node, robot, folder
    finally:
        robot.close()
        node.stop()
