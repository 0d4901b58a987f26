# SPDX-License-Identifier: Apache-2.0
"""A pipeline in this process as what is looked at: its worker's state, its requests."""

from __future__ import annotations

import os
from pathlib import Path

from foreseg.clock import Clock, SystemClock
from foreseg.commands.questions import Questions
from foreseg.dialogue import Answer, Query, QueryId
from foreseg.driving.executor import PublishedMasks
from foreseg.driving.worker import Snapshot, Worker
from foreseg.frames import DEFAULT_CAMERA, FrameIndex
from foreseg.pipeline.degradation import Rung
from foreseg.pipeline.state import State
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_view.board import Board
from foreseg_view.host import Done, FrameDone, QueryNow, Stage, Status

NS = 1_000_000_000
STALL_S = 3.0  # without a frame of a camera: told
_STATM = Path("/proc/self/statm")


class WorkerHost:
    """Reads a worker's snapshots and makes requests of it.

    Args:
        worker: of one camera.
        source: what it sees, for people.
        trace_path: where its trace is written.
        is_live: frames come from a camera, so that it is told when none comes.
        clock: the worker's.
    """

    def __init__(
        self,
        worker: Worker,
        source: str,
        *,
        trace_path: Path | None = None,
        is_live: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.source = source
        self.trace_path = trace_path
        self._notice = ""  # of the source
        self._worker = worker
        self._is_live = is_live
        self._clock = clock or SystemClock()
        self._began_ns = self._clock.monotonic_ns()

    def status(self) -> Status:
        """As the worker's snapshot has it."""
        snapshot = self._worker.snapshot()
        state = snapshot.state
        camera = state.cameras[DEFAULT_CAMERA]
        now_ns = self._clock.monotonic_ns()
        ladder = state.ladder
        last_ns = camera.newest.received_ns if camera.newest is not None else self._began_ns
        return Status(
            queries=queries_of(state, now_ns),
            reasoner=_reasoner_words(state),
            is_reasoner_up=state.reasoner_up,
            oldest_index=None if camera.newest is None else int(camera.oldest_index),
            newest_index=None if camera.newest is None else int(camera.newest.index),
            rate_hz=camera.rates.camera_hz if camera.frame_interval_ns else None,
            dropped={
                name.removeprefix("dropped_"): count
                for name, count in sorted(state.counters.items())
                if name.startswith("dropped_")
            },
            rung="" if ladder.rung is Rung.NORMAL else _rung_words(ladder.rung, ladder.reason),
            memory_bytes=_resident_bytes(),
            problem=self._notice or _problem(snapshot) or self._stalled((now_ns - last_ns) / NS),
        )

    def _stalled(self, silent_s: float) -> str:
        """A camera that gives neither frames nor a fault is told of, too."""
        if not self._is_live or silent_s < STALL_S:
            return ""
        return f"no frame has come for {silent_s:.0f} s: is the camera still there?"

    def tell(self, notice: str) -> None:
        """What viewers should know of the source; "" = nothing."""
        self._notice = notice

    def ask(self, query: Query, done: Done) -> None:
        """Add it; the reply comes with its acceptance."""
        self._worker.requests.ask(query, done, wants_answer=False)

    def remove_query(self, query_id: QueryId, done: Done) -> None:
        """Take it back."""
        self._worker.requests.remove_query(query_id, done)

    def point(self, object_id: ObjectId, prompt: SpatialPrompt, stamp_ns: int, done: Done) -> None:
        """Prompt an object."""
        self._worker.requests.add_objects(
            DEFAULT_CAMERA, [(object_id, prompt)], done, stamp_ns=stamp_ns
        )

    def remove_object(self, object_id: ObjectId, done: Done) -> None:
        """Drop an object."""
        self._worker.requests.remove_object(object_id, done)

    def copy_frame(self, index: FrameIndex, done: FrameDone) -> None:
        """Copy a frame out of the history."""
        self._worker.requests.copy_frame(DEFAULT_CAMERA, index, done)


def queries_of(state: State, now_ns: int) -> tuple[QueryNow, ...]:
    """The queries that stand or are under way, each with its stage."""
    asking, found = state.asking, []
    on_the_way = {arrival.query_id for arrival in state.arrivals}
    if state.running is not None:
        on_the_way |= {arrival.query_id for arrival in state.running.arrivals}
    if asking is not None:
        stage = Stage.KEYFRAME if asking.has_arrival else Stage.THINKING
        found.append(
            QueryNow(
                id=asking.query.id,
                text=asking.query.text,
                period_s=asking.query.period_s,
                stage=stage,
                since_s=max(0.0, (now_ns - asking.asked_ns) / NS),
                rationale=asking.rationale if asking.query.want_rationale else "",
            )
        )
    for entry in state.queries:
        query = entry.query
        if asking is not None and query.id == asking.query.id:
            continue
        waiting = None if entry.num_asked else Stage.ASKED
        stage_now = Stage.KEYFRAME if query.id in on_the_way else waiting
        found.append(
            QueryNow(id=query.id, text=query.text, period_s=query.period_s, stage=stage_now)
        )
    return tuple(found)


def _reasoner_words(state: State) -> str:
    if not state.reasoner_up:
        return f"down: {state.reasoner_reason}"
    took = f", {state.reasoner_s:.1f} s an answer" if state.reasoner_s else ""
    return f"{state.reasoner_reason}{took}"


def _rung_words(rung: Rung, reason: str) -> str:
    words = rung.name.lower().replace("_", " ")
    return f"{words}: {reason}" if reason else words


def _problem(snapshot: Snapshot) -> str:
    if snapshot.failure:
        return f"the loop failed: {snapshot.failure}"
    dead = [thread.name for thread in snapshot.threads if not thread.is_alive]
    return f"the {dead[0]} thread is dead" if dead else ""


def _resident_bytes() -> int | None:
    try:
        return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):  # not Linux
        return None


class BoardOutput:
    """What the pipeline publishes goes to the board; an answer with the frames it is about."""

    def __init__(self, board: Board, questions: Questions) -> None:
        self._board = board
        self._questions = questions

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Hand it on."""
        self._board.publish_masks(masks)

    def publish_answer(self, answer: Answer) -> None:
        """Hand it on, while the frames of its question are held."""
        self._board.publish_answer(answer, self._questions.frames_of(answer, keyframe_only=False))
