# SPDX-License-Identifier: Apache-2.0
"""docs/ros.md against the code: parameters word for word, topics and services as the node has them.

`python -m tests.ros.test_documentation --write` renews the table of parameters.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

import rclpy
from rclpy.context import Context

from foreseg.config import Config, settings_of
from foreseg_ros.node import ForesegNode
from foreseg_ros.parameters import OWN_PARAMETERS
from tests.ros.ros_harness import random_domain

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ros.md"
BEGIN, END = "<!-- parameters: begin", "<!-- parameters: end -->"

pytestmark = pytest.mark.ros


def table() -> str:
    """The parameters as markdown."""
    rows = ["| Parameter | Default | Range | What |", "|---|---|---|---|"]
    rows += [_row(own.name, own.default, own.low, own.high, own.about) for own in OWN_PARAMETERS]
    for name, value, item in settings_of(Config()):
        meta = item.metadata
        rows.append(_row(name, value, meta["low"], meta["high"], meta["about"]))
    return "\n".join(rows)


def _row(name: str, value: object, low: float | None, high: float | None, about: str) -> str:
    span = "" if low is None or high is None else f"{low:g} to {high:g}"
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    shown = shown or '""'
    return f"| `{name}` | `{shown}` | {span} | {about} |"


@pytest.fixture(scope="module")
def node() -> Iterator[ForesegNode]:
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    node = ForesegNode(context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_page_has_every_parameter_with_default_range_and_text() -> None:
    page = PAGE.read_text()
    shown = page[page.index(BEGIN) : page.index(END)].split("\n", 1)[1].strip()
    assert shown == table(), "renew it: python -m tests.ros.test_documentation --write"


def test_the_node_declares_what_the_page_has_and_nothing_else(node: ForesegNode) -> None:
    declared = {name for name in node._parameters if name != "use_sim_time"}
    declared -= {name for name in declared if name.startswith(("qos_overrides", "start_type"))}
    documented = set(re.findall(r"^\| `([a-z_.]+)` \|.*\|.*\|.*\|$", _parameters(), re.MULTILINE))
    assert declared == documented


def test_the_page_has_every_topic_service_and_action_with_its_type(node: ForesegNode) -> None:
    page = PAGE.read_text()
    assert node.trigger_configure().name == "SUCCESS"
    assert node.trigger_activate().name == "SUCCESS"
    found = [
        (name, types[0])
        for name, types in [
            *node.get_publisher_names_and_types_by_node("foreseg", "/"),
            *node.get_subscriber_names_and_types_by_node("foreseg", "/"),
            *node.get_service_names_and_types_by_node("foreseg", "/"),
        ]
    ]
    node.release()
    hidden = r"parameter|rosout|change_state|/get_|transition_event|_action/(?!feedback)"
    own = [
        # an action is five topics and services, and documented as one
        (
            name.replace("/foreseg/", "~/").removesuffix("/_action/feedback"),
            kind.removesuffix("_FeedbackMessage"),
        )
        for name, kind in found
        if not re.search(hidden, name)
    ]
    assert ("~/ask_foresight", "foreseg_msgs/action/AskForesight") in own
    assert ("~/masks", "sensor_msgs/msg/Image") in own
    assert ("~/ask", "foreseg_msgs/srv/Ask") in own
    rows = set(re.findall(r"^\| `\S+` \| `\S+` \|", page, re.MULTILINE))
    missing = [
        (name, kind)
        for name, kind in own
        if not {f"| `{n}` | `{kind}` |" for n in (name, name.removeprefix("/"))} & rows
    ]
    assert missing == []


def _parameters() -> str:
    page = PAGE.read_text()
    return page[page.index(BEGIN) : page.index(END)]


if __name__ == "__main__" and "--write" in sys.argv:
    text = PAGE.read_text()
    start = text.index("\n", text.index(BEGIN)) + 1
    PAGE.write_text(text[:start] + table() + "\n" + text[text.index(END) :])
