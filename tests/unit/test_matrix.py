# SPDX-License-Identifier: Apache-2.0
"""The matrix of distributions: which wheels each gets, and what is said where there are none."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "ros_ws"))
    spec = importlib.util.spec_from_file_location("matrix_script", ROOT / "ros_ws/matrix.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "matrix_script", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "PLACE", tmp_path)
    return module


def test_a_distribution_gets_its_own_wheels_and_no_pin_of_jazzys(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = matrix.DistributionSetup("kilted")
    setup.state.mkdir(parents=True)
    calls: list[list[str]] = []
    monkeypatch.setattr(setup, "_call", lambda words: calls.append([str(w) for w in words]))
    listed = "ros-jazzy-rclpy; extra\nros-jazzy-python-cmake-module; extra\n"
    done = subprocess.CompletedProcess([], 0, stdout=listed)
    monkeypatch.setattr(matrix.subprocess, "run", lambda *_, **__: done)
    setup._install([])
    ours, wheels = calls
    assert ours[-len(matrix.TOOLS) - 1].startswith(f"{ROOT}[cpu,")
    assert wheels[-2:] == ["ros-kilted-ament-cmake-ros-core", "ros-kilted-rclpy"]
    pins = (setup.state / "constraints.txt").read_text()
    assert "numpy==" in pins
    assert "\nros-" not in pins


def test_without_wheels_a_distribution_is_told_and_no_failure(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["matrix.py", "humble"])
    assert matrix.main() == 0
    assert capsys.readouterr().out.startswith("humble: not run: PyPI has no wheels of it")


def test_an_unknown_distribution_is_one_sentence(
    matrix: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["matrix.py", "foxy"])
    with pytest.raises(SystemExit):
        matrix.main()
    assert "expected of humble, jazzy, kilted, got foxy" in capsys.readouterr().err
