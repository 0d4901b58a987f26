# SPDX-License-Identifier: Apache-2.0
"""A mask for each query: names of topics, which come and go, and what is on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from foreseg_msgs import srv
from rclpy.validate_full_topic_name import validate_full_topic_name
from sensor_msgs.msg import Image

from foreseg.dialogue import QueryId
from foreseg_ros import qos
from foreseg_ros.conversions import labels_from_image_msg, stamp_ns_from_time
from foreseg_ros.query_masks import free_part, mask_of_labels
from tests.ros.ros_harness import NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros


@pytest.mark.parametrize(
    ("query_id", "part"),
    [("watch", "watch"), ("query-1", "query_1"), ("2nd", "q2nd"), ("Ball?", "Ball"), ("?!", "q")],
)
def test_what_a_topics_name_cannot_have_becomes_a_line(query_id: str, part: str) -> None:
    assert free_part(QueryId(query_id), []) == part


@given(st.lists(st.text(min_size=1, max_size=200), max_size=8, unique=True))
def test_every_query_has_a_name_of_its_own_that_ros_takes(ids: list[str]) -> None:
    taken: list[str] = []
    for query_id in ids:
        taken.append(free_part(QueryId(query_id), taken))
        assert validate_full_topic_name(f"/foreseg/queries/{taken[-1]}/mask")
    assert len(set(taken)) == len(ids)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_mask_has_the_pixels_of_these_labels(kind: type) -> None:
    label_map = np.array([[0, 1, 2], [3, 1, 0]], kind)
    mask = mask_of_labels(label_map, [1, 3])
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, [[0, 255, 0], [255, 255, 0]])
    assert not mask_of_labels(label_map, []).any()


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    domain = random_domain()
    words = ("autostart:=true", "query_masks:=true", "scheduler.warm_up_s:=0.3")
    node = NodeProcess(domain, tmp_path / "node.log", *words)
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: len(robot.masks) >= 20, 40), node.log.read_text()[-3000:]
        yield robot
    finally:
        robot.close()
        node.stop()


def test_a_standing_query_has_its_mask_until_it_is_removed(robot: Robot) -> None:
    masks: dict[int, np.ndarray] = {}

    def take(msg: Image) -> None:
        with robot.changed:
            masks[stamp_ns_from_time(msg.header.stamp)] = labels_from_image_msg(msg)
            robot.changed.notify_all()

    def owned(stamp: int) -> list[int]:
        return [t.index for t in robot.tracks[stamp].tracks if "watch-1" in t.query_ids]

    def found() -> int | None:
        both = set(masks) & set(robot.masks) & set(robot.tracks)
        return next((s for s in sorted(both, reverse=True) if owned(s) and masks[s].any()), None)

    topic = "/foreseg/queries/watch_1/mask"
    robot.node.create_subscription(Image, topic, take, qos.masks())
    request = srv.AddQuery.Request()
    request.query.id, request.query.text, request.query.period_s = "watch-1", "what moves?", 2.0
    assert robot.call(srv.AddQuery, "/foreseg/add_query", request).success
    assert robot.stream(lambda: found() is not None, 40)
    stamp = found()
    assert stamp is not None
    expected = np.isin(robot.masks[stamp][1], owned(stamp)) * 255
    np.testing.assert_array_equal(masks[stamp], expected)
    remove = srv.RemoveQuery.Request(query_id="watch-1")
    assert robot.call(srv.RemoveQuery, "/foreseg/remove_query", remove).success
    assert robot.stream(lambda: robot.node.count_publishers(topic) == 0)
