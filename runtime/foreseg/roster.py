# SPDX-License-Identifier: Apache-2.0
"""Tracks leaving a camera's roster: dropped by a user, left out by answers, or given up."""

from __future__ import annotations

from dataclasses import replace

from foreseg.catch_up import CatchUp
from foreseg.dialogue import QueryId
from foreseg.events import DropStep, PromoteStep
from foreseg.frames import CameraId
from foreseg.prompts import ObjectId
from foreseg.state import CameraState
from foreseg.tracks import NS, LiveTrack
from foreseg.turn import Turn


def drop_tracks(turn: Turn, camera: CameraState, tracks: tuple[LiveTrack, ...]) -> None:
    """Let tracks go: rows and branches become chores of the next job, labels rest."""
    if not tracks:
        return
    gone = {track.object_id for track in tracks}
    branches = tuple(c.branch for c in camera.catch_ups if c.object_id in gone)
    keys = (*(t.key for t in tracks), *branches)
    chores = tuple(
        DropStep(key=s.source) if isinstance(s, PromoteStep) and s.target in keys else s
        for s in camera.chores
    )
    rest_ns = turn.at_ns + round(turn.state.config.tracker.index_reuse_s * NS)
    turn.set_camera(
        camera.camera,
        tracks=tuple(t for t in camera.tracks if t.object_id not in gone),
        catch_ups=tuple(c for c in camera.catch_ups if c.object_id not in gone),
        chores=(*chores, *(DropStep(key=key) for key in keys)),
        labels=camera.labels.freed([t.index for t in tracks], rest_ns),
    )


def leave_out(
    turn: Turn, camera_id: CameraId, query_id: QueryId, named: frozenset[ObjectId]
) -> None:
    """After an answer: its query's other tracks count a miss; those nobody wants any more go."""
    camera = turn.camera(camera_id)
    limit = turn.state.config.scheduler.answers_to_replace
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
