# SPDX-License-Identifier: Apache-2.0
"""What the node adds to the engines: callback entry to publish() return, minus engine runs.

One object on frames that a second node publishes at a pace the machine can keep, so that no frame
waits for another. Prints one table: `node_overhead.py [--frames N] [--json FILE]`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import MultiThreadedExecutor
from sensor_msgs.msg import Image

from foreseg.driving.executor import PublishedMasks
from foreseg.engines.base import Array, Engine
from foreseg.engines.onnx import OnnxEngine
from foreseg.frames import CameraId
from foreseg.geometry import BoxXyxy
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp, image_msg_from_rgb, stamp_ns_from_time
from foreseg_ros.demo.domains import reserve_domain
from foreseg_ros.node import ForesegNode

WARM_UP = 30
OBJECT_AT = 5  # the frame after which the object is added


class Stopwatch:
    """Entry and return times by stamp, and the engines' runs between them."""

    def __init__(self) -> None:
        self.entered: dict[int, int] = {}
        self.returned: dict[int, int] = {}
        self.runs: list[tuple[int, int]] = []
        self.published = threading.Condition()

    def install(self) -> None:
        """Wrap the callback, the publisher and the engines' run."""
        take, run = ForesegNode._take_image, OnnxEngine.run  # noqa: SLF001

        def timed_take(node: ForesegNode, camera: CameraId, msg: Image) -> None:
            self.entered[stamp_ns_from_time(msg.header.stamp)] = time.perf_counter_ns()
            take(node, camera, msg)

        def timed_run(engine: Engine, inputs: Mapping[str, Array]) -> dict[str, Array]:
            began = time.perf_counter_ns()
            outputs = run(engine, inputs)
            self.runs.append((began, time.perf_counter_ns()))
            return outputs

        ForesegNode._take_image = timed_take  # noqa: SLF001
        OnnxEngine.run = timed_run

    def wrap_output(self, node: ForesegNode) -> None:
        """Note when `publish_masks` returns."""
        output = node._output  # noqa: SLF001
        publish = output.publish_masks

        def timed(masks: PublishedMasks) -> None:
            publish(masks)
            with self.published:
                self.returned[masks.frame.stamp_ns] = time.perf_counter_ns()
                self.published.notify_all()

        output.publish_masks = timed

    def overheads_ms(self, stamps: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """(overhead, engines) a frame, milliseconds."""
        overhead, engines = [], []
        for stamp in stamps:
            start, end = self.entered[stamp], self.returned[stamp]
            spent = sum(b - a for a, b in self.runs if start <= a and b <= end)
            overhead.append((end - start - spent) / 1e6)
            engines.append(spent / 1e6)
        return np.array(overhead), np.array(engines)


def run(arguments: argparse.Namespace, watch: Stopwatch) -> list[int]:
    """Send frames to a node in this process; the stamps of those that came out as masks."""
    width, height = map(int, arguments.size.split("x"))
    node = ForesegNode()
    node.trigger_configure()
    node.trigger_activate()
    watch.wrap_output(node)
    sender = rclpy.create_node("sender")
    images = sender.create_publisher(Image, "image", qos.masks())
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    threading.Thread(target=executor.spin, daemon=True).start()
    ground = np.random.default_rng(0).integers(60, 120, (height, width, 3), dtype=np.uint8)
    stamps: list[int] = []
    for index in range(arguments.frames + WARM_UP):
        began = time.monotonic()
        x0 = 40 + index % (width // 2)
        image = ground.copy()
        image[height // 3 : height // 2, x0 : x0 + width // 6] = (220, 40, 40)
        stamp = time.time_ns()
        with watch.published:
            images.publish(image_msg_from_rgb(image, header_from_stamp(stamp, "")))
            arrived = watch.published.wait_for(lambda s=stamp: s in watch.returned, 2.0)
        if index == OBJECT_AT:
            box = BoxXyxy(x0, height // 3, x0 + width // 6, height // 2)
            prompts = [(ObjectId("box"), SpatialPrompt(box=box))]
            node._worker.requests.add_objects(CameraId("camera"), prompts, lambda _: None)  # noqa: SLF001
        if index >= WARM_UP and arrived:
            stamps.append(stamp)
        time.sleep(max(0.0, 1 / arguments.rate - (time.monotonic() - began)))
    executor.shutdown()
    node.release()
    return stamps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("ROS_DOMAIN_ID", str(reserve_domain()))
    watch = Stopwatch()
    watch.install()
    rclpy.init()
    stamps = run(arguments, watch)
    overhead, engines = watch.overheads_ms(stamps)
    rclpy.shutdown()
    rows = {
        name: {"p50": float(np.median(ms)), "p99": float(np.quantile(ms, 0.99))}
        for name, ms in (("overhead_ms", overhead), ("engines_ms", engines))
    }
    print(
        f"node overhead on {platform.machine()} CPU, one object, {arguments.size}, fp32 engines,"
    )
    print(f"{len(stamps)} frames at {arguments.rate:g} Hz after {WARM_UP} of warm-up")
    print(f"{'':14}{'p50':>8}{'p99':>8}   bar")
    for name, row in rows.items():
        bar = "   3 / 10" if name == "overhead_ms" else ""
        print(f"{name:14}{row['p50']:8.2f}{row['p99']:8.2f}{bar}")
    if arguments.json:
        result = {"size": arguments.size, "frames": len(stamps), **rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
