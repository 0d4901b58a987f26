# SPDX-License-Identifier: Apache-2.0
"""A bench for the pipeline: a manual clock, a scripted world, a strict tracker, a late reasoner.

Objects are boxes that move by a formula. The tracker is strict: it fails a test that uses a row
it does not have. Nothing here has pixels, threads or engines.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from foreseg.config import Config
from foreseg.dialogue import (
    Answer,
    AnswerDone,
    AnswerPart,
    NoTarget,
    Query,
    QueryId,
    TargetsFound,
)
from foreseg.frames import DEFAULT_CAMERA, CameraId, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy, box_from_mask, box_iou
from foreseg.masks import MaskRle, mask_from_box, mask_from_rle, rle_from_mask
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskId,
    AskReasoner,
    CancelAsk,
    Command,
    ConditioningPrompt,
    DropStep,
    Event,
    ForkStep,
    FrameArrived,
    ObjectsAdded,
    PromoteStep,
    PromptStep,
    PublishAnswer,
    PublishMasks,
    QueryAdded,
    QueryRemoved,
    ReasonerChanged,
    ReleaseWindow,
    Reply,
    RequestId,
    RunTracker,
    StepResult,
    Tick,
    TrackerFinished,
    TrackStep,
    WindowTaken,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.tracker.base import TrackedObject, TrackKey

NS = 1_000_000_000
SIZE_WH = (96, 64)
Truth = Callable[[int], "BoxXyxy | None"]  # frame index -> where the object is


def moving(index: int) -> BoxXyxy:
    """A box that drifts to the right."""
    x = 5 + index * 0.05
    return BoxXyxy(x, 20, x + 12, 32)


def still(x0: float, y0: float, side: float = 10) -> Truth:
    """An object that stays."""
    return lambda _: BoxXyxy(x0, y0, x0 + side, y0 + side)


@dataclass
class StrictTracker:
    """Rows follow the object that their prompt met; a step over `loses_after` frames goes astray."""

    world: dict[str, Truth]
    loses_after: int = 10**9
    astray: str = ""
    rows: dict[TrackKey, tuple[str, int]] = field(default_factory=dict)  # object, last frame
    max_rows_seen: int = 0

    def run(self, steps: Sequence[object]) -> tuple[StepResult, ...]:
        results = []
        for item in steps:
            if isinstance(item, PromptStep):
                self.rows[item.key] = (self._met(item), int(item.frame_index))
            elif isinstance(item, ForkStep):
                self.rows[item.target] = self.rows[item.source]
            elif isinstance(item, PromoteStep):
                self.rows[item.target] = self.rows.pop(item.source)
            elif isinstance(item, DropStep):
                self.rows.pop(item.key, None)
            elif isinstance(item, TrackStep):
                objects = tuple(self._tracked(key, int(item.frame_index)) for key in item.keys)
                results.append(StepResult(frame_index=item.frame_index, objects=objects))
        self.max_rows_seen = max(self.max_rows_seen, len(self.rows))
        return tuple(results)

    def _met(self, item: PromptStep) -> str:
        mask = item.prompt.mask
        box = item.prompt.box if mask is None else box_from_mask(mask_from_rle(mask))
        assert box is not None
        boxes = {name: truth(int(item.frame_index)) for name, truth in self.world.items()}
        return max(
            boxes, key=lambda name: -1 if boxes[name] is None else box_iou(boxes[name], box)
        )

    def _tracked(self, key: TrackKey, index: int) -> TrackedObject:
        name, last = self.rows[key]
        if abs(index - last) > self.loses_after:
            name = self.astray
        self.rows[key] = (name, index)
        box = self.world[name](index) if name else None
        if box is None:
            absent = MaskRle(height=SIZE_WH[1], width=SIZE_WH[0], counts="")
            return TrackedObject(
                key=key, object_logit=-5.0, score=0.1, box=None, area_px=0, mask=absent
            )
        return TrackedObject(
            key=key,
            object_logit=5.0,
            score=0.9,
            box=box,
            area_px=int(box.area),
            mask=rle_from_mask(mask_from_box(box, SIZE_WH)),
        )


class Bench:
    """Runs the pipeline through simulated seconds and keeps what it commands."""

    def __init__(
        self,
        world: dict[str, Truth],
        *,
        config: Config | None = None,
        cameras: tuple[CameraId, ...] = (DEFAULT_CAMERA,),
        camera_hz: float = 30.0,
        tracker_s: float = 0.01,
        reasoner_s: float = 1.0,
        ring: int = 300,
        num_held: int = 6,
    ) -> None:
        self.state = State.start(config or Config(), cameras)
        self.tracker = {camera: StrictTracker(world) for camera in cameras}
        self.world = world
        self.camera_hz, self.tracker_s, self.reasoner_s = camera_hz, tracker_s, reasoner_s
        self.ring, self.num_held = ring, num_held
        self.now_ns = 0
        self.num_frames = dict.fromkeys(cameras, 0)
        self.refs: dict[tuple[CameraId, int], FrameRef] = {}
        self.log: list[tuple[Event, tuple[Command, ...]]] = []
        self.masks: list[PublishMasks] = []
        self.answers: list[Answer] = []
        self.replies: dict[RequestId, Reply] = {}
        self.asks: list[AskReasoner] = []
        self.held: set[AskId] = set()
        self.cancelled: set[AskId] = set()
        self.target: str | None = next(iter(world), None)
        self.parts: Callable[[AskReasoner, tuple[FrameRef, ...]], list[AnswerPart]] = self._answer
        self._queue: list[tuple[int, int, Event]] = []
        self._sequence = 0
        self._next_request = 1
        self.send(ReasonerChanged(is_up=True, reason="test", at_ns=0))

    def send(self, event: Event) -> None:
        self.state, commands = step(self.state, event)
        self.log.append((event, commands))
        for command in commands:
            self._execute(command)

    def run(self, seconds: float) -> None:
        """Let cameras and work go on for so long."""
        end = self.now_ns + round(seconds * NS)
        interval = round(NS / self.camera_hz)
        while True:
            frame_at = (min(self.num_frames.values()) + 1) * interval
            work_at = self._queue[0][0] if self._queue else end + 1
            at = min(frame_at, work_at)
            if at > end:
                self.now_ns = end
                return
            self.now_ns = at
            if work_at <= frame_at:
                self.send(heapq.heappop(self._queue)[2])
            else:
                camera = min(self.num_frames, key=lambda c: (self.num_frames[c], c))
                self.frame(camera)

    def work(self, seconds: float) -> None:
        """Let work go on for so long, while no frame comes."""
        end = self.now_ns + round(seconds * NS)
        while self._queue and self._queue[0][0] <= end:
            self.now_ns = self._queue[0][0]
            self.send(heapq.heappop(self._queue)[2])
        self.now_ns = end

    def tick(self) -> None:
        self.send(Tick(at_ns=self.now_ns))

    def frame(self, camera: CameraId = DEFAULT_CAMERA, stamp_ns: int | None = None) -> FrameRef:
        index = self.num_frames[camera]
        self.num_frames[camera] += 1
        ref = FrameRef(
            camera=camera,
            index=FrameIndex(index),
            epoch=0,
            stamp_ns=self.now_ns if stamp_ns is None else stamp_ns,
            received_ns=self.now_ns,
            size_wh=SIZE_WH,
        )
        self.refs[camera, index] = ref
        oldest = FrameIndex(max(0, index - self.ring + 1))
        self.send(FrameArrived(frame=ref, oldest_index=oldest, at_ns=self.now_ns))
        self.send(Tick(at_ns=self.now_ns))
        return ref

    def ask(self, text: str = "what next?", query_id: str = "q", **fields: object) -> RequestId:
        timeout_s = float(fields.pop("timeout_s", 0.0))  # type: ignore[arg-type]
        query = Query(id=QueryId(query_id), text=text, **fields)  # type: ignore[arg-type]
        request_id = self._request()
        wants = query.period_s == 0
        self.send(
            QueryAdded(
                query=query,
                request_id=request_id,
                wants_answer=wants,
                timeout_s=timeout_s,
                at_ns=self.now_ns,
            )
        )
        return request_id

    def forget(self, query_id: str = "q") -> RequestId:
        request_id = self._request()
        self.send(
            QueryRemoved(query_id=QueryId(query_id), request_id=request_id, at_ns=self.now_ns)
        )
        return request_id

    def point(
        self,
        name: str,
        object_id: str = "",
        frame_index: int | None = None,
        camera: CameraId = DEFAULT_CAMERA,
        beside: tuple[int, ...] = (),
    ) -> RequestId:
        """A user's box on an object, and on the same one on other frames beside."""
        request_id = self._request()
        index = self.num_frames[camera] - 1 if frame_index is None else frame_index
        box = self.world[name](index)
        assert box is not None
        self.send(
            ObjectsAdded(
                camera=camera,
                frame_index=None if frame_index is None else FrameIndex(frame_index),
                frame_stamp_ns=self.refs[camera, index].stamp_ns,
                object_ids=(ObjectId(object_id),),
                prompts=(SpatialPrompt(box=box),),
                beside=tuple(
                    ConditioningPrompt(
                        object_id=ObjectId(object_id),
                        frame_index=FrameIndex(other),
                        prompt=SpatialPrompt(box=self.world[name](other)),
                    )
                    for other in beside
                ),
                request_id=request_id,
                at_ns=self.now_ns,
            )
        )
        return request_id

    def post(self, after_s: float, event: Event) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (self.now_ns + round(after_s * NS), self._sequence, event))

    def post_part(self, command: AskReasoner, after_s: float, part: AnswerPart) -> None:
        """Let a part of an answer come later than the others."""
        at = self.now_ns + round(after_s * NS)
        self.post(after_s, AnswerPartArrived(ask_id=command.ask_id, part=part, at_ns=at))

    def count(self, name: str) -> int:
        return self.state.counters.get(name, 0)

    def _request(self) -> RequestId:
        request_id = RequestId(self._next_request)
        self._next_request += 1
        return request_id

    def _execute(self, command: Command) -> None:
        if isinstance(command, RunTracker):
            results = self.tracker[command.job.camera].run(command.job.steps)
            elapsed = round(self.tracker_s * NS)
            at = self.now_ns + elapsed
            self.post(
                self.tracker_s,
                TrackerFinished(
                    job_id=command.job.id, results=results, elapsed_ns=elapsed, at_ns=at
                ),
            )
        elif isinstance(command, AskReasoner):
            self._ask(command)
        elif isinstance(command, CancelAsk):
            self.cancelled.add(command.ask_id)
        elif isinstance(command, ReleaseWindow):
            assert command.ask_id in self.held, "a window is released once"
            self.held.remove(command.ask_id)
        elif isinstance(command, PublishMasks):
            self.masks.append(command)
        elif isinstance(command, PublishAnswer):
            self.answers.append(command.answer)
        elif isinstance(command, Reply):
            assert command.request_id not in self.replies, "a request is completed once"
            self.replies[command.request_id] = command

    def _ask(self, command: AskReasoner) -> None:
        self.asks.append(command)
        self.held.add(command.ask_id)
        camera = command.query.camera
        last = self.num_frames[camera]
        frames = tuple(self.refs[camera, i] for i in range(max(0, last - self.num_held), last))
        self.post(0, WindowTaken(ask_id=command.ask_id, frames=frames, at_ns=self.now_ns))
        at = self.now_ns + round(self.reasoner_s * NS)
        for part in self.parts(command, frames):
            self.post(
                self.reasoner_s, AnswerPartArrived(ask_id=command.ask_id, part=part, at_ns=at)
            )

    def _answer(self, command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        del command
        keyframe = frames[-1].index
        box = None if self.target is None else self.world[self.target](int(keyframe))
        if box is None:
            return [NoTarget(reason="nothing fits"), AnswerDone()]
        found = TargetsFound(keyframe_index=keyframe, prompts=(SpatialPrompt(box=box),), text="it")
        return [found, AnswerDone(tokens=7)]
