# SPDX-License-Identifier: Apache-2.0
"""The layouts for Foxglove and RViz: whole, installed, and about topics that the node has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
FOXGLOVE = ROOT / "launch/foxglove/foreseg.json"
RVIZ = ROOT / "launch/rviz/foreseg.rviz"


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
