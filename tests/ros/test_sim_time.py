# SPDX-License-Identifier: Apache-2.0
"""A node on simulated time while /clock is absent, goes, and stands still."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs.action import AskForesight
from rclpy.action import ActionClient
from rosgraph_msgs.msg import Clock

from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp
from tests.ros.ros_harness import WAIT_S, NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

CAMERA, TIME = "camera camera", "time"
SIMULATED_S = 100


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    domain = random_domain()
    log = tmp_path_factory.mktemp("node") / "node.log"
    node = NodeProcess(
        domain, log, "autostart:=true", "use_sim_time:=true", "scheduler.warm_up_s:=60.0"
    )
    robot = Robot(domain)
    try:
        assert robot.wait(lambda: CAMERA in robot.diagnostics, 60), log.read_text()[-3000:]
        yield robot
    finally:
        robot.close()
        node.stop()


def stream_without_stamps(robot: Robot, num_masks: int) -> bool:
    """Send images with a zero stamp until there are so many masks."""
    with robot.changed:
        robot.masks.clear()
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        robot.send(stamp_ns=0)
        if robot.wait(lambda: len(robot.masks) >= num_masks, 0.05):
            return True
    return False


def says(robot: Robot, part: str, words: str) -> bool:
    return words in robot.diagnostics.get(part, {}).get("message", "")


def test_without_a_clock_images_without_stamps_get_the_wall_time(robot: Robot) -> None:
    before_ns = time.time_ns()
    assert stream_without_stamps(robot, 5)
    assert all(before_ns <= stamp <= time.time_ns() for stamp in robot.masks)
    assert robot.wait(lambda: says(robot, TIME, "nothing has come on /clock"))
    assert robot.levels[TIME] == DiagnosticStatus.WARN


@pytest.mark.fault
def test_without_a_clock_a_camera_that_falls_silent_is_an_error(robot: Robot) -> None:
    assert stream_without_stamps(robot, 1)
    assert robot.wait(lambda: says(robot, CAMERA, "no frame for"))
    assert robot.levels[CAMERA] == DiagnosticStatus.ERROR


def test_without_a_clock_a_goal_is_cancelled(robot: Robot) -> None:
    assert stream_without_stamps(robot, 1)
    client = ActionClient(robot.node, AskForesight, "/foreseg/ask_foresight")
    assert client.wait_for_server(WAIT_S)
    goal = AskForesight.Goal(query=messages.Query(text="what is moving?"))
    sent = robot.in_turn(lambda: client.send_goal_async(goal))
    assert robot.wait(sent.done)
    handle = sent.result()
    cancelled = robot.in_turn(handle.cancel_goal_async)
    result = robot.in_turn(handle.get_result_async)
    assert robot.wait(result.done)
    assert cancelled.done()
    assert result.result().status == GoalStatus.STATUS_CANCELED
    client.destroy()


def test_stamps_follow_the_clock_as_soon_as_there_is_one(robot: Robot) -> None:
    clock = robot.node.create_publisher(Clock, "/clock", qos.masks())
    now_ns = SIMULATED_S * 10**9

    def tick() -> bool:
        nonlocal now_ns
        now_ns += 10**7
        clock.publish(Clock(clock=header_from_stamp(now_ns, "").stamp))
        robot.send(stamp_ns=0)
        return robot.wait(lambda: any(0 < s < 2 * SIMULATED_S * 10**9 for s in robot.masks), 0.05)

    assert any(tick() for _ in range(400))
    assert robot.wait(lambda: says(robot, TIME, "/clock stands at 10"))
    robot.node.destroy_publisher(clock)
