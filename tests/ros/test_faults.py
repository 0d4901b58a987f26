# SPDX-License-Identifier: Apache-2.0
"""A real node on a full disk, killed, and asked by many at once: masks go on, nobody is left."""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from diagnostic_msgs.msg import DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from foreseg_msgs.action import AskForesight
from rclpy.action import ActionClient
from std_msgs.msg import Header, String

from foreseg.config import Config
from foreseg.driving.guarded_thread import ThreadHealth
from foreseg.driving.trace import replay
from foreseg.driving.worker import Snapshot
from foreseg.engines.load import BackendChoice
from foreseg.frames import DEFAULT_CAMERA
from foreseg.pipeline.state import State
from foreseg.telemetry import LatencySummary
from foreseg_ros import qos
from foreseg_ros.conversions import stamp_ns_from_time
from foreseg_ros.diagnostics import Lifecycle, NodeFacts, diagnostics_from_snapshot
from foreseg_ros.guard import Guard
from tests.ros.ros_harness import WAIT_S, NodeProcess, Robot, became, random_domain

pytestmark = [pytest.mark.ros, pytest.mark.fault]

Started = tuple[NodeProcess, Robot, Path]
Record = Callable[[str, object], None]


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Started]:
    """A node of its own, with a trace."""
    domain = random_domain()
    trace = tmp_path / "trace.jsonl"
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true", f"trace_path:={trace}")
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 60), node.log.read_text()[-3000:]
        yield node, robot, trace
    finally:
        robot.close()
        node.stop()


def add_box(robot: Robot) -> None:
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    request = srv.AddObjects.Request()
    box = [float(v) for v in robot.box_at(stamp)]
    request.prompts = [messages.SpatialPrompt(object_id="box", has_box=True, box_xyxy_px=box)]
    assert robot.call(srv.AddObjects, "/foreseg/add_objects", request).success


def check_tracked(robot: Robot, num_frames: int = 5) -> None:
    """So many more frames get the object's mask."""
    with robot.changed:
        before = {stamp for stamp, array in robot.tracks.items() if array.tracks}
    assert robot.stream(
        lambda: (
            len({stamp for stamp, array in robot.tracks.items() if array.tracks} - before)
            >= num_frames
        )
    )


def test_on_a_full_disk_masks_go_on_and_the_trace_ends_with_a_gap(
    started: Started, record_property: Record
) -> None:
    node, robot, trace = started
    add_box(robot)
    check_tracked(robot)
    assert robot.stream(lambda: trace.stat().st_size > 2 * node.log.stat().st_size)
    pid, limit = node.process.pid, resource.RLIMIT_FSIZE
    before = resource.prlimit(pid, limit)
    resource.prlimit(pid, limit, (trace.stat().st_size + 500, before[1]))  # the disk is full
    told = lambda: robot.diagnostics.get("node", {})  # noqa: E731
    assert robot.stream(lambda: int(told().get("trace_skipped", 0)) > 0)
    assert "the trace has ended: OSError: [Errno 27]" in told()["message"]
    assert robot.levels["node"] == DiagnosticStatus.WARN
    check_tracked(robot)
    resource.prlimit(pid, limit, before)  # and has room again
    check_tracked(robot)
    assert robot.diagnostics["tracker"]["message"] == "running"
    assert node.stop() == 0
    report = replay(trace)
    assert report.first_difference == ""
    assert "File too large" in report.gap
    record_property(
        "outcome",
        f"full disk under the trace: masks go on, told, {report.num_events} events of it replay",
    )


def running_of(node: NodeProcess) -> list[int]:
    """Processes of the node's session that are more than an exit code to be fetched."""

    def is_running(pid: int) -> bool:
        try:
            state = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[0]
        except OSError:
            return False
        return state not in "ZX"

    return [pid for pid in node.left_behind() if is_running(pid)]


@pytest.mark.parametrize("is_stopped", [False, True])
def test_nothing_outlives_a_node_that_is_killed(
    started: Started, *, is_stopped: bool, record_property: Record
) -> None:
    node, robot, _ = started
    assert robot.stream(lambda: robot.diagnostics.get("reasoner", {}).get("message") == "up")
    reasoner = int(robot.diagnostics["reasoner"]["pid"])
    assert reasoner in running_of(node)
    if is_stopped:
        os.kill(reasoner, signal.SIGSTOP)
    node.process.kill()
    began = time.monotonic()
    node.process.wait(WAIT_S)
    assert became(lambda: not running_of(node), 20), f"left behind: {running_of(node)}"
    record_property(
        "outcome",
        f"node, kill -9{', its reasoner stopped' if is_stopped else ''}: nothing of it is left"
        f" after {time.monotonic() - began:.1f} s",
    )


def has_answers(robot: Robot, wanted: int) -> bool:
    return len(robot.answers) >= wanted


def test_no_answer_crosses_the_loop_of_a_bag(tmp_path: Path) -> None:
    domain = random_domain()
    node = NodeProcess(
        domain,
        tmp_path / "node.log",
        "autostart:=true",
        "reasoner.kind:=tests.support.odd_reasoner:make",
        "scheduler.warm_up_s:=0.3",
    )
    robot = Robot(domain)
    began_ns = time.monotonic_ns()

    def stream(until: Callable[[], object], wait_s: float = 2 * WAIT_S) -> bool:
        """Frames of a bag that was begun at `began_ns`."""
        end = time.monotonic() + wait_s
        while time.monotonic() < end:
            robot.send(stamp_ns=10**12 + time.monotonic_ns() - began_ns)
            if robot.wait(lambda: bool(until()), 0.03):
                return True
        return False

    try:
        assert stream(lambda: robot.diagnostics.get("reasoner", {}).get("message") == "up", 60)
        request = srv.AddQuery.Request()
        request.query = messages.Query(id="watch", text="a slow look", period_s=10.0)
        for wanted in (2, 4, 6):  # each time one that is stale, and one of the new stream
            assert robot.call(srv.AddQuery, "/foreseg/add_query", request).success
            assert stream(lambda: robot.diagnostics["reasoner"]["is_asked"] == "True")
            began_ns = time.monotonic_ns()  # the bag begins anew
            assert stream(partial(has_answers, robot, wanted)), node.log.read_text()[-3000:]
        code = node.stop()
    finally:
        robot.close()
        node.stop()
    told = [
        (a.status, stamp_ns_from_time(a.asked), stamp_ns_from_time(a.answered))
        for a in robot.answers
    ]
    assert code == 0
    assert {status for status, _, _ in told} == {messages.Answer.STALE, messages.Answer.OK}
    assert all(asked <= answered for _, asked, answered in told), told
    assert [a.reason for a in robot.answers if a.status == messages.Answer.STALE] == [
        "the stream began anew"
    ] * 3


CROWD = 50
ODD = "please sing {}"  # the kinematic reasoner abstains at once


def counted(robot: Robot) -> int:
    """Questions that the node has taken or refused."""
    told = robot.diagnostics.get("tracker", {})
    return int(told.get("queries_added", 0)) + int(told.get("requests_refused", 0))


def test_of_many_who_ask_at_once_each_is_answered_or_refused_with_the_reason(
    started: Started, record_property: Record
) -> None:
    _, robot, _ = started
    robot.stream(lambda: len(robot.masks) > 40)
    clients = [
        robot.node.create_client(srv.Ask, "/foreseg/ask", qos_profile=qos.requests())
        for _ in range(CROWD)
    ]
    assert all(client.wait_for_service(WAIT_S) for client in clients)
    futures = []
    for number, client in enumerate(clients):
        request = srv.Ask.Request(timeout_s=15.0)
        request.query.text = ODD.format(number)
        futures.append(client.call_async(request))
    began, before = time.monotonic(), len(robot.masks)
    assert robot.stream(lambda: all(future.done() for future in futures), 2 * WAIT_S)
    took_s = time.monotonic() - began
    answers = [future.result().answer for future in futures]
    refused = [a for a in answers if "queries stand already, at most 16 may" in a.reason]
    assert all(a.reason for a in answers)
    assert 0 < len(refused) < CROWD
    assert robot.stream(lambda: counted(robot) == CROWD)
    record_property(
        "outcome",
        f"{CROWD} questions at once: {len(answers) - len(refused)} answered, {len(refused)} refused"
        f" with the reason, all after {took_s:.1f} s, {len(robot.masks) - before} masks meanwhile",
    )


def test_callers_with_shallow_queues_and_spoken_words_are_all_taken(started: Started) -> None:
    """rclpy's own client keeps 10 replies, of all that its service gives: it may lose its own."""
    _, robot, _ = started
    clients = [robot.node.create_client(srv.Ask, "/foreseg/ask") for _ in range(CROWD)]
    words = [
        robot.node.create_publisher(String, "/foreseg/query", qos.queries()) for _ in range(CROWD)
    ]
    assert all(client.wait_for_service(WAIT_S) for client in clients)
    assert robot.stream(lambda: all(w.get_subscription_count() for w in words))
    for number, client in enumerate(clients):
        client.call_async(srv.Ask.Request(query=messages.Query(text=ODD.format(number))))
    for number, publisher in enumerate(words):
        publisher.publish(String(data=ODD.format(number)))
    assert robot.stream(lambda: counted(robot) == 2 * CROWD)


def test_many_goals_at_once_each_get_a_result(started: Started) -> None:
    _, robot, _ = started
    deep = qos.requests()
    client = ActionClient(
        robot.node,
        AskForesight,
        "/foreseg/ask_foresight",
        goal_service_qos_profile=deep,
        result_service_qos_profile=deep,
    )
    assert client.wait_for_server(WAIT_S)
    goals = [
        AskForesight.Goal(query=messages.Query(text=ODD.format(number))) for number in range(CROWD)
    ]
    sent = [robot.in_turn(partial(client.send_goal_async, goal)) for goal in goals]
    assert robot.stream(lambda: all(future.done() for future in sent), 2 * WAIT_S)
    responses = robot.results([future.result() for future in sent])
    assert all(response.result.answer.reason for response in responses)
    client.destroy()


def test_the_diagnostics_name_a_dead_thread() -> None:
    threads = tuple(
        ThreadHealth(name=name, is_alive=name != "tracker", num_failures=0, last="")
        for name in ("loop", "tracker", "reasoner")
    )
    snapshot = Snapshot(
        state=State.start(Config(), (DEFAULT_CAMERA,)),
        received_to_published=LatencySummary(),
        num_messages_dropped=0,
        reasoner_pid=None,
        failure="",
        num_failures=0,
        threads=threads,
        trace_gap="",
        trace_skipped=0,
    )

    def node_status(given: Snapshot) -> DiagnosticStatus:
        facts = NodeFacts(
            name="/foreseg",
            lifecycle=Lifecycle(state="active", failure=""),
            backend=BackendChoice(),
            topics={},
            drops={},
            problems={},
            counts={},
            guard=Guard(),
        )
        array = diagnostics_from_snapshot(given, facts, header=Header(), now_ns=0)
        (status,) = (s for s in array.status if s.name == "/foreseg: node")
        return status

    status = node_status(snapshot)
    assert (status.level, status.message) == (
        DiagnosticStatus.ERROR,
        "the tracker thread is dead",
    )
    alive = tuple(replace(t, is_alive=True) for t in threads)
    assert node_status(replace(snapshot, threads=alive)).level == DiagnosticStatus.OK
    failed = (replace(alive[0], num_failures=2, last="EOFError"), *alive[1:])
    status = node_status(replace(snapshot, threads=failed))
    assert (status.level, status.message) == (
        DiagnosticStatus.WARN,
        "the loop thread failed 2 times: EOFError",
    )
