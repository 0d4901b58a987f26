# SPDX-License-Identifier: Apache-2.0
"""The sans-IO pipeline: `step(state, event) -> (state, commands)`.

No thread, no clock, no engine, no pixels: measured times and tracker results come in as events.
Equal states and events give equal commands, so a recorded trace replays without any engine.
What the tracker does next is in `tracking`, what the reasoner is asked in `asking`.
"""

from __future__ import annotations

from dataclasses import replace

from foreseg.frames import FrameRef
from foreseg.pipeline import asking, following, objects, publishing, queries, results, tracking
from foreseg.pipeline.degradation import climbed
from foreseg.pipeline.events import (
    AnswerPartArrived,
    Command,
    EnableSet,
    Event,
    FrameArrived,
    FrameDropped,
    MachineRead,
    ObjectRemoved,
    ObjectsAdded,
    QueryAdded,
    QueryRemoved,
    ReasonerChanged,
    Request,
    ResetRequested,
    SceneMeasured,
    Tick,
    TrackerFailed,
    TrackerFinished,
    WindowTaken,
)
from foreseg.pipeline.state import State, running_mean
from foreseg.pipeline.tracks import NS
from foreseg.pipeline.turn import Turn
from foreseg.telemetry import DropCause

MAX_INTERVAL_NS = NS  # between two frames; a camera that was away is no slow camera
STAMP_RESTART_NS = NS  # a stamp so much before the newest one is a restarted stream


def step(state: State, event: Event) -> tuple[State, tuple[Command, ...]]:
    """Take one event.

    Args:
        state: from `State.start` or the step before.
        event: what happened; events come in the order of their `at_ns`.

    Returns:
        The state after it, and what is to be done now, in order.
    """
    turn = Turn(state, event.at_ns)
    _take(turn, event)
    tracking.begin_next_job(turn, may_tidy=not isinstance(event, TrackerFailed))
    asking.ask_next(turn)
    asking.release_windows(turn)
    return turn.state, tuple(turn.commands)


def admit(newest: FrameRef | None, stamp_ns: int) -> DropCause | None:
    """Whether a frame with this sensor stamp may follow: None, or why not.

    A stamp at or slightly before the newest one is refused; one more than a second before it
    is taken as a restarted stream (a bag that loops, a simulation that was reset).
    """
    if newest is None or stamp_ns > newest.stamp_ns:
        return None
    if newest.stamp_ns - stamp_ns >= STAMP_RESTART_NS:
        return None
    return DropCause.STAMP_BACKWARD


def _take(turn: Turn, event: Event) -> None:
    if isinstance(event, FrameArrived):
        _take_frame(turn, event)
    elif isinstance(event, FrameDropped):
        _count_drop(turn, event)
    elif isinstance(event, TrackerFinished):
        results.finish_job(turn, event)
    elif isinstance(event, TrackerFailed):
        results.fail_job(turn, event)
    elif isinstance(event, WindowTaken):
        asking.take_window(turn, event)
    elif isinstance(event, SceneMeasured):
        queries.take_scene(turn, event)
    elif isinstance(event, AnswerPartArrived):
        asking.take_part(turn, event)
    elif isinstance(event, ReasonerChanged):
        asking.take_reasoner_change(turn, event)
    elif isinstance(event, MachineRead):
        _take_machine(turn, event)
    elif isinstance(event, Tick):
        asking.check_deadline(turn)
        queries.check_deadlines(turn)
        objects.forget_lost(turn)
    else:
        _take_request(turn, event)


def _take_request(turn: Turn, event: Request) -> None:
    if isinstance(event, ObjectsAdded):
        objects.add_objects(turn, event)
    elif isinstance(event, ObjectRemoved):
        objects.remove_object(turn, event)
    elif isinstance(event, ResetRequested):
        objects.reset(turn, event)
    elif isinstance(event, QueryAdded):
        queries.add_query(turn, event)
    elif isinstance(event, QueryRemoved):
        queries.remove_query(turn, event)
    elif isinstance(event, EnableSet):
        turn.set(enabled=event.enabled)
        turn.reply(event.request_id, success=True)


def _take_machine(turn: Turn, event: MachineRead) -> None:
    before, config = turn.state.ladder, turn.state.config.degradation
    ladder = climbed(before, event.readings, event.at_ns, config)
    turn.set(ladder=ladder)
    if ladder.rung > before.rung:
        turn.count("degradation_steps")


def _count_drop(turn: Turn, event: FrameDropped) -> None:
    turn.count(f"dropped_{event.cause.value}")
    dropped = turn.camera(event.camera).dropped
    turn.set_camera(
        event.camera, dropped={**dropped, event.cause: dropped.get(event.cause, 0) + 1}
    )


def _take_frame(turn: Turn, event: FrameArrived) -> None:
    frame = event.frame
    before = turn.camera(frame.camera)
    turn.count("frames_in")
    changes: dict[str, object] = {"newest": frame, "oldest_index": event.oldest_index}
    if before.newest is None or frame.stamp_ns <= before.newest.stamp_ns:
        changes["first_stamp_ns"] = frame.stamp_ns
        if before.newest is not None:
            turn.count("stream_restarts")
            queries.begin_anew(turn, frame.camera, "the stream began anew")
            stamp = frame.stamp_ns
            changes["tracks"] = tuple(
                replace(t, answered_stamp_ns=stamp, seen_stamp_ns=stamp)
                for t in turn.camera(frame.camera).tracks
            )
    else:
        interval = min(frame.received_ns - before.newest.received_ns, MAX_INTERVAL_NS)
        if interval > 0:
            changes["frame_interval_ns"] = running_mean(before.frame_interval_ns, interval)
    turn.set_camera(frame.camera, **changes)
    following.judge_due(turn, frame.camera, frame.stamp_ns)
    publishing.publish_untracked(turn, frame)
