# SPDX-License-Identifier: Apache-2.0
"""The layouts for Foxglove and RViz: whole, installed, and about topics that the node has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MESSAGES = ROOT / "ros_ws/src/foreseg_msgs/msg"
FOXGLOVE = ROOT / "launch/foxglove/foreseg.json"
RVIZ = ROOT / "launch/rviz/foreseg.rviz"


# What each kind of panel and display shows; the page's types are held against the node.
SHOWN = {
    "Image": "sensor_msgs/msg/Image",
    "RawMessages": "foreseg_msgs/msg/Answer",
    "Plot": "foreseg_msgs/msg/TrackArray",
    "DiagnosticSummary": "diagnostic_msgs/msg/DiagnosticArray",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
}


def type_on_page(topic: str) -> str:
    page = (ROOT / "docs/ros.md").read_text()
    for name in (topic.replace("/foreseg", "~"), topic.removeprefix("/")):
        found = re.search(rf"^\| `{re.escape(name)}` \| `(\S+)` \|", page, re.MULTILINE)
        if found:
            return found[1]
    msg = f"docs/ros.md has no topic {topic}"
    raise AssertionError(msg)


def type_of_field(message: str, field: str) -> str:
    text = (MESSAGES / f"{message}.msg").read_text()
    found = re.search(rf"^(\S+) {field}\b", text, re.MULTILINE)
    assert found is not None, f"{message}.msg has no {field}"
    return found[1]


def panels_in(part: object) -> list[str]:
    if isinstance(part, str):
        return [part]
    assert isinstance(part, dict)
    return [*panels_in(part["first"]), *panels_in(part["second"])]


def test_every_panel_of_foxglove_has_its_place_and_its_settings() -> None:
    layout = json.loads(FOXGLOVE.read_text())
    panels = panels_in(layout["layout"])
    assert sorted(panels) == sorted(layout["configById"])


def test_the_topics_are_those_of_the_page() -> None:
    page = (ROOT / "docs/ros.md").read_text()
    text = FOXGLOVE.read_text() + RVIZ.read_text()
    topics = set(re.findall(r'"?(/foreseg/\w+|/diagnostics)\b', text))
    assert len(topics) >= 6
    for topic in topics:
        assert f"| `{topic.replace('/foreseg', '~')}` |" in page, topic


def test_each_panel_of_foxglove_shows_what_its_topic_carries() -> None:
    panels = json.loads(FOXGLOVE.read_text())["configById"]
    for name, settings in panels.items():
        kind = name.partition("!")[0]
        if kind == "Publish":
            assert settings["datatype"] == type_on_page(settings["topicName"])
            assert set(json.loads(settings["value"])) == {"data"}, "the field of std_msgs/String"
            continue
        topics = {
            "Image": lambda its: [its["imageMode"]["imageTopic"]],
            "RawMessages": lambda its: [its["topicPath"]],
            "Plot": lambda its: [path["value"].partition(".")[0] for path in its["paths"]],
            "DiagnosticSummary": lambda its: [its["topicToRender"]],
        }[kind](settings)
        assert {type_on_page(topic) for topic in topics} == {SHOWN[kind]}, name


def test_what_foxglove_plots_are_numbers_of_the_messages() -> None:
    plot = json.loads(FOXGLOVE.read_text())["configById"]["Plot!tracks"]
    for path in plot["paths"]:
        _, array, field = path["value"].split(".")
        message = type_of_field("TrackArray", array.removesuffix("[:]")).removesuffix("[]")
        assert type_of_field(message, field) in {"float32", "float64"}, path["value"]


def test_each_display_of_rviz_shows_what_its_topic_carries() -> None:
    content = yaml.safe_load(RVIZ.read_text())
    for display in content["Visualization Manager"]["Displays"]:
        if "Topic" in display:
            kind = display["Class"].removeprefix("rviz_default_plugins/")
            assert type_on_page(display["Topic"]["Value"]) == SHOWN[kind]


def test_rviz_reads_each_topic_as_it_is_published() -> None:
    content = yaml.safe_load(RVIZ.read_text())
    displays = content["Visualization Manager"]["Displays"]
    topics = [display["Topic"] for display in displays if "Topic" in display]
    assert len(topics) == 3
    assert {topic["Reliability Policy"] for topic in topics} == {"Reliable"}


def test_they_are_installed() -> None:
    text = (ROOT / "setup.py").read_text()
    for folder in ("foxglove", "rviz"):
        assert f'glob("launch/{folder}/*")' in text
