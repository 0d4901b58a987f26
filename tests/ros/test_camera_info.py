# SPDX-License-Identifier: Apache-2.0
"""A camera's calibration, passed on beside its masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from sensor_msgs.msg import CameraInfo

from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp, stamp_ns_from_time
from tests.ros.ros_harness import NodeProcess, Robot

pytestmark = pytest.mark.ros


def test_a_calibration_comes_with_the_header_of_each_mask(
    running: tuple[NodeProcess, Robot, Path],
) -> None:
    _, robot, _ = running
    found: dict[int, Any] = {}

    def take(msg: CameraInfo) -> None:
        with robot.changed:
            found[stamp_ns_from_time(msg.header.stamp)] = msg
            robot.changed.notify_all()

    subscription = robot.node.create_subscription(
        CameraInfo, "/foreseg/camera_info", take, qos.masks()
    )
    publisher = robot.node.create_publisher(CameraInfo, "/camera_info", qos.masks())
    sent = CameraInfo(header=header_from_stamp(5, "other"), width=160, height=120)
    sent.k = [float(v) for v in range(9)]
    sent.d = [0.1, 0.2]

    def has_come() -> bool:
        publisher.publish(sent)
        return bool(found)

    assert robot.stream(has_come)
    stamp = robot.send()
    assert robot.wait(lambda: stamp in found and stamp in robot.masks)
    got = found[stamp]
    assert got.header.frame_id == robot.masks[stamp][0] == "optical"
    assert (list(got.k), list(got.d), got.width) == (list(sent.k), list(sent.d), 160)
    robot.node.destroy_subscription(subscription)
    robot.node.destroy_publisher(publisher)
