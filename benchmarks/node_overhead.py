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
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image

from foreseg.engines.base import Array, Engine
from foreseg.engines.onnx import OnnxEngine
from foreseg.executor import PublishedMasks
from foreseg.frames import CameraId
from foreseg.geometry import BoxXyxy
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp, image_msg_from_rgb, stamp_ns_from_time
from foreseg_ros.node import ForesegNode

WARM_UP = 30


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--rate", type=float, default=10.0, help="frames per second")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    os.environ.setdefault("ROS_DOMAIN_ID", "93")
    watch = Stopwatch()
    watch.install()
    rclpy.init()
    overrides = [Parameter("reasoner.kind", value="kinematic")]
    node = ForesegNode(parameter_overrides=overrides)
    node.trigger_configure()
    node.trigger_activate()
    watch.wrap_output(node)
    sender = rclpy.create_node("sender")
    images = sender.create_publisher(Image, "image", qos.masks())
    executor = MultiThreadedExecutor(num_threads=2)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    rng = np.random.default_rng(0)
    ground = rng.integers(60, 120, (height, width, 3), dtype=np.uint8)
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
        if index == 5:
            box = BoxXyxy(x0, height // 3, x0 + width // 6, height // 2)
            prompts = [(ObjectId("box"), SpatialPrompt(box=box))]
            node._worker.add_objects(CameraId("camera"), prompts, lambda _: None)  # noqa: SLF001
        if index >= WARM_UP and arrived:
            stamps.append(stamp)
        time.sleep(max(0.0, 1 / arguments.rate - (time.monotonic() - began)))
    overhead, engines = watch.overheads_ms(stamps)
    executor.shutdown()
    node.release()
    rclpy.shutdown()
    row = {
        "size": arguments.size,
        "frames": len(stamps),
        "overhead_ms": {
            "p50": float(np.median(overhead)),
            "p99": float(np.quantile(overhead, 0.99)),
        },
        "engines_ms": {"p50": float(np.median(engines)), "p99": float(np.quantile(engines, 0.99))},
    }
    print(
        f"node overhead, {platform.processor() or platform.machine()}, one object, {arguments.size},"
    )
    print(f"{len(stamps)} frames at {arguments.rate:g} Hz after {WARM_UP} of warm-up, CPU fp32")
    print(f"{'':22}{'p50':>8}{'p99':>8}   bar")
    print(
        f"{'overhead, ms':22}{row['overhead_ms']['p50']:8.2f}{row['overhead_ms']['p99']:8.2f}   3 / 10"
    )
    print(f"{'engines, ms':22}{row['engines_ms']['p50']:8.2f}{row['engines_ms']['p99']:8.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
