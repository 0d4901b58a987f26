# SPDX-License-Identifier: Apache-2.0
"""Whatever the reasoner of a real node does: the question fails with a reason, masks go on."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from foreseg_msgs import msg as messages
from foreseg_msgs import srv

from tests.ros.ros_harness import WAIT_S, NodeProcess, Robot, random_domain

pytestmark = [pytest.mark.ros, pytest.mark.fault]

Record = Callable[[str, object], None]
# `reasoner.timeout_s` and the patience with a silent process are 60 s both: either may be first.
SILENT = "hung: no sign of life|no complete answer within"
Asked = tuple[messages.Answer, int, float]


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Robot]:
    """The reasoner does what the question's words say, and may hold 300 MB."""
    domain = random_domain()
    log = tmp_path_factory.mktemp("node") / "node.log"
    node = NodeProcess(
        domain,
        log,
        "autostart:=true",
        "reasoner.kind:=tests.support.reasoners:by_text",
        "reasoner.max_memory_mb:=300",
        "scheduler.warm_up_s:=0.0",
    )
    made = Robot(domain)
    try:
        assert made.stream(lambda: bool(made.masks), WAIT_S), log.read_text()[-3000:]
        yield made
        assert node.process.poll() is None
        assert node.stop() == 0
        assert node.left_behind() == []
    finally:
        made.close()
        node.stop()


def is_up(robot: Robot) -> bool:
    return robot.diagnostics.get("reasoner", {}).get("message") == "up"


def asked(robot: Robot, text: str, timeout_s: float = 0.0, meanwhile: int = 0) -> Asked:
    """The answer to a question, how many masks came until then, and the seconds it took.

    Args:
        meanwhile: a signal for the reasoner once it has been asked; 0 = none.
    """
    client = robot.node.create_client(srv.Ask, "/foreseg/ask")
    assert client.wait_for_service(WAIT_S)
    request = srv.Ask.Request(timeout_s=timeout_s, query=messages.Query(text=text))
    before, began = len(robot.masks), time.monotonic()
    future = client.call_async(request)
    if meanwhile:
        assert robot.stream(lambda: robot.diagnostics["reasoner"].get("is_asked") == "True")
        os.kill(int(robot.diagnostics["reasoner"]["pid"]), meanwhile)
    assert robot.stream(future.done, 2 * WAIT_S)
    answer = future.result().answer
    robot.node.destroy_client(client)
    return answer, len(robot.masks) - before, time.monotonic() - began


@pytest.mark.parametrize(
    ("text", "number", "reason"),
    [
        ("child, then exit", 0, "left with exit code 3"),
        ("hoard", 0, "its ceiling is 300 MB; killed"),
        ("raise", 0, "no such thing"),
        ("hang", signal.SIGKILL, "SIGKILL"),
        pytest.param("no pickle", 0, "sent something unreadable", marks=pytest.mark.long),
        pytest.param("a huge message", 0, "sent a message of 10995", marks=pytest.mark.long),
        pytest.param("hang", 0, SILENT, marks=pytest.mark.long),
        pytest.param("half a message", 0, SILENT, marks=pytest.mark.long),
        pytest.param("hang", signal.SIGSTOP, SILENT, marks=pytest.mark.long),
    ],
)
def test_a_question_fails_with_its_reason_and_the_next_is_answered(
    robot: Robot, text: str, number: int, reason: str, record_property: Record
) -> None:
    assert robot.stream(lambda: is_up(robot))
    answer, num_masks, took_s = asked(robot, text, meanwhile=number)
    assert answer.status == messages.Answer.FAILED
    assert re.search(reason, answer.reason), answer.reason
    assert num_masks > 0, "masks go on"
    began = time.monotonic()
    assert robot.stream(lambda: answered(robot), 2 * WAIT_S)
    back_s = time.monotonic() - began
    what = signal.Signals(number).name if number else text
    record_property(
        "outcome",
        f"reasoner, {what}: failed after {took_s:.1f} s ({answer.reason}), {num_masks} masks"
        f" meanwhile, next answer {back_s:.1f} s later",
    )


def answered(robot: Robot) -> bool:
    """Whether a question is answered now; one that is put while the reasoner starts fails."""
    if not is_up(robot):
        return False
    return bool(asked(robot, "where is the red one?")[0].reason == "that was all")


def test_what_a_reasoner_prints_is_no_answer_and_harms_none(
    robot: Robot, record_property: Record
) -> None:
    assert robot.stream(lambda: is_up(robot))
    answer, _, took_s = asked(robot, "print")
    assert answer.reason == "that was all"
    record_property(
        "outcome", f"reasoner, prints bytes: answered after {took_s:.1f} s all the same"
    )


@pytest.mark.long
def test_a_stopped_reasoner_costs_a_caller_its_own_deadline_and_no_more(
    robot: Robot, record_property: Record
) -> None:
    assert robot.stream(lambda: is_up(robot))
    pid = robot.diagnostics["reasoner"]["pid"]
    answer, num_masks, took_s = asked(robot, "hang", 3.0, meanwhile=signal.SIGSTOP)
    assert answer.status == messages.Answer.FAILED
    assert num_masks > 0
    began = time.monotonic()
    assert robot.stream(lambda: is_up(robot) and robot.diagnostics["reasoner"]["pid"] != pid, 120)
    record_property(
        "outcome",
        f"reasoner, SIGSTOP, with a deadline of 3 s: failed after {took_s:.1f} s ({answer.reason}),"
        f" another process is up {time.monotonic() - began:.0f} s later",
    )
