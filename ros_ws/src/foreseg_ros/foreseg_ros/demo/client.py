# SPDX-License-Identifier: Apache-2.0
"""The demo's client: a user's program that asks, subscribes, and measures. Only rclpy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from foreseg.dialogue import AnswerStatus
from foreseg.errors import InputError, StreamError
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.tracks import TrackState
from foreseg_ros import qos
from foreseg_ros.conversions import (
    header_from_stamp,
    labels_from_image_msg,
    rgb_from_image_msg,
    stamp_ns_from_time,
)
from foreseg_ros.demo.recording import Recorder, Recording, SeenAnswer, SeenTrack

NODE = "/foreseg"
FRAME_DEPTH = 10
SERVICE_WAIT_S = 20.0


class DemoClient:
    """Subscribes for its whole life; `record` says where what comes goes."""

    def __init__(self, domain_id: int) -> None:
        self._context = Context()
        rclpy.init(
            args=[],
            context=self._context,
            domain_id=domain_id,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self._node = rclpy.create_node("demo_client", context=self._context)
        self._lock = threading.Lock()
        self._recorder: Recorder | None = None
        self._recording: Recording | None = None
        self._newest_stamp_ns = 0
        self._tracker: dict[str, str] = {}
        self.num_diagnostics = 0
        subscribe = self._node.create_subscription
        frames = QoSProfile(depth=FRAME_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)
        subscribe(Image, "/image", self._take_frame, frames)
        subscribe(Image, f"{NODE}/masks", self._take_masks, qos.masks())
        subscribe(messages.TrackArray, f"{NODE}/tracks", self._take_tracks, qos.masks())
        subscribe(messages.Answer, f"{NODE}/answers", self._take_answer, qos.answers())
        subscribe(DiagnosticArray, "/diagnostics", self._take_diagnostics, qos.diagnostics())
        self._ask = self._node.create_client(srv.Ask, f"{NODE}/ask")
        self._add_objects = self._node.create_client(srv.AddObjects, f"{NODE}/add_objects")
        self._reset = self._node.create_client(Trigger, f"{NODE}/reset")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, name="ros", daemon=True)
        self._thread.start()

    @property
    def rmw(self) -> str:
        """The middleware in use."""
        return str(rclpy.get_rmw_implementation_identifier())

    @property
    def newest_stamp_ns(self) -> int:
        """Stamp of the newest frame that was received; 0 before the first."""
        return self._newest_stamp_ns

    def close(self) -> None:
        """Stop spinning and leave the domain."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(2.0)
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)

    def is_node_there(self, timeout_s: float) -> bool:
        """Whether the node offers its services within the time."""
        return bool(self._ask.wait_for_service(timeout_s))

    def record(self, recorder: Recorder | None) -> None:
        """From now on, what comes goes there; None = nowhere."""
        with self._lock:
            self._recorder = recorder
            self._recording = None if recorder is None else recorder.recording

    def counters(self) -> Mapping[str, int]:
        """The node's counters as the last /diagnostics had them."""
        with self._lock:
            return {key: int(value) for key, value in self._tracker.items() if value.isdecimal()}

    def ask(self, text: str, timeout_s: float) -> Callable[[], SeenAnswer | None]:
        """Ask through ~/ask; the result gives the answer once it has come."""
        request = srv.Ask.Request(timeout_s=timeout_s)
        request.query.text = text
        request.query.want_rationale = True
        asked_ns = self._newest_stamp_ns
        future = self._ask.call_async(request)
        with self._lock:
            if self._recording is not None:
                self._recording.asked.append((asked_ns, text))

        def answer() -> SeenAnswer | None:
            if not future.done():
                return None
            return answer_from_msg(future.result().answer)

        return answer

    def add_box(self, object_id: str, box: BoxXyxy, stamp_ns: int) -> str:
        """Point at an object on the frame with this stamp; "" or why it was refused.

        Raises:
            StreamError: no reply.
        """
        request = srv.AddObjects.Request(header=header_from_stamp(stamp_ns, ""))
        prompt = messages.SpatialPrompt(object_id=object_id, has_box=True)
        prompt.box_xyxy_px = [float(v) for v in box]
        request.prompts = [prompt]
        response = self._replied(self._add_objects.call_async(request), "add_objects")
        return "" if response.success else str(response.message)

    def reset(self) -> None:
        """Forget the tracks of the part before.

        Raises:
            StreamError: no reply.
        """
        self._replied(self._reset.call_async(Trigger.Request()), "reset")

    def _replied(self, future: Future, name: str) -> srv.AddObjects.Response:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(SERVICE_WAIT_S):
            msg = f"{NODE}/{name} did not reply within {SERVICE_WAIT_S:g} s"
            raise StreamError(msg)
        return future.result()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):  # the end of the demo
            self._executor.spin()

    def _take_frame(self, msg: Image) -> None:
        stamp_ns = stamp_ns_from_time(msg.header.stamp)
        self._newest_stamp_ns = max(self._newest_stamp_ns, stamp_ns)
        with self._lock:
            if self._recorder is not None:
                self._recorder.take("frame", stamp_ns, rgb_from_image_msg(msg))

    def _take_masks(self, msg: Image) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        stamp_ns = stamp_ns_from_time(msg.header.stamp)
        with self._lock:
            if self._recorder is None or self._recording is None:
                return
            self._recording.latencies_ns[stamp_ns] = now_ns - stamp_ns
            try:
                labels = labels_from_image_msg(msg)
            except InputError as error:  # never: the node's own
                self._node.get_logger().error(f"{NODE}/masks: {error}")
                return
            self._recorder.take("masks", stamp_ns, labels)

    def _take_tracks(self, msg: messages.TrackArray) -> None:
        tracks = tuple(
            SeenTrack(
                object_id=track.object_id,
                query_ids=tuple(track.query_ids),
                index=int(track.index),
                state=TrackState(track.state),
                answer_age_s=float(track.answer_age_s),
                catching_up=bool(track.catching_up),
            )
            for track in msg.tracks
        )
        with self._lock:
            if self._recording is not None:
                self._recording.tracks[stamp_ns_from_time(msg.header.stamp)] = tracks

    def _take_answer(self, msg: messages.Answer) -> None:
        del msg  # the reply of ~/ask has the same
        with self._lock:
            if self._recording is not None:
                self._recording.num_published_answers += 1

    def _take_diagnostics(self, msg: DiagnosticArray) -> None:
        for status in msg.status:
            if status.name.endswith(": tracker"):
                with self._lock:
                    self._tracker = {item.key: item.value for item in status.values}
                    self.num_diagnostics += 1


def answer_from_msg(msg: messages.Answer) -> SeenAnswer:
    """What the report needs of an answer."""
    prompt = next((prompt for prompt in msg.prompts if prompt.has_box), None)
    return SeenAnswer(
        query=msg.query_text,
        status=AnswerStatus(msg.status).name,
        text=msg.text,
        reason=msg.reason,
        keyframe_index=int(msg.keyframe_index),
        keyframe_stamp_ns=stamp_ns_from_time(msg.header.stamp),
        box=None if prompt is None else tuple(float(v) for v in prompt.box_xyxy_px),
        object_ids=tuple(msg.object_ids),
        asked_stamp_ns=stamp_ns_from_time(msg.asked),
        answered_stamp_ns=stamp_ns_from_time(msg.answered),
        latency_s=float(msg.latency_s),
        rationale=msg.rationale,
    )
