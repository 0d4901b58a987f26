# SPDX-License-Identifier: Apache-2.0
"""The node's services: each turns a request into the worker's, and its reply into a response.

`~/ask` is completed from the worker's loop, so a long question blocks neither frames nor the
other services.
"""

from __future__ import annotations

from collections.abc import Callable

from foreseg_msgs import msg as messages
from foreseg_msgs import srv
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from foreseg.dialogue import Answer, AnswerStatus, Query, QueryId
from foreseg.driving.requests import ReplyCallback
from foreseg.driving.worker import Worker
from foreseg.errors import InputError
from foreseg.frames import CameraId
from foreseg.pipeline.events import Reply
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_ros import qos
from foreseg_ros.conversions import stamp_ns_from_time
from foreseg_ros.guard import Guard
from foreseg_ros.parameters import NodeSettings
from foreseg_ros.records import (
    answer_msg_from_answer,
    prompt_from_msg,
    query_from_msg,
    query_msg_from_query,
)
from foreseg_ros.topics import Topics

DEFAULT_ASK_TIMEOUT_S = 60.0
MAX_ASK_TIMEOUT_S = 86_400.0


class Services:
    """Creates the services at configure, and destroys them at cleanup."""

    def __init__(
        self,
        node: LifecycleNode,
        topics: Topics,
        worker: Worker,
        settings: NodeSettings,
        guard: Guard,
    ) -> None:
        self._node = node
        self._worker = worker
        self._settings = settings
        self._num_asked = 0
        self._group = ReentrantCallbackGroup()
        topics.subscription(String, "~/query", self._take_words, qos.queries(), self._group)
        self._wake = node.create_guard_condition(lambda: None, callback_group=self._group)
        kinds = (
            (srv.Ask, "ask", self._ask),
            (srv.AddQuery, "add_query", self._add_query),
            (srv.RemoveQuery, "remove_query", self._remove_query),
            (srv.ListQueries, "list_queries", self._list_queries),
            (srv.AddObjects, "add_objects", self._add_objects),
            (srv.RemoveObject, "remove_object", self._remove_object),
            (Trigger, "reset", self._reset),
            (SetBool, "enable", self._enable),
        )
        self._services = [
            node.create_service(
                kind,
                f"~/{name}",
                callback,
                qos_profile=qos.requests(),
                callback_group=self._group,
            )
            for kind, name, callback in kinds
        ]
        for service in self._services:
            guard.watch(service)

    def destroy(self) -> None:
        """Take the services away."""
        for service in self._services:
            self._node.destroy_service(service)
        self._node.destroy_guard_condition(self._wake)

    async def _ask(self, request: srv.Ask.Request, response: srv.Ask.Response) -> srv.Ask.Response:
        try:
            query = self.query_asked_once(request.query, "~/ask")
            timeout_s = _timeout_s(request.timeout_s)
        except InputError as error:
            response.answer = answer_msg_from_answer(refused_answer(request.query, str(error)))
            return response
        reply = await self.replied(
            lambda done: self._worker.requests.ask(
                query, done, wants_answer=True, timeout_s=timeout_s
            )
        )
        answer = reply.answer or refused_answer(request.query, reply.message)
        response.answer = answer_msg_from_answer(answer)
        return response

    async def _add_query(
        self, request: srv.AddQuery.Request, response: srv.AddQuery.Response
    ) -> srv.AddQuery.Response:
        try:
            query = self._query(request.query)
        except InputError as error:
            response.success, response.message = False, str(error)
            return response
        reply = await self.replied(
            lambda done: self._worker.requests.ask(query, done, wants_answer=False)
        )
        response.success, response.message = reply.success, reply.message
        response.query_id = query.id if reply.success else ""
        return response

    async def _remove_query(
        self, request: srv.RemoveQuery.Request, response: srv.RemoveQuery.Response
    ) -> srv.RemoveQuery.Response:
        query_id = QueryId(request.query_id)
        reply = await self.replied(lambda done: self._worker.requests.remove_query(query_id, done))
        response.success, response.message = reply.success, reply.message
        return response

    def _list_queries(
        self, request: srv.ListQueries.Request, response: srv.ListQueries.Response
    ) -> srv.ListQueries.Response:
        del request
        standing = self._worker.snapshot().state.queries
        response.queries = [query_msg_from_query(entry.query) for entry in standing]
        return response

    async def _add_objects(
        self, request: srv.AddObjects.Request, response: srv.AddObjects.Response
    ) -> srv.AddObjects.Response:
        try:
            prompts = [prompt_from_msg(prompt) for prompt in request.prompts]
            beside = _prompts_beside(request)
        except InputError as error:
            response.success, response.message = False, str(error)
            return response
        camera = CameraId(request.camera) if request.camera else self._settings.cameras[0]
        stamp_ns = stamp_ns_from_time(request.header.stamp)
        reply = await self.replied(
            lambda done: self._worker.requests.add_objects(
                camera, prompts, done, stamp_ns=stamp_ns, beside=beside
            )
        )
        response.success, response.message = reply.success, reply.message
        response.object_ids = list(reply.object_ids)
        response.indices = list(reply.label_indices)
        return response

    async def _remove_object(
        self, request: srv.RemoveObject.Request, response: srv.RemoveObject.Response
    ) -> srv.RemoveObject.Response:
        object_id = ObjectId(request.object_id)
        reply = await self.replied(
            lambda done: self._worker.requests.remove_object(object_id, done)
        )
        response.success, response.message = reply.success, reply.message
        return response

    async def _reset(
        self, request: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        del request
        reply = await self.replied(self._worker.requests.reset)
        response.success, response.message = reply.success, reply.message
        return response

    async def _enable(
        self, request: SetBool.Request, response: SetBool.Response
    ) -> SetBool.Response:
        enabled = bool(request.data)
        reply = await self.replied(lambda done: self._worker.requests.enable(enabled, done))
        response.success, response.message = reply.success, reply.message
        return response

    def _take_words(self, msg: String) -> None:
        """`~/query`: plain words, asked once; the answer comes on ~/answers."""
        try:
            query = Query(id=self._next_id(), text=msg.data, camera=self._settings.cameras[0])
        except InputError as error:
            self._node.get_logger().warning(f"~/query is refused: {error}")
            return
        self._worker.requests.ask(query, self._log_refusal, wants_answer=False)

    def _log_refusal(self, reply: Reply) -> None:
        if not reply.success:
            self._node.get_logger().warning(f"~/query is refused: {reply.message}")

    def query_asked_once(self, msg: messages.Query, name: str) -> Query:
        """The query of a message to `name`, which asks once.

        Raises:
            InputError: it has a period, or cannot be a query.
        """
        if msg.period_s:
            text = f"{name} asks once, got period_s {msg.period_s:g}; use ~/add_query"
            raise InputError(text)
        return self._query(msg)

    def _query(self, msg: messages.Query) -> Query:
        return query_from_msg(
            msg, default_id=self._next_id(), default_camera=self._settings.cameras[0]
        )

    def _next_id(self) -> QueryId:
        self._num_asked += 1
        return QueryId(f"query-{self._num_asked}")

    async def replied(self, request: Callable[[ReplyCallback], None]) -> Reply:
        """Hand a request to the worker and wait for its reply without holding a thread."""
        future: Future = Future(executor=self._node.executor)

        def done(reply: Reply) -> None:
            future.set_result(reply)
            self._wake.trigger()  # an executor that sleeps looks at the future again

        request(done)
        reply: Reply = await future
        return reply


def _prompts_beside(request: srv.AddObjects.Request) -> list[tuple[ObjectId, SpatialPrompt, int]]:
    """Prompts on other frames than the header's, each with its object's id and its frame's stamp.

    Raises:
        InputError: stamps and prompts are not as many, a stamp is zero, or a prompt is none.
    """
    prompts, stamps = request.more_prompts, request.more_stamps
    if len(prompts) != len(stamps):
        text = (
            f"more_stamps wants a stamp for each of {len(prompts)} more_prompts, got {len(stamps)}"
        )
        raise InputError(text)
    times = [stamp_ns_from_time(stamp) for stamp in stamps]
    if 0 in times:
        text = "more_stamps wants the stamps of past frames, got zero: the newest is the header's"
        raise InputError(text)
    return [(*prompt_from_msg(prompt), time) for prompt, time in zip(prompts, times, strict=True)]


def _timeout_s(given: float) -> float:
    """Seconds that a caller would wait; 0 = as long as is usual.

    Raises:
        InputError: negative, not finite, or longer than `MAX_ASK_TIMEOUT_S`.
    """
    if not 0 <= given <= MAX_ASK_TIMEOUT_S:
        text = (
            f"timeout_s wants 0 (= {DEFAULT_ASK_TIMEOUT_S:g} s) to {MAX_ASK_TIMEOUT_S:g} seconds,"
            f" got {given:g}"
        )
        raise InputError(text)
    return given or DEFAULT_ASK_TIMEOUT_S


def refused_answer(msg: messages.Query, reason: str) -> Answer:
    """The answer to a query that cannot be asked."""
    return Answer(
        query_id=QueryId(msg.id),
        query_text=msg.text[:200],
        camera=CameraId(msg.camera),
        status=AnswerStatus.FAILED,
        reason=reason,
    )
