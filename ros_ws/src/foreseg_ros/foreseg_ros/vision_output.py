# SPDX-License-Identifier: Apache-2.0
"""`~/detections` and `~/label_info`, where vision_msgs is installed.

The package is a soft dependency: without it the node says so once and does all else.
"""

from __future__ import annotations

from rclpy.node import Node
from std_msgs.msg import Header

from foreseg.dialogue import Answer
from foreseg.driving.executor import PublishedMasks
from foreseg.frames import CameraId
from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp
from foreseg_ros.detections import (
    Detection,
    QueryTexts,
    detections_from_tracks,
    names_of_labels,
)
from foreseg_ros.parameters import NodeSettings, is_installed
from foreseg_ros.topics import Topics


def vision_output(node: Node, topics: Topics, settings: NodeSettings) -> VisionOutput | None:
    """Its publishers; None where they are not wanted, or cannot be had."""
    if not settings.detections:
        return None
    if not is_installed("vision_msgs"):
        node.get_logger().info(
            "vision_msgs is not installed: no ~/detections and ~/label_info (on a robot: sudo apt"
            " install ros-$ROS_DISTRO-vision-msgs)"
        )
        return None
    return VisionOutput(topics, settings)


class VisionOutput:
    """Publishes through lifecycle publishers, from the worker's loop thread."""

    def __init__(self, topics: Topics, settings: NodeSettings) -> None:
        """Make the publishers; vision_msgs must be installed."""
        from vision_msgs import msg as vision

        self._messages = vision
        self._texts = QueryTexts()
        self._named: dict[CameraId, dict[int, str]] = {}  # as last published
        make, prefix = topics.publisher, settings.output_prefix
        self._detections = {
            camera: make(vision.Detection2DArray, f"{prefix(camera)}/detections", qos.masks())
            for camera in settings.cameras
        }
        self._label_info = {
            camera: make(vision.LabelInfo, f"{prefix(camera)}/label_info", qos.label_info())
            for camera in settings.cameras
        }

    def take_answer(self, answer: Answer) -> None:
        """Note what its query is called."""
        self._texts.take(answer)

    def publish(self, masks: PublishedMasks) -> None:
        """The detections of a frame, where they are read, and what labels mean, if that is new."""
        camera = masks.frame.camera
        header = header_from_stamp(masks.frame.stamp_ns, masks.frame.frame_id)
        names = names_of_labels(masks.tracks, self._texts)
        label_info = self._label_info[camera]
        if label_info.is_activated and names != self._named.get(camera):
            self._named[camera] = names
            label_info.publish(self._label_info_msg(names, header))
        publisher = self._detections[camera]
        if publisher.get_subscription_count():
            found = detections_from_tracks(masks.tracks, self._texts)
            publisher.publish(self._detections_msg(found, header))

    def _label_info_msg(self, names: dict[int, str], header: Header) -> object:
        msg = self._messages.LabelInfo(header=header)
        msg.class_map = [
            self._messages.VisionClass(class_id=index, class_name=name)
            for index, name in names.items()
        ]
        return msg

    def _detections_msg(self, detections: list[Detection], header: Header) -> object:
        msg = self._messages.Detection2DArray(header=header)
        msg.detections = [self._detection_msg(each, header) for each in detections]
        return msg

    def _detection_msg(self, detection: Detection, header: Header) -> object:
        msg = self._messages.Detection2D(header=header, id=detection.object_id)
        box, (x, y) = detection.box, detection.box.centre_xy
        msg.bbox.center.position.x, msg.bbox.center.position.y = float(x), float(y)
        msg.bbox.size_x, msg.bbox.size_y = float(box.width), float(box.height)
        for name in detection.classes:
            result = self._messages.ObjectHypothesisWithPose()
            result.hypothesis.class_id, result.hypothesis.score = name, float(detection.score)
            msg.results.append(result)
        return msg
