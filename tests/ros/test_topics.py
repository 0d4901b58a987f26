# SPDX-License-Identifier: Apache-2.0
"""QoS overrides of topics, as parameters of a real node, and those that cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy

from foreseg.errors import ConfigError
from foreseg_ros.node import ForesegNode
from foreseg_ros.topics import unused_overrides
from tests.ros.ros_harness import random_domain

pytestmark = pytest.mark.ros

MASKS = "qos_overrides./foreseg/masks.publisher"
IMAGE = "qos_overrides./image.subscription"


@pytest.fixture
def make() -> Iterator[Callable[..., ForesegNode]]:
    """Nodes that were given overrides."""
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    nodes: list[ForesegNode] = []

    def made(overrides: dict[str, object]) -> ForesegNode:
        parameters = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(ForesegNode(context=context, parameter_overrides=parameters))
        return nodes[-1]

    yield made
    for node in nodes:
        node.release()
        node.destroy_node()
    rclpy.shutdown(context=context)


def test_depth_and_reliability_of_a_topic_are_parameters(
    make: Callable[..., ForesegNode],
) -> None:
    node = make(
        {
            f"{MASKS}.depth": 9,
            f"{IMAGE}.reliability": "reliable",
            "qos_overrides./foreseg/mask.publisher.depth": 3,
        }
    )
    for _ in range(2):  # what was declared once counts again
        assert node.trigger_configure().name == "SUCCESS"
        assert node.trigger_activate().name == "SUCCESS"
        (image,) = node.get_subscriptions_info_by_topic("/image")
        assert image.qos_profile.reliability is ReliabilityPolicy.RELIABLE
        masks = next(p for p in node.publishers if p.topic_name == "/foreseg/masks")
        assert masks.qos_profile.depth == 9
        answers = next(p for p in node.publishers if p.topic_name == "/foreseg/answers")
        assert answers.qos_profile.depth == 10, "its own default"
        told = unused_overrides(node)
        assert told is not None
        assert "/foreseg/mask.publisher.depth (is qos_overrides./foreseg/masks" in told
        assert node.trigger_deactivate().name == "SUCCESS"
        assert node.trigger_cleanup().name == "SUCCESS"
        assert not {p.topic_name for p in node.publishers} & {"/foreseg/masks", "/foreseg/answers"}
        assert node.get_subscriptions_info_by_topic("/image") == []


def test_each_of_several_cameras_has_topics_of_its_own(make: Callable[..., ForesegNode]) -> None:
    node = make({"cameras": ["front", "left"], "depth": True})
    assert node.trigger_configure().name == "SUCCESS"
    assert node.trigger_activate().name == "SUCCESS"
    published = {p.topic_name.removeprefix("/foreseg/") for p in node.publishers}
    read = {s.topic_name.removeprefix("/") for s in node.subscriptions}
    for camera in ("front", "left"):
        outputs = ("masks", "tracks", "camera_info", "points", "overlay", "overlay/compressed")
        assert {f"{camera}/{name}" for name in outputs} <= published
        assert {f"{camera}/{name}" for name in ("image", "camera_info", "depth")} <= read


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (f"{MASKS}.depth", -4),
        (f"{MASKS}.depth", 100_000),
        (f"{MASKS}.depth", "many"),
        (f"{MASKS}.reliability", "wild"),
        ("qos_overrides./foreseg/query.subscription.depth", -1),
    ],
)
def test_an_override_that_cannot_be_fails_configure_and_leaves_nothing(
    make: Callable[..., ForesegNode], name: str, value: object
) -> None:
    node = make({name: value})
    before = len(list(node.publishers)), len(list(node.services))
    assert node.trigger_configure().name == "FAILURE"
    assert (len(list(node.publishers)), len(list(node.services))) == before


def test_an_override_that_cannot_be_fails_activate(make: Callable[..., ForesegNode]) -> None:
    node = make({f"{IMAGE}.reliability": "wild"})
    assert node.trigger_configure().name == "SUCCESS"
    assert node.trigger_activate().name == "FAILURE"
    assert node.get_subscriptions_info_by_topic("/image") == []


def test_an_override_of_the_diagnostics_is_told_at_the_start(
    make: Callable[..., ForesegNode],
) -> None:
    with pytest.raises(ConfigError, match=r"/diagnostics.* got -3"):
        make({"qos_overrides./diagnostics.publisher.depth": -3})
