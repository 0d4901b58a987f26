# SPDX-License-Identifier: Apache-2.0
"""launch/sros2/foreseg.policy.xml against what the node really has in the graph, both ways."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

import rclpy
from rclpy.context import Context
from rclpy.parameter import Parameter

from foreseg.dialogue import Query, QueryId
from foreseg_ros.node import ForesegNode
from foreseg_ros.parameters import is_installed
from tests.ros.ros_harness import random_domain

pytestmark = pytest.mark.ros

POLICY = Path(__file__).resolve().parents[2] / "launch" / "sros2" / "foreseg.policy.xml"
ACTION = re.compile(r"(.+)/_action/\w+")
Names = dict[str, set[str]]
# What a right speaks of: in the policy, and asked of the graph.
RIGHTS = ("publish", "subscribe", "reply", "execute")


def allowed() -> Names:
    """Full names in the policy by right."""
    found: Names = {right: set() for right in RIGHTS}
    for group in ET.parse(POLICY).getroot().iter():  # noqa: S314 (our own file)
        for right in found.keys() & group.attrib.keys():
            assert group.attrib[right] == "ALLOW"
            found[right] |= {full(str(entry.text)) for entry in group}
    return found


def full(name: str) -> str:
    """A name of a node /foreseg, as SROS2 makes it whole."""
    name = name.replace("~", "/foreseg", 1) if name.startswith("~") else name
    return name if name.startswith("/") else f"/{name}"


def had(node: ForesegNode) -> Names:
    """What a node has in the graph; an action's topics and services stand for the action."""
    asked = {
        "publish": node.get_publisher_names_and_types_by_node,
        "subscribe": node.get_subscriber_names_and_types_by_node,
        "reply": node.get_service_names_and_types_by_node,
    }
    found: Names = {right: set() for right in RIGHTS}
    for right, ask in asked.items():
        for name, _ in ask("foreseg", "/"):
            action = ACTION.fullmatch(name)
            found["execute" if action else right].add(action[1] if action else name)
    return found


@pytest.fixture(scope="module")
def real() -> Names:
    """Of nodes with all options between them."""
    found: Names = {right: set() for right in RIGHTS}
    for options in (
        {"depth": True, "query_masks": True, "use_sim_time": True},
        {"compressed": True},
    ):
        context = Context()
        rclpy.init(context=context, domain_id=random_domain())
        node = ForesegNode(
            context=context,
            parameter_overrides=[Parameter(name, value=value) for name, value in options.items()],
        )
        try:
            assert node.trigger_configure().name == "SUCCESS"
            assert node.trigger_activate().name == "SUCCESS"
            if node._query_masks is not None:
                node._query_masks.keep_up([Query(id=QueryId("red"), text="what moves?")])
            for right, names in had(node).items():
                found[right] |= {name.replace("/queries/red/", "/queries/*/") for name in names}
        finally:
            node.release()
            node.destroy_node()
            rclpy.shutdown(context=context)
    return found


@pytest.mark.parametrize("right", RIGHTS)
def test_the_node_has_no_name_that_the_policy_does_not_allow(real: Names, right: str) -> None:
    assert real[right]
    assert real[right] - allowed()[right] == set()


@pytest.mark.parametrize("right", RIGHTS)
def test_the_policy_allows_no_name_that_the_node_does_not_have(real: Names, right: str) -> None:
    optional = set() if is_installed("bond") else {"/bond"}
    if not is_installed("vision_msgs"):
        optional |= {"/foreseg/detections", "/foreseg/label_info"}
    # Of the services of a lifecycle and of types, distributions have more or fewer.
    optional |= {"/foreseg/get_transition_graph", "/foreseg/get_type_description"}
    assert allowed()[right] - real[right] - optional == set()
