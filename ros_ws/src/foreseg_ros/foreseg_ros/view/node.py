# SPDX-License-Identifier: Apache-2.0
"""`ros2 run foreseg foreseg_view`: the page of a node, in a process of its own.

Subscribes to the camera's images and to what the node publishes, and calls its services. Nothing of
the node changes, and none of its time is taken but for one subscriber more.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from foreseg_msgs import msg as messages
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, Image

from foreseg.clock import SystemClock
from foreseg.commands.questions import QuestionFrames
from foreseg.dialogue import Answer, QueryId
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.frames import CameraId, FrameWindow
from foreseg_ros import qos
from foreseg_ros.arguments import (
    HELP,
    WRONG_ARGUMENTS,
    program_arguments,
    stray_text,
    stray_words,
    unread_files,
    usage,
)
from foreseg_ros.clocks import steady_timer
from foreseg_ros.conversions import (
    labels_from_image_msg,
    rgb_from_compressed_msg,
    rgb_from_image_msg,
    stamp_ns_from_time,
)
from foreseg_ros.guard import Guard, GuardedExecutor
from foreseg_ros.view.frames import FrameStore
from foreseg_ros.view.host import RosHost
from foreseg_ros.view.seen import answer_from_msg
from foreseg_view.board import Board
from foreseg_view.server import ViewServer

NUM_THREADS: Final = 2
PROGRAM: Final = "foreseg_view"
MORE: Final = "docs/view.md has the parameters"
QUERIES_PERIOD_S: Final = 1.0
POLL_S: Final = 0.2
FRAME_DEPTH: Final = 5  # masks want the very frame that they are of
DEFAULT_PORT: Final = 8600
DEFAULT_BYTES: Final = 256_000_000


class ViewNode(Node):
    """See the module; serves from its making to `release`."""

    def __init__(
        self,
        *,
        context: Context | None = None,
        parameter_overrides: list[Parameter] | None = None,
    ) -> None:
        """Subscribe and serve.

        Raises:
            ForesegError: an address that cannot be bound, or a package that is missing.
        """
        super().__init__("foreseg_view", context=context, parameter_overrides=parameter_overrides)
        target = str(self.declare_parameter("node", "/foreseg").value)
        camera = CameraId(str(self.declare_parameter("camera", "").value))
        compressed = bool(self.declare_parameter("compressed", False).value)  # noqa: FBT003 (a default)
        address = str(self.declare_parameter("host", "127.0.0.1").value)
        port = int(self.declare_parameter("port", DEFAULT_PORT).value)
        max_bytes = int(self.declare_parameter("max_bytes", DEFAULT_BYTES).value)
        self._clock_ns = SystemClock()
        self._camera = camera
        target = target if target.startswith("/") else f"/{target}"
        images = f"{camera}/image" if camera else "image"
        images = self.resolve_topic_name(images)
        images = f"{images}/compressed" if compressed else images
        self.guard = Guard()
        self._board = Board()
        self._frames = FrameStore(camera, images, max_bytes)
        self.host = RosHost(self, target, camera, self._frames, self._show_answer)
        self.server = ViewServer(self._board, self.host, address=address, port=port)
        prefix = f"{target}/{camera}" if camera else target
        subscribe = self.create_subscription
        frames_in = QoSProfile(depth=FRAME_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        if compressed:
            subscribe(CompressedImage, images, self._take_image, frames_in)
        else:
            subscribe(Image, images, self._take_image, frames_in)
        subscribe(Image, f"{prefix}/masks", self._take_masks, qos.masks())
        subscribe(messages.TrackArray, f"{prefix}/tracks", self._take_tracks, qos.masks())
        subscribe(messages.Answer, f"{target}/answers", self._take_answer, qos.answers())
        subscribe(DiagnosticArray, "/diagnostics", self.host.take_diagnostics, qos.diagnostics())
        steady_timer(
            self, QUERIES_PERIOD_S, self.host.look_for_queries, self.default_callback_group
        )
        self.server.start()
        self.get_logger().info(f"open {self.server.url} for {target}, images from {images}")

    def release(self) -> None:
        """Stop serving."""
        self.server.stop()

    def _take_image(self, msg: Image | CompressedImage) -> None:
        is_raw = isinstance(msg, Image)
        image = rgb_from_image_msg(msg) if is_raw else rgb_from_compressed_msg(msg)
        stamp_ns = stamp_ns_from_time(msg.header.stamp)
        now_ns = self._clock_ns.monotonic_ns()
        self._show(self._frames.push(image, stamp_ns, now_ns, msg.header.frame_id))

    def _take_masks(self, msg: Image) -> None:
        label_map = labels_from_image_msg(msg)
        self._show(self._frames.add_map(stamp_ns_from_time(msg.header.stamp), label_map))

    def _take_tracks(self, msg: messages.TrackArray) -> None:
        self._show(self._frames.add_tracks(stamp_ns_from_time(msg.header.stamp), msg))

    def _show(self, masks: PublishedMasks | None) -> None:
        if masks is not None:
            self._board.publish_masks(masks)

    def _take_answer(self, msg: messages.Answer) -> None:
        self.host.end_asked(QueryId(msg.query_id))
        self._show_answer(answer_from_msg(msg, self._camera))

    def _show_answer(self, answer: Answer) -> None:
        """With its keyframe as we know it: the node counts frames otherwise than we do."""
        frame = self._frames.copy_of(answer.keyframe_stamp_ns)
        frames = None
        if frame is not None and answer.keyframe_index is not None:
            answer = replace(answer, keyframe_index=frame.index)
            window = FrameWindow(frames=(frame,), origin_index=frame.index)
            frames = QuestionFrames(window=window, num_frames=1)
        self._board.publish_answer(answer, frames)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal ends it; 1 if an argument is wrong."""
    words = program_arguments(arguments)
    if HELP & set(words):
        sys.stdout.write(f"{usage(PROGRAM, MORE)}\n")
        return 0
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    try:
        rclpy.init(
            args=None if arguments is None else list(arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        stray = stray_words(words)
        if stray:
            raise InputError(stray_text(PROGRAM, stray))
        node = ViewNode()
    except WRONG_ARGUMENTS as error:
        get_logger(PROGRAM).fatal(str(error))
        rclpy.try_shutdown()
        return 1
    for text in unread_files(words, node.get_fully_qualified_name()):
        node.get_logger().warning(text)
    executor = GuardedExecutor(node.guard, NUM_THREADS)
    executor.add_node(node)
    try:
        while not stopping.is_set() and rclpy.ok():
            executor.spin_once(timeout_sec=POLL_S)
    except ExternalShutdownException:
        pass  # somebody else ended the context: leave the same way
    finally:
        node.release()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
