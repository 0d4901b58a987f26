# SPDX-License-Identifier: Apache-2.0
"""A real node process on a private domain, and a client that talks to it like a user's robot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from foreseg_msgs import msg as messages
from rclpy.action.client import ClientGoalHandle
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.impl.implementation_singleton import rclpy_implementation
from sensor_msgs.msg import Image

from foreseg_ros import qos
from foreseg_ros.conversions import (
    header_from_stamp,
    image_msg_from_rgb,
    labels_from_image_msg,
    stamp_ns_from_time,
)
from foreseg_ros.demo.domains import reserve_domain

ROOT = Path(__file__).resolve().parents[2]
PROFILE = ROOT / "launch" / "params" / "fastdds.xml"
SOURCES = ("runtime", "ros_ws/src/foreseg_ros", ".")  # the last for reasoners of tests
WAIT_S = 60.0  # ends when it is met; on a starved machine an answer was seen to take 19 s
SIZE_WH = (160, 120)
SPEED_PX_S = 16.0
PROGRAM = "import sys; from foreseg.programs import node; sys.exit(node())"
MAX_DOMAINS = 10  # of a process: `make test` has up to 8, and there are 101
_domains: deque[int] = deque()
_TICK = threading.Event()  # never set
InvalidHandle = rclpy_implementation.InvalidHandle


def environment(domain: int, *, has_profile: bool = True) -> dict[str, str]:
    """What a process on a private domain sees."""
    env = dict(os.environ)
    env["ROS_DOMAIN_ID"] = str(domain)
    env["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    paths = [str(ROOT / source) for source in SOURCES]
    env["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [env.get("PYTHONPATH")])])
    env.pop("FASTRTPS_DEFAULT_PROFILES_FILE", None)
    if has_profile:
        env["FASTRTPS_DEFAULT_PROFILES_FILE"] = str(PROFILE)
    return env


def became(condition: Callable[[], bool], wait_s: float = WAIT_S) -> bool:
    """Wait for something that no message tells."""
    end = time.monotonic() + wait_s
    while not condition():
        if time.monotonic() > end:
            return False
        _TICK.wait(0.01)
    return True


def random_domain() -> int:
    """A domain id that no other test process on this machine has until this one ends.

    After so many, this process' own come again in turn.
    """
    if len(_domains) == MAX_DOMAINS:
        _domains.rotate(-1)
    else:
        _domains.append(reserve_domain())
    return _domains[-1]


class NodeProcess:
    """`foreseg_node` with parameters, remappings and others; its log is kept."""

    def __init__(
        self,
        domain: int,
        log: Path,
        *parameters: str,
        remaps: Sequence[str] = (),
        arguments: Sequence[str] = (),
        has_profile: bool = True,
    ) -> None:
        words = [*arguments, *(word for value in parameters for word in ("-p", value))]
        words += [word for value in remaps for word in ("-r", value)]
        self.log = log
        with log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, "--ros-args", *words],
                env=environment(domain, has_profile=has_profile),
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal it and wait; its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            msg = f"the node did not stop; its log: {self.log.read_text()[-3000:]}"
            raise AssertionError(msg) from None

    def says(self, *words: str) -> bool:
        """Whether a line of its log has all of these."""
        lines = self.log.read_text(errors="replace").splitlines()
        return any(all(word in line for word in words) for line in lines)

    def left_behind(self) -> list[int]:
        """Processes of its session that still live."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    session = os.getsid(int(entry.name))
                except OSError:
                    continue
                if session == self.process.pid:
                    found.append(int(entry.name))
        return found


class Robot:
    """A client on the node's domain: sends frames of a box that moves, keeps what comes back."""

    def __init__(self, domain: int) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("robot", context=self.context)
        self.changed = threading.Condition()
        self.masks: dict[int, tuple[str, np.ndarray]] = {}
        self.tracks: dict[int, messages.TrackArray] = {}
        self.answers: list[messages.Answer] = []
        self.diagnostics: dict[str, dict[str, str]] = {}
        self.levels: dict[str, bytes] = {}
        self.num_sent = 0
        self.origin_ns = time.time_ns()
        self.images = self.node.create_publisher(Image, "/image", qos.masks())
        subscribe = self.node.create_subscription
        subscribe(Image, "/foreseg/masks", self._take_masks, qos.masks())
        subscribe(messages.TrackArray, "/foreseg/tracks", self._take_tracks, qos.masks())
        subscribe(messages.Answer, "/foreseg/answers", self._take_answer, qos.answers())
        subscribe(DiagnosticArray, "/diagnostics", self._take_diagnostics, qos.diagnostics())
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody spins any more when the executor's handles go."""
        self._closing.set()
        self._thread.join(5)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def box_at(self, stamp_ns: int) -> tuple[int, int, int, int]:
        """Where the red box is at a time: it moves steadily to the right, then back, and so on."""
        moved = max(0.0, SPEED_PX_S * (stamp_ns - self.origin_ns) / 1e9) % 240
        x0 = 10 + round(min(moved, 240 - moved))
        return x0, 50, x0 + 24, 74

    def send(self, image: np.ndarray | None = None, stamp_ns: int | None = None) -> int:
        """Send a frame; its stamp."""
        width, height = SIZE_WH
        stamp = time.time_ns() if stamp_ns is None else stamp_ns
        if image is None:
            image = np.full((height, width, 3), 90, np.uint8)
            image[::8] = 100
            x0, y0, x1, y1 = self.box_at(stamp)
            image[y0:y1, x0:x1] = (220, 40, 40)
        self.num_sent += 1
        self.images.publish(image_msg_from_rgb(image, header_from_stamp(stamp, "optical")))
        return stamp

    def call(self, kind: type, name: str, request: object, wait_s: float = WAIT_S) -> object:
        """Call one of the node's services."""
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(wait_s), f"no service {name}"
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        assert done.wait(wait_s), f"{name} did not answer"
        self.node.destroy_client(client)
        return future.result()

    def wait(self, condition: Callable[[], bool], wait_s: float = WAIT_S) -> bool:
        """Wait until something that came in makes it true."""
        with self.changed:
            return self.changed.wait_for(condition, wait_s)

    def stream(self, until: Callable[[], bool], wait_s: float = WAIT_S, hz: float = 30.0) -> bool:
        """Send frames until it is true."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            self.send()
            with self.changed:
                if self.changed.wait_for(until, 1 / hz):
                    return True
        return False

    def in_turn(self, call: Callable[[], Any]) -> Any:
        """What a call returns, made in the thread that spins.

        rclpy's action client passes over a reply that comes before it has noted its own request
        for it; so nobody may take replies while it sends.
        """
        done = threading.Event()
        task = self.executor.create_task(call)
        task.add_done_callback(lambda _: done.set())
        assert done.wait(WAIT_S), "the robot's thread does not spin"
        return task.result()

    def results(self, handles: Sequence[ClientGoalHandle]) -> list[Any]:
        """What goals ended with, in order, while frames are sent."""
        futures = [self.in_turn(handle.get_result_async) for handle in handles]
        assert self.stream(lambda: all(future.done() for future in futures), 3 * WAIT_S)
        return [future.result() for future in futures]

    def _spin(self) -> None:
        while not self._closing.is_set():
            with suppress(
                InvalidHandle
            ):  # a test has destroyed an entity: rclpy forgets its events
                self.executor.spin_once(timeout_sec=0.1)

    def _take_masks(self, msg: Image) -> None:
        stamp = stamp_ns_from_time(msg.header.stamp)
        with self.changed:
            self.masks[stamp] = (msg.header.frame_id, labels_from_image_msg(msg))
            self.changed.notify_all()

    def _take_tracks(self, msg: messages.TrackArray) -> None:
        with self.changed:
            self.tracks[stamp_ns_from_time(msg.header.stamp)] = msg
            self.changed.notify_all()

    def _take_answer(self, msg: messages.Answer) -> None:
        with self.changed:
            self.answers.append(msg)
            self.changed.notify_all()

    def _take_diagnostics(self, msg: DiagnosticArray) -> None:
        with self.changed:
            for status in msg.status:
                name = status.name.split(": ", 1)[-1]
                self.diagnostics[name] = {
                    "message": status.message,
                    **{item.key: item.value for item in status.values},
                }
                self.levels[name] = status.level
            self.changed.notify_all()
