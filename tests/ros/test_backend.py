# SPDX-License-Identifier: Apache-2.0
"""What executes the engines, and what a model is worth, is said by the node: refused, or a warning."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from diagnostic_msgs.msg import DiagnosticStatus

from tests.ros.ros_harness import NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

# nobody built engines of the shipped bundle: this back-end starts nowhere
UNBUILT = ("autostart:=true", "tracker.backend:=tensorrt")


def test_a_back_end_that_does_not_start_fails_the_start(tmp_path: Path) -> None:
    node = NodeProcess(random_domain(), tmp_path / "node.log", *UNBUILT)
    assert node.process.wait(40) == 1
    text = node.log.read_text()
    assert "configure failed: " in text
    assert "Traceback" not in text


def test_a_fallback_is_a_warning_in_the_diagnostics(tmp_path: Path) -> None:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", *UNBUILT, "tracker.allow_fallback:=true")
    robot = Robot(domain)
    try:
        assert robot.stream(
            lambda: (
                "instead of tensorrt" in robot.diagnostics.get("tracker", {}).get("message", "")
            )
        )
        assert robot.levels["tracker"] == DiagnosticStatus.WARN
        assert robot.diagnostics["tracker"]["backend"] in {"cpu", "cuda"}
        assert robot.stream(lambda: bool(robot.masks))
    finally:
        code = node.stop()
        robot.close()
    assert code == 0, node.log.read_text()[-3000:]


def test_a_model_that_failed_its_check_is_a_warning_in_the_diagnostics(tmp_path: Path) -> None:
    domain = random_domain()
    kind = "reasoner.kind:=tests.support.reasoners:cautious"
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true", kind)
    robot = Robot(domain)
    try:
        said = "up: UNCHECKED: it sees nothing"
        assert robot.stream(
            lambda: robot.diagnostics.get("reasoner", {}).get("message") == said, 60
        )
        assert robot.levels["reasoner"] == DiagnosticStatus.WARN
    finally:
        code = node.stop()
        robot.close()
    assert code == 0, node.log.read_text()[-3000:]
