# SPDX-License-Identifier: Apache-2.0
"""The launch file, as ROS's own launch runs it where there is one, and against doubles of it.

ROS's launch is not on PyPI. The doubles know only names that ROS 2 Humble to Jazzy have, and keep
what they were given.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "launch" / "foreseg.launch.py"
SHIPPED = ROOT / "launch" / "params" / "foreseg.yaml"
END_WITHIN_S = 60.0  # a launch whose node cannot start


def has_ros_launch() -> bool:
    """ROS's launch, and not only our folder of that name."""
    try:
        from launch import LaunchService  # noqa: F401
        from launch_ros.actions import Node  # noqa: F401
    except ImportError:
        return False
    return True


def loaded() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("foreseg_launch", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Recorded:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args, self.kwargs = args, kwargs


class Configuration(Recorded):
    def perform(self, context: Context) -> str:
        return context.launch_configurations[self.args[0]]


class Context:
    def __init__(self, **values: str) -> None:
        self.launch_configurations = values


class Logger:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, text: str) -> None:
        self.warnings.append(text)


NAMES = {
    "launch": ["LaunchContext", "LaunchDescription"],
    "launch.actions": ["DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable"],
    "launch.logging": [],
    "launch.substitutions": ["EnvironmentVariable"],
    "launch_ros": [],
    "launch_ros.actions": ["Node"],
}


class Doubles:
    """The launch file's actions, and what it starts for given arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.logger = Logger()
        for name, members in NAMES.items():
            module = types.ModuleType(name)
            for member in members:
                setattr(module, member, type(member, (Recorded,), {}))
            monkeypatch.setitem(sys.modules, name, module)
        vars(sys.modules["launch.logging"])["get_logger"] = lambda _: self.logger
        vars(sys.modules["launch.substitutions"])["LaunchConfiguration"] = Configuration
        self.actions: list[Recorded] = loaded().generate_launch_description().args[0]
        self.defaults = {
            action.args[0]: action.kwargs["default_value"]
            for action in self.actions
            if type(action).__name__ == "DeclareLaunchArgument"
        }

    def start(self, **arguments: str) -> dict[str, Any]:
        """The keywords of the one node that these arguments start."""
        begin = next(a for a in self.actions if type(a).__name__ == "OpaqueFunction")
        (node,) = begin.kwargs["function"](Context(**{**self.defaults, **arguments}))
        assert type(node).__name__ == "Node"
        keywords: dict[str, Any] = node.kwargs
        return keywords


@pytest.fixture
def doubles(monkeypatch: pytest.MonkeyPatch) -> Doubles:
    return Doubles(monkeypatch)


def test_it_starts_one_node_that_configures_and_activates_itself(doubles: Doubles) -> None:
    node = doubles.start()
    assert (node["package"], node["executable"]) == ("foreseg", "foreseg_node")
    assert node["parameters"] == [str(SHIPPED), {"autostart": True}]
    assert node["remappings"] == [("image", "image")]
    assert node["respawn"] is False
    assert doubles.start(autostart="False")["parameters"][1]["autostart"] is False


def test_simulated_time_and_starting_anew_are_arguments(doubles: Doubles) -> None:
    words = {"use_sim_time": "true", "compressed": "false"}
    node = doubles.start(respawn="True", respawn_delay="0.5", **words)
    assert node["parameters"][1]["use_sim_time"] is True
    assert node["parameters"][1]["compressed"] is False
    assert (node["respawn"], node["respawn_delay"]) == (True, 0.5)


def test_a_parameter_file_may_lie_in_the_home_folder(
    doubles: Doubles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text("/**: {ros__parameters: {}}\n")
    node = doubles.start(params_file="~/mine.yaml")
    assert node["parameters"][0] == str(tmp_path / "mine.yaml")


def test_it_brings_the_profile_unless_there_is_one(doubles: Doubles) -> None:
    variables = {
        action.args[0]: action.args[1]
        for action in doubles.actions
        if type(action).__name__ == "SetEnvironmentVariable"
    }
    assert set(variables) == {"FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"}
    for name, substitution in variables.items():
        assert substitution.args == (name,)
        assert Path(substitution.kwargs["default_value"]).is_file()


def test_one_camera_is_remapped_by_its_topic(doubles: Doubles) -> None:
    assert doubles.start(image="/cam/x")["remappings"] == [("image", "/cam/x")]
    named = doubles.start(image="front=/cam/x")
    assert named["remappings"] == [("image", "/cam/x")]
    assert named["parameters"][1]["cameras"] == ["front"]


def test_each_of_several_cameras_is_remapped(doubles: Doubles) -> None:
    node = doubles.start(image="front=/a/image_raw  left=b/image_raw")
    assert node["remappings"] == [("front/image", "/a/image_raw"), ("left/image", "b/image_raw")]
    assert node["parameters"][1]["cameras"] == ["front", "left"]


def test_a_calibration_elsewhere_is_remapped_by_camera(doubles: Doubles) -> None:
    alone = doubles.start(image="/cam/x", camera_info="/calibration")
    assert alone["remappings"] == [("image", "/cam/x"), ("camera_info", "/calibration")]
    several = doubles.start(image="front=/a left=/b", camera_info="left=/c")
    assert several["remappings"][2:] == [("left/camera_info", "/c")]


def test_a_depth_topic_turns_depth_on(doubles: Doubles) -> None:
    assert "depth" not in doubles.start()["parameters"][1]
    node = doubles.start(image="/cam/x", depth="/cam/aligned")
    assert node["parameters"][1]["depth"] is True
    assert node["remappings"] == [("image", "/cam/x"), ("depth", "/cam/aligned")]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("params_file", "/nonexistent/parameters.yaml"),
        ("params_file", ""),
        ("autostart", "jein"),
        ("autostart", ""),
        ("use_sim_time", "1"),
        ("compressed", "jpeg"),
        ("respawn", "yes"),
        ("respawn_delay", "soon"),
        ("respawn_delay", "-1"),
        ("camera_info", "left="),
        ("image", ""),
        ("image", "front="),
        ("image", "/a /b"),
        ("image", "front=/a front=/b"),
        ("image", "front=/a /b"),
        ("image", "front=/a,left=/b"),
        ("image", "front=/a, left=/b"),
        ("image", "front-left=/a"),
        ("image", "/cam:rgb"),
        ("image", "true"),
        ("depth", "true"),
        ("camera_info", "False"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_value(
    doubles: Doubles, name: str, value: str
) -> None:
    with pytest.raises(ValueError, match=name) as caught:
        doubles.start(**{name: value})
    assert repr(value) in str(caught.value)


def test_a_camera_that_there_is_not_has_no_calibration(doubles: Doubles) -> None:
    with pytest.raises(ValueError, match=r"camera_info wants .*\(front left\), got 'right=/c'"):
        doubles.start(image="front=/a left=/b", camera_info="right=/c")


def test_a_mistyped_argument_is_told_with_the_nearest_known_one(doubles: Doubles) -> None:
    doubles.start(imge="/cam/x", robot="theirs")
    (text,) = doubles.logger.warnings
    assert "'imge'" in text
    assert "'image' meant" in text


# With ROS's own launch


class Run:
    """A launch of the file in this process, with the node of this source tree."""

    def __init__(self, prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from tests.ros.ros_harness import SOURCES, random_domain

        node = prefix / "lib" / "foreseg" / "foreseg_node"
        node.parent.mkdir(parents=True)
        node.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m foreseg_ros.node "$@"\n')
        node.chmod(0o755)
        marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "foreseg"
        marker.parent.mkdir(parents=True)
        marker.touch()
        paths = [str(prefix), os.environ.get("AMENT_PREFIX_PATH", sys.prefix)]
        monkeypatch.setenv("AMENT_PREFIX_PATH", os.pathsep.join(paths))
        monkeypatch.setenv("ROS_DOMAIN_ID", str(random_domain()))
        monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        sources = [str(ROOT / source) for source in SOURCES]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sources))

    def end(self, **arguments: str) -> tuple[int, list[int]]:
        """What launch returns, and the exit codes of its processes; it must end by itself."""
        from launch import LaunchDescription, LaunchService
        from launch.actions import IncludeLaunchDescription, RegisterEventHandler
        from launch.event_handlers import OnProcessExit

        codes: list[int] = []
        handler = OnProcessExit(on_exit=lambda event, _: codes.append(event.returncode))
        included = IncludeLaunchDescription(str(FILE), launch_arguments=list(arguments.items()))
        service = LaunchService(noninteractive=True)
        service.include_launch_description(
            LaunchDescription([RegisterEventHandler(handler), included])
        )

        async def bounded() -> int:
            return int(await asyncio.wait_for(service.run_async(), END_WITHIN_S))

        return asyncio.run(bounded()), codes


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[int]]]:
    if not has_ros_launch():
        pytest.skip("needs ROS's launch and launch_ros, which have no wheels")
    return Run(tmp_path / "prefix", monkeypatch).end


@pytest.mark.ros
def test_the_launch_ends_with_a_node_that_cannot_start(
    run: Callable[..., tuple[int, list[int]]], tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("/**: {ros__parameters: {tracker: {bundle: /nonexistent/bundle}}}\n")
    assert run(params_file=str(params)) == (0, [1])


@pytest.mark.ros
def test_a_missing_parameter_file_ends_the_launch_before_a_node_starts(
    run: Callable[..., tuple[int, list[int]]],
) -> None:
    assert run(params_file="/nonexistent/parameters.yaml") == (1, [])
