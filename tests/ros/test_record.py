# SPDX-License-Identifier: Apache-2.0
"""`foreseg record` beside a real node: what it writes is read without ROS, and replayed."""

from __future__ import annotations

import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")
pytest.importorskip("rosbags", reason="needs rosbags: pip install 'foreseg[bags]'")

from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.interfaces import QosDurability, QosReliability
from sensor_msgs.msg import Image

from foreseg.errors import InputError
from foreseg.media.bags import BagSource, questions_of
from foreseg.media.sources import frames_of
from foreseg_ros.conversions import labels_from_image_msg, stamp_ns_from_time
from foreseg_ros.record import writer as writing
from foreseg_ros.record.definitions import Definitions
from foreseg_ros.record.recorder import offered_qos
from foreseg_ros.record.writer import BagWriter
from tests.ros.ros_harness import SIZE_WH, WAIT_S, NodeProcess, Robot, environment
from tests.support.bags import types_of_foreseg

if TYPE_CHECKING:
    from rosbags.interfaces import Connection
    from typing_extensions import Self

pytestmark = pytest.mark.ros

Running = tuple[NodeProcess, Robot, Path]
RED = "which region is red?"
COMMAND = """
import argparse, sys
from foreseg_ros.record.command import add_command
parser = argparse.ArgumentParser()
add_command(parser.add_subparsers())
arguments = parser.parse_args(sys.argv[1:])
sys.exit(arguments.handler(arguments))
"""


class Recording:
    """The command as a process on a robot's domain."""

    def __init__(self, robot: Robot, folder: Path, *words: str) -> None:
        self.out, self.log = folder / "bag", folder / "record.log"
        with self.log.open("w") as sink:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "record", "--out", str(self.out), *words],
                env=environment(robot.context.get_domain_id()),
                stdout=sink,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return self.log.read_text()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT_S)


def raw_of(bag: Path, topic: str) -> list[tuple[Connection, bytes]]:
    with AnyReader([bag]) as reader:
        connections = [c for c in reader.connections if c.topic == topic]
        return [(c, bytes(data)) for c, _, data in reader.messages(connections=connections)]


def test_what_a_node_sees_and_says_is_recorded_and_read_without_ros(
    running: Running, tmp_path: Path
) -> None:
    _, robot, _ = running
    with Recording(robot, tmp_path) as recording:
        record(robot, recording)
    check(robot, recording)


def record(robot: Robot, recording: Recording) -> None:
    """A standing question is asked, answered and removed."""
    names = (
        "/image ",
        "/foreseg/masks ",
        "/foreseg/tracks ",
        "/foreseg/answers ",
        "/diagnostics ",
    )
    assert robot.stream(lambda: all(f"recording {n}" in recording.said() for n in names)), (
        recording.said()
    )
    first = robot.num_sent
    request = srv.AddQuery.Request()
    request.query.id, request.query.text, request.query.period_s = "watch", RED, 60.0
    reply = robot.call(srv.AddQuery, "/foreseg/add_query", request)
    assert reply.success, reply.message
    assert robot.stream(lambda: bool(robot.answers) and robot.num_sent > first + 10)
    assert robot.stream(lambda: any(t.tracks for t in robot.tracks.values()))
    robot.call(srv.RemoveQuery, "/foreseg/remove_query", srv.RemoveQuery.Request(query_id="watch"))
    assert recording.end() == 0, recording.said()
    assert f"wrote {recording.out}: " in recording.said()


def check(robot: Robot, recording: Recording) -> None:
    """The bag has what the robot sent and got."""
    with BagSource(recording.out) as source:
        assert source.topic == "/image"
        frames = list(frames_of(source))
        (asked,) = questions_of(source.answers(), source.origin_ns)
    assert len(frames) > 10
    assert {frame.image.shape for frame in frames} == {(SIZE_WH[1], SIZE_WH[0], 3)}
    assert all(b.stamp_ns > a.stamp_ns for a, b in pairwise(frames))
    assert (asked.query.id, asked.query.text, asked.query.period_s) == ("watch", RED, 0.0)
    # rclpy reads the same bytes, and they are those that others got
    masks = raw_of(recording.out, "/foreseg/masks")
    assert masks
    for _, data in masks:
        msg = deserialize_message(data, Image)
        _, expected = robot.masks[stamp_ns_from_time(msg.header.stamp)]
        np.testing.assert_array_equal(labels_from_image_msg(msg), expected)
    connection, data = raw_of(recording.out, "/foreseg/answers")[0]
    assert deserialize_message(data, messages.Answer) == robot.answers[0]
    (profile,) = connection.ext.offered_qos_profiles
    assert profile.durability == QosDurability.TRANSIENT_LOCAL
    assert profile.reliability == QosReliability.RELIABLE
    with AnyReader([recording.out]) as reader:
        topics = set(reader.topics)
        digests = {c.msgtype: c.digest for c in reader.connections}
    assert not any("overlay" in topic or "/_" in topic for topic in topics)
    known = types_of_foreseg()
    assert digests["foreseg_msgs/msg/Answer"] == known.hash_rihs01("foreseg_msgs/msg/Answer")


def test_without_a_node_nothing_is_recorded_and_it_says_so(
    running: Running, tmp_path: Path
) -> None:
    _, robot, _ = running
    with Recording(robot, tmp_path, "--node", "/nobody", "--duration", "1") as recording:
        assert recording.process.wait(WAIT_S) == 1
    assert "nothing was recorded: is /nobody up and active?" in recording.said()
    assert not recording.out.exists()


def written(path: Path, num: int, max_bytes: int) -> BagWriter:
    store = types_of_foreseg()
    qos = offered_qos(is_reliable=True, is_latched=False)
    kind = "foreseg_msgs/msg/Query"
    fields = {"id": "q", "text": "x" * 1000, "method": "", "camera": "", "period_s": 0.0}
    flags = dict.fromkeys(("answer_first", "want_rationale"), False)
    query = store.types[kind](**fields, horizon_s=0.0, max_reasoning_tokens=0, **flags)
    data = bytes(store.serialize_cdr(query, kind))
    writer = BagWriter(path, max_bytes=max_bytes)
    for i in range(num):
        writer.write("/words", kind, store, qos, data, stamp_ns=i)
    return writer


def test_a_bag_ends_at_its_size_and_is_whole(tmp_path: Path) -> None:
    writer = written(tmp_path / "bag", 2000, 1_000_000)
    assert writer.ending == "--max-mb 1 are written"
    assert writer.close() == ""
    assert writer.close() == "", "twice is fine"
    assert len(raw_of(tmp_path / "bag", "/words")) == writer.counts["/words"] < 1000
    with pytest.raises(InputError, match="exists already"):
        BagWriter(tmp_path / "bag", max_bytes=1)


@pytest.mark.fault
def test_a_disk_that_gets_full_ends_it_while_the_index_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "MIN_FREE_BYTES", 10**18)
    writer = written(tmp_path / "bag", 3, 10**9)
    assert "of the disk are free" in writer.ending
    assert writer.close() == ""
    assert len(raw_of(tmp_path / "bag", "/words")) == 1


def test_a_definition_that_is_not_installed_is_one_sentence(tmp_path: Path) -> None:
    folder = tmp_path / "odd" / "msg"
    folder.mkdir(parents=True)
    (folder / "Outer.msg").write_text("odd/Inner inner\n")
    (folder / "Cut.msg").write_text("int33 what\n")
    definitions = Definitions(lambda name: tmp_path / name)
    for name, missing in (("Outer", "odd/msg/Inner"), ("Cut", "odd/msg/")):
        with pytest.raises(InputError, match=f"the definition of {missing}.* is not installed"):
            definitions.store_with(f"odd/msg/{name}")
