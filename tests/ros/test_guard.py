# SPDX-License-Identifier: Apache-2.0
"""No exception in a callback ends the node: real nodes in processes, and real rclpy here."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

import rclpy
from diagnostic_msgs.msg import DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.node import Node
from rclpy.serialization import serialize_message
from rclpy.waitable import NumberOfEntities, Waitable
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp, image_msg_from_rgb
from foreseg_ros.guard import Guard, GuardedExecutor
from foreseg_ros.log_bridge import RosLogHandler
from tests.ros.ros_harness import WAIT_S, NodeProcess, Robot, random_domain

pytestmark = [pytest.mark.ros, pytest.mark.fault]

Running = tuple[NodeProcess, Robot, Path]
HAS_QUIET_REFUSALS = int(version("rclpy").partition(".")[0]) >= 9  # from Kilted on
LAST_S = 2**31 - 4  # of a clock that soon has no more seconds


def failures(robot: Robot) -> int:
    return int(robot.diagnostics.get("node", {}).get("callback_failures", 0))


def check_alive(node: NodeProcess, robot: Robot) -> None:
    """The process runs, and a frame gets masks."""
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks), node.log.read_text()[-3000:]
    assert node.process.poll() is None


def asked(robot: Robot, text: str = "what is moving?", **fields: float) -> messages.Answer:
    request = srv.Ask.Request(timeout_s=fields.pop("timeout_s", 0.0))
    request.query = messages.Query(text=text, **fields)
    answer: messages.Answer = robot.call(srv.Ask, "/foreseg/ask", request).answer
    return answer


def change(robot: Robot, transition: int, label: str = "") -> bool:
    request = ChangeState.Request(transition=Transition(id=transition, label=label))
    return bool(robot.call(ChangeState, "/foreseg/change_state", request).success)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"horizon_s": 4e8}, "horizon_s wants at most 604800 s, got 4e"),
        ({"horizon_s": float("inf")}, "horizon_s wants a finite number"),
        ({"timeout_s": float("inf")}, "timeout_s wants 0 .* seconds, got inf"),
        ({"timeout_s": float("nan")}, "got nan"),
        ({"timeout_s": -1.0}, "got -1"),
        ({"timeout_s": 3e38}, "got 3e"),
    ],
)
def test_numbers_that_cannot_be_are_refused_with_the_value(
    running: Running, fields: dict[str, float], reason: str
) -> None:
    node, robot, _ = running
    answer = asked(robot, **fields)
    assert answer.status == messages.Answer.FAILED
    assert re.search(reason, answer.reason), answer.reason
    check_alive(node, robot)


@pytest.mark.parametrize(
    ("transition", "label"),
    [
        (Transition.TRANSITION_CONFIGURE, ""),  # it is active
        (Transition.TRANSITION_CLEANUP, ""),
        (Transition.TRANSITION_INACTIVE_SHUTDOWN, ""),
        (250, ""),
        (0, "configure"),
        (0, "no such label"),
    ],
)
def test_a_transition_that_does_not_fit_is_refused_and_the_node_goes_on(
    running: Running, transition: int, label: str
) -> None:
    node, robot, _ = running
    assert not change(robot, transition, label)
    check_alive(node, robot)


@pytest.mark.skipif(HAS_QUIET_REFUSALS, reason="rclpy refuses such a transition by itself")
def test_failed_callbacks_are_counted_and_told(running: Running) -> None:
    node, robot, _ = running
    before = failures(robot)
    assert not change(robot, Transition.TRANSITION_CONFIGURE)
    assert robot.wait(lambda: failures(robot) > before)
    assert robot.levels["node"] == DiagnosticStatus.WARN
    assert "change_state" in robot.diagnostics["node"]["last_failure"]
    check_alive(node, robot)


@pytest.mark.parametrize("length", [0, 3, 12, 40])
def test_after_bytes_that_are_no_message_the_topic_goes_on(running: Running, length: int) -> None:
    """As a publisher of another version of the type would send them; Fast DDS drops them."""
    node, robot, _ = running
    image = image_msg_from_rgb(np.zeros((4, 4, 3), np.uint8), header_from_stamp(1, "optical"))
    robot.images.publish(serialize_message(image)[:length])
    words = robot.node.create_publisher(String, "/foreseg/query", qos.queries())
    words.publish(serialize_message(String(data="what moves?"))[:length])
    check_alive(node, robot)
    robot.node.destroy_publisher(words)


def test_an_image_that_jpeg_does_not_have_costs_its_overlay_alone(running: Running) -> None:
    node, robot, _ = running
    pictures: list[CompressedImage] = []

    def take(msg: CompressedImage) -> None:
        with robot.changed:
            pictures.append(msg)
            robot.changed.notify_all()

    subscription = robot.node.create_subscription(
        CompressedImage, "/foreseg/overlay/compressed", take, qos.overlay()
    )
    assert robot.stream(lambda: bool(pictures))
    before = failures(robot)
    stamp = robot.send(np.zeros((1, 65535, 3), np.uint8))
    assert robot.wait(lambda: stamp in robot.masks)
    assert robot.wait(lambda: failures(robot) > before), node.log.read_text()[-3000:]
    assert "(1, 65535, 3) as JPEG" in robot.diagnostics["node"]["last_failure"]
    seen = len(pictures)
    assert robot.stream(lambda: len(pictures) > seen)
    robot.node.destroy_subscription(subscription)
    check_alive(node, robot)


def test_a_stamp_with_too_many_nanoseconds_is_a_malformed_image(running: Running) -> None:
    node, robot, _ = running
    dropped = lambda: int(robot.diagnostics.get("tracker", {}).get("dropped_bad_image", 0))  # noqa: E731
    before = dropped()
    image = image_msg_from_rgb(np.zeros((4, 4, 3), np.uint8), header_from_stamp(0, ""))
    image.header.stamp.sec, image.header.stamp.nanosec = 2**31 - 1, 2**32 - 1
    robot.images.publish(image)
    assert robot.wait(lambda: dropped() == before + 1)
    check_alive(node, robot)


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[tuple[NodeProcess, Robot]]:
    """A node whose reasoner says odd things, and whose clock is near the end of 32 bits."""
    domain = random_domain()
    node = NodeProcess(
        domain,
        tmp_path / "node.log",
        "autostart:=true",
        "reasoner.kind:=tests.support.odd_reasoner:make",
        "scheduler.warm_up_s:=0.0",
        f"trace_path:={tmp_path / 'trace.jsonl'}",
    )
    robot = Robot(domain)
    try:
        yield node, robot
    finally:
        robot.close()
        node.stop()


def test_whatever_a_reasoner_says_is_answered_and_the_node_goes_on(
    odd: tuple[NodeProcess, Robot],
) -> None:
    node, robot = odd
    number = iter(range(1_000_000))
    origin_ns = LAST_S * 1_000_000_000

    def stamp() -> int:
        return origin_ns + 1_000_000 * next(number)

    def stream(until: object, wait_s: float = 2 * WAIT_S) -> bool:
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            robot.send(stamp_ns=stamp())
            if robot.wait(until, 0.05):
                return True
        return False

    assert stream(lambda: robot.diagnostics.get("reasoner", {}).get("message") == "up")
    client = robot.node.create_client(srv.Ask, "/foreseg/ask")
    assert client.wait_for_service(WAIT_S)
    for text, reply in (
        ("half a character", "half a ? smile"),
        ("many tokens", "the middle"),
        ("negative tokens", "the middle"),
        ("with a horizon", "the middle"),
    ):
        request = srv.Ask.Request(timeout_s=10.0)
        request.query = messages.Query(text=text, horizon_s=5.0, want_rationale=True)
        future = client.call_async(request)
        assert stream(future.done), (text, node.log.read_text()[-3000:])
        answer = future.result().answer
        assert (answer.status, answer.text) == (messages.Answer.OK, reply), answer
        assert answer.valid_until.sec == 2**31 - 1  # the last that a message holds
        assert answer.valid_until.nanosec == 999_999_999
    assert node.process.poll() is None
    assert robot.diagnostics["tracker"]["message"] == "running"


class Untakable(Waitable):
    """Always ready, and what it has can never be taken: as a middleware that trips over bytes."""

    def __init__(self) -> None:
        super().__init__(ReentrantCallbackGroup())
        self.num_tried = 0

    def __enter__(self) -> None:  # wanted from Kilted on
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def is_ready(self, _: object) -> bool:
        return True

    def take_data(self) -> None:
        self.num_tried += 1
        msg = "failed to take"
        raise rclpy_implementation.RCLError(msg)

    async def execute(self, _: object) -> None:
        pytest.fail("nothing was taken")

    def get_num_entities(self) -> NumberOfEntities:
        return NumberOfEntities()

    def add_to_wait_set(self, _: object) -> None:
        pass


GONE = (
    rclpy_implementation.InvalidHandle("cannot use Destroyable because destruction was requested"),
    rclpy_implementation.RCLError(
        "Failed to add 'rcl_action_server_t' to wait set: action server pointer is invalid, at x.c:1"
    ),
)


class Vanishing(Untakable):
    """Never ready, and destroyed by another thread whenever it is to be waited for."""

    def __init__(self, raised: Exception) -> None:
        super().__init__()
        self._raised = raised

    def is_ready(self, _: object) -> bool:
        return False

    def add_to_wait_set(self, _: object) -> None:
        self.num_tried += 1
        raise self._raised


class Raising:
    """A node with a callback of each kind that raises, spun by the guarded executor."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(context=self.context, domain_id=random_domain())
        self.guard = Guard()
        self.node = Node("raising", context=self.context)
        group = ReentrantCallbackGroup()
        self.node.create_timer(0.05, self._raise, callback_group=group)
        self.node.create_subscription(String, "words", self._raise, 10, callback_group=group)
        for kind, name, callback in (
            (Trigger, "plain", self._raise),
            (Trigger, "later", self._raise_later),
            (SetBool, "unsendable", self._say_half),
            (srv.Ask, "asked", self._raise),
            (srv.ListQueries, "listed", self._raise),
        ):
            service = self.node.create_service(kind, name, callback, callback_group=group)
            self.guard.watch(service)
        self.node.create_guard_condition(self._raise, callback_group=group).trigger()
        self.untakable = Untakable()
        self.node.add_waitable(self.untakable)
        self.executor = GuardedExecutor(self.guard, 2, context=self.context)
        self.executor.add_node(self.node)
        self.client = Node("client", context=self.context)
        self.executor.add_node(self.client)
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._spin)
        self.thread.start()

    def close(self) -> None:
        self.stopping.set()
        self.thread.join(WAIT_S)
        self.executor.shutdown()
        self.node.destroy_node()
        self.client.destroy_node()
        rclpy.shutdown(context=self.context)

    def call(self, kind: type, name: str) -> object:
        client = self.client.create_client(kind, name)
        assert client.wait_for_service(WAIT_S)
        done = threading.Event()
        future = client.call_async(kind.Request())
        future.add_done_callback(lambda _: done.set())
        assert done.wait(WAIT_S), f"{name} never replied"
        return future.result()

    def _raise(self, *_: object) -> None:
        msg = "a callback's \udcff"
        raise RuntimeError(msg)

    async def _raise_later(self, *_: object) -> None:
        self._raise()

    def _say_half(self, _: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, response.message = True, "half a \ud83d smile"
        return response

    def _spin(self) -> None:
        while not self.stopping.is_set():
            self.executor.spin_once(timeout_sec=0.1)


@pytest.fixture
def raising() -> Iterator[Raising]:
    made = Raising()
    yield made
    made.close()


def test_a_line_of_the_log_that_cannot_be_written_fails_nobody(
    raising: Raising, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = RosLogHandler(raising.node)
    handler.emit(logging.LogRecord("foreseg", logging.ERROR, "", 0, "half a \ud83d", (), None))
    handler.emit(logging.LogRecord("foreseg", logging.ERROR, "", 0, "%d items", ("no",), None))
    assert "--- Logging error ---" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "num_failures"), [*((e, 0) for e in GONE), (rclpy_implementation.RCLError("x"), 3)]
)
def test_what_is_destroyed_while_all_are_gathered_is_no_failure(
    raised: Exception, num_failures: int
) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    guard, node, called = Guard(), Node("vanishing", context=context), threading.Event()
    executor = GuardedExecutor(guard, 2, context=context)
    vanishing = Vanishing(raised)
    try:
        executor.add_node(node)
        node.add_waitable(vanishing)
        for _ in range(3):
            executor.spin_once(timeout_sec=0.1)
        assert vanishing.num_tried == 3
        node.remove_waitable(vanishing)
        node.create_timer(0.01, called.set)
        for _ in range(100):
            executor.spin_once(timeout_sec=0.1)
            if called.is_set():
                break
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert called.is_set()
    assert guard.num_failures == num_failures, guard.last


def test_what_raised_last_is_told_when_the_spinning_has_ended(
    capfd: pytest.CaptureFixture[str],
) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    guard, node = Guard(), Node("last", context=context)
    executor, is_over = GuardedExecutor(guard, 2, context=context), threading.Event()

    def fail() -> None:
        is_over.wait(WAIT_S)
        msg = "at the very end"
        raise RuntimeError(msg)

    try:
        executor.add_node(node)
        node.create_guard_condition(fail).trigger()
        for _ in range(100):
            executor.spin_once(timeout_sec=0.1)
            if executor._futures:  # it was handed to a thread
                break
        is_over.set()
        executor._executor.shutdown(wait=True)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert (guard.num_failures, guard.last) == (1, "a callback: RuntimeError: at the very end")
    del executor
    assert "never retrieved" not in capfd.readouterr().err


def test_what_runs_while_the_executor_ends_has_its_handles_until_it_is_over(
    capfd: pytest.CaptureFixture[str],
) -> None:
    context = Context()
    rclpy.init(context=context, domain_id=random_domain())
    guard, node = Guard(), Node("running", context=context)
    executor = GuardedExecutor(guard, 2, context=context)
    has_begun, is_over, ended = threading.Event(), threading.Event(), []

    def run() -> None:
        has_begun.set()
        is_over.wait(WAIT_S)
        ended.append(True)

    try:
        executor.add_node(node)
        node.create_guard_condition(run).trigger()
        while not has_begun.is_set():
            executor.spin_once(timeout_sec=0.1)
        ending = threading.Thread(target=executor.shutdown)
        ending.start()
        ending.join(0.2)
        assert ending.is_alive(), "it waits for what runs"
        is_over.set()
        ending.join(WAIT_S)
        assert ended
    finally:
        is_over.set()
        node.destroy_node()
        rclpy.shutdown(context=context)
    assert guard.num_failures == 0, guard.last
    del executor
    assert "never retrieved" not in capfd.readouterr().err


def test_every_caller_gets_a_failure_with_its_reason_and_spinning_goes_on(
    raising: Raising,
) -> None:
    said = "RuntimeError: a callback's ?"
    for name in ("plain", "later"):
        reply = raising.call(Trigger, name)
        assert (reply.success, reply.message) == (False, said)
    reply = raising.call(SetBool, "unsendable")
    assert not reply.success
    assert reply.message.startswith("UnicodeEncodeError: ")
    answer = raising.call(srv.Ask, "asked").answer
    assert (answer.status, answer.reason) == (messages.Answer.FAILED, said)
    assert raising.call(srv.ListQueries, "listed").queries == []
    raising.client.create_publisher(String, "words", 10).publish(String(data="x"))
    told = raising.guard.num_failures
    assert told >= 5
    tick = threading.Event()
    for _ in range(2000):  # the timer goes on raising, and is counted each time
        if raising.guard.num_failures >= told + 5:
            break
        tick.wait(0.01)
    assert raising.guard.num_failures >= told + 5
    tried = raising.untakable.num_tried
    for _ in range(2000):  # and what could not be taken once is looked at again
        if raising.untakable.num_tried > tried:
            break
        tick.wait(0.01)
    assert raising.untakable.num_tried > max(tried, 1)
    assert raising.thread.is_alive()
