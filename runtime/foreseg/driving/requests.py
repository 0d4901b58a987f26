# SPDX-License-Identifier: Apache-2.0
"""What users want of the loop, and who waits for which reply.

Any thread makes requests and never waits; what a request needs of the executor is looked up later,
on the loop's thread. Does not know what the pipeline does with them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from foreseg.dialogue import Query, QueryId
from foreseg.driving.executor import Executor
from foreseg.errors import InputError
from foreseg.frames import CameraId, Frame, FrameIndex, FrameRef
from foreseg.pipeline.events import (
    ConditioningPrompt,
    EnableSet,
    Event,
    ObjectRemoved,
    ObjectsAdded,
    QueryAdded,
    QueryRemoved,
    Reply,
    RequestId,
    ResetRequested,
    Tick,
)
from foreseg.prompts import ObjectId, SpatialPrompt

ReplyCallback = Callable[[Reply], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """What a user wants: `make` gives it as an event, on the loop's thread, at a time in ns."""

    id: RequestId
    make: Callable[[int], Event]


class Requests:
    """Makes requests for the loop and keeps their callbacks until it has replied.

    Args:
        executor: has the frames that prompts refer to; used on the loop's thread only.
        offer: hands a request to the loop; False if it has no room for it.
        stopping: set once nothing more is taken.
    """

    def __init__(
        self, executor: Executor, offer: Callable[[Request], bool], stopping: threading.Event
    ) -> None:
        self._executor = executor
        self._offer = offer
        self._stopping = stopping
        self._lock = threading.Lock()
        self._replies: dict[RequestId, ReplyCallback] = {}
        self._next_request = 1

    # ---- for any thread ----

    def ask(
        self, query: Query, on_reply: ReplyCallback, *, wants_answer: bool, timeout_s: float = 0.0
    ) -> None:
        """Add a query; the callback gets the answer, or with `wants_answer` off the acceptance.

        Raises:
            InputError: `timeout_s` (0 = as long as it takes) is negative or not finite.
        """
        if not 0 <= timeout_s < math.inf:
            msg = f"timeout_s wants a finite number of seconds >= 0, got {timeout_s}"
            raise InputError(msg)
        self._make(
            lambda request_id, at: QueryAdded(
                query=query,
                request_id=request_id,
                wants_answer=wants_answer,
                timeout_s=timeout_s,
                at_ns=at,
            ),
            on_reply,
        )

    def remove_query(self, query_id: QueryId, on_reply: ReplyCallback) -> None:
        """Remove a query."""
        self._make(
            lambda request_id, at: QueryRemoved(
                query_id=query_id, request_id=request_id, at_ns=at
            ),
            on_reply,
        )

    def add_objects(
        self,
        camera: CameraId,
        prompts: Sequence[tuple[ObjectId, SpatialPrompt]],
        on_reply: ReplyCallback,
        *,
        stamp_ns: int = 0,
        beside: Sequence[tuple[ObjectId, SpatialPrompt, int]] = (),
    ) -> None:
        """Prompt objects on the frame with this stamp (0 = the newest).

        Args:
            camera: whose frames.
            prompts: an id ("" = make one) and a prompt for each object.
            on_reply: called once, on the loop's thread.
            stamp_ns: of the frame.
            beside: prompts of the same objects on other frames, each with its frame's stamp.
        """

        def make(request_id: RequestId, at: int) -> Event:
            try:
                newest = self._executor.newest_frame(camera)
                frame = self._frame_at(camera, stamp_ns) if stamp_ns else None
                basis = frame or newest
                fitted = tuple(prompt.checked(basis.size_wh) for _, prompt in prompts)
                others = tuple(self._fitted_beside(camera, *each) for each in beside)
            except InputError as error:
                self.complete(Reply(request_id=request_id, success=False, message=str(error)))
                return Tick(at_ns=at)
            return ObjectsAdded(
                camera=camera,
                frame_index=None if frame is None else frame.index,
                frame_stamp_ns=basis.stamp_ns,
                object_ids=tuple(object_id for object_id, _ in prompts),
                prompts=fitted,
                beside=others,
                request_id=request_id,
                at_ns=at,
            )

        self._make(make, on_reply)

    def remove_object(self, object_id: ObjectId, on_reply: ReplyCallback) -> None:
        """Drop an object."""
        self._make(
            lambda request_id, at: ObjectRemoved(
                object_id=object_id, request_id=request_id, at_ns=at
            ),
            on_reply,
        )

    def copy_frame(
        self, camera: CameraId, index: FrameIndex, on_frame: Callable[[Frame | None], None]
    ) -> None:
        """Copy a frame of the past minutes; None if it has left the history, or nobody looks any more.

        The callback runs on the loop's thread.
        """
        found: list[Frame] = []

        def make(request_id: RequestId, at: int) -> Event:
            frame = self._executor.copy_frame(camera, index)
            found.extend(() if frame is None else (frame,))
            self.complete(Reply(request_id=request_id, success=bool(found)))
            return Tick(at_ns=at)

        self._make(make, lambda _: on_frame(found[0] if found else None))

    def reset(self, on_reply: ReplyCallback) -> None:
        """Forget all tracks."""
        self._make(
            lambda request_id, at: ResetRequested(request_id=request_id, at_ns=at), on_reply
        )

    def enable(self, enabled: bool, on_reply: ReplyCallback) -> None:  # noqa: FBT001
        """Go on or pause."""
        self._make(
            lambda request_id, at: EnableSet(enabled=enabled, request_id=request_id, at_ns=at),
            on_reply,
        )

    def complete(self, reply: Reply) -> None:
        """Hand a reply to who waits for it; once."""
        with self._lock:
            callback = self._replies.pop(reply.request_id, None)
        if callback is not None:
            callback(reply)

    def close(self) -> None:
        """Refuse what is open."""
        with self._lock:
            left, self._replies = self._replies, {}
        for request_id, callback in left.items():
            callback(Reply(request_id=request_id, success=False, message="foreseg stopped"))

    def _fitted_beside(
        self, camera: CameraId, object_id: ObjectId, prompt: SpatialPrompt, stamp_ns: int
    ) -> ConditioningPrompt:
        frame = self._frame_at(camera, stamp_ns)
        fitted = prompt.checked(frame.size_wh)
        return ConditioningPrompt(object_id=object_id, frame_index=frame.index, prompt=fitted)

    def _frame_at(self, camera: CameraId, stamp_ns: int) -> FrameRef:
        """The dense frame with this stamp.

        Raises:
            InputError: there is none.
        """
        frame = self._executor.find_frame(camera, stamp_ns)
        if frame is None:
            msg = f"no frame of {camera!r} with the stamp {stamp_ns} ns is at hand"
            raise InputError(msg)
        return frame

    def _make(self, make: Callable[[RequestId, int], Event], on_reply: ReplyCallback) -> None:
        with self._lock:
            request_id = RequestId(self._next_request)
            self._next_request += 1
            self._replies[request_id] = on_reply
        request = Request(id=request_id, make=partial(make, request_id))
        if self._stopping.is_set() or not self._offer(request):
            message = (
                "foreseg is stopping" if self._stopping.is_set() else "too many requests wait"
            )
            self.complete(Reply(request_id=request_id, success=False, message=message))
