# SPDX-License-Identifier: Apache-2.0
"""What a node says where /dev/shm is too small: run by test_faults_node.py, in a namespace of its own."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.ros.ros_harness import WAIT_S, NodeProcess, Robot, random_domain


def test_a_node_masks_and_tells_what_its_shared_memory_lacks(tmp_path: Path) -> None:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true")
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), WAIT_S), node.log.read_text()[-3000:]
        assert robot.stream(lambda: "transport" in robot.diagnostics)
        told = robot.diagnostics["transport"]["message"]
        assert node.stop() == 0
    finally:
        robot.close()
        node.stop()
    sys.stdout.write(f"\ntold: {told}\n")
