# SPDX-License-Identifier: Apache-2.0
"""What lies beside a camera's images: its calibration, as `camera_info` tells it.

The newest one counts for every frame; it is passed on with the header of the masks.
"""

from __future__ import annotations

from copy import copy
from functools import partial

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo

from foreseg.driving.executor import PublishedMasks
from foreseg.frames import CameraId
from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp
from foreseg_ros.parameters import NodeSettings
from foreseg_ros.topics import Topics


class CameraInfos:
    """The newest calibration of each camera that sends one; for any thread."""

    def __init__(self) -> None:
        self._newest: dict[CameraId, CameraInfo] = {}

    def subscribe(self, node: Node, topics: Topics, settings: NodeSettings) -> None:
        """Begin to read them, where they are wanted.

        Raises:
            ConfigError: a QoS override that cannot be.
        """
        if not settings.reads_camera_info:
            return
        group = MutuallyExclusiveCallbackGroup()
        for camera in settings.cameras:
            name = beside_image(node, settings, camera, "camera_info")
            take = partial(self._newest.__setitem__, camera)
            topics.subscription(CameraInfo, name, take, qos.camera_info_in(), group)

    def of(self, camera: CameraId) -> CameraInfo | None:
        """The newest one of a camera, as it came."""
        return self._newest.get(camera)


class InfoOutput:
    """`~/camera_info`: the newest calibration with the header of the masks."""

    def __init__(self, topics: Topics, settings: NodeSettings, infos: CameraInfos) -> None:
        """Make the publishers.

        Raises:
            ConfigError: a QoS override that cannot be.
        """
        self._infos = infos
        self._publishers = {
            camera: topics.publisher(
                CameraInfo, f"{settings.output_prefix(camera)}/camera_info", qos.masks()
            )
            for camera in settings.cameras
        }

    def publish(self, masks: PublishedMasks) -> None:
        """Where somebody subscribes, and a calibration has come."""
        frame = masks.frame
        publisher, newest = self._publishers[frame.camera], self._infos.of(frame.camera)
        if newest is None or not publisher.get_subscription_count():
            return
        msg = copy(newest)
        msg.header = header_from_stamp(frame.stamp_ns, frame.frame_id)
        publisher.publish(msg)


def beside_image(node: Node, settings: NodeSettings, camera: CameraId, last: str) -> str:
    """The name of a topic that lies in the folder of a camera's images, wherever those come from.

    image_transport has it so: beside `/cam/image_raw` lies `/cam/camera_info`. Where the topic's own
    name (`camera_info`, `NAME/camera_info`) is remapped, that counts.
    """
    prefix = settings.input_prefix(camera)
    own = f"{prefix}{last}"
    resolved = node.resolve_topic_name(own)
    if resolved != node.resolve_topic_name(own, only_expand=True):
        return own
    image = node.resolve_topic_name(f"{prefix}image")
    return f"{image.rpartition('/')[0]}/{last}"
