# SPDX-License-Identifier: Apache-2.0
"""What a camera does to a real node: it stops, comes back, jumps, changes, floods, and is damaged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from diagnostic_msgs.msg import DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from sensor_msgs.msg import CompressedImage

from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp, image_msg_from_rgb
from tests.ros.ros_harness import SIZE_WH, WAIT_S, NodeProcess, Robot, random_domain

pytestmark = [pytest.mark.ros, pytest.mark.fault]

Record = Callable[[str, object], None]
CAMERA = "camera camera"
HOUR_NS = 3_600_000_000_000
EIGHT_K_WH = (7680, 4320)
FLOOD_S = 5.0


@pytest.fixture
def robot(tmp_path: Path) -> Iterator[Robot]:
    """A robot whose node tracks a box."""
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true")
    made = Robot(domain)
    try:
        assert made.stream(lambda: bool(made.masks), WAIT_S), node.log.read_text()[-3000:]
        stamp = made.send()
        assert made.wait(lambda: stamp in made.masks)
        box = [float(v) for v in made.box_at(stamp)]
        request = srv.AddObjects.Request()
        request.prompts = [messages.SpatialPrompt(object_id="box", has_box=True, box_xyxy_px=box)]
        assert made.call(srv.AddObjects, "/foreseg/add_objects", request).success
        assert made.stream(lambda: tracked(made))
        yield made
        assert node.process.poll() is None
        assert node.stop() == 0
    finally:
        made.close()
        node.stop()


def tracked(robot: Robot) -> bool:
    """Whether the newest masks have the box; those that wait to be looked at must be new."""
    if not robot.tracks:
        return False
    return [track.object_id for track in robot.tracks[max(robot.tracks)].tracks] == ["box"]


def count(robot: Robot, part: str, name: str) -> int:
    return int(robot.diagnostics.get(part, {}).get(name, 0))


def test_a_camera_that_stops_and_returns_is_an_error_until_its_first_frame(
    robot: Robot, record_property: Record
) -> None:
    message = lambda: robot.diagnostics.get(CAMERA, {}).get("message", "")  # noqa: E731
    assert robot.wait(lambda: "no frame for" in message())
    assert robot.levels[CAMERA] == DiagnosticStatus.ERROR
    began = time.monotonic()
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.tracks and tracked(robot))
    took_ms = 1000 * (time.monotonic() - began)
    assert robot.stream(lambda: robot.levels[CAMERA] == DiagnosticStatus.OK)
    record_property(
        "outcome", f"stops and returns: tracked again on its first frame, {took_ms:.0f} ms"
    )


def test_a_camera_that_changes_its_size_keeps_its_track(
    robot: Robot, record_property: Record
) -> None:
    larger = (2 * SIZE_WH[0], 2 * SIZE_WH[1])
    stamps: list[int] = []

    def send(size_wh: tuple[int, int]) -> int:
        stamp = time.time_ns()
        image = np.full((SIZE_WH[1], SIZE_WH[0], 3), 90, np.uint8)
        x0, y0, x1, y1 = robot.box_at(stamp)
        image[y0:y1, x0:x1] = (220, 40, 40)
        return robot.send(cv2.resize(image, size_wh), stamp)

    for size_wh in (larger, SIZE_WH, (SIZE_WH[0] // 2, SIZE_WH[1] // 2)):
        stamps.append(send(size_wh))
        assert robot.wait(lambda: stamps[-1] in robot.masks and stamps[-1] in robot.tracks)
        assert robot.masks[stamps[-1]][1].shape == size_wh[::-1]
        assert tracked(robot)
    assert robot.wait(lambda: robot.diagnostics.get(CAMERA, {}).get("epoch") == "3")
    record_property(
        "outcome", "changes size: three times, each first frame masked in its size, tracked"
    )


def test_a_camera_that_jumps_in_time_keeps_its_track(
    robot: Robot, record_property: Record
) -> None:
    """An hour ahead, and after some frames back again, as a clock that is set anew."""
    for jump_ns in (HOUR_NS, 0):
        for _ in range(5):
            stamp = robot.send(stamp_ns=time.time_ns() + jump_ns)
            assert robot.wait(lambda: {stamp} <= robot.masks.keys() & robot.tracks.keys())  # noqa: B023
        assert [track.object_id for track in robot.tracks[stamp].tracks] == ["box"]
    assert robot.stream(lambda: count(robot, "tracker", "stream_restarts") == 1)
    record_property(
        "outcome", "jumps an hour ahead and back: every frame masked, one restart counted"
    )


def damaged(robot: Robot, number: int) -> None:
    """One of the ways in which an image is none."""
    msg = image_msg_from_rgb(np.zeros((4, 4, 3), np.uint8), header_from_stamp(time.time_ns(), ""))
    kind = number % 4
    if kind == 0:
        msg.encoding = "\x00\xff wobble"
    elif kind == 1:
        msg.height = 2**32 - 1
    elif kind == 2:
        msg.step = 0
    else:
        msg.data = msg.data[:-5]
    robot.images.publish(msg)


def test_of_a_camera_whose_tenth_frames_are_damaged_the_others_are_tracked(
    robot: Robot, record_property: Record
) -> None:
    before, num_frames = count(robot, CAMERA, "dropped_bad_image"), 100
    for number in range(num_frames):
        if number % 10 == 9:
            damaged(robot, number // 10)
            wanted = before + number // 10 + 1
            assert robot.wait(lambda: count(robot, CAMERA, "dropped_bad_image") == wanted)  # noqa: B023
            continue
        stamp = robot.send()
        assert robot.wait(lambda: stamp in robot.masks)  # noqa: B023 (looked at in this turn)
    assert tracked(robot)
    record_property(
        "outcome", f"10 % corrupted: 10 of {num_frames} refused and counted, 90 masked, tracked"
    )


def test_a_camera_of_200_hz_gets_masks_of_newest_frames(
    robot: Robot, record_property: Record
) -> None:
    told = []
    for hz in (20, 200):
        sent_hz, ages_s = flooded(robot, hz)
        assert ages_s, "masks come"
        assert max(ages_s) < 5, "nothing queues"
        p50, p99 = 1000 * np.percentile(ages_s, (50, 99))
        rates = f"{sent_hz:.0f} Hz sent, {len(ages_s) / FLOOD_S:.1f} Hz masked"
        told.append(f"{rates}, age p50 {p50:.0f} ms, p99 {p99:.0f} ms")
    assert tracked(robot)
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks), (
        "the newest gets its masks when the flood ends"
    )
    record_property("outcome", f"200 Hz: {'; '.join(told)}")


def flooded(robot: Robot, hz: float) -> tuple[float, list[float]]:
    """Frames for some seconds at a rate: the rate that was reached, the age of each mask."""
    ages_s: list[float] = []
    seen = set(robot.masks)
    began, first = time.monotonic(), robot.num_sent

    def is_over() -> bool:
        new = set(robot.masks) - seen
        seen.update(new)
        ages_s.extend((time.time_ns() - stamp) / 1e9 for stamp in new)
        return time.monotonic() - began > FLOOD_S

    assert robot.stream(is_over, hz=hz)
    return (robot.num_sent - first) / (time.monotonic() - began), ages_s


def test_frames_of_8k_are_refused_with_their_size(robot: Robot, record_property: Record) -> None:
    """Raw they are 100 MB: more than the shared memory has; they come if they can."""
    width, height = EIGHT_K_WH
    image = image_msg_from_rgb(np.zeros((height, width, 3), np.uint8), header_from_stamp(1, ""))
    robot.images.publish(image)
    arrived = robot.wait(lambda: count(robot, CAMERA, "dropped_bad_image") == 1, 5.0)
    assert robot.stream(lambda: tracked(robot))
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    record_property(
        "outcome", f"8K raw: {'refused' if arrived else 'lost on its way'}, masks go on"
    )


@pytest.mark.long
def test_frames_of_8k_in_jpeg_are_refused_and_smaller_ones_taken(
    tmp_path: Path, record_property: Record
) -> None:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true", "compressed:=true")
    robot = Robot(domain)
    publisher = robot.node.create_publisher(CompressedImage, "/image/compressed", qos.masks())

    def send(width: int, height: int) -> int:
        stamp = time.time_ns()
        data = cv2.imencode(".jpg", np.zeros((height, width, 3), np.uint8))[1].tobytes()
        header = header_from_stamp(stamp, "")
        publisher.publish(CompressedImage(header=header, format="jpeg", data=data))
        return stamp

    def sends_until(condition: Callable[[], bool], width: int, height: int) -> bool:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            send(width, height)
            if robot.wait(condition, 0.2):
                return True
        return False

    try:
        assert sends_until(lambda: bool(robot.masks), *SIZE_WH), node.log.read_text()[-3000:]
        size = "{} x {}".format(*EIGHT_K_WH)
        told = lambda: size in robot.diagnostics.get(CAMERA, {}).get("message", "")  # noqa: E731
        assert sends_until(told, *EIGHT_K_WH), robot.diagnostics[CAMERA]
        before = len(robot.masks)
        assert sends_until(lambda: len(robot.masks) > before, *SIZE_WH)
        assert node.stop() == 0
    finally:
        robot.close()
        node.stop()
    record_property("outcome", "8K as JPEG: refused with its size in the diagnostics, masks go on")
