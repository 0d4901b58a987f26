# SPDX-License-Identifier: Apache-2.0
"""The page beside a real node: it sees, asks and points over topics, services and the action alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2 (make venv)")
pytest.importorskip("foreseg_msgs", reason="needs foreseg_msgs (make venv)")
pytest.importorskip("httpx", reason="needs httpx: pip install 'foreseg[server]'")
pytest.importorskip("starlette", reason="needs Starlette: pip install 'foreseg[view]'")
pytest.importorskip("websockets", reason="needs websockets: pip install 'foreseg[view]'")

import httpx
from rclpy.parameter import Parameter
from websockets.sync import client

from foreseg_ros.guard import Guard, GuardedExecutor
from foreseg_ros.view.node import ViewNode
from tests.ros.ros_harness import WAIT_S

if TYPE_CHECKING:
    from tests.ros.ros_harness import NodeProcess, Robot

pytestmark = pytest.mark.ros


class Page:
    """The view's node in this process, on the robot's context, and a client of its page."""

    def __init__(self, robot: Robot, target: str = "/foreseg") -> None:
        self.robot = robot
        overrides = [Parameter("port", value=0), Parameter("node", value=target)]
        self.node = ViewNode(context=robot.context, parameter_overrides=overrides)
        self.base = f"127.0.0.1:{self.node.server.port}"
        self.http = httpx.Client(base_url=f"http://{self.base}", timeout=WAIT_S)
        self._executor = GuardedExecutor(Guard(), 2, context=robot.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.http.close()
        self.node.release()
        self._executor.shutdown()
        self._thread.join(WAIT_S)
        self.node.destroy_node()

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get("/api/state").json()
        return found

    def until(self, is_met: Callable[[], object], what: str) -> None:
        assert self.robot.stream(lambda: bool(is_met()), 2 * WAIT_S, hz=15), (what, self.state())


@pytest.fixture
def page(running: tuple[NodeProcess, Robot, Path]) -> Iterator[Page]:
    made = Page(running[1])
    yield made
    made.close()


def test_it_sees_asks_points_and_freezes_beside_a_node(page: Page) -> None:
    page.until(lambda: page.state()["frame"], "a frame")
    page.until(lambda: page.state()["reasoner"]["is_up"], "the reasoner is up")
    assert page.state()["source"] == "/foreseg"
    with client.connect(f"ws://{page.base}/api/live") as live:
        live.send(json.dumps({"type": "ready", "side": 320}))
        page.until(
            lambda: any(isinstance(live.recv(timeout=WAIT_S), bytes) for _ in range(3)), "picture"
        )
    newest = page.state()["history"]["newest"]
    shown = page.http.get(f"/api/frames/{newest}")
    stamp = shown.headers["x-frame-stamp-ns"]
    assert shown.headers["x-frame-size"] == "160x120"
    box = [float(v) for v in page.robot.box_at(int(stamp))]
    replies: list[Any] = []
    body = {"box": box, "stamp_ns": stamp}
    asking = threading.Thread(
        target=lambda: replies.append(page.http.post("/api/objects", json=body))
    )
    asking.start()
    page.until(lambda: replies, "the object is tracked")
    asking.join()
    assert replies[0].status_code == 200, replies[0].text
    (name,) = replies[0].json()["object_ids"]
    page.until(lambda: [o["id"] for o in page.state()["objects"]] == [name], "it is shown")
    asked = page.http.post("/api/queries", json={"text": "what moves?"})
    assert asked.status_code == 200, asked.text
    page.until(lambda: page.http.get("/api/answers").json(), "an answer")
    answer = page.http.get("/api/answers").json()[-1]
    assert answer["query"] == "what moves?"
    assert answer["status"] in {"OK", "NO_TARGET", "ABSTAINED"}
    page.until(lambda: page.state()["queries"] == [], "it is no longer under way")
    removed = page.http.delete(f"/api/objects/{name}")
    assert removed.status_code == 200, removed.text
    again = page.http.delete(f"/api/objects/{name}")
    assert (again.status_code, name in again.json()["error"]) == (409, True)


def test_a_question_whose_result_was_lost_is_not_under_way_for_ever(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page.node.host, "_take_result", lambda *_: None)
    page.until(lambda: page.state()["reasoner"]["is_up"], "the reasoner is up")
    assert page.http.post("/api/queries", json={"text": "what moves?"}).status_code == 200
    page.until(lambda: page.http.get("/api/answers").json(), "an answer")
    page.until(lambda: page.state()["queries"] == [], "it is no longer under way")


def test_a_standing_question_is_listed_and_stopped(page: Page) -> None:
    page.until(lambda: page.state()["reasoner"]["is_up"], "the reasoner is up")
    asked = page.http.post("/api/queries", json={"text": "what moves?", "period_s": 60})
    query_id = asked.json()["query_id"]
    page.until(
        lambda: [q["id"] for q in page.state()["queries"] if q["period_s"]] == [query_id],
        "it is listed",
    )
    assert page.http.delete(f"/api/queries/{query_id}").status_code == 200
    page.until(lambda: page.state()["queries"] == [], "it is gone")
    assert page.http.delete(f"/api/queries/{query_id}").status_code == 409


def test_without_a_node_the_page_says_so(running: tuple[NodeProcess, Robot, Path]) -> None:
    page = Page(running[1], target="nobody")
    try:
        state = page.state()
        assert "nothing of /nobody on /diagnostics yet" in state["problem"]
        for method, path, body in (
            ("POST", "/api/queries", {"text": "what?"}),
            ("POST", "/api/queries", {"text": "what?", "period_s": 5}),
            ("POST", "/api/objects", {"points": [[1, 1]]}),
        ):
            reply = page.http.request(method, path, json=body)
            assert reply.status_code == 409
            assert "/nobody does not offer" in reply.json()["error"]
    finally:
        page.close()
