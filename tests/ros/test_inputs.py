# SPDX-License-Identifier: Apache-2.0
"""Where images come from after remapping, and what is said when none come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage, Image

from foreseg.frames import CameraId
from foreseg_ros import qos
from foreseg_ros.camera_infos import beside_image
from foreseg_ros.conversions import compressed_msg_from_rgb, header_from_stamp
from foreseg_ros.inputs import compressed_name, image_name, silence_text, unused_remapping
from foreseg_ros.parameters import NodeSettings, declare_parameters, settings_from_node
from tests.ros.ros_harness import NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

FRONT = CameraId("front")
PLAIN, PACKED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

MakeNode = Callable[..., tuple[Node, NodeSettings]]


@pytest.fixture
def make() -> Iterator[MakeNode]:
    """Nodes with remappings of their own."""
    contexts: list[Context] = []
    nodes: list[Node] = []

    def made(
        *remaps: str, cameras: Sequence[str] = ("camera",), compressed: bool = False
    ) -> tuple[Node, NodeSettings]:
        context = Context()
        arguments = [word for remap in remaps for word in ("-r", remap)]
        rclpy.init(args=["--ros-args", *arguments], context=context, domain_id=random_domain())
        overrides = [Parameter("cameras", value=list(cameras))]
        overrides.append(Parameter("compressed", value=compressed))
        node = rclpy.create_node("foreseg", context=context, parameter_overrides=overrides)
        declare_parameters(node)
        contexts.append(context)
        nodes.append(node)
        return node, settings_from_node(node)

    yield made
    for node, context in zip(nodes, contexts, strict=True):
        node.destroy_node()
        rclpy.shutdown(context=context)


def names(node: Node, settings: NodeSettings) -> list[str]:
    return [
        node.resolve_topic_name(image_name(node, settings, camera)) for camera in settings.cameras
    ]


@pytest.mark.parametrize(
    ("remaps", "kind", "wanted"),
    [
        ((), PLAIN, "/image"),
        ((), PACKED, "/image/compressed"),
        (("__ns:=/robot",), PACKED, "/robot/image/compressed"),
        (("image:=/cam/x",), PLAIN, "/cam/x"),
        (("image:=/cam/x",), PACKED, "/cam/x/compressed"),
        (("__ns:=/robot", "image:=cam/x"), PACKED, "/robot/cam/x/compressed"),
        (("image/compressed:=/cam/jpeg",), PACKED, "/cam/jpeg"),
        (("image:=/cam/x", "/cam/x/compressed:=/cam/jpeg"), PACKED, "/cam/jpeg"),
    ],
)
def test_names_are_made_after_remapping(
    make: MakeNode, remaps: tuple[str, ...], kind: str, wanted: str
) -> None:
    assert names(*make(*remaps, compressed=kind == PACKED)) == [wanted]


def test_each_camera_is_remapped_by_its_own_name(make: MakeNode) -> None:
    node, settings = make("front/image:=/a/image_raw", cameras=("front", "left"), compressed=True)
    assert names(node, settings) == ["/a/image_raw/compressed", "/left/image/compressed"]
    assert unused_remapping(node, settings) is None


@pytest.mark.parametrize(
    ("remaps", "wanted"),
    [
        ((), "/camera_info"),
        (("image:=/cam/image_raw",), "/cam/camera_info"),
        (("__ns:=/robot", "image:=cam/x"), "/robot/cam/camera_info"),
        (("image:=/cam/image_raw", "camera_info:=/calibration"), "/calibration"),
        (("image:=/cam/x", "/cam/camera_info:=/calibration"), "/calibration"),
    ],
)
def test_a_calibration_is_read_beside_the_images(
    make: MakeNode,
    remaps: tuple[str, ...],
    wanted: str,
) -> None:
    node, settings = make(*remaps)
    name = beside_image(node, settings, settings.cameras[0], "camera_info")
    assert node.resolve_topic_name(name) == wanted


def test_each_of_several_cameras_has_its_own(make: MakeNode) -> None:
    node, settings = make("front/image:=/a/image_raw", cameras=("front", "left"))
    names = [beside_image(node, settings, camera, "camera_info") for camera in settings.cameras]
    assert [node.resolve_topic_name(name) for name in names] == [
        "/a/camera_info",
        "/left/camera_info",
    ]


def test_a_remapping_that_no_camera_reads_is_told(make: MakeNode) -> None:
    text = unused_remapping(*make("image:=/cam/x", cameras=("front", "left")))
    assert text is not None
    assert "/cam/x" in text
    assert "front/image, left/image" in text
    assert unused_remapping(*make("image:=/cam/x")) is None


def test_the_compressed_overlay_follows_its_remapping(make: MakeNode) -> None:
    node, _ = make("~/overlay:=/view")
    assert compressed_name(node, "~/overlay") == "/view/compressed"
    assert compressed_name(node, "~/left/overlay") == "/foreseg/left/overlay/compressed"


@pytest.mark.parametrize(
    ("offered", "nearby", "words"),
    [
        ([], {}, ("no publisher of sensor_msgs/msg/Image", "nobody publishes images")),
        ([], {"/cam/x": PLAIN, "/y": PACKED}, (f"/cam/x ({PLAIN}), /y ({PACKED})",)),
        ([PACKED], {}, (f"carries {PACKED}, not {PLAIN}", "set compressed: true")),
        (["std_msgs/msg/String"], {}, ("carries std_msgs/msg/String",)),
        ([PLAIN, PLAIN], {}, ("from its 2 publisher(s)", "profile")),
    ],
)
def test_silence_is_told_with_its_likely_cause(
    offered: list[str], nearby: dict[str, str], words: tuple[str, ...]
) -> None:
    text = silence_text(FRONT, "/front/image", PLAIN, offered, nearby)
    assert text.startswith("camera front: no image came on /front/image within 5 s")
    assert all(word in text for word in words), text
    assert "\n" not in text


def test_many_topics_nearby_are_cut() -> None:
    text = silence_text(FRONT, "/i", PLAIN, [], {f"/cam{n}": PLAIN for n in range(100)})
    assert "/cam5 " in text
    assert "/cam6 " not in text


def test_a_remapped_compressed_camera_is_read_and_its_silence_told_before(tmp_path: Path) -> None:
    domain = random_domain()
    node = NodeProcess(
        domain,
        tmp_path / "node.log",
        "autostart:=true",
        "compressed:=true",
        remaps=["image:=/cam/image_raw"],
    )
    robot = Robot(domain)
    near = robot.node.create_publisher(Image, "/cam/image_rect", qos.image_in())
    try:
        name = "camera camera"
        assert robot.wait(lambda: name in robot.diagnostics, 60), node.log.read_text()[-3000:]
        assert robot.wait(lambda: node.says("WARN", "no image came on"), 30)
        assert node.says(
            "no image came on /cam/image_raw/compressed", f"/cam/image_rect ({PLAIN})"
        )
        assert robot.diagnostics[name]["topic"] == "/cam/image_raw/compressed"
        images = robot.node.create_publisher(
            CompressedImage, "/cam/image_raw/compressed", qos.masks()
        )
        still = np.full((120, 160, 3), 90, np.uint8)

        def has_masks() -> bool:
            header = header_from_stamp(time.time_ns(), "optical")
            images.publish(compressed_msg_from_rgb(still, header))
            return robot.wait(lambda: bool(robot.masks), 0.2)

        assert any(has_masks() for _ in range(100))
        robot.node.destroy_publisher(images)
    finally:
        robot.node.destroy_publisher(near)
        robot.close()
        node.stop()
    assert node.log.read_text().count("no image came on") == 1
