# SPDX-License-Identifier: Apache-2.0
"""What a node says of itself in each state of its life, from the first second on."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters

from tests.ros.ros_harness import NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros


def change(robot: Robot, transition: int) -> bool:
    request = ChangeState.Request(transition=Transition(id=transition))
    return bool(robot.call(ChangeState, "/foreseg/change_state", request).success)


def test_diagnostics_tell_the_state_before_there_is_anything_else(tmp_path: Path) -> None:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "tracker.bundle:=/nonexistent/bundle")
    robot = Robot(domain)

    def says(level: bytes, *words: str) -> bool:
        message = robot.diagnostics.get("lifecycle", {}).get("message", "")
        return robot.levels.get("lifecycle") == level and all(word in message for word in words)

    try:
        assert robot.wait(lambda: says(DiagnosticStatus.WARN, "unconfigured"))
        assert set(robot.diagnostics) == {"lifecycle", "transport", "time", "name"}
        assert not change(robot, Transition.TRANSITION_CONFIGURE)
        words = ("unconfigured: configure failed", "/nonexistent/bundle")
        assert robot.wait(lambda: says(DiagnosticStatus.ERROR, *words))
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="nano")
        request = SetParameters.Request(parameters=[Parameter(name="tracker.bundle", value=value)])
        assert robot.call(SetParameters, "/foreseg/set_parameters", request).results[0].successful
        assert change(robot, Transition.TRANSITION_CONFIGURE)
        assert robot.wait(lambda: says(DiagnosticStatus.WARN, "inactive"))
        assert change(robot, Transition.TRANSITION_ACTIVATE)
        assert robot.wait(lambda: says(DiagnosticStatus.OK, "active"))
        assert change(robot, Transition.TRANSITION_DEACTIVATE)
        assert change(robot, Transition.TRANSITION_CLEANUP)
        assert robot.wait(lambda: says(DiagnosticStatus.WARN, "unconfigured"))
    finally:
        robot.close()
        assert node.stop() == 0
