# SPDX-License-Identifier: Apache-2.0
"""The set-up's decisions: what is stale, what a failure is called, which paths are repaired."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "ros_ws/setup_venv.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Steps:
    """Replaces the slow steps of a set-up by a list of their names."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, script: ModuleType, venv: Path, *interfaces: Path
    ) -> None:
        self.done: list[str] = []
        self.setup = script.VenvSetup(venv, ("dev",), interfaces)
        for name in ("_check_tools", "_check_disk", "_register_package"):
            monkeypatch.setattr(self.setup, name, lambda: None)
        monkeypatch.setattr(self.setup, "_make_venv", self._make_venv)
        monkeypatch.setattr(self.setup, "_install", self.done.extend)
        monkeypatch.setattr(
            self.setup, "_build_interfaces", lambda source: self.done.append(source.name)
        )

    def _make_venv(self) -> None:
        self.done.append("venv")
        self.setup.python.parent.mkdir(parents=True, exist_ok=True)
        self.setup.python.touch()

    def run(self) -> list[str]:
        self.done.clear()
        self.setup.run()
        return list(self.done)


ALL = ["venv", "demo", "ros-build", "dev", "foreseg_msgs"]


def test_a_second_run_does_nothing(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    steps = Steps(monkeypatch, script, tmp_path)
    assert steps.run() == ALL
    assert steps.run() == []


def test_a_lost_interpreter_starts_over(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    steps = Steps(monkeypatch, script, tmp_path)
    steps.run()
    steps.setup.python.unlink()
    assert "venv" in steps.run()


def test_a_changed_message_builds_the_interfaces_alone(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    interfaces = tmp_path / "foreseg_msgs"
    interfaces.mkdir()
    (interfaces / "A.msg").write_text("bool a\n", "utf-8")
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script, "INTERFACES", interfaces)
    steps = Steps(monkeypatch, script, tmp_path / "venv")
    assert steps.run() == ALL
    (interfaces / "A.msg").write_text("bool b\n", "utf-8")
    assert steps.run() == ["foreseg_msgs"]
    (tmp_path / "constraints.txt").write_text("numpy==2\n", "utf-8")
    assert steps.run() == ["demo", "ros-build", "dev"]


def test_another_package_of_interfaces_is_built_once(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    other = tmp_path / "vision_msgs"
    other.mkdir()
    (other / "CMakeLists.txt").write_text("project(vision_msgs)\n", "utf-8")
    steps = Steps(monkeypatch, script, tmp_path / "venv", script._package_folder(str(other)))
    assert steps.run() == [*ALL, "vision_msgs"]
    assert steps.run() == []
    manifests = {steps.setup._manifest_of(each).name for each in (script.INTERFACES, other)}
    assert manifests == {"install_manifest.txt", "install_manifest_vision_msgs.txt"}


def test_a_folder_that_is_no_package_is_refused_with_its_name(
    script: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(script.argparse.ArgumentTypeError, match=r"CMakeLists\.txt, got '/"):
        script._package_folder(str(tmp_path))


def test_a_step_that_failed_is_done_again(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    steps = Steps(monkeypatch, script, tmp_path)

    def fail(_: Path) -> None:
        text = "no compiler"
        raise script.SetupError(text)

    with monkeypatch.context() as broken:
        broken.setattr(steps.setup, "_build_interfaces", fail)
        with pytest.raises(script.SetupError):
            steps.run()
    assert steps.run() == ["foreseg_msgs"]


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("NewConnectionError: Failed to establish a new connection", "cannot reach the package"),
        ("ERROR: No matching distribution found for rclpy", "the package index has no rclpy"),
        ("g++: internal error", "failed (log:"),
    ],
)
def test_a_failed_command_is_explained(
    script: ModuleType, tmp_path: Path, output: str, sentence: str
) -> None:
    assert sentence in script._cause_of(["pip", "install"], [output], tmp_path / "log")


def test_a_python_that_does_not_fit_and_no_other_is_said(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    with pytest.raises(script.SetupError, match=r"3\.10 to 3\.12 is wanted, this is 3\.13\.0"):
        script._use_fitting_python()


def test_a_full_disk_is_said_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    setup = script.VenvSetup(tmp_path / "venv", ("dev",))
    setup.state.mkdir(parents=True)
    monkeypatch.setitem(script.FREE_BYTES, "dev", 10**18)
    with pytest.raises(script.SetupError, match="GB free, the disk has"):
        setup._check_disk()


def test_leaking_variables_do_not_reach_the_steps(
    monkeypatch: pytest.MonkeyPatch, script: ModuleType, tmp_path: Path
) -> None:
    for name in script.LEAKING:
        monkeypatch.setenv(name, "elsewhere")
    env = script.VenvSetup(tmp_path, ()).env
    assert "elsewhere" not in {env.get(name) for name in script.LEAKING}
    assert env["CMAKE_PREFIX_PATH"] == str(tmp_path)


def test_old_interface_files_go_and_others_stay(script: ModuleType, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    setup = script.VenvSetup(venv, ())
    setup.state.mkdir(parents=True)
    inside, outside = venv / "old.so", tmp_path / "mine.txt"
    for path in (inside, outside):
        path.touch()
    manifest = setup.state / "install_manifest.txt"
    manifest.write_text(f"{inside}\n{outside}\n", "utf-8")
    setup._remove_old_interfaces(manifest)
    assert not inside.exists()
    assert outside.exists()


def test_the_package_is_registered_so_that_ros2_launch_finds_its_files(
    script: ModuleType, tmp_path: Path
) -> None:
    venv = tmp_path / "venv"
    share = venv / "share" / "foreseg"
    share.mkdir(parents=True)
    (share / "launch").symlink_to(ROOT / "launch")  # as an older set-up left it
    for _ in range(2):
        script.VenvSetup(venv, ())._register_package()
        (share / "launch" / "gone.launch.py").symlink_to(tmp_path / "gone")
    script.VenvSetup(venv, ())._register_package()
    found = {name for _, _, names in os.walk(share) for name in names}  # as ros2 launch looks
    assert found == {"package.xml", "foreseg.launch.py", "foreseg.yaml", "fastdds.xml"}
    for name in ("foreseg.launch.py", "params/foreseg.yaml"):
        linked = (share / "launch" / name).resolve()
        assert linked == (ROOT / "launch" / name).resolve()
