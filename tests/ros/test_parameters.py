# SPDX-License-Identifier: Apache-2.0
"""Values from files and the command line: numbers of the other kind, wrong ones, unknown names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")

import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from foreseg.errors import ConfigError
from foreseg_ros.parameters import (
    config_from_node,
    declare_parameters,
    is_installed,
    known_names,
    settings_from_node,
    unknown_text,
)
from tests.ros.ros_harness import NodeProcess, random_domain

pytestmark = pytest.mark.ros


@pytest.fixture
def make() -> Iterator[Callable[..., Node]]:
    """Nodes that were given values."""
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    nodes: list[Node] = []

    def made(**values: object) -> Node:
        overrides = [
            Parameter(name.replace("__", "."), value=value) for name, value in values.items()
        ]
        nodes.append(rclpy.create_node("foreseg", context=context, parameter_overrides=overrides))
        return nodes[-1]

    yield made
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_whole_number_is_a_float_where_one_is_wanted(make: Callable[..., Node]) -> None:
    node = make(overlay_hz=5, catch_up__budget_s=3, trace_max_bytes=1e9, history__max_frames=90.0)
    declare_parameters(node)
    settings, config = settings_from_node(node), config_from_node(node)
    assert (settings.overlay_hz, type(settings.overlay_hz)) == (5.0, float)
    assert (settings.trace_max_bytes, type(settings.trace_max_bytes)) == (10**9, int)
    assert config.catch_up.budget_s == 3.0
    assert config.history.max_frames == 90


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overlay_hz", "fast"),
        ("overlay_hz", True),
        ("overlay_hz", 500.0),
        ("overlay_hz", 500),
        ("autostart", 1),
        ("cameras", "front"),
        ("cameras", [1, 2]),
        ("tracker__bundle", 5),
        ("tracker__threads", 1.5),
        ("tracker__threads", 0),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_name(
    make: Callable[..., Node], name: str, value: object
) -> None:
    with pytest.raises(ConfigError, match=name.replace("__", r"\.")) as caught:
        declare_parameters(make(**{name: value}))
    assert str(value).strip("[]").replace(" ", "") in str(caught.value).replace(" ", "")


def test_unknown_names_are_told_with_the_nearest_known_one() -> None:
    names = ["tracker.bundel", "robot_name", "use_sim_time", "qos_overrides./image.depth"]
    assert unknown_text(names, known_names()) == (
        "without effect, no such parameter: robot_name, tracker.bundel (is tracker.bundle meant?)"
    )
    assert unknown_text(["use_sim_time"], known_names()) is None


def test_a_folder_with_a_packages_sources_is_not_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_msgs" / "msg").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_installed("some_msgs")
    assert not is_installed("no_such_msgs")
    assert is_installed("rclpy")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-p", "overlay_hz:=fast"), ("overlay_hz", "'fast'")),
        (("--params-file", "/nonexistent/p.yaml"), ("/nonexistent/p.yaml",)),
    ],
)
def test_a_wrong_argument_ends_the_node_with_one_sentence(
    tmp_path: Path, words: tuple[str, ...], told: tuple[str, ...]
) -> None:
    node = NodeProcess(random_domain(), tmp_path / "node.log", arguments=words)
    assert node.process.wait(40) == 1
    assert node.says("FATAL", *told)
    assert "Traceback" not in node.log.read_text()


def test_a_mistyped_parameter_is_told_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "parameters.yaml"
    file.write_text("/**: {ros__parameters: {tracker: {bundel: nano}, overlay_hz: 5}}\n")
    words = ("--params-file", str(file))
    node = NodeProcess(
        random_domain(),
        tmp_path / "node.log",
        "tracker.bundle:=/nonexistent/bundle",
        "autostart:=true",
        arguments=words,
    )
    assert node.process.wait(40) == 1  # for the bundle alone
    assert node.says("WARN", "tracker.bundel (is tracker.bundle meant?)")
    assert node.says("configure failed", "/nonexistent/bundle")
