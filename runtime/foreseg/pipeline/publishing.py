# SPDX-License-Identifier: Apache-2.0
"""Which frames get masks: of a tracker's job, held ones, or none at once where nothing is tracked."""

from __future__ import annotations

from dataclasses import replace

from foreseg.frames import FrameRef
from foreseg.pipeline.degradation import Rung
from foreseg.pipeline.events import JobId, PublishMasks
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.pipeline.turn import Turn
from foreseg.telemetry import DropCause


def publish_untracked(turn: Turn, frame: FrameRef) -> None:
    """Publish what needs no tracker, at once: no track, or masks that are held."""
    camera = turn.camera(frame.camera)
    if turn.state.enabled and camera.tracks and is_held(turn) and turn.state.running is None:
        mark_served(turn, frame)
        publish(turn, frame, None)
        return
    is_awaited = any(
        arrival.camera == frame.camera and arrival.keyframe_index <= frame.index
        for arrival in turn.state.arrivals
    )
    running = turn.state.running
    is_hopping = (
        running is not None and bool(running.arrivals) and running.job.camera == frame.camera
    )
    if not turn.state.enabled or camera.tracks or is_awaited or is_hopping:
        return
    mark_served(turn, frame)
    publish(turn, frame, None)


def publish(turn: Turn, frame: FrameRef, job_id: JobId | None, *, has_news: bool = False) -> None:
    """Publish all tracks on a frame, with the masks of a job, or (None) held ones.

    Once a frame; once more where it is still the newest and more is known of it now (`has_news`).
    """
    camera = turn.camera(frame.camera)
    is_newest = camera.newest is not None and camera.newest.index == frame.index
    is_again = frame.index == camera.published_index and has_news and is_newest
    if frame.index <= camera.published_index and not is_again:
        return
    turn.set_camera(frame.camera, published_index=int(frame.index))
    tracker = turn.state.config.tracker
    tracks = [t.published(frame, tracker) for t in camera.tracks if t.last is not None]
    tracks.sort(key=lambda track: track.index)
    if job_id is None:
        tracks = [_as_held(track) for track in tracks]
    turn.count("masks_out")
    turn.emit(PublishMasks(frame=frame, job_id=job_id, tracks=tuple(tracks)))


def mark_served(turn: Turn, frame: FrameRef) -> None:
    """A frame is published or given to the tracker; those that it leaps over are counted."""
    camera = turn.camera(frame.camera)
    skipped = int(frame.index) - camera.served_index - 1
    if skipped > 0:
        turn.count(f"dropped_{DropCause.TRACKER_BUSY.value}", skipped)
    index = max(int(frame.index), camera.served_index)
    turn.set_camera(frame.camera, served_index=index, served_at_ns=turn.at_ns)


def is_held(turn: Turn) -> bool:
    """True if nothing is tracked: the last masks are published again."""
    return turn.state.ladder.rung >= Rung.HELD_MASKS


def _as_held(track: Track) -> Track:
    """An old mask under a new frame is never sure."""
    if track.state is TrackState.TRACKED:
        return replace(track, state=TrackState.UNCERTAIN)
    return track
