# SPDX-License-Identifier: Apache-2.0
"""Shared memory of a real node: what a killed one leaves goes, and too little of it is told."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from foreseg.commands import fast_dds
from foreseg_ros.diagnostics import transport_problem
from tests.ros.ros_harness import PROFILE, NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

FAST, VARIABLE = "rmw_fastrtps_cpp", fast_dds.PROFILE_VARIABLES[0]
LARGE = "7f1000000000-7f1004300000 rw-s 0 00:17 1  /dev/shm/fastrtps_4abf8f8e8141c42c\n"
SMALL = "7f1000000000-7f1000086000 rw-s 0 00:17 1  /dev/shm/fastrtps_4abf8f8e8141c42c\n"


@pytest.mark.parametrize(
    ("rmw", "profile", "maps", "words"),
    [
        (FAST, str(PROFILE), LARGE, None),
        ("rmw_cyclonedds_cpp", "", "", None),
        (FAST, "", SMALL, "no Fast DDS profile"),
        (FAST, "/nonexistent/fast.xml", SMALL, "cannot be read"),
        (FAST, str(PROFILE), SMALL, "did not get its 67 MB of shared memory"),
        (FAST, str(PROFILE), "", "--shm-size=1g"),
    ],
)
def test_what_is_wrong_with_the_transport(
    rmw: str, profile: str, maps: str, words: str | None
) -> None:
    told = transport_problem(rmw, {VARIABLE: profile}, maps)
    if words is None:
        assert told is None
    else:
        assert told is not None
        assert words in told


@pytest.mark.fault
def test_what_a_killed_node_leaves_is_removed_at_the_next_start(tmp_path: Path) -> None:
    domain = random_domain()
    first = NodeProcess(domain, tmp_path / "first.log", "autostart:=true")
    nodes = [first]
    robot = Robot(domain)
    try:
        assert robot.wait(lambda: "transport" in robot.diagnostics, 60), first.log.read_text()
        assert robot.diagnostics["transport"]["message"] == "as it should be"
        handles = Path(f"/proc/{first.process.pid}/fd").iterdir()
        opened = {str(handle.readlink()) for handle in handles}
        left = [
            path
            for path in fast_dds.SHARED_MEMORY.glob("fast*_*")
            if str(fast_dds.lock_of(path)) in opened and "_port" not in path.name
        ]
        assert sum(path.stat().st_size for path in left) > fast_dds.segment_bytes(PROFILE)
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait(20)
        second = NodeProcess(domain, tmp_path / "second.log", "autostart:=true")
        nodes.append(second)
        with robot.changed:
            robot.diagnostics.clear()
        assert robot.wait(lambda: "transport" in robot.diagnostics, 60), second.log.read_text()
        assert not any(path.exists() for path in left)
    finally:
        robot.close()
        for node in nodes:
            node.stop()
