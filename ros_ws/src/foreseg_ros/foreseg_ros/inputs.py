# SPDX-License-Identifier: Apache-2.0
"""The node's input side: the cameras' images, and what to say when a camera sends none.

Names are taken after remapping: `image:=/cam/x` moves the compressed images, too, as
image_transport has it. Images are converted and handed over; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from functools import partial
from typing import Final

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from foreseg.clock import Clock
from foreseg.driving.worker import Worker
from foreseg.errors import InputError
from foreseg.frames import CameraId, U8Array
from foreseg.pipeline.state import CameraState
from foreseg.telemetry import DropCause
from foreseg_ros import qos
from foreseg_ros.clocks import stamp_now_ns
from foreseg_ros.conversions import rgb_from_compressed_msg, rgb_from_image_msg, stamp_ns_from_time
from foreseg_ros.drops import DropWatch
from foreseg_ros.parameters import NodeSettings
from foreseg_ros.topics import Topics

WARN_PERIOD_S: Final = 5.0
SILENT_AFTER_S: Final = 5.0  # since activate; a driver needs its time to start
MAX_NEARBY: Final = 6  # topics that a warning names
TYPES: Final = {Image: "sensor_msgs/msg/Image", CompressedImage: "sensor_msgs/msg/CompressedImage"}


class ImageInputs:
    """Subscribes to the cameras' images at activate."""

    def __init__(
        self,
        node: LifecycleNode,
        topics: Topics,
        worker: Worker,
        settings: NodeSettings,
        clock: Clock,
    ) -> None:
        self._node = node
        self._worker = worker
        self._settings = settings
        self._clock = clock
        self._kind: type[Image | CompressedImage] = (
            CompressedImage if settings.compressed else Image
        )
        self._silent = set(settings.cameras)  # no image has come from these
        self._watches = {camera: DropWatch() for camera in settings.cameras}
        self._refused: dict[CameraId, str] = {}  # why its last bad image was none
        self._look_ns: int | None = clock.monotonic_ns() + round(SILENT_AFTER_S * 1e9)
        group = MutuallyExclusiveCallbackGroup()
        for camera in settings.cameras:
            name, take = image_name(node, settings, camera), partial(self._take, camera)
            topics.subscription(self._kind, name, take, qos.image_in(), group)
        self.topics: dict[CameraId, str] = {  # as they are after remapping
            camera: node.resolve_topic_name(image_name(node, settings, camera))
            for camera in settings.cameras
        }
        unused = unused_remapping(node, settings)
        if unused is not None:
            node.get_logger().warning(unused)

    def look_for_silence(self) -> None:
        """Once, some seconds after activate: say which cameras sent nothing, and why perhaps."""
        if self._look_ns is None or self._clock.monotonic_ns() < self._look_ns:
            return
        self._look_ns = None
        for camera in sorted(self._silent):
            topic = self.topics[camera]
            offered = [info.topic_type for info in self._node.get_publishers_info_by_topic(topic)]
            nearby = images_nearby(self._node, topic)
            text = silence_text(camera, topic, TYPES[self._kind], offered, nearby)
            self._node.get_logger().warning(text)

    def drop_problems(self, cameras: Mapping[CameraId, CameraState]) -> dict[CameraId, str]:
        """Cameras of whose images many were dropped within the last seconds, and why."""
        found: dict[CameraId, str] = {}
        for camera, watch in self._watches.items():
            steady = watch.look(cameras[camera])
            if steady is None:
                continue
            found[camera] = str(steady)
            num_publishers = self._node.count_publishers(self.topics[camera])
            if steady.cause is DropCause.BAD_IMAGE and camera in self._refused:
                found[camera] += f" ({self._refused[camera]})"
            elif steady.cause is DropCause.STAMP_BACKWARD and num_publishers > 1:
                found[camera] += f" ({num_publishers} publishers share {self.topics[camera]})"
        return found

    def _take(self, camera: CameraId, msg: Image | CompressedImage) -> None:
        self._silent.discard(camera)
        try:
            image = _decoded(msg, self._settings.max_image_pixels)
            stamp_ns = stamp_ns_from_time(msg.header.stamp)
        except InputError as error:
            self._refused[camera] = str(error)
            self._worker.drop_frame(camera, DropCause.BAD_IMAGE)
            self._node.get_logger().warning(
                f"camera {camera}: {error}", throttle_duration_sec=WARN_PERIOD_S
            )
            return
        if stamp_ns == 0:
            stamp_ns = stamp_now_ns(self._node)
            self._node.get_logger().warning(
                f"camera {camera} sends images without a stamp: the time of arrival is used",
                throttle_duration_sec=WARN_PERIOD_S,
            )
        self._worker.submit_frame(camera, image, stamp_ns, msg.header.frame_id)


def image_name(node: Node, settings: NodeSettings, camera: CameraId) -> str:
    """The name to subscribe to for a camera's images.

    That of compressed images is made of the *remapped* name of the plain ones. It can be remapped
    once more, by itself.
    """
    name = f"{settings.input_prefix(camera)}image"
    return compressed_name(node, name) if settings.compressed else name


def compressed_name(node: Node, name: str) -> str:
    """The name of the compressed images beside the plain ones, wherever those are remapped to."""
    return f"{node.resolve_topic_name(name)}/compressed"


def unused_remapping(node: Node, settings: NodeSettings) -> str | None:
    """What to say if `image` is remapped though several cameras read other names."""
    target = node.resolve_topic_name("image")
    if len(settings.cameras) == 1 or target == node.resolve_topic_name("image", only_expand=True):
        return None
    names = ", ".join(f"{camera}/image" for camera in settings.cameras)
    return f"image is remapped to {target}, but with several cameras it is not read; remap {names}"


def images_nearby(node: Node, topic: str) -> dict[str, str]:
    """Topics with images that other nodes publish: name -> type, the most alike names first."""
    own = {
        name
        for name, _ in node.get_publisher_names_and_types_by_node(
            node.get_name(), node.get_namespace()
        )
    }
    found = {
        name: kind
        for name, kinds in node.get_topic_names_and_types()
        for kind in kinds
        if kind in TYPES.values() and name not in own and name != topic
        if node.count_publishers(name)
    }
    alike = {name: SequenceMatcher(None, topic, name).ratio() for name in found}
    return {name: found[name] for name in sorted(found, key=lambda name: (-alike[name], name))}


def silence_text(
    camera: CameraId, topic: str, wanted: str, offered: Sequence[str], nearby: Mapping[str, str]
) -> str:
    """Why no image may have come, and what to do.

    Args:
        camera: that is silent.
        topic: that it is read from.
        wanted: the type that is read.
        offered: the types that are published there, one for each publisher.
        nearby: `images_nearby`'s result.
    """
    start = f"camera {camera}: no image came on {topic} within {SILENT_AFTER_S:g} s"
    if wanted in offered:
        return (
            f"{start} from its {offered.count(wanted)} publisher(s): does the camera run, and has"
            " its process the Fast DDS profile?"
        )
    if offered:
        is_compressed = str(TYPES[CompressedImage] in offered).lower()
        hint = f"; set compressed: {is_compressed}" if set(offered) & set(TYPES.values()) else ""
        return f"{start}: it carries {', '.join(sorted(set(offered)))}, not {wanted}{hint}"
    shown = [f"{name} ({kind})" for name, kind in list(nearby.items())[:MAX_NEARBY]]
    where = f"images are on {', '.join(shown)}" if shown else "nobody publishes images here"
    return f"{start}: it has no publisher of {wanted}; {where}"


def _decoded(msg: Image | CompressedImage, max_pixels: int) -> U8Array:
    if isinstance(msg, CompressedImage):
        return rgb_from_compressed_msg(msg, max_pixels=max_pixels)
    return rgb_from_image_msg(msg, max_pixels=max_pixels)
