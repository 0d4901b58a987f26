# SPDX-License-Identifier: Apache-2.0
"""Who is on a camera's roster: ids for the new, room for them, and how tracks and rows leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreseg.dialogue import QueryId
from foreseg.frames import CameraId
from foreseg.pipeline.catch_up import CatchUp
from foreseg.pipeline.events import DropStep, PromptStep
from foreseg.pipeline.state import Arrival, CameraState, RunningJob
from foreseg.pipeline.tracks import NS, LiveTrack
from foreseg.pipeline.turn import Turn
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackKey


def new_object_ids(turn: Turn, count: int) -> tuple[ObjectId, ...]:
    """Ids that nobody has; a user may have taken one of ours."""
    state = turn.state
    arrivals = (*state.arrivals, *(() if state.running is None else state.running.arrivals))
    taken = {track.object_id for camera in state.cameras.values() for track in camera.tracks}
    taken |= {i for arrival in arrivals for i in arrival.object_ids}
    ids: list[ObjectId] = []
    number = state.next_object
    while len(ids) < count:
        made = ObjectId(f"object-{number}")
        number += 1
        if made not in taken:
            ids.append(made)
    turn.set(next_object=number)
    return tuple(ids)


def spare_tracks(
    turn: Turn, camera: CameraState, query_id: QueryId | None = None
) -> tuple[LiveTrack, ...]:
    """Tracks that may go for a new one: no user's, no standing query's, not of `query_id`."""
    standing = {q.query.id for q in turn.state.queries if q.query.period_s}
    return tuple(
        t
        for t in camera.tracks
        if not t.by_user and not standing.intersection(t.query_ids) and query_id not in t.query_ids
    )


def drop_tracks(turn: Turn, camera: CameraState, tracks: tuple[LiveTrack, ...]) -> None:
    """Let tracks go: rows and branches become chores of the next job, labels rest."""
    if not tracks:
        return
    gone = {track.object_id for track in tracks}
    branches = tuple(c.branch for c in camera.catch_ups if c.object_id in gone)
    keys = (*(t.key for t in tracks), *branches)
    rest_ns = turn.at_ns + round(turn.state.config.tracker.index_reuse_s * NS)
    turn.set_camera(
        camera.camera,
        tracks=tuple(t for t in camera.tracks if t.object_id not in gone),
        catch_ups=tuple(c for c in camera.catch_ups if c.object_id not in gone),
        chores=(*camera.chores, *(DropStep(key=key) for key in keys)),
        labels=camera.labels.freed([t.index for t in tracks], rest_ns),
    )


def leave_out(
    turn: Turn, camera_id: CameraId, query_id: QueryId, named: frozenset[ObjectId]
) -> None:
    """After an answer: its query's other tracks go, if nobody else wants them.

    An answer that names something takes the place of the one before; one that names nothing must
    come `answers_to_let_go` times in a row.
    """
    camera = turn.camera(camera_id)
    limit = 1 if named else turn.state.config.scheduler.answers_to_let_go
    tracks = tuple(
        t if t.object_id in named else t.left_out_by(query_id, limit) for t in camera.tracks
    )
    before = {t.object_id for t in camera.tracks if t.query_ids}
    camera = turn.set_camera(camera_id, tracks=tracks)
    orphans = tuple(
        t for t in tracks if t.object_id in before and not t.query_ids and not t.by_user
    )
    turn.count("tracks_replaced", len(orphans))
    drop_tracks(turn, camera, orphans)


def give_up_branch(turn: Turn, camera_id: CameraId, branch: CatchUp) -> None:
    """A catch-up does not arrive: the hopped track stays, unconfirmed."""
    camera = turn.camera(camera_id)
    if not any(c.branch == branch.branch for c in camera.catch_ups):
        return  # it went with its track
    turn.count("catch_ups_abandoned")
    turn.set_camera(
        camera_id,
        catch_ups=tuple(c for c in camera.catch_ups if c.branch != branch.branch),
        tracks=tuple(
            replace(t, catching_up=False) if t.object_id == branch.object_id else t
            for t in camera.tracks
        ),
        chores=(*camera.chores, DropStep(key=branch.branch)),
    )


def drop_begun_rows(turn: Turn, running: RunningJob, arrivals: Sequence[Arrival]) -> None:
    """The rows that a job began for these arrivals are wanted no more."""
    camera = turn.camera(running.job.camera)
    known = {track.key for track in camera.tracks}
    ids = {object_id for arrival in arrivals for object_id in arrival.object_ids}
    keys = {TrackKey(object_id) for object_id in ids} - known
    begun = [s.key for s in running.job.steps if isinstance(s, PromptStep) and s.key in keys]
    begun += [c.branch for c in running.new_catch_ups if c.object_id in ids]
    turn.set_camera(camera.camera, chores=(*camera.chores, *(DropStep(key=key) for key in begun)))


def void_running_arrivals(turn: Turn, query_id: QueryId | None = None) -> tuple[Arrival, ...]:
    """What hops now, for one query or (None) at all, shall lead to nothing; those arrivals."""
    running = turn.state.running
    if running is None:
        return ()
    gone = tuple(a for a in running.arrivals if query_id in (None, a.query_id))
    drop_begun_rows(turn, running, gone)
    ids = {object_id for arrival in gone for object_id in arrival.object_ids}
    turn.set(
        running=replace(
            running,
            arrivals=tuple(a for a in running.arrivals if a not in gone),
            new_catch_ups=tuple(c for c in running.new_catch_ups if c.object_id not in ids),
        )
    )
    return gone
