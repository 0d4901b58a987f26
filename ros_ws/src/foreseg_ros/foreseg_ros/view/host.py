# SPDX-License-Identifier: Apache-2.0
"""A node as what is looked at: its services, its action, its diagnostics; frames of our own history."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from foreseg_msgs.action import AskForesight
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.client import Client
from rclpy.node import Node
from rclpy.task import Future

from foreseg.clock import Clock, SystemClock
from foreseg.dialogue import Answer, AnswerStatus, Query, QueryId
from foreseg.errors import InputError
from foreseg.frames import CameraId, FrameIndex
from foreseg.pipeline.events import Reply, RequestId
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_ros import qos
from foreseg_ros.conversions import header_from_stamp
from foreseg_ros.records import prompt_msg_from_prompt, query_msg_from_query
from foreseg_ros.view.frames import FrameStore
from foreseg_ros.view.seen import answer_from_msg, parts_of, values_of
from foreseg_view.host import Done, FrameDone, QueryNow, Stage, Status

NS: Final = 1_000_000_000
SILENT_S: Final = 5.0  # without diagnostics
MAX_ASKED: Final = 64  # questions of ours that are followed
STAGES: Final = {
    AskForesight.Feedback.ACCEPTED: Stage.ASKED,
    AskForesight.Feedback.REASONING: Stage.THINKING,
    AskForesight.Feedback.CATCHING_UP: Stage.KEYFRAME,
    AskForesight.Feedback.SEGMENTING: Stage.KEYFRAME,
}


@dataclass(slots=True, kw_only=True, eq=False)
class _Asked:
    """A question that was asked once, by the action."""

    query: Query
    began_ns: int
    goal: ClientGoalHandle | None = None
    stage: Stage = Stage.ASKED
    rationale: str = ""


class RosHost:
    """Makes requests of a node; what it has said last is its status.

    Args:
        node: ours.
        target: the full name of foreseg's node.
        camera: of the node.
        frames: that we have kept.
        on_answer: takes answers that only the action gives.
    """

    trace_path: None = None

    def __init__(
        self,
        node: Node,
        target: str,
        camera: CameraId,
        frames: FrameStore,
        on_answer: Callable[[Answer], None],
        *,
        clock: Clock | None = None,
    ) -> None:
        self.source = f"{target}, {camera}" if camera else target
        self._target = target
        self._camera = camera
        self._frames = frames
        self._on_answer = on_answer
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._asked: OrderedDict[QueryId, _Asked] = OrderedDict()
        self._standing: tuple[messages.Query, ...] = ()
        self._parts: Mapping[str, DiagnosticStatus] = {}
        self._heard_ns: int | None = None

        def client(kind: type, name: str) -> Client:
            return node.create_client(kind, f"{target}/{name}", qos_profile=qos.requests())

        self._add_query = client(srv.AddQuery, "add_query")
        self._remove_query = client(srv.RemoveQuery, "remove_query")
        self._list_queries = client(srv.ListQueries, "list_queries")
        self._add_objects = client(srv.AddObjects, "add_objects")
        self._remove_object = client(srv.RemoveObject, "remove_object")
        self._ask = ActionClient(node, AskForesight, f"{target}/ask_foresight")

    # ---- the node's threads ----

    def take_diagnostics(self, msg: DiagnosticArray) -> None:
        """What a node says of itself; others' is passed over."""
        parts = parts_of(msg, self._target)
        if parts:
            self._parts, self._heard_ns = parts, self._clock.monotonic_ns()

    def look_for_queries(self) -> None:
        """Ask for the queries that stand."""
        if self._list_queries.service_is_ready():
            future = self._list_queries.call_async(srv.ListQueries.Request())
            future.add_done_callback(self._take_queries)

    def end_asked(self, query_id: QueryId) -> None:
        """Show a question as under way no more: it is answered.

        The action's result says so too, but rclpy's client loses one that comes before it has noted its
        own request for it.
        """
        with self._lock:
            self._asked.pop(query_id, None)

    def _take_queries(self, future: Future) -> None:
        response = future.result()
        if response is not None:
            self._standing = tuple(response.queries)

    # ---- any thread ----

    def status(self) -> Status:
        """As the node has told it last."""
        camera = next((s for n, s in self._parts.items() if self._is_camera(n)), None)
        values, reasoner = values_of(camera), self._parts.get("reasoner")
        machine = self._parts.get("machine")
        oldest, newest = self._frames.span()
        is_up = reasoner is not None and reasoner.level == DiagnosticStatus.OK
        rung = values_of(machine).get("rung", "0")
        return Status(
            queries=self._queries(),
            reasoner="not heard of yet" if reasoner is None else reasoner.message,
            is_reasoner_up=is_up,
            oldest_index=oldest,
            newest_index=newest,
            rate_hz=float(values["rate_hz"]) if "rate_hz" in values else None,
            dropped={
                name.removeprefix("dropped_"): int(count)
                for name, count in {**values_of(self._parts.get("tracker")), **values}.items()
                if name.startswith("dropped_") and count.isdecimal()
            },
            rung=machine.message if machine is not None and rung != "0" else "",
            problem=self._problem(),
        )

    def ask(self, query: Query, done: Done) -> None:
        """Once by the action, which tells how far it is; again and again by the service."""
        if query.period_s:
            request = srv.AddQuery.Request(query=self._query_msg(query))
            self._call(self._add_query, request, done, query.id)
            return
        if not self._ask.server_is_ready():
            done(self._absent("ask_foresight"))
            return
        asked = _Asked(query=query, began_ns=self._clock.monotonic_ns())
        with self._lock:
            self._asked[query.id] = asked
            while len(self._asked) > MAX_ASKED:
                self._asked.popitem(last=False)
        goal = AskForesight.Goal(query=self._query_msg(query))
        future = self._ask.send_goal_async(goal, partial(self._take_feedback, asked))
        future.add_done_callback(partial(self._take_goal, asked, done))

    def remove_query(self, query_id: QueryId, done: Done) -> None:
        """Cancel the goal, or take the standing query back."""
        with self._lock:
            asked = self._asked.get(query_id)
        if asked is None or asked.goal is None:
            request = srv.RemoveQuery.Request(query_id=query_id)
            self._call(self._remove_query, request, done)
            return
        future = asked.goal.cancel_goal_async()
        future.add_done_callback(lambda _: done(_reply(success=True)))

    def point(self, object_id: ObjectId, prompt: SpatialPrompt, stamp_ns: int, done: Done) -> None:
        """Prompt an object."""
        try:
            header = header_from_stamp(stamp_ns, "")
        except InputError as error:
            done(_reply(success=False, message=str(error)))
            return
        request = srv.AddObjects.Request(header=header, camera=self._camera)
        request.prompts = [prompt_msg_from_prompt(prompt, object_id)]
        self._call(self._add_objects, request, done)

    def remove_object(self, object_id: ObjectId, done: Done) -> None:
        """Drop an object."""
        request = srv.RemoveObject.Request(object_id=object_id)
        self._call(self._remove_object, request, done)

    def copy_frame(self, index: FrameIndex, done: FrameDone) -> None:
        """Out of our own history."""
        done(self._frames.copy_at(index))

    # ---- private ----

    def _query_msg(self, query: Query) -> messages.Query:
        msg = query_msg_from_query(query)
        msg.camera = self._camera
        return msg

    def _call(
        self, client: Client, request: object, done: Done, query_id: QueryId | None = None
    ) -> None:
        if not client.service_is_ready():
            done(self._absent(client.srv_name))
            return

        def take(future: Future) -> None:
            response = future.result()
            if response is None:
                done(_reply(success=False, message=f"no reply from {client.srv_name}"))
                return
            ids = tuple(ObjectId(name) for name in getattr(response, "object_ids", ()))
            done(
                Reply(
                    request_id=RequestId(0),
                    success=bool(response.success),
                    message=response.message,
                    query_id=query_id,
                    object_ids=ids,
                )
            )

        client.call_async(request).add_done_callback(take)

    def _take_feedback(self, asked: _Asked, msg: AskForesight.Impl.FeedbackMessage) -> None:
        asked.stage = STAGES.get(msg.feedback.stage, asked.stage)
        asked.rationale = msg.feedback.partial_rationale

    def _take_goal(self, asked: _Asked, done: Done, future: Future) -> None:
        asked.goal = goal = future.result()
        if goal is None or not goal.accepted:
            self.end_asked(asked.query.id)
            done(_reply(success=False, message="the node does not take the question now"))
            return
        done(_reply(success=True))
        goal.get_result_async().add_done_callback(partial(self._take_result, asked))

    def _take_result(self, asked: _Asked, future: Future) -> None:
        """One that was refused is told here only; any other is on ~/answers as well."""
        self.end_asked(asked.query.id)
        wrapped = future.result()
        if wrapped is None:
            return
        answer = answer_from_msg(wrapped.result.answer, self._camera)
        if answer.status is AnswerStatus.FAILED and not answer.asked_stamp_ns:
            self._on_answer(answer)

    def _queries(self) -> tuple[QueryNow, ...]:
        now_ns = self._clock.monotonic_ns()
        with self._lock:
            ours = [
                QueryNow(
                    id=asked.query.id,
                    text=asked.query.text,
                    stage=asked.stage,
                    since_s=(now_ns - asked.began_ns) / NS,
                    rationale=asked.rationale,
                )
                for asked in self._asked.values()
            ]
        known = {query.id for query in ours}
        others = [
            QueryNow(
                id=QueryId(msg.id),
                text=msg.text,
                period_s=float(msg.period_s),
                stage=None if msg.period_s else Stage.ASKED,
            )
            for msg in self._standing
            if msg.id not in known
        ]
        return (*ours, *others)

    def _is_camera(self, part: str) -> bool:
        name = part.removeprefix("camera ")
        return part.startswith("camera ") and self._camera in ("", name)

    def _problem(self) -> str:
        if self._heard_ns is None:
            return f"nothing of {self._target} on /diagnostics yet: is the node running, and configured?"
        silent_s = (self._clock.monotonic_ns() - self._heard_ns) / NS
        if silent_s > SILENT_S:
            return f"nothing of {self._target} on /diagnostics for {silent_s:.0f} s: is it still running?"
        for name in ("tracker", "node"):
            part = self._parts.get(name)
            if part is not None and part.level == DiagnosticStatus.ERROR:
                return str(part.message)
        camera = next((s for n, s in self._parts.items() if self._is_camera(n)), None)
        if camera is not None and camera.level != DiagnosticStatus.OK:
            return str(camera.message)
        return self._frames.problem()

    def _absent(self, name: str) -> Reply:
        short = name.rpartition("/")[2]
        message = f"{self._target} does not offer {short}: is the node running, and configured?"
        return _reply(success=False, message=message)


def _reply(*, success: bool, message: str = "") -> Reply:
    return Reply(request_id=RequestId(0), success=success, message=message)
