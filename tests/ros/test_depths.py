# SPDX-License-Identifier: Apache-2.0
"""`~/points`: from depth images and a calibration to a cloud, in arrays and from a real node."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from diagnostic_msgs.msg import DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from foreseg.depth import MaskDepth, Pinhole
from foreseg.errors import InputError
from foreseg_ros import qos
from foreseg_ros.conversions import bytes_array, depth_from_image_msg, header_from_stamp
from foreseg_ros.conversions import stamp_ns_from_time as ns
from foreseg_ros.depths import POINT, cloud_msg_from_depths, pinhole_from_camera_info
from tests.ros.ros_harness import SIZE_WH, NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

FOCAL_PX = 100.0
WALL_MM, BOX_MM = 4000, 1500
AWAY_PX = 6.0  # the nano tracker's mask of the box may be off by so much


def depth_msg(millimetres: np.ndarray, stamp_ns: int = 0) -> Image:
    msg = Image(header=header_from_stamp(stamp_ns, "optical"), encoding="16UC1")
    msg.height, msg.width = millimetres.shape
    msg.step = 2 * msg.width
    msg.data = bytes_array(np.ascontiguousarray(millimetres.astype("<u2")))
    return msg


def info_msg(**changes: Any) -> CameraInfo:
    width, height = SIZE_WH
    msg = CameraInfo(width=width, height=height)
    msg.k = [FOCAL_PX, 0.0, width / 2, 0.0, FOCAL_PX, height / 2, 0.0, 0.0, 1.0]
    for name, value in changes.items():
        setattr(msg, name, value)
    return msg


def test_millimetres_and_metres_are_read_and_nothing_else() -> None:
    values = np.array([[0, 1500], [65535, 250]])
    msg = depth_msg(values)
    np.testing.assert_allclose(depth_from_image_msg(msg), values / 1000, rtol=1e-6)
    for order, is_bigendian in (("<f4", 0), (">f4", 1)):
        metres = np.array([[0.5, np.nan]], order)
        msg = Image(height=1, width=2, step=8, encoding="32FC1", is_bigendian=is_bigendian)
        msg.data = bytes_array(metres.view(np.uint8))
        np.testing.assert_array_equal(depth_from_image_msg(msg), metres.astype(np.float32))
    with pytest.raises(InputError, match="16UC1 or 32FC1, got 'rgb8'"):
        depth_from_image_msg(Image(height=1, width=1, step=3, encoding="rgb8"))


def test_the_camera_is_that_of_the_pixels_that_are_sent() -> None:
    rectified = [90.0, 0.0, 70.0, 0.0, 0.0, 80.0, 50.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    assert pinhole_from_camera_info(info_msg()) == Pinhole(fx=100.0, fy=100.0, cx=80.0, cy=60.0)
    msg = info_msg(p=rectified)
    assert pinhole_from_camera_info(msg) == Pinhole(fx=90.0, fy=80.0, cx=70.0, cy=50.0)
    msg.binning_x, msg.binning_y = 2, 4
    msg.roi.x_offset, msg.roi.y_offset = 10, 30
    assert pinhole_from_camera_info(msg) == Pinhole(fx=45.0, fy=20.0, cx=30.0, cy=5.0)
    with pytest.raises(InputError, match="fx, fy above 0"):
        pinhole_from_camera_info(CameraInfo())


def points_of(msg: PointCloud2) -> np.ndarray:
    assert [field.name for field in msg.fields] == list(POINT.names)
    assert [field.offset for field in msg.fields] == [POINT.fields[n][1] for n in POINT.names]
    assert (msg.height, msg.point_step) == (1, POINT.itemsize)
    assert msg.row_step == msg.width * msg.point_step == len(msg.data)
    return np.frombuffer(msg.data, POINT)


def test_a_cloud_has_a_point_for_each_label() -> None:
    where = MaskDepth(point_xyz_m=(0.5, -0.25, 2.0), share=0.75)
    (point,) = points_of(cloud_msg_from_depths({300: where}, Header(frame_id="cam")))
    assert tuple(point) == (0.5, -0.25, 2.0, 0.75, 300)
    assert points_of(cloud_msg_from_depths({}, Header())).size == 0


class DepthCamera:
    """Sends the robot's frames with depth images and a calibration, and keeps what comes back."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.clouds: dict[int, PointCloud2] = {}
        node = robot.node
        node.create_subscription(PointCloud2, "/foreseg/points", self._take, qos.masks())
        self.depths = node.create_publisher(Image, "/depth", qos.masks())
        self.infos = node.create_publisher(CameraInfo, "/camera_info", qos.masks())

    def send_until(
        self, condition: Callable[[], bool], *, is_early: bool, is_calibrated: bool = True
    ) -> bool:
        """Send frames, each with its depth before it or after its masks."""
        for _ in range(400):
            stamp = time.time_ns()
            scene = np.full(SIZE_WH[::-1], WALL_MM)
            x0, y0, x1, y1 = self.robot.box_at(stamp)
            scene[y0:y1, x0:x1] = BOX_MM
            if is_calibrated:
                self.infos.publish(info_msg())
            if is_early:
                self.depths.publish(depth_msg(scene, stamp))
            self.robot.send(stamp_ns=stamp)
            if not is_early:
                self.robot.wait(lambda sent=stamp: sent in self.robot.masks, 1.0)
                self.depths.publish(depth_msg(scene, stamp))
            if self.robot.wait(condition, 1 / 20):
                return True
        return False

    def is_told(self, word: str) -> bool:
        """Whether the node warns of it."""
        message = self.robot.diagnostics.get("depth", {}).get("message", "")
        return word in message and self.robot.levels["depth"] == DiagnosticStatus.WARN

    def point(self) -> tuple[int, np.void]:
        """Stamp and point of the first cloud that has one."""
        stamp = next(stamp for stamp, msg in self.clouds.items() if msg.width)
        assert self.clouds[stamp].header.frame_id == "optical"
        (point,) = points_of(self.clouds[stamp])
        return stamp, point

    def _take(self, msg: PointCloud2) -> None:
        with self.robot.changed:
            self.clouds[ns(msg.header.stamp)] = msg
            self.robot.changed.notify_all()


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[DepthCamera]:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true", "depth:=true")
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        yield DepthCamera(robot)
    finally:
        robot.close()
        node.stop()


def test_each_track_has_its_point_beside_its_mask(camera: DepthCamera) -> None:
    robot, clouds = camera.robot, camera.clouds
    no_info = "no camera_info has come"
    assert camera.send_until(lambda: camera.is_told(no_info), is_early=True, is_calibrated=False)
    assert camera.send_until(lambda: bool(clouds), is_early=True)
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    box = [float(v) for v in robot.box_at(stamp)]
    prompt = messages.SpatialPrompt(object_id="box", has_box=True, box_xyxy_px=box)
    request = srv.AddObjects.Request(prompts=[prompt])
    assert robot.call(srv.AddObjects, "/foreseg/add_objects", request).success
    for is_early in (True, False):  # depth is there before the masks, or comes after them
        with robot.changed:
            clouds.clear()
        assert camera.send_until(
            lambda: any(msg.width for msg in clouds.values()), is_early=is_early
        )
        stamp, point = camera.point()
        assert robot.wait(lambda sent=stamp: sent in robot.tracks)
        assert point["index"] == robot.tracks[stamp].tracks[0].index
        assert point["z"] == pytest.approx(BOX_MM / 1000)
        assert point["share"] == 1.0
        x0, y0, x1, y1 = robot.box_at(stamp)
        for axis, middle, centre in (("x", (x0 + x1 - 1) / 2, 80), ("y", (y0 + y1 - 1) / 2, 60)):
            seen_px = point[axis] / point["z"] * FOCAL_PX + centre
            assert seen_px == pytest.approx(middle, abs=AWAY_PX)


def test_depth_that_does_not_come_is_told_and_counted(camera: DepthCamera) -> None:
    camera.send_until(lambda: bool(camera.clouds), is_early=True)
    missing = "no depth image on /depth has a stamp within 0.01 s"
    assert camera.robot.stream(lambda: camera.is_told(missing))
    counts = camera.robot.diagnostics["depth"]
    assert int(counts["paired"]) > 0
    assert int(counts["dropped_without_depth"]) > 0
