# SPDX-License-Identifier: Apache-2.0
"""Objects that users add, remove or reset, and tracks that are forgotten."""

from __future__ import annotations

from dataclasses import replace

from foreseg.dialogue import MAX_ID_CHARS
from foreseg.pipeline import asking
from foreseg.pipeline.catch_up import BRANCH_MARK
from foreseg.pipeline.events import ObjectRemoved, ObjectsAdded, ResetRequested
from foreseg.pipeline.roster import (
    drop_tracks,
    give_up_branch,
    new_object_ids,
    spare_tracks,
    void_running_arrivals,
)
from foreseg.pipeline.state import Arrival, CameraState
from foreseg.pipeline.tracks import NS
from foreseg.pipeline.turn import Turn
from foreseg.prompts import ObjectId

MAX_ARRIVALS = 64  # that wait for the tracker; users' prompts beyond are refused
MAX_FRAMES_BESIDE = 7  # of an object in one request; a row of memory holds fewer
ABANDON_FACTOR = 3.0  # a catch-up that takes this many budgets is given up


def add_objects(turn: Turn, event: ObjectsAdded) -> None:
    """A user's prompts, on the newest, a past, or (where a file is played) the next frame."""
    camera = turn.state.cameras.get(event.camera)
    problem = _problem_with(turn, event, camera) or _problem_beside(event, camera)
    if problem or camera is None:
        turn.count("requests_refused")
        turn.reply(event.request_id, success=False, message=problem or "no such camera")
        return
    made = iter(new_object_ids(turn, event.object_ids.count(ObjectId(""))))
    ids = tuple(given or next(made) for given in event.object_ids)
    newest = camera.newest
    index, stamp_ns = event.frame_index, event.frame_stamp_ns
    if newest is not None and index in (None, newest.index):
        index, stamp_ns = newest.index, newest.stamp_ns
    assert index is not None  # noqa: S101 (without a frame it was refused)
    arrival = Arrival(
        camera=event.camera,
        keyframe_index=index,
        keyframe_stamp_ns=stamp_ns,
        object_ids=ids,
        prompts=event.prompts,
        beside=event.beside,
        request_id=event.request_id,
    )
    turn.set(arrivals=(*turn.state.arrivals, arrival))


def remove_object(turn: Turn, event: ObjectRemoved) -> None:
    """Drop a track, with its branch."""
    for camera in turn.state.cameras.values():
        track = next((t for t in camera.tracks if t.object_id == event.object_id), None)
        if track is not None:
            drop_tracks(turn, camera, (track,))
            turn.reply(event.request_id, success=True)
            return
    turn.count("requests_refused")
    known = sorted(t.object_id for c in turn.state.cameras.values() for t in c.tracks)
    message = f"no object {event.object_id!r} is tracked; tracked are {', '.join(known) or 'none'}"
    turn.reply(event.request_id, success=False, message=message)


def reset(turn: Turn, event: ResetRequested) -> None:
    """Forget all tracks."""
    for camera in turn.state.cameras.values():
        drop_tracks(turn, camera, camera.tracks)
    on_the_way = (*turn.state.arrivals, *void_running_arrivals(turn))
    turn.set(arrivals=())
    for arrival in on_the_way:
        asking.resolve_arrival(turn, arrival, (), failure="tracks were reset")
    turn.set(
        queries=tuple(
            replace(q, due_ns=min(q.due_ns, turn.at_ns), asked_index=-1) if q.query.period_s else q
            for q in turn.state.queries
        ),
    )
    turn.reply(event.request_id, success=True)


def forget_lost(turn: Turn) -> None:
    """Drop tracks that are LOST for long and that nobody waits for; give up stuck branches."""
    config = turn.state.config
    standing = {q.query.id for q in turn.state.queries if q.query.period_s}
    for camera in turn.state.cameras.values():
        if camera.newest is None:
            continue
        limit = camera.newest.stamp_ns - (config.tracker.forget_after_s * NS)
        stale = tuple(
            t
            for t in camera.tracks
            if t.seen_stamp_ns < limit and not standing.intersection(t.query_ids) and not t.by_user
        )
        if stale:
            turn.count("tracks_forgotten", len(stale))
            drop_tracks(turn, camera, stale)
        running = turn.state.running
        busy = None if running is None else running.catch_up
        for branch in turn.camera(camera.camera).catch_ups:
            age_s = (turn.at_ns - branch.started_ns) / NS
            is_busy = busy is not None and busy.branch == branch.branch
            if age_s > ABANDON_FACTOR * config.catch_up.budget_s and not is_busy:
                give_up_branch(turn, camera.camera, branch)


def _problem_with(turn: Turn, event: ObjectsAdded, camera: CameraState | None) -> str | None:
    if camera is None:
        known = ", ".join(sorted(turn.state.cameras))
        return f"no camera {event.camera!r}; cameras are {known}"
    if camera.newest is None and event.frame_index is None:
        return "no frame has come yet"
    if not turn.state.enabled:
        return "foreseg is paused: enable it first"
    given = [i for i in event.object_ids if i]
    if len(given) != len(set(given)):
        return f"duplicate object id in one request: {', '.join(given)}"
    odd = next((i for i in given if len(i) > MAX_ID_CHARS or BRANCH_MARK in i), None)
    if odd is not None:
        limit = f"at most {MAX_ID_CHARS} characters without {BRANCH_MARK!r}"
        return f"an object id wants {limit}, got {odd[: MAX_ID_CHARS + 1]!r}"
    if not event.prompts or len(event.prompts) != len(event.object_ids):
        return f"{len(event.object_ids)} objects want a prompt each, got {len(event.prompts)}"
    known_ids = {t.object_id for t in camera.tracks}
    elsewhere = [
        t.object_id
        for c in turn.state.cameras.values()
        if c.camera != camera.camera
        for t in c.tracks
        if t.object_id in given
    ]
    if elsewhere:
        return f"object id {elsewhere[0]!r} is in use on another camera"
    num_new = sum(1 for i in event.object_ids if i not in known_ids)
    num_taken = len(camera.tracks) - len(spare_tracks(turn, camera))
    room = turn.state.config.tracker.max_tracks - num_taken
    if num_new > room:
        return f"{num_new} new objects do not fit: {room} of tracker.max_tracks are free"
    if len(turn.state.arrivals) >= MAX_ARRIVALS:
        return f"{len(turn.state.arrivals)} prompts wait for the tracker already"
    return None


def _problem_beside(event: ObjectsAdded, camera: CameraState | None) -> str | None:
    """What is wrong with prompts on other frames; None if nothing."""
    newest = None if camera is None else camera.newest
    keyframe = event.frame_index
    if keyframe is None and newest is not None:
        keyframe = newest.index
    given = [(each.object_id, each.frame_index) for each in event.beside]
    for object_id, frame_index in given:
        if not object_id or object_id not in event.object_ids:
            return (
                "a prompt on another frame wants the id of an object that is prompted on the"
                f" request's own frame, too; got {object_id!r}"
            )
        if frame_index == keyframe or given.count((object_id, frame_index)) > 1:
            return f"object {object_id!r} is prompted twice on one frame"
        if sum(1 for other, _ in given if other == object_id) > MAX_FRAMES_BESIDE:
            return f"object {object_id!r} is prompted on more than {1 + MAX_FRAMES_BESIDE} frames"
    return None
