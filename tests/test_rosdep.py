# SPDX-License-Identifier: Apache-2.0
"""`rosdep install` knows every key of our manifests; the public lists' part of it is kept here."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MANIFESTS = (ROOT / "package.xml", ROOT / "ros_ws/src/foreseg_msgs/package.xml")
OURS = {"foreseg", "foreseg_msgs"}


def test_every_key_is_in_the_public_lists() -> None:
    lists = yaml.safe_load((ROOT / "tests/golden/rosdep_keys.yaml").read_text("utf-8"))
    keys = {
        str(element.text)
        for path in MANIFESTS
        for element in ET.parse(path).getroot()  # noqa: S314 (ours)
        if element.tag.endswith("depend")
    }
    assert keys - OURS == {*lists["system"], *lists["ros"]}, "and none that nobody needs any more"
