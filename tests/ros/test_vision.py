# SPDX-License-Identifier: Apache-2.0
"""`~/detections` and `~/label_info` of a real node, with vision_msgs and without.

Where vision_msgs is not installed, `FORESEG_VISION_MSGS=FOLDER` names its sources: they are built as
foreseg_msgs is, into a folder of their own, and this file runs once more with what was built.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from foreseg_msgs import msg as messages
from foreseg_msgs import srv

from foreseg_ros import qos
from tests.ros.built_interfaces import run_with_built
from tests.ros.ros_harness import NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

HAS_VISION = importlib.util.find_spec("vision_msgs") is not None
SOURCES = "FORESEG_VISION_MSGS"
TEXT = "what is moving?"

needs_vision = pytest.mark.skipif(not HAS_VISION, reason="vision_msgs is not installed")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[NodeProcess, Robot]]]:
    started: list[tuple[NodeProcess, Robot]] = []

    def start_node(*parameters: str) -> tuple[NodeProcess, Robot]:
        domain = random_domain()
        words = ("autostart:=true", "scheduler.warm_up_s:=0.3", *parameters)
        node = NodeProcess(domain, tmp_path / "node.log", *words)
        robot = Robot(domain)
        started.append((node, robot))
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        return node, robot

    yield start_node
    for node, robot in started:
        robot.close()
        node.stop()


@needs_vision
def test_detections_and_what_labels_mean_come_beside_the_masks(
    start: Callable[..., tuple[NodeProcess, Robot]],
) -> None:
    from vision_msgs.msg import Detection2DArray, LabelInfo

    _, robot = start()
    seen: dict[str, Any] = {}
    classes: set[str] = set()
    named: list[dict[int, str]] = []

    def take(msg: Any) -> None:
        with robot.changed:
            for each in msg.detections:
                seen[each.id] = (msg.header, each)
                classes.update(result.hypothesis.class_id for result in each.results)
            robot.changed.notify_all()

    def take_info(msg: Any) -> None:
        with robot.changed:
            named.append({each.class_id: each.class_name for each in msg.class_map})
            robot.changed.notify_all()

    subscribe = robot.node.create_subscription
    subscribe(Detection2DArray, "/foreseg/detections", take, qos.masks())
    subscribe(LabelInfo, "/foreseg/label_info", take_info, qos.label_info())
    assert robot.stream(lambda: {0: "background"} in named), "latched, for who comes late"
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    box = [float(v) for v in robot.box_at(stamp)]
    prompt = messages.SpatialPrompt(object_id="red box", has_box=True, box_xyxy_px=box)
    request = srv.AddObjects.Request(prompts=[prompt])
    assert robot.call(srv.AddObjects, "/foreseg/add_objects", request).success
    assert robot.stream(lambda: "red box" in seen)
    header, found = seen["red box"]
    stamp = header.stamp.sec * 10**9 + header.stamp.nanosec
    assert robot.wait(lambda: stamp in robot.tracks)
    (track,) = robot.tracks[stamp].tracks
    x0, y0, x1, y1 = track.box_xyxy_px
    centre = found.bbox.center.position
    assert (centre.x, centre.y) == ((x0 + x1) / 2, (y0 + y1) / 2)
    assert (found.bbox.size_x, found.bbox.size_y) == (x1 - x0, y1 - y0)
    (result,) = found.results
    assert result.hypothesis.class_id == "red box"
    assert result.hypothesis.score == pytest.approx(track.score)
    assert found.header == header
    assert header.frame_id == "optical"
    assert robot.stream(lambda: {0: "background", track.index: "red box"} in named)

    for _ in range(5):  # what the tracker has lost again by then is no detection
        client = robot.node.create_client(srv.Ask, "/foreseg/ask")
        assert client.wait_for_service(10)
        request = srv.Ask.Request(query=messages.Query(text=TEXT), timeout_s=15.0)
        assert robot.stream(client.call_async(request).done)
        if robot.stream(lambda: TEXT in classes, 3.0):
            break
    assert TEXT in classes
    assert any(TEXT in names.values() for names in named)


@pytest.mark.skipif(HAS_VISION, reason="vision_msgs is installed")
def test_without_vision_msgs_one_line_says_so_and_the_node_goes_on(
    start: Callable[..., tuple[NodeProcess, Robot]],
) -> None:
    node, _ = start()
    lines = [line for line in node.log.read_text().splitlines() if "vision_msgs" in line]
    assert len(lines) == 1
    assert "not installed: no ~/detections and ~/label_info" in lines[0]


def test_detections_that_are_not_wanted_are_not_there(
    start: Callable[..., tuple[NodeProcess, Robot]],
) -> None:
    node, robot = start("detections:=false")
    assert "vision_msgs" not in node.log.read_text()
    topics = {name for name, _ in robot.node.get_topic_names_and_types()}
    assert "/foreseg/masks" in topics
    assert not {"/foreseg/detections", "/foreseg/label_info"} & topics


@pytest.mark.slow
@pytest.mark.skipif(HAS_VISION, reason="vision_msgs is installed: the tests above ran with it")
def test_vision_msgs_builds_as_our_interfaces_do_and_the_node_speaks_it(tmp_path: Path) -> None:
    sources = os.environ.get(SOURCES)
    if sources is None:
        pytest.skip(f"{SOURCES} names no folder with the sources of vision_msgs")
    told = run_with_built(Path(sources), tmp_path, Path(__file__))
    assert "2 passed" in told, told[-2000:]
