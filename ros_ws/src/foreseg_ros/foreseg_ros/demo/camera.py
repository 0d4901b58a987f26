# SPDX-License-Identifier: Apache-2.0
"""The demo's camera process: publishes sensor_msgs/Image in real time.

The frames are a simulated scene's or a video's; which was sent with which stamp is written down.

    python -m foreseg_ros.demo.camera --scene leave --seed 1 --seconds 20 --sent sent.jsonl
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from threading import Event

import rclpy
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from foreseg.frames import U8Array
from foreseg.history.reduction import reduce_image
from foreseg.media.sources import DEFAULT_RATE_HZ, CameraSource, Source, frames_of, open_source
from foreseg_ros.conversions import header_from_stamp, image_msg_from_rgb
from foreseg_ros.demo.scene import DemoScene

NS = 1_000_000_000
MAX_SIDE_PX = 640  # of a video's frames as they are sent
MAX_KEPT_FRAMES = 300  # of a video that is played forth and back
LISTENERS = 2  # node and client
LISTENERS_TIMEOUT_S = 20.0
FRAME_ID = "demo_camera"

Numbered = Iterator[tuple[int, U8Array]]  # (frame of the scene or file, image)


def scene_frames(scene: DemoScene, seconds: float) -> Numbered:
    """Frames of a simulated scene; those of the tabletop are drawn before the first one is given."""
    return ((frame.index, frame.image) for frame in scene.frames(seconds))


def video_frames(source: Source, num_wanted: int) -> Numbered:
    """Frames of a camera, or of a file that has so many, as they come.

    A shorter file is played forth and back, for ever, so that there is no cut.
    """
    kept: list[tuple[int, U8Array]] = []
    is_long = isinstance(source, CameraSource) or (source.num_frames or 0) >= num_wanted
    for index, item in enumerate(frames_of(source)):
        frame = index, reduce_image(item.image, MAX_SIDE_PX)
        yield frame
        if not is_long:
            kept.append(frame)
        if len(kept) == MAX_KEPT_FRAMES:
            break
    while len(kept) > 1:
        yield from reversed(kept[:-1])
        yield from kept[1:]


class Camera:
    """Publishes at a rate and keeps the record."""

    def __init__(self, node: Node, rate_hz: float, sent: Path) -> None:
        self._node = node
        self._period_ns = round(NS / rate_hz)
        self._sent = sent
        profile = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._images: Publisher = node.create_publisher(Image, "image", profile)

    def wait_for_listeners(self, stopping: Event) -> bool:
        """True when node and client listen, False if they do not come."""
        tries = round(LISTENERS_TIMEOUT_S / 0.1)
        for _ in range(tries):
            if self._images.get_subscription_count() >= LISTENERS:
                return True
            if stopping.wait(0.1):
                return False
        return False

    def stream(self, frames: Numbered, seconds: float, stopping: Event, *, is_paced: bool) -> None:
        """Publish for so long, or until told to stop."""
        clock = self._node.get_clock()
        began_ns = due_ns = clock.now().nanoseconds
        with self._sent.open("w", encoding="utf-8") as record:
            for index, image in frames:
                now_ns = clock.now().nanoseconds
                if is_paced and due_ns > now_ns and stopping.wait((due_ns - now_ns) / NS):
                    return
                stamp_ns = clock.now().nanoseconds
                if stopping.is_set() or stamp_ns - began_ns > seconds * NS:
                    return
                header = header_from_stamp(stamp_ns, FRAME_ID)
                self._images.publish(image_msg_from_rgb(image, header))
                record.write(json.dumps({"stamp_ns": stamp_ns, "index": index}) + "\n")
                record.flush()
                due_ns = max(due_ns + self._period_ns, stamp_ns)  # a late frame is not made up for


def main(arguments: Sequence[str] | None = None) -> int:
    """Stream, then leave."""
    parser = argparse.ArgumentParser(prog="foreseg_ros.demo.camera", description=__doc__)
    parser.add_argument("--scene", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--video", default="")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--sent", type=Path, required=True)
    options = parser.parse_args(arguments)
    stopping = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    source = open_source(options.video) if options.video else None
    if source is None:
        scene = DemoScene(name=options.scene, seed=options.seed)
        rate_hz, frames = scene.rate_hz, scene_frames(scene, options.seconds)
    else:
        rate_hz = source.rate_hz or DEFAULT_RATE_HZ
        frames = video_frames(source, round(options.seconds * rate_hz))
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("demo_camera")
    camera = Camera(node, rate_hz, options.sent)
    is_heard = camera.wait_for_listeners(stopping)
    if is_heard:
        is_paced = not isinstance(source, CameraSource)
        camera.stream(frames, options.seconds, stopping, is_paced=is_paced)
    if source is not None:
        source.close()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0 if is_heard or stopping.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
