# SPDX-License-Identifier: Apache-2.0
"""The page's server over a real worker: HTTP and WebSocket as a script or browser would use them."""

from __future__ import annotations

import io
import json
import shutil
import socket
import struct
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'foreseg[view]'")
pytest.importorskip("httpx", reason="needs httpx: pip install 'foreseg[server]'")
pytest.importorskip("starlette", reason="needs Starlette: pip install 'foreseg[view]'")
pytest.importorskip("uvicorn", reason="needs uvicorn: pip install 'foreseg[view]'")
pytest.importorskip("websockets", reason="needs websockets: pip install 'foreseg[view]'")

import cv2
import httpx
from tests.support.colour_tracker import ColourTracker
from tests.support.scene import WAIT_S, box_of, image_of
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync import client

from foreseg.clock import ManualClock, SystemClock
from foreseg.commands.questions import Questions, RunTrace
from foreseg.config import Config, HistoryConfig, ReasonerConfig, SchedulerConfig
from foreseg.driving.executor import Executor
from foreseg.driving.worker import Worker
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA
from foreseg_view import connections, hub
from foreseg_view.board import Board
from foreseg_view.pixels import reduced
from foreseg_view.server import ViewServer, bound_socket
from foreseg_view.worker_host import BoardOutput, WorkerHost

CONFIG = Config(
    history=HistoryConfig(max_frames=60),
    scheduler=SchedulerConfig(warm_up_s=0.1),
    reasoner=ReasonerConfig(
        kind="tests.support.pointing_reasoner:make", nice=0, max_memory_mb=300, timeout_s=5.0
    ),
)
HOSTILE = "<img src=x onerror=alert(1)> </script><script>alert(2)</script> \" ' & \u202e"


class Rig:
    """A worker with a server, a camera under the test's control, and clients."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.board = Board()
        executor = Executor(CONFIG, (DEFAULT_CAMERA,), ColourTracker)
        questions = Questions(executor, reduced)
        self.path = path = Path(tempfile.mkdtemp()) / "trace.jsonl"
        trace = RunTrace(questions, path, CONFIG, DEFAULT_CAMERA)
        output = BoardOutput(self.board, questions)
        self.worker = Worker(CONFIG, (DEFAULT_CAMERA,), executor, output, trace=trace)
        self.host = WorkerHost(self.worker, "a scene", trace_path=path)
        self.server = ViewServer(self.board, self.host, address=address, port=0)
        self.worker.start()
        self.server.start()
        self.number = 0
        name = "127.0.0.1" if address == "0.0.0.0" else address  # noqa: S104
        self.base = f"{name}:{self.server.port}"
        self.http = httpx.Client(base_url=f"http://{self.base}", timeout=WAIT_S)

    def close(self) -> None:
        self.http.close()
        self.server.stop()
        self.worker.stop()
        shutil.rmtree(self.path.parent)

    def frames(self, num: int = 1) -> None:
        for _ in range(num):
            self.worker.submit_frame(
                DEFAULT_CAMERA, image_of(self.number), (self.number + 1) * 33_000_000
            )
            self.number += 1
            self.until(lambda: self.taken() >= self.number, "the frame is taken")

    def taken(self) -> int:
        return int(self.worker.snapshot().state.counters.get("frames_in", 0))

    def until(self, is_met: Callable[[], object], what: str) -> None:
        end_ns, tick = SystemClock().monotonic_ns() + round(WAIT_S * 1e9), threading.Event()
        while not is_met():
            assert SystemClock().monotonic_ns() < end_ns, f"not within {WAIT_S} s: {what}"
            tick.wait(0.005)

    def frames_until(self, is_met: Callable[[], object], what: str) -> None:
        self.until(lambda: (self.frames(), is_met())[1], what)

    def live(self, **options: Any) -> Any:
        return client.connect(f"ws://{self.base}/api/live", **options)

    def point(self, name: str, **more: object) -> Any:
        box = [float(v) for v in box_of(name, self.number - 1)]
        return self.http.post("/api/objects", json={"box": box, **more})

    def wait_for_reasoner(self) -> None:
        self.until(lambda: self.worker.snapshot().state.reasoner_up, "the reasoner is up")

    def answers(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/api/answers").json()
        return found


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A rig of the test's own."""
    made = Rig()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared() -> Iterator[Rig]:
    """For tests that change nothing."""
    made = Rig()
    yield made
    made.close()


def picture_from(socket_: Any, side: int = 320) -> tuple[dict[str, Any], bytes]:
    """Say that we are ready, and read on until a picture comes."""
    socket_.send(json.dumps({"type": "ready", "side": side}))
    while True:
        message = socket_.recv(timeout=WAIT_S)
        if isinstance(message, bytes):
            (length,) = struct.unpack(">I", message[:4])
            return json.loads(message[4 : 4 + length]), message[4 + length :]


def record_from(socket_: Any, is_it: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    while True:
        message = socket_.recv(timeout=WAIT_S)
        record: dict[str, Any] = json.loads(message) if isinstance(message, str) else {}
        if record and is_it(record):
            return record


def test_a_question_is_asked_answered_and_its_keyframe_shown(rig: Rig) -> None:
    rig.wait_for_reasoner()
    rig.frames(8)
    asked = rig.http.post("/api/queries", json={"text": HOSTILE, "want_rationale": True})
    assert asked.status_code == 200, asked.text
    rig.frames_until(lambda: any(a["stage"] == "caught up" for a in rig.answers()), "caught up")
    (answer,) = rig.answers()
    assert answer["query"] == HOSTILE
    assert answer["query_id"] == asked.json()["query_id"]
    assert (answer["status"], answer["words"]) == ("OK", "the red one")
    assert answer["rationale"] == "I look for red."
    assert answer["hop_s"] is not None
    keyframe = rig.http.get(f"/api/answers/{answer['number']}/keyframe")
    picture = cv2.imdecode(np.frombuffer(keyframe.content, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (48, 64, 3)
    strip = rig.http.get(f"/api/answers/{answer['number']}/filmstrip")
    assert cv2.imdecode(np.frombuffer(strip.content, np.uint8), cv2.IMREAD_COLOR).shape[1] == 1600
    for name in ("keyframe", "filmstrip"):
        assert rig.http.get(f"/api/answers/77/{name}").status_code == 404
    state = rig.http.get("/api/state").json()
    assert [one["id"] for one in state["objects"]] == answer["object_ids"]
    assert state["queries"] == []


def test_a_standing_question_is_listed_and_taken_back(rig: Rig) -> None:
    rig.wait_for_reasoner()
    rig.frames(8)
    asked = rig.http.post("/api/queries", json={"text": "what moves?", "period_s": 500})
    query_id = asked.json()["query_id"]
    rig.frames_until(rig.answers, "an answer")
    (query,) = rig.http.get("/api/state").json()["queries"]
    assert (query["id"], query["period_s"]) == (query_id, 500)
    assert rig.http.delete(f"/api/queries/{query_id}").status_code == 200
    assert rig.http.get("/api/state").json()["queries"] == []
    again = rig.http.delete(f"/api/queries/{query_id}")  # as a second viewer would
    assert again.status_code == 409
    assert query_id in again.json()["error"]


def test_objects_are_pointed_at_named_refined_and_removed(rig: Rig) -> None:
    rig.frames(2)
    (red,) = rig.point("red").json()["object_ids"]
    (blue,) = rig.point("blue").json()["object_ids"]
    rig.frames()
    assert rig.http.patch(f"/api/objects/{red}", json={"name": "<i>cup</i>"}).status_code == 200
    taken = rig.http.patch(f"/api/objects/{blue}", json={"name": "<i>cup</i>"})
    assert (taken.status_code, "another object" in taken.json()["error"]) == (400, True)
    rig.until(lambda: len(rig.http.get("/api/state").json()["objects"]) == 2, "both are shown")
    names = {o["id"]: o["name"] for o in rig.http.get("/api/state").json()["objects"]}
    assert names == {red: "<i>cup</i>", blue: blue}
    assert rig.point("blue", object_id=blue).json()["object_ids"] == [blue]
    assert rig.http.delete(f"/api/objects/{red}").status_code == 200
    assert rig.http.delete(f"/api/objects/{red}").status_code == 409


def test_a_frame_of_the_past_is_shown_and_pointed_at(rig: Rig) -> None:
    rig.frames(20)
    shown = rig.http.get("/api/frames/5", params={"side": 320, "masks": 0})
    assert shown.headers["x-frame-index"] == "5"
    assert shown.headers["x-frame-size"] == "64x48"
    stamp = shown.headers["x-frame-stamp-ns"]
    assert stamp == str(6 * 33_000_000)
    picture = cv2.imdecode(np.frombuffer(shown.content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.abs(picture.astype(int) - image_of(5)).mean() < 20
    box = [float(v) for v in box_of("red", 5)]
    added = rig.http.post("/api/objects", json={"box": box, "stamp_ns": stamp})
    assert added.status_code == 200, added.text
    gone = rig.http.get("/api/frames/4000")
    assert (gone.status_code, gone.json()["error"]) == (404, "frame 4000 has left the history")
    refused = rig.http.post("/api/objects", json={"box": box, "stamp_ns": "7"})
    assert refused.status_code == 409
    assert "7 ns" in refused.json()["error"]


def test_the_last_seconds_are_saved_whole(rig: Rig) -> None:
    assert rig.http.get("/api/recording").status_code == 404
    rig.frames(2)
    rig.point("red")
    rig.frames(40)
    rig.until(lambda: rig.board.frame is not None and rig.board.frame.index == 41, "published")
    saved = rig.http.get("/api/recording", params={"seconds": 1})
    assert saved.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(saved.content)) as archive:
        frames = sorted(name for name in archive.namelist() if name.startswith("frames/"))
        assert frames == [f"frames/{n:06d}.jpg" for n in range(11, 42)], "of one second of stamps"
        data = np.frombuffer(archive.read(frames[-1]), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(picture.astype(int) - image_of(41)).mean() < 20
        lines = [json.loads(line) for line in archive.read("tracks.jsonl").splitlines()]
        assert [line["frame"] for line in lines] == list(range(11, 42))
        assert [t["id"] for t in lines[-1]["tracks"]] == ["object-1"]
        info = json.loads(archive.read("info.json"))
        assert (info["source"], info["frames"]) == ("a scene", 31)
        assert archive.read("trace.jsonl").startswith(b'{"format"')
        assert archive.read("answers.jsonl") == b""


def test_pictures_come_when_asked_for_newest_only(rig: Rig) -> None:
    rig.frames(3)
    with rig.live() as one, rig.live() as other:
        head, jpeg = picture_from(one)
        assert head["size_wh"] == [64, 48]
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
        rig.frames(9)
        rig.until(lambda: (rig.board.newest or 0) and rig.board.newest.frame.index == 11, "drawn")  # type: ignore[union-attr]
        for viewer in (one, other):  # frames between are left out, for whoever was slow
            assert picture_from(viewer)[0]["index"] == 11
        state = record_from(one, lambda r: r["type"] == "state" and r["viewers"] == 2)
        assert state["source"] == "a scene"
        sample = record_from(one, lambda r: r["type"] == "health")["samples"][-1]
        assert sample["reasoner"] in {"up", "down"}
        assert sample["memory_mb"] > 1


def test_a_camera_that_gives_nothing_is_told_of(shared: Rig) -> None:
    shared.frames()
    newest = shared.worker.snapshot().state.cameras[DEFAULT_CAMERA].newest
    assert newest is not None
    clock = ManualClock()
    clock.advance(newest.received_ns + 7_000_000_000 - clock.monotonic_ns())
    camera = WorkerHost(shared.worker, "camera 0", is_live=True, clock=clock)
    told = "no frame has come for 7 s: is the camera still there?"
    assert camera.status().problem == told
    camera.tell("camera 0 gives no frame; again in 0.5 s")
    assert camera.status().problem.startswith("camera 0 gives"), "what the source says is nearer"
    assert WorkerHost(shared.worker, "clip.mp4", clock=clock).status().problem == ""


def test_an_answer_reaches_every_viewer_also_one_that_comes_later(rig: Rig) -> None:
    rig.wait_for_reasoner()
    rig.frames(8)
    with rig.live() as early:
        rig.http.post("/api/queries", json={"text": "what?"})
        rig.frames_until(rig.answers, "an answer")
        assert record_from(early, lambda r: r["type"] == "answer")["query"] == "what?"
    with rig.live() as late:
        assert record_from(late, lambda r: r["type"] == "answer")["number"] == 1


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("{", "none that can be read"),
        ('{"type": "run", "side": 1}', "nothing but that it is ready"),
        ('{"type": "ready", "side": "all"}', "side wants a number"),
        ('{"type": "ready", "code": "1"}', "unknown member"),
    ],
)
def test_a_viewer_that_says_something_else_is_sent_away(
    shared: Rig, message: str, told: str
) -> None:
    with shared.live() as viewer:
        viewer.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            record_from(viewer, lambda _: False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1003
    assert told in closed.value.rcvd.reason
    assert shared.http.get("/api/state").status_code == 200


def test_a_flood_and_a_crowd_are_sent_away(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig.live() as viewer:
        for _ in range(400):
            viewer.send('{"type": "ready"}')
        with pytest.raises(ConnectionClosed) as closed:
            record_from(viewer, lambda _: False)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "too many messages")
    monkeypatch.setattr(hub, "MAX_VIEWERS", 1)
    with rig.live() as one, rig.live() as second:
        with pytest.raises(ConnectionClosed) as closed:
            record_from(second, lambda _: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1013
        assert "1 viewers look already" in closed.value.rcvd.reason
        assert record_from(one, lambda r: r["type"] == "state")


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("GET", "/api/state", {"host": "evil.example"}, "", 403),
        ("GET", "/api/state", {"origin": "http://evil.example"}, "", 403),
        ("POST", "/api/queries", {"origin": "null"}, '{"text": "x"}', 403),
        ("POST", "/api/queries", {"content-type": "text/plain"}, '{"text": "x"}', 415),
        ("POST", "/api/queries", {}, '{"text": "x", "method": "y"}', 400),
        ("POST", "/api/queries", {}, '{"text": ""}', 400),
        ("POST", "/api/queries", {}, '{"text": "' + "x" * 70_000 + '"}', 413),
        ("POST", "/api/objects", {}, '{"points": [[9999, 1]]}', 409),
        ("POST", "/api/queries", {}, '{"text":' + "[" * 30_000, 400),
        ("POST", "/api/objects", {}, '{"box": [NaN, 0, 1, 1]}', 400),
        ("POST", "/api/objects", {}, '{"box": [0, 0, ' + "9" * 5000 + ", 1]}", 400),
        ("POST", "/api/objects", {}, '{"box": [9, 9, 5, 5]}', 409),
        ("POST", "/api/objects", {}, '{"box": [-9, -9, -5, -5]}', 409),
        ("PATCH", "/api/objects/%3Cscript%3E", {}, '{"name": "x"}', 400),
        ("DELETE", "/api/objects/%FF%00", {}, "", 409),
        ("DELETE", "/api/queries/nobody", {}, "", 409),
        ("OPTIONS", "/api/queries", {}, "", 405),
        ("GET", "/api/state?" + "x" * 3000, {}, "", 414),
        ("GET", "/api/frames/" + "9" * 2000, {}, "", 404),
        ("GET", "/api/answers/" + "9" * 5000 + "/keyframe", {}, "", 414),
        ("GET", "/api/recording?seconds=nan", {}, "", 400),
        ("GET", "/api/frames/1?side=-4", {}, "", 400),
        ("GET", "/api/nothing", {}, "", 404),
        ("GET", "/static/..%2fapp.py", {}, "", 404),
        ("GET", "/static//etc/passwd", {}, "", 404),
        ("PUT", "/api/queries", {}, "{}", 405),
    ],
)
def test_what_is_not_allowed_is_refused_in_a_sentence(
    shared: Rig, method: str, path: str, headers: dict[str, str], body: str, status: int
) -> None:
    shared.frames()
    sent = {"content-type": "application/json", **headers}
    reply = shared.http.request(method, path, headers=sent, content=body.encode())
    assert reply.status_code == status
    assert reply.json()["error"]
    assert reply.headers["content-security-policy"].startswith(
        "default-src 'none'; script-src 'self'"
    )
    assert shared.worker.snapshot().state.queries == ()


def test_a_body_without_a_length_is_not_read(shared: Rig) -> None:
    headers = {"content-type": "application/json"}
    body = iter([b'{"text": ', b'"x"}'])
    reply = shared.http.post("/api/queries", headers=headers, content=body)
    assert reply.status_code == 411
    assert shared.http.get("/api/state").status_code == 200


def told_to(rig: Rig, *parts: bytes) -> bytes:
    """What the server says to bytes as no library would send them, until it closes."""
    said = b""
    address = ("127.0.0.1", rig.server.port)
    closed = (ConnectionResetError, BrokenPipeError)
    with socket.create_connection(address, timeout=WAIT_S) as raw, suppress(*closed):
        for part in parts:
            raw.sendall(part)
        while data := raw.recv(1 << 16):
            said += data
    return said


def test_of_two_lengths_neither_is_believed(shared: Rig) -> None:
    head = b"POST /api/queries HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    both = b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    hidden = b"GET /api/state HTTP/1.1\r\nHost: localhost\r\n\r\n"
    said = told_to(shared, head + both + hidden)
    assert said.startswith(b"HTTP/1.1 411 ")
    assert said.count(b"HTTP/1.1") == 1, "what stood behind it is not a request"
    for lengths in (b"2\r\nContent-Length: 3", b"+2", b"\xb2", b"9" * 5000):
        said = told_to(shared, head + b"Content-Length: " + lengths + b"\r\n\r\n{}")
        assert said.startswith(b"HTTP/1.1 4"), lengths[:20]


def test_who_says_half_a_request_is_waited_for_no_longer_than_that(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.3)
    host = b"Host: localhost\r\n"
    asking = b"POST /api/queries HTTP/1.1\r\n" + host + b"Content-Type: application/json\r\n"
    assert told_to(rig) == b"", "nothing"
    assert told_to(rig, b"GET / HTTP/1.1\r\n", host) == b"", "a head without its end"
    assert b"HTTP" not in told_to(rig, asking + b"Content-Length: 9\r\n\r\n{"), "half a body"
    monkeypatch.setattr(connections, "REQUEST_S", 2.0)  # whole ones have to come within it
    whole = b"GET /api/state HTTP/1.1\r\n" + host + b"\r\n"
    said = told_to(rig, whole + b"GET /api/st")
    assert said.startswith(b"HTTP/1.1 200 "), "a whole one before half of one"
    assert rig.http.get("/api/state").status_code == 200
    with rig.live() as viewer:
        for _ in range(3):  # a WebSocket is no request that has still to come
            record_from(viewer, lambda r: r["type"] == "health")
    told = [r for r in caplog.records if r.name.startswith(("uvicorn", "asyncio", "foreseg"))]
    assert told == [], "who gives up is not told of in the log"


def test_half_open_connections_keep_nobody_out(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_WAITING", 8)
    monkeypatch.setattr(connections, "REQUEST_S", 10 * WAIT_S)
    held = [socket.create_connection(("127.0.0.1", rig.server.port)) for _ in range(8)]
    try:
        for one in held:
            one.sendall(b"GET / HTTP/1.1\r\n")
        assert told_to(rig) == b"", "one more is closed at once"
        for one in held[:2]:
            one.close()
        rig.until(lambda: not raises(lambda: rig.http.get("/api/state")), "there is room again")
    finally:
        for one in held:
            one.close()


def raises(act: Callable[[], object]) -> bool:
    try:
        act()
    except httpx.TransportError:
        return True
    return False


def test_too_many_changes_are_refused_and_reading_goes_on(rig: Rig) -> None:
    replies = [rig.http.post("/api/queries", json={"text": ""}).status_code for _ in range(40)]
    assert set(replies) == {400, 429}
    assert rig.http.get("/api/state").status_code == 200


def test_a_page_of_another_site_gets_no_connection(shared: Rig) -> None:
    with pytest.raises(InvalidStatus) as refused, shared.live(origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with shared.live(origin=f"http://{shared.base}") as viewer:
        assert record_from(viewer, lambda r: r["type"] == "state")


def test_another_address_wants_the_token_once() -> None:
    rig = Rig("0.0.0.0")  # noqa: S104
    try:
        token = rig.server.access.token
        assert rig.server.url.endswith(f":{rig.server.port}/?token={token}")
        assert rig.http.get("/api/state").status_code == 401
        with pytest.raises(InvalidStatus), rig.live():
            pass
        assert rig.http.get("/", params={"token": "wrong"}).status_code == 401
        into = rig.http.get("/", params={"token": token})
        assert (into.status_code, into.headers["location"]) == (303, "/")
        assert rig.http.get("/api/state").status_code == 200, "by the cookie now"
        bearer = {"Authorization": f"Bearer {token}"}
        with rig.live(additional_headers=bearer) as viewer:
            assert record_from(viewer, lambda r: r["type"] == "state")
        other = httpx.Client(base_url=f"http://{rig.base}")
        guesses = [other.get("/", params={"token": str(n)}).status_code for n in range(9)]
        assert set(guesses) == {401}
        after = other.get("/", params={"token": token}).status_code
        assert after == 401, "who guesses waits, even with the right one"
        other.close()
    finally:
        rig.close()


def test_a_port_that_is_taken_is_said_in_a_sentence(shared: Rig) -> None:
    with pytest.raises(
        InputError, match=f"port {shared.server.port}: Address already in use; give"
    ):
        ViewServer(shared.board, shared.host, address="127.0.0.1", port=shared.server.port)
    with pytest.raises(InputError, match="give another --host"):
        bound_socket("no.such.host.invalid", 0)
    for port in (-1, 65536, 70000):
        with pytest.raises(InputError, match=f"port wants 0 to 65535, got {port}"):
            bound_socket("127.0.0.1", port)
    with pytest.raises(InputError, match="give another --port or --host"):
        bound_socket("192.0.2.1", 0)


def test_the_interface_that_is_described_is_the_one_there_is(shared: Rig) -> None:
    from starlette.routing import Route

    from foreseg_view.access import Access
    from foreseg_view.app import build_app

    described = shared.http.get("/api/openapi.json").json()
    assert described["openapi"].startswith("3.")
    told = {
        (path, method.upper())
        for path, item in described["paths"].items()
        for method in item
        if method != "parameters"
    }
    gate: Any = build_app(shared.server.hub, Access("127.0.0.1"))
    routes = {
        (route.path.replace(":int", ""), method)
        for route in gate._inner.routes
        if isinstance(route, Route)
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert told == routes | {("/api/live", "GET")}


def test_stopping_sends_viewers_away_and_frees_the_port() -> None:
    rig = Rig()
    with rig.live() as viewer:
        record_from(viewer, lambda r: r["type"] == "state")
        rig.close()
        with pytest.raises(ConnectionClosed):
            record_from(viewer, lambda _: False)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", rig.server.port))
