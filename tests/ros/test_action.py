# SPDX-License-Identifier: Apache-2.0
"""The action as a robot uses it: a real node process, goals, feedback, cancelling, masks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from action_msgs.msg import GoalStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from foreseg_msgs.action import AskForesight
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from std_srvs.srv import Trigger

from foreseg.config import Config
from foreseg.dialogue import QueryId
from foreseg.frames import DEFAULT_CAMERA
from foreseg.masks import MaskRle, mask_from_rle, mask_iou
from foreseg.pipeline.state import State
from foreseg_ros.action import progress_of
from tests.ros.ros_harness import SIZE_WH, WAIT_S, NodeProcess, Robot, random_domain
from tests.support.bench import Bench, still

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.ros

LEAST_J = 0.5  # of the nano tracker on the robot's red box
Feedback = AskForesight.Feedback


class Client:
    """One action client; keeps the feedback."""

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        self.told: list[Feedback] = []
        self.client = ActionClient(robot.node, AskForesight, "/foreseg/ask_foresight")
        assert self.client.wait_for_server(WAIT_S)

    def send(self, text: str, *, masks: bool = False, **fields: object) -> ClientGoalHandle:
        goal = AskForesight.Goal(want_observed_masks=masks)
        goal.query = messages.Query(text=text, **fields)
        future = self.robot.in_turn(
            lambda: self.client.send_goal_async(goal, lambda m: self.told.append(m.feedback))
        )
        assert self.robot.stream(future.done)
        handle: ClientGoalHandle = future.result()
        assert handle.accepted
        return handle

    def result(self, handle: ClientGoalHandle) -> tuple[int, AskForesight.Result]:
        (response,) = self.robot.results([handle])
        return response.status, response.result

    def what_is_moving(self, *, masks: bool = False) -> tuple[int, AskForesight.Result]:
        """Asked again where a busy machine's frames came too unevenly for a steady velocity."""
        for _ in range(5):
            self.told.clear()
            status, result = self.result(self.send("what is moving?", masks=masks))
            if result.answer.status == messages.Answer.OK:
                break
        return status, result

    def close(self) -> None:
        self.client.destroy()


@pytest.fixture
def client(running: tuple[NodeProcess, Robot, Path]) -> Iterator[Client]:
    _, robot, _ = running
    robot.call(Trigger, "/foreseg/reset", Trigger.Request())
    with robot.changed:
        robot.masks.clear()
        robot.answers.clear()
    assert robot.stream(lambda: len(robot.masks) >= 20)
    made = Client(robot)
    yield made
    made.close()


def test_a_goal_is_answered_with_the_masks_of_its_window(client: Client) -> None:
    robot = client.robot
    stamps: dict[int, int] = {}

    def note(array: messages.TrackArray) -> None:
        stamp = array.header.stamp
        stamps[int(array.frame_index)] = stamp.sec * 10**9 + stamp.nanosec

    with robot.changed:
        for array in robot.tracks.values():
            note(array)
    status, result = client.what_is_moving(masks=True)
    assert status == GoalStatus.STATUS_SUCCEEDED, result.answer.reason
    assert result.answer.status == messages.Answer.OK
    with robot.changed:
        for array in robot.tracks.values():
            note(array)
    indices = list(result.observed_frame_indices)
    assert len(indices) == len(result.observed_masks) > 2
    assert indices == sorted(set(indices))
    assert result.answer.keyframe_index in indices
    scores = []
    for index, rle in zip(indices, result.observed_masks, strict=True):
        if index not in stamps:
            continue  # its masks were not received
        mask = mask_from_rle(MaskRle(height=rle.height, width=rle.width, counts=rle.counts))
        truth = np.zeros(SIZE_WH[::-1], bool)
        x0, y0, x1, y1 = robot.box_at(stamps[index])
        truth[y0:y1, x0:x1] = True
        scores.append(mask_iou(mask, truth))
    assert scores
    assert min(scores) > LEAST_J, scores
    stages = (Feedback.CATCHING_UP, Feedback.SEGMENTING)
    assert robot.stream(lambda: bool(client.told) and client.told[-1].stage in stages), (
        "feedback is a topic: its last message may come after the result"
    )
    last = client.told[-1]
    assert last.keyframe_index == result.answer.keyframe_index
    assert [f.stage for f in client.told] == sorted(f.stage for f in client.told)
    published = [a for a in robot.answers if a.query_id == result.answer.query_id]
    assert len(published) == 1, "the masks are not worth a second message"


def test_without_the_wish_there_are_no_masks(client: Client) -> None:
    status, result = client.what_is_moving()
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert list(result.observed_masks) == list(result.observed_frame_indices) == []


@pytest.mark.parametrize(
    ("text", "fields", "words"),
    [("", {}, "got none"), ("what?", {"period_s": 2.0}, "~/ask_foresight asks once")],
)
def test_a_goal_that_cannot_be_asked_is_aborted_with_the_reason(
    client: Client, text: str, fields: dict[str, object], words: str
) -> None:
    status, result = client.result(client.send(text, **fields))
    assert status == GoalStatus.STATUS_ABORTED
    assert result.answer.status == messages.Answer.FAILED
    assert words in result.answer.reason


def test_a_question_that_cannot_be_answered_is_aborted_and_claims_nothing(client: Client) -> None:
    status, result = client.result(client.send("which tool will be used next?"))
    assert status == GoalStatus.STATUS_ABORTED
    assert result.answer.status == messages.Answer.ABSTAINED
    assert "cannot answer" in result.answer.reason


def test_a_goal_is_cancelled_while_it_waits(tmp_path: Path) -> None:
    """A node whose stream is not warm for a minute: the question waits until it is cancelled."""
    domain = random_domain()
    node = NodeProcess(
        domain, tmp_path / "node.log", "autostart:=true", "scheduler.warm_up_s:=60.0"
    )
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        client = Client(robot)
        handle = client.send("what is moving?", id="mine")
        assert robot.stream(lambda: bool(client.told))
        assert client.told[0].stage == Feedback.ACCEPTED
        assert robot.stream(lambda: len(client.told) >= 3), "what does not change is told again"
        assert {f.stage for f in client.told} == {Feedback.ACCEPTED}
        cancelled = handle.cancel_goal_async()
        status, result = client.result(handle)
        assert cancelled.result().goals_canceling
        assert status == GoalStatus.STATUS_CANCELED
        assert result.answer.status == messages.Answer.STALE
        listed = robot.call(srv.ListQueries, "/foreseg/list_queries", srv.ListQueries.Request())
        assert list(listed.queries) == []
        client.told.clear()
        client.send("what is moving?", id="second")
        assert robot.stream(lambda: bool(client.told))
        client.close()
        code = node.stop()
    finally:
        robot.close()
        node.stop()
    assert code == 0, node.log.read_text()[-3000:]
    assert "Traceback" not in node.log.read_text(), "a goal that is open at the end is no fault"


def test_a_clean_up_ends_an_open_goal_with_a_result(tmp_path: Path) -> None:
    domain = random_domain()
    node = NodeProcess(
        domain, tmp_path / "node.log", "autostart:=true", "scheduler.warm_up_s:=60.0"
    )
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        client = Client(robot)
        future = client.robot.in_turn(client.send("what is moving?").get_result_async)
        assert robot.stream(lambda: bool(client.told))
        for transition in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            request = ChangeState.Request(transition=Transition(id=transition))
            assert robot.call(ChangeState, "/foreseg/change_state", request).success
        assert robot.wait(future.done)
        response = future.result()
        client.close()
        code = node.stop()
    finally:
        robot.close()
        node.stop()
    assert response.status == GoalStatus.STATUS_ABORTED
    assert "foreseg stopped" in response.result.answer.reason
    text = node.log.read_text()
    assert code == 0, text[-3000:]
    assert "Traceback" not in text, text[-3000:]


def test_the_stages_of_a_query_are_told_in_order() -> None:
    bench = Bench({"ball": still(10, 10)}, reasoner_s=0.5, tracker_s=0.05)
    assert progress_of(State.start(Config(), (DEFAULT_CAMERA,)), QueryId("q")).stage == 0
    bench.run(1.2)
    bench.ask(want_observed_masks=True)
    stages = []
    while QueryId("q") in {e.query.id for e in bench.state.queries}:
        progress = progress_of(bench.state, QueryId("q"))
        if progress.stage not in stages:
            stages.append(progress.stage)
        assert (progress.keyframe_index is None) == (progress.stage < Feedback.CATCHING_UP)
        bench.run(0.01)
    assert stages == [Feedback.REASONING, Feedback.CATCHING_UP, Feedback.SEGMENTING]
