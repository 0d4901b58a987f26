# SPDX-License-Identifier: Apache-2.0
"""The node as a robot sees it: a real process, real rclpy, a private domain."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")

from diagnostic_msgs.msg import DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

from foreseg.driving.trace import replay
from foreseg.engines.load import bundle_folder
from foreseg.masks import mask_iou
from foreseg.media.overlay import AMBER
from foreseg_ros import qos
from foreseg_ros.conversions import (
    header_from_stamp,
    image_msg_from_rgb,
    rgb_from_image_msg,
)
from tests.ros.ros_harness import SIZE_WH, NodeProcess, Robot, random_domain

pytestmark = pytest.mark.ros

Running = tuple[NodeProcess, Robot, Path]


@pytest.fixture(autouse=True)
def _fresh(running: Running) -> None:
    _, robot, _ = running
    robot.call(Trigger, "/foreseg/reset", Trigger.Request())
    with robot.changed:
        robot.masks.clear()
        robot.tracks.clear()
        robot.answers.clear()
        robot.origin_ns = time.time_ns()


def add_box(robot: Robot, box: tuple[float, ...], object_id: str = "", stamp_ns: int = 0):  # noqa: ANN201
    request = srv.AddObjects.Request()
    request.header = header_from_stamp(stamp_ns, "")
    request.prompts = [
        messages.SpatialPrompt(
            object_id=object_id, has_box=True, box_xyxy_px=[float(v) for v in box]
        )
    ]
    return robot.call(srv.AddObjects, "/foreseg/add_objects", request)


def newest_tracks(robot: Robot) -> list[messages.Track]:
    return list(robot.tracks[max(robot.tracks)].tracks) if robot.tracks else []


def dropped(robot: Robot, cause: str) -> int:
    return int(robot.diagnostics.get("tracker", {}).get(f"dropped_{cause}", 0))


def test_every_frame_gets_masks_with_its_own_header(running: Running) -> None:
    _, robot, _ = running
    stamps = []
    for _ in range(10):
        stamps.append(robot.send())
        assert robot.wait(lambda: stamps[-1] in robot.masks and stamps[-1] in robot.tracks)
    for stamp in stamps:
        frame_id, labels = robot.masks[stamp]
        assert frame_id == "optical"
        assert labels.shape == SIZE_WH[::-1]
        assert not labels.any()
        assert robot.tracks[stamp].tracks == []


def test_an_object_added_by_a_box_is_masked_under_its_label(running: Running) -> None:
    _, robot, _ = running
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    reply = add_box(robot, robot.box_at(stamp), "red box", stamp)
    assert (reply.success, list(reply.object_ids)) == (True, ["red box"]), reply.message
    label = reply.indices[0]
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks and stamp in robot.tracks)
    track = robot.tracks[stamp].tracks[0]
    assert (track.object_id, track.index) == ("red box", label)
    truth = np.zeros(SIZE_WH[::-1], bool)
    x0, y0, x1, y1 = robot.box_at(stamp)
    truth[y0:y1, x0:x1] = True
    assert mask_iou(robot.masks[stamp][1] == label, truth) > 0.5


def test_a_question_is_answered_with_a_past_keyframe_and_tracked(running: Running) -> None:
    _, robot, _ = running
    robot.stream(lambda: len(robot.masks) >= 20)
    client = robot.node.create_client(srv.Ask, "/foreseg/ask")
    assert client.wait_for_service(10)
    request = srv.Ask.Request(timeout_s=15.0)
    request.query.text = "what is moving?"
    for _ in range(5):  # on a busy machine the frames of one window may come too unevenly
        future = client.call_async(request)
        assert robot.stream(future.done)
        answer = future.result().answer
        if answer.status == messages.Answer.OK:
            break
    assert answer.status == messages.Answer.OK, (answer.reason, answer.text)
    assert answer.prompts[0].has_box
    assert list(answer.object_ids)
    assert robot.stream(lambda: bool(newest_tracks(robot)))
    assert robot.stream(lambda: any(a.query_id == answer.query_id for a in robot.answers))
    track = newest_tracks(robot)[0]
    assert track.object_id in answer.object_ids
    assert track.query_ids == [answer.query_id]
    assert track.answer_age_s >= 0


def test_standing_queries_are_listed_and_removed(running: Running) -> None:
    _, robot, _ = running
    request = srv.AddQuery.Request()
    request.query.id, request.query.text, request.query.period_s = "watch", "what moves?", 5.0
    assert robot.call(srv.AddQuery, "/foreseg/add_query", request).success
    listed = robot.call(srv.ListQueries, "/foreseg/list_queries", srv.ListQueries.Request())
    assert [query.id for query in listed.queries] == ["watch"]
    remove = srv.RemoveQuery.Request(query_id="watch")
    assert robot.call(srv.RemoveQuery, "/foreseg/remove_query", remove).success
    again = robot.call(srv.RemoveQuery, "/foreseg/remove_query", remove)
    assert not again.success
    assert "'watch'" in again.message


@pytest.mark.parametrize(
    ("box", "problem"),
    [
        ((500.0, 500.0, 600.0, 600.0), "outside the image"),
        ((30.0, 30.0, 10.0, 40.0), "x0 < x1"),
        ((float("nan"), 0.0, 10.0, 10.0), "finite"),
    ],
)
def test_a_bad_box_is_refused_with_its_values(
    running: Running, box: tuple[float, ...], problem: str
) -> None:
    _, robot, _ = running
    reply = add_box(robot, box)
    assert not reply.success
    assert problem in reply.message


def test_a_stamp_that_no_frame_has_is_refused(running: Running) -> None:
    _, robot, _ = running
    reply = add_box(robot, robot.box_at(0), stamp_ns=5_000_000_000)
    assert not reply.success
    assert "5000000000" in reply.message


def test_a_huge_question_is_refused_with_its_size(running: Running) -> None:
    _, robot, _ = running
    request = srv.Ask.Request()
    request.query.text = "x" * 100_000
    answer = robot.call(srv.Ask, "/foreseg/ask", request).answer
    assert answer.status == messages.Answer.FAILED
    assert "100000" in answer.reason


def test_removing_what_is_not_there_is_refused(running: Running) -> None:
    _, robot, _ = running
    request = srv.RemoveObject.Request(object_id="ghost")
    reply = robot.call(srv.RemoveObject, "/foreseg/remove_object", request)
    assert not reply.success
    assert "ghost" in reply.message


@pytest.mark.parametrize(
    ("field", "value"), [("encoding", "wobble"), ("height", 0), ("height", 400), ("step", 1)]
)
def test_a_malformed_image_is_counted_and_the_node_goes_on(
    running: Running, field: str, value: str | int
) -> None:
    _, robot, _ = running
    before = dropped(robot, "bad_image")
    message = image_msg_from_rgb(
        np.zeros((4, 4, 3), np.uint8), header_from_stamp(time.time_ns(), "")
    )
    setattr(message, field, value)
    robot.images.publish(message)
    assert robot.wait(lambda: dropped(robot, "bad_image") == before + 1)
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)


@pytest.mark.parametrize(
    ("is_bad", "words"), [(True, "bad image (encoding '32FC1'"), (False, "stamp not newer")]
)
def test_steady_drops_are_a_warning_of_the_camera_until_they_are_over(
    running: Running, *, is_bad: bool, words: str
) -> None:
    _, robot, _ = running
    told: list[bool] = []

    def camera_warns() -> bool:
        message = robot.diagnostics.get("camera camera", {}).get("message", "")
        if words in message:
            told.append(robot.levels["camera camera"] == DiagnosticStatus.WARN)
        return any(told)

    def send_good_and_bad() -> bool:
        stamp = robot.send()
        robot.wait(lambda: stamp in robot.masks, 1.0)  # or the next image takes its place
        msg = image_msg_from_rgb(np.zeros((4, 4, 3), np.uint8), header_from_stamp(stamp, ""))
        msg.encoding = "32FC1" if is_bad else "rgb8"
        robot.images.publish(msg)
        return robot.wait(camera_warns, 0.05)

    assert any(send_good_and_bad() for _ in range(400))
    assert robot.stream(lambda: robot.diagnostics["camera camera"]["message"] == "frames come in")


def test_disabled_publishes_nothing_until_enabled(running: Running) -> None:
    _, robot, _ = running
    assert robot.call(SetBool, "/foreseg/enable", SetBool.Request(data=False)).success
    stamp = robot.send()
    assert not robot.wait(lambda: stamp in robot.masks, 0.5)
    assert robot.call(SetBool, "/foreseg/enable", SetBool.Request(data=True)).success
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)


def test_a_stamp_that_runs_backward_is_dropped_and_counted(running: Running) -> None:
    _, robot, _ = running
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    before = dropped(robot, "stamp_backward")
    old = robot.send(stamp_ns=stamp - 1000)
    assert robot.wait(lambda: dropped(robot, "stamp_backward") == before + 1)
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    assert old not in robot.masks


@pytest.mark.fault
def test_killing_the_reasoner_leaves_the_masks_flowing_and_it_comes_back(
    running: Running,
) -> None:
    _, robot, _ = running
    assert robot.stream(lambda: robot.diagnostics.get("reasoner", {}).get("message") == "up")
    pid = int(robot.diagnostics["reasoner"]["pid"])
    os.kill(pid, signal.SIGKILL)
    before = len(robot.masks)
    assert robot.stream(
        lambda: (
            "signal 9" in robot.diagnostics["reasoner"]["message"]
            or robot.diagnostics["reasoner"]["pid"] not in ("", str(pid))
        )
    )
    assert robot.stream(
        lambda: (
            robot.diagnostics["reasoner"]["message"] == "up"
            and robot.diagnostics["reasoner"]["pid"] != str(pid)
        )
    )
    assert len(robot.masks) > before


def test_the_trace_replays_to_the_same_commands(running: Running) -> None:
    node, _, folder = running
    del node
    lines = (folder / "trace.jsonl").read_text().splitlines()
    whole = folder / "whole.jsonl"
    whole.write_text("\n".join(lines[:-1]) + "\n")
    report = replay(whole)
    assert report.first_difference == ""
    assert report.num_events > 50


def test_the_overlay_is_drawn_for_who_looks(running: Running) -> None:
    _, robot, _ = running
    pictures: list[Image] = []

    def take(msg: Image) -> None:
        with robot.changed:
            pictures.append(msg)
            robot.changed.notify_all()

    subscription = robot.node.create_subscription(Image, "/foreseg/overlay", take, qos.overlay())
    robot.stream(lambda: len(robot.masks) >= 2)
    stamp = robot.send()
    assert robot.wait(lambda: stamp in robot.masks)
    assert add_box(robot, robot.box_at(stamp), "box", stamp).success
    assert robot.stream(lambda: bool(pictures))
    seen = len(pictures)
    assert robot.stream(lambda: len(pictures) > seen + 2)
    robot.node.destroy_subscription(subscription)
    picture = rgb_from_image_msg(pictures[-1])
    assert picture.shape == (*SIZE_WH[::-1], 3)
    assert picture.std() > 5


def test_the_overlay_shows_the_keyframe_of_an_answer(running: Running) -> None:
    _, robot, _ = running
    framed: list[bool] = []

    def take(msg: Image) -> None:
        below = rgb_from_image_msg(msg)[SIZE_WH[1] // 2 :]  # the banner has this colour, too
        with robot.changed:
            framed.append(int((below == AMBER).all(axis=2).sum()) > SIZE_WH[0] // 5)
            robot.changed.notify_all()

    subscription = robot.node.create_subscription(Image, "/foreseg/overlay", take, qos.overlay())
    assert robot.stream(lambda: len(robot.masks) >= 20 and len(framed) > 1)
    assert not any(framed)
    request = srv.AddQuery.Request()
    # One region, however uneven the frames: a legend of several may leave the keyframe no room.
    request.query.id, request.query.text = "watch", "which region is red?"
    request.query.period_s = 60.0
    reply = robot.call(srv.AddQuery, "/foreseg/add_query", request)
    assert reply.success, reply.message
    assert robot.stream(lambda: bool(robot.answers)), "no answer"
    assert robot.answers[0].status == messages.Answer.OK, robot.answers[0]
    assert robot.stream(lambda: any(framed)), robot.answers
    robot.call(srv.RemoveQuery, "/foreseg/remove_query", srv.RemoveQuery.Request(query_id="watch"))
    robot.node.destroy_subscription(subscription)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_node_cleanly_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals
) -> None:
    domain = random_domain()
    node = NodeProcess(domain, tmp_path / "node.log", "autostart:=true")
    robot = Robot(domain)
    try:
        assert robot.stream(lambda: bool(robot.masks), 40), node.log.read_text()[-3000:]
        code = node.stop(number)
    finally:
        robot.close()
    assert node.left_behind() == []
    assert code == 0, node.log.read_text()[-3000:]
    assert "Traceback" not in node.log.read_text()


def test_a_missing_bundle_fails_the_start_with_one_clear_line(tmp_path: Path) -> None:
    node = NodeProcess(
        random_domain(),
        tmp_path / "node.log",
        "autostart:=true",
        "tracker.bundle:=/nonexistent/bundle",
        has_profile=False,
    )
    assert node.process.wait(40) == 1
    text = node.log.read_text()
    assert "/nonexistent/bundle" in text
    assert "no Fast DDS profile" in text
    assert "Traceback" not in text


def test_a_bundle_that_was_tampered_with_fails_the_start(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(bundle_folder("nano"), bundle)
    graph = next(bundle.glob("*.onnx"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"!")
    node = NodeProcess(
        random_domain(), tmp_path / "node.log", "autostart:=true", f"tracker.bundle:={bundle}"
    )
    assert node.process.wait(40) == 1
    text = node.log.read_text()
    assert graph.name in text
    assert "sha256" in text
    assert "Traceback" not in text


def test_an_id_that_is_given_twice_in_one_request_is_refused(running: Running) -> None:
    _, robot, _ = running
    box = [float(v) for v in robot.box_at(0)]
    twice = [messages.SpatialPrompt(object_id="cup", has_box=True, box_xyxy_px=box)] * 2
    request = srv.AddObjects.Request(prompts=twice)
    reply = robot.call(srv.AddObjects, "/foreseg/add_objects", request)
    assert not reply.success
    assert "duplicate" in reply.message


def test_a_parameter_of_a_running_node_is_not_changed_behind_its_back(running: Running) -> None:
    _, robot, _ = running
    value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=2)
    request = SetParameters.Request(parameters=[Parameter(name="tracker.threads", value=value)])
    result = robot.call(SetParameters, "/foreseg/set_parameters", request).results[0]
    assert not result.successful
    assert "tracker.threads = 2" in result.reason
