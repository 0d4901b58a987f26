# SPDX-License-Identifier: Apache-2.0
"""One object on several frames, over real ROS: of a user's call, and of an answer that was drawn."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from std_srvs.srv import Trigger

from foreseg.masks import mask_iou
from foreseg_ros.conversions import header_from_stamp
from tests.ros.ros_harness import SIZE_WH, NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

STEP_NS = 33_000_000
MAX_FRAMES = 1000
Running = tuple[NodeProcess, Robot, Path]


def prompt_at(robot: Robot, stamp_ns: int, object_id: str = "cup") -> messages.SpatialPrompt:
    box = [float(value) for value in robot.box_at(stamp_ns)]
    return messages.SpatialPrompt(object_id=object_id, has_box=True, box_xyxy_px=box)


def request_on(robot: Robot, stamp_ns: int, *more: int) -> srv.AddObjects.Request:
    return srv.AddObjects.Request(
        header=header_from_stamp(stamp_ns, ""),
        prompts=[prompt_at(robot, stamp_ns)],
        more_prompts=[prompt_at(robot, other) for other in more],
        more_stamps=[header_from_stamp(other, "").stamp for other in more],
    )


def prompted_in(trace: Path, keys: tuple[str, ...]) -> list[list[int]]:
    """The frames of the prompts of each job that has any for these rows."""
    jobs = []
    for line in trace.read_text().splitlines()[1:]:
        record = json.loads(line)
        for command in record.get("commands", ()):
            steps = command["job"]["steps"] if command["type"] == "RunTracker" else ()
            prompts = [s for s in steps if s["type"] == "PromptStep" and s["key"] in keys]
            jobs += [[s["frame_index"] for s in prompts]] if prompts else []
    return jobs


def played(robot: Robot, num_frames: int, last_ns: int | None = None) -> list[int]:
    """Send frames 33 ms apart by their stamps, each when the one before has its masks."""
    if last_ns is None:  # stamps of an earlier test may be ahead of the clock
        last_ns = max(time.time_ns(), *robot.masks, 0)
    first = last_ns + STEP_NS
    stamps = [first + i * STEP_NS for i in range(num_frames)]
    for stamp in stamps:
        robot.send(stamp_ns=stamp)
        assert robot.wait(lambda stamp=stamp: stamp in robot.masks)
    return stamps


def iou_on(robot: Robot, stamp_ns: int, label: int) -> float:
    truth = np.zeros(SIZE_WH[::-1], bool)
    x0, y0, x1, y1 = robot.box_at(stamp_ns)
    truth[y0:y1, x0:x1] = True
    return mask_iou(robot.masks[stamp_ns][1] == label, truth)


def test_a_user_prompts_one_object_on_two_frames(running: Running) -> None:
    _, robot, folder = running
    robot.call(Trigger, "/foreseg/reset", Trigger.Request())
    stamps = played(robot, 12)
    older, newer = stamps[-8], stamps[-2]
    reply = robot.call(srv.AddObjects, "/foreseg/add_objects", request_on(robot, newer, older))
    assert (reply.success, list(reply.object_ids)) == (True, ["cup"]), reply.message
    (sent,) = played(robot, 1, stamps[-1])
    assert iou_on(robot, sent, reply.indices[0]) > 0.5
    (frames,) = prompted_in(folder / "trace.jsonl", ("cup",))
    assert len(frames) == 2
    assert frames[1] > frames[0]
    again = robot.call(srv.AddObjects, "/foreseg/add_objects", request_on(robot, newer, older))
    assert (again.success, again.indices) == (True, reply.indices), again.message  # told anew


def test_odd_calls_are_refused_with_a_reason(running: Running) -> None:
    _, robot, _ = running
    stamps = played(robot, 10)
    older, newer = stamps[-8], stamps[-2]
    request = request_on(robot, newer, older)
    request.more_stamps = []
    assert "a stamp for each of 1" in refusal(robot, request)
    assert "got zero" in refusal(robot, request_on(robot, newer, 0))
    assert "with the stamp 5 ns is at hand" in refusal(robot, request_on(robot, newer, 5))
    request = request_on(robot, newer, older)
    request.more_prompts[0].object_id = "saucer"
    assert "got 'saucer'" in refusal(robot, request)


def refusal(robot: Robot, request: srv.AddObjects.Request) -> str:
    reply = robot.call(srv.AddObjects, "/foreseg/add_objects", request)
    assert not reply.success
    return str(reply.message)


def test_an_answer_that_was_drawn_on_its_frames_is_tracked_from_all_of_them(
    tmp_path: Path,
) -> None:
    domain = random_domain()
    trace = tmp_path / "trace.jsonl"
    node = NodeProcess(
        domain,
        tmp_path / "node.log",
        "autostart:=true",
        f"trace_path:={trace}",
        "scheduler.warm_up_s:=0.3",
        "reasoner.kind:=tests.support.reasoners:drawing",
    )
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: len(robot.masks) >= 5, 60), node.log.read_text()[-3000:]
        stamps = played(robot, 12)
        query = messages.Query(id="q", text="the red one", period_s=60.0)
        request = srv.AddQuery.Request(query=query)
        assert robot.call(srv.AddQuery, "/foreseg/add_query", request).success
        while not robot.answers:
            stamps += played(robot, 1, stamps[-1])
            assert len(stamps) < MAX_FRAMES, "no answer came"
        assert robot.answers[-1].status == messages.Answer.OK, robot.answers[-1].reason
        (sent,) = played(robot, 1, stamps[-1])
        label = robot.tracks[max(robot.tracks)].tracks[0].index
        assert iou_on(robot, sent, label) > 0.5
    finally:
        code = node.stop()
        robot.close()
    assert code == 0, node.log.read_text()[-3000:]
    frames = prompted_in(trace, ("object-1",))[0]
    assert len(frames) == 5
    assert frames[-1] == max(frames)
    assert frames[0] == robot.answers[-1].keyframe_index
