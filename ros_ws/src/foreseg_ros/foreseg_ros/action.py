# SPDX-License-Identifier: Apache-2.0
"""The action `~/ask_foresight`: ask once, with feedback, cancellation and the masks of the window.

A goal waits for the worker's reply without holding a thread. Feedback is read from the worker's
state a few times a second; nothing is computed for it. What has not changed is told again now and then: the
first word on a goal may come before ROS has joined the client's subscription to it, and is lost then.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace

from foreseg_msgs.action import AskForesight
from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from foreseg.dialogue import QueryId
from foreseg.driving.worker import Worker
from foreseg.errors import InputError
from foreseg.frames import FrameIndex
from foreseg.pipeline.state import State
from foreseg_ros import qos
from foreseg_ros.clocks import steady_timer
from foreseg_ros.guard import Guard
from foreseg_ros.records import answer_msg_from_answer, msg_from_mask_rle
from foreseg_ros.services import Services, refused_answer

NAME = "~/ask_foresight"
FEEDBACK_PERIOD_S = 0.1
TICKS_TO_REPEAT = 10  # after which feedback is told again, though nothing changed
RESULT_KEPT_S = 60  # for a client that asks late
TICKS_TO_SEND = 2  # of feedback: a result is sent right after its goal has ended
END_WAIT_S = 2.0  # for goals to end when the node is cleaned up


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a query is."""

    stage: int
    rationale: str = ""
    keyframe_index: FrameIndex | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Goal:
    """A goal that is under way."""

    handle: ServerGoalHandle
    query_id: QueryId
    told: Progress | None = None
    num_ticks_told: int = 0  # since then
    is_withdrawn: bool = False
    num_ticks_over: int | None = None  # since it has ended; rclpy still has to send its result


class AskForesightServer:
    """Creates the action server at configure, and destroys it at cleanup."""

    def __init__(
        self, node: LifecycleNode, worker: Worker, services: Services, guard: Guard
    ) -> None:
        self._node = node
        self._guard = guard
        self._worker = worker
        self._services = services
        self._goals: list[_Goal] = []
        self._changed = threading.Condition()
        group = ReentrantCallbackGroup()
        self._server = ActionServer(
            node,
            AskForesight,
            NAME,
            self._execute,
            callback_group=group,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
            result_timeout=RESULT_KEPT_S,
            goal_service_qos_profile=qos.requests(),
            result_service_qos_profile=qos.requests(),
            cancel_service_qos_profile=qos.requests(),
        )
        self._timer = steady_timer(node, FEEDBACK_PERIOD_S, self._tick, group)

    def destroy(self) -> None:
        """Take the action away; the worker has stopped, so every goal is about to end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._goals, END_WAIT_S)
        self._node.destroy_timer(self._timer)
        self._server.destroy()

    async def _execute(self, handle: ServerGoalHandle) -> AskForesight.Result:
        try:
            return await self._executed(handle)
        except Exception as error:  # noqa: BLE001 (the goal's outermost frame)
            reason = self._guard.note(NAME, error)
            if handle.is_active:
                handle.abort()
            failed = refused_answer(handle.request.query, reason)
            return AskForesight.Result(answer=answer_msg_from_answer(failed))

    async def _executed(self, handle: ServerGoalHandle) -> AskForesight.Result:
        result = AskForesight.Result()
        try:
            query = self._services.query_asked_once(handle.request.query, NAME)
        except InputError as error:
            refused = refused_answer(handle.request.query, str(error))
            result.answer = answer_msg_from_answer(refused)
            handle.abort()
            return result
        query = replace(query, want_observed_masks=bool(handle.request.want_observed_masks))
        goal = _Goal(handle=handle, query_id=query.id)
        with self._changed:
            self._goals.append(goal)
        try:
            reply = await self._services.replied(
                lambda done: self._worker.requests.ask(query, done, wants_answer=True)
            )
            answer = reply.answer or refused_answer(handle.request.query, reply.message)
            result.answer = answer_msg_from_answer(answer)
            result.observed_masks = [msg_from_mask_rle(o.mask) for o in answer.observed]
            result.observed_frame_indices = [int(o.frame_index) for o in answer.observed]
            if reply.success:
                handle.succeed()
            elif handle.is_cancel_requested:
                handle.canceled()
            else:
                handle.abort()
        finally:
            goal.num_ticks_over = 0
        return result

    def _tick(self) -> None:
        """Withdraw what is cancelled, and tell what is new."""
        with self._changed:
            goals = list(self._goals)
        if not goals:
            return
        state = self._worker.snapshot().state
        for goal in goals:
            if goal.num_ticks_over is not None:
                self._let_go(goal)
                continue
            if goal.handle.is_cancel_requested and not goal.is_withdrawn:
                goal.is_withdrawn = True
                self._worker.requests.remove_query(goal.query_id, lambda _: None)
            progress = progress_of(state, goal.query_id)
            goal.num_ticks_told += 1
            is_old = progress == goal.told and goal.num_ticks_told < TICKS_TO_REPEAT
            if is_old or not goal.handle.is_active:
                continue
            goal.told, goal.num_ticks_told = progress, 0
            goal.handle.publish_feedback(
                AskForesight.Feedback(
                    stage=progress.stage,
                    partial_rationale=progress.rationale,
                    keyframe_index=int(progress.keyframe_index or 0),
                )
            )

    def _let_go(self, goal: _Goal) -> None:
        """Forget a goal that has ended, a tick after it was first seen so."""
        assert goal.num_ticks_over is not None  # noqa: S101 (it has ended)
        goal.num_ticks_over += 1
        if goal.num_ticks_over >= TICKS_TO_SEND:
            with self._changed:
                self._goals = [other for other in self._goals if other is not goal]
                self._changed.notify_all()


def progress_of(state: State, query_id: QueryId) -> Progress:
    """How far a query is, from the pipeline's state."""
    asking = state.asking
    is_asked = asking is not None and asking.query.id == query_id
    rationale = asking.rationale if asking is not None and is_asked else ""
    for followed in state.followed:
        if followed.observation is not None and followed.answer.query_id == query_id:
            return Progress(
                stage=AskForesight.Feedback.SEGMENTING,
                rationale=rationale or followed.answer.rationale,
                keyframe_index=followed.answer.keyframe_index,
            )
    running = () if state.running is None else state.running.arrivals
    for arrival in (*state.arrivals, *running):
        if arrival.query_id == query_id:
            told = "" if arrival.answer is None else arrival.answer.rationale
            return Progress(
                stage=AskForesight.Feedback.CATCHING_UP,
                rationale=rationale or told,
                keyframe_index=arrival.keyframe_index,
            )
    stage = AskForesight.Feedback.REASONING if is_asked else AskForesight.Feedback.ACCEPTED
    return Progress(stage=stage, rationale=rationale)
