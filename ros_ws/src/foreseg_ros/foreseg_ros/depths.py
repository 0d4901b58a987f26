# SPDX-License-Identifier: Apache-2.0
"""`~/points`: where each track is, by a depth image beside the camera's and its calibration.

Masks come on the worker's loop thread and only join a queue there; all else is done on an executor
thread, and only while somebody subscribes.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from functools import partial
from typing import Final

import numpy as np
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField
from std_msgs.msg import Header

from foreseg.depth import DepthImage, MaskDepth, Pinhole, depth_of_mask
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.frames import CameraId
from foreseg_ros import qos
from foreseg_ros.camera_infos import CameraInfos
from foreseg_ros.conversions import (
    bytes_array,
    depth_from_image_msg,
    header_from_stamp,
    stamp_ns_from_time,
)
from foreseg_ros.pairs import StampPairs
from foreseg_ros.parameters import NodeSettings
from foreseg_ros.topics import Topics

MAX_WAITING: Final = 8  # masks for their depth image, and pairs for their turn
POINT: Final = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("share", "<f4"), ("index", "<u4")]
)
FIELDS: Final = tuple(  # of the cloud: each takes four bytes
    PointField(name=name, offset=4 * i, datatype=kind, count=1)
    for i, (name, kind) in enumerate(
        [
            *((name, PointField.FLOAT32) for name in ("x", "y", "z", "share")),
            ("index", PointField.UINT32),
        ]
    )
)


class DepthOutput:
    """Pairs masks with depth images, and publishes a point for each track."""

    def __init__(
        self, node: Node, topics: Topics, settings: NodeSettings, infos: CameraInfos
    ) -> None:
        """Make the publishers.

        Raises:
            ConfigError: a QoS override that cannot be.
        """
        self._node = node
        self._settings = settings
        self._infos = infos
        self._lock = threading.Lock()
        self._pairs: dict[CameraId, StampPairs[PublishedMasks, Image]] = {}
        self._publishers = {}
        for camera in settings.cameras:
            self._pairs[camera] = StampPairs(
                tolerance_ns=round(settings.depth_tolerance_s * 1e9),
                max_asking=MAX_WAITING,
                max_wanted=settings.depth_queue,
            )
            name = f"{settings.output_prefix(camera)}/points"
            self._publishers[camera] = topics.publisher(PointCloud2, name, qos.masks())
        self._todo: deque[tuple[PublishedMasks, Image]] = deque(maxlen=MAX_WAITING)
        self._num_skipped = 0  # pairs that waited too long for their turn
        self._num_refused = 0
        self._refused = ""  # why the last was
        self._seen = (0, 0)  # paired, in vain: at the last look
        self._group = MutuallyExclusiveCallbackGroup()
        self._wake = node.create_guard_condition(self._work, callback_group=self._group)

    def subscribe(self, topics: Topics) -> None:
        """Begin to read depth images.

        Raises:
            ConfigError: a QoS override that cannot be.
        """
        for camera in self._settings.cameras:
            name = f"{self._settings.input_prefix(camera)}depth"
            topics.subscription(
                Image, name, partial(self._take, camera), qos.depth_in(), self._group
            )

    def destroy(self) -> None:
        """Nothing is woken any more."""
        self._node.destroy_guard_condition(self._wake)

    def publish(self, masks: PublishedMasks) -> None:
        """Let masks wait for their depth image, or their turn."""
        camera = masks.frame.camera
        if not self._publishers[camera].get_subscription_count():
            return
        masks = PublishedMasks(
            frame=masks.frame, image=None, label_map=masks.label_map, tracks=masks.tracks
        )
        with self._lock:
            depth = self._pairs[camera].ask(masks.frame.stamp_ns, masks)
            if depth is None:
                return
            self._num_skipped += len(self._todo) == MAX_WAITING
            self._todo.append((masks, depth))
        self._wake.trigger()

    def counts(self) -> dict[str, str]:
        """How many were paired, and how many dropped, for /diagnostics."""
        with self._lock:
            pairs = self._pairs.values()
            return {
                "paired": str(sum(each.num_paired for each in pairs)),
                "dropped_without_depth": str(sum(each.num_missed for each in pairs)),
                "dropped_busy": str(self._num_skipped),
                "dropped_bad": str(self._num_refused),
            }

    def problem(self) -> str | None:
        """What has been wrong since the last look, or None."""
        with self._lock:
            pairs = self._pairs.values()
            before, refused = self._seen, self._refused
            self._seen = (
                sum(each.num_paired for each in pairs),
                sum(each.num_missed for each in pairs),
            )
            self._refused = ""
        if refused:
            return refused
        if self._seen[0] == before[0] and self._seen[1] > before[1]:
            topics = ", ".join(
                self._node.resolve_topic_name(f"{self._settings.input_prefix(camera)}depth")
                for camera in self._settings.cameras
            )
            return (
                f"no depth image on {topics} has a stamp within"
                f" {self._settings.depth_tolerance_s:g} s of the masks'"
            )
        return None

    def _take(self, camera: CameraId, msg: Image) -> None:
        if not self._publishers[camera].get_subscription_count():
            return
        try:
            stamp_ns = stamp_ns_from_time(msg.header.stamp)
        except InputError as error:
            self._refuse(str(error))
            return
        with self._lock:
            waiting = self._pairs[camera].offer(stamp_ns, msg)
        for masks in waiting:
            self._publish(masks, msg)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._todo:
                    return
                masks, depth = self._todo.popleft()
            self._publish(masks, depth)

    def _publish(self, masks: PublishedMasks, msg: Image) -> None:
        camera = masks.frame.camera
        info = self._infos.of(camera)
        if info is None:
            self._refuse(f"camera {camera}: no camera_info has come, so no pixel has a direction")
            return
        try:
            pinhole = pinhole_from_camera_info(info)
            found = depths_of_tracks(masks, self._decoded(msg), pinhole)
        except InputError as error:
            self._refuse(f"camera {camera}: {error}")
            return
        header = header_from_stamp(masks.frame.stamp_ns, masks.frame.frame_id)
        self._publishers[camera].publish(cloud_msg_from_depths(found, header))

    def _decoded(self, msg: Image) -> DepthImage:
        return depth_from_image_msg(msg, max_pixels=self._settings.max_image_pixels)

    def _refuse(self, reason: str) -> None:
        with self._lock:
            self._num_refused += 1
            self._refused = reason


def depths_of_tracks(
    masks: PublishedMasks, depth: DepthImage, camera: Pinhole
) -> dict[int, MaskDepth]:
    """Label -> where its pixels in the map are, of the tracks that have a depth.

    Raises:
        InputError: the depth image has another size.
    """
    if depth.shape != masks.label_map.shape:
        height, width = masks.label_map.shape
        text = (
            f"a depth image wants the masks' {width} x {height} pixels (registered to the colour"
            f" image), got {depth.shape[1]} x {depth.shape[0]}"
        )
        raise InputError(text)
    found = {}
    for track in masks.tracks:
        if track.box is None:
            continue
        box = track.box.clipped(masks.frame.size_wh)
        x0, y0, x1, y1 = *map(math.floor, box[:2]), *map(math.ceil, box[2:])
        mask = masks.label_map[y0:y1, x0:x1] == track.index
        where = depth_of_mask(depth[y0:y1, x0:x1], mask, camera, (x0, y0))
        if where is not None:
            found[track.index] = where
    return found


def pinhole_from_camera_info(info: CameraInfo) -> Pinhole:
    """The camera of the images that a calibration is sent with.

    As image_geometry has it: that of rectified images, `p`, and `k` where there is none; of the
    part of the sensor that is sent, binned as it is.

    Raises:
        InputError: no calibration, or one that cannot be.
    """
    matrix, width = (info.p, 4) if info.p[0] else (info.k, 3)
    binning_x, binning_y = max(1, int(info.binning_x)), max(1, int(info.binning_y))
    return Pinhole(
        fx=float(matrix[0]) / binning_x,
        fy=float(matrix[width + 1]) / binning_y,
        cx=(float(matrix[2]) - int(info.roi.x_offset)) / binning_x,
        cy=(float(matrix[width + 2]) - int(info.roi.y_offset)) / binning_y,
    )


def cloud_msg_from_depths(depths: dict[int, MaskDepth], header: Header) -> PointCloud2:
    """A point for each label, with `index` as in the label map and `share` of its pixels."""
    points = np.array(
        [(*where.point_xyz_m, where.share, index) for index, where in depths.items()], POINT
    )
    msg = PointCloud2(header=header, height=1, width=points.size, is_dense=True)
    msg.fields = list(FIELDS)
    msg.point_step, msg.row_step = POINT.itemsize, POINT.itemsize * points.size
    msg.data = bytes_array(points.view(np.uint8))
    return msg
