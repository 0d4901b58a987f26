# SPDX-License-Identifier: Apache-2.0
"""What the results of a tracker's job mean for the tracks, and what a job that failed leaves."""

from __future__ import annotations

from dataclasses import replace

from foreseg.dialogue import QueryId
from foreseg.frames import CameraId, FrameRef
from foreseg.masks import rle_iou
from foreseg.pipeline import asking, following, observing, queries
from foreseg.pipeline.arrivals import match_arrivals
from foreseg.pipeline.catch_up import CatchUp
from foreseg.pipeline.events import DropStep, StepResult, TrackerFailed, TrackerFinished
from foreseg.pipeline.publishing import publish
from foreseg.pipeline.roster import drop_begun_rows, drop_tracks, give_up_branch
from foreseg.pipeline.state import CameraState, JobKind, RunningJob, running_mean
from foreseg.pipeline.tracks import NS, LiveTrack, TrackState
from foreseg.pipeline.turn import Turn
from foreseg.tracker.base import TrackedObject

MAX_LIVE_STEPS_OWED = 2  # so many live steps' worth of branch steps may pile up
MAX_CREDIT = 1000.0  # branch steps for a live one, where live tracks keep nothing


def finish_job(turn: Turn, event: TrackerFinished) -> None:
    """Update tracks from a job's results, and publish."""
    running = turn.state.running
    if running is None or running.job.id != event.job_id:
        turn.count("tracker_results_unexpected")
        return
    turn.set(running=None)
    camera = turn.camera(running.job.camera)
    if running.kind is JobKind.LIVE:
        credit = _credit_per_live_step(turn, camera)
        turn.set_camera(
            camera.camera,
            live_step_ns=running_mean(camera.live_step_ns, event.elapsed_ns),
            branch_credit=min(1 + MAX_LIVE_STEPS_OWED * credit, camera.branch_credit + credit),
        )
    if running.kind is JobKind.HOP and not camera.live_step_ns:
        # the first measurement, on the safe side: it has prompts besides the step
        turn.set_camera(camera.camera, live_step_ns=float(event.elapsed_ns))
    if running.kind is JobKind.CHORES:
        return
    if running.kind is JobKind.CATCH_UP:
        _finish_branch_step(turn, running, event.elapsed_ns)
        return
    if running.kind is JobKind.OBSERVE and running.observed is not None:
        observing.take_results(turn, running.observed, event.results)
        return
    final = event.results[-1]
    known = _known_of(camera)
    match_arrivals(turn, running, final)
    if running.kind is JobKind.JOIN and running.catch_up is not None:
        _join(turn, camera.camera, running.catch_up, event.results[-3], event.results[-2])
    _update(turn, running.frame, final)
    is_asked = any(arrival.request_id is not None for arrival in running.arrivals)
    has_news = is_asked or known != _known_of(turn.camera(camera.camera))
    publish(turn, running.frame, running.job.id, has_news=has_news)


def fail_job(turn: Turn, event: TrackerFailed) -> None:
    """A job broke off: its arrival or branch is given up, the live tracks go on."""
    running = turn.state.running
    if running is None or running.job.id != event.job_id:
        return
    turn.set(running=None)
    turn.count("tracker_failures")
    camera = turn.camera(running.job.camera)
    undone = tuple(step for step in running.job.steps if isinstance(step, DropStep))
    turn.set_camera(camera.camera, chores=(*undone, *camera.chores))
    if running.catch_up is not None:
        give_up_branch(turn, camera.camera, running.catch_up)
    if running.observed is not None:
        observing.give_up(turn, running.observed, event.reason)
    drop_begun_rows(turn, running, running.arrivals)
    if len(running.arrivals) > 1:  # whose fault it was shows when each goes alone
        each = tuple(replace(arrival, is_alone=True) for arrival in running.arrivals)
        turn.set(arrivals=(*each, *turn.state.arrivals))
        return
    for arrival in running.arrivals:
        asking.resolve_arrival(
            turn, arrival, (), failure=event.reason, is_evicted=event.is_evicted
        )


def _known_of(camera: CameraState) -> frozenset[tuple[object, ...]]:
    """What is known of the tracks beside their masks."""
    return frozenset((t.object_id, t.query_ids, t.confirmed, t.catching_up) for t in camera.tracks)


def _finish_branch_step(turn: Turn, running: RunningJob, elapsed_ns: int) -> None:
    moved = running.catch_up
    camera = turn.camera(running.job.camera)
    rest = tuple(c for c in camera.catch_ups if moved is None or c.branch != moved.branch)
    is_wanted = moved is not None and len(rest) < len(camera.catch_ups)
    turn.set_camera(
        camera.camera,
        branch_step_ns=running_mean(camera.branch_step_ns, elapsed_ns),
        catch_ups=(*rest, moved) if is_wanted and moved is not None else rest,  # take turns
    )
    turn.count("catch_up_steps")


def _credit_per_live_step(turn: Turn, camera: CameraState) -> float:
    share = turn.state.config.catch_up.live_share
    rates = camera.rates
    kept_hz = share * min(rates.camera_hz, rates.live_hz)
    return min(MAX_CREDIT, rates.share_hz(share) / kept_hz) if kept_hz > 0 else MAX_CREDIT


def _join(
    turn: Turn, camera_id: CameraId, branch: CatchUp, caught: StepResult, live: StepResult
) -> None:
    """The branch is at the newest frame: it confirms the hopped track, or replaces it."""
    camera = turn.camera(camera_id)
    if branch not in camera.catch_ups:
        return  # its track was dropped while the job ran; the chores drop the rows
    track = next(t for t in camera.tracks if t.object_id == branch.object_id)
    result = caught.objects[0]
    hopped = next(o for o in live.objects if o.key == track.key)
    agrees = _overlap(result, hopped) >= turn.state.config.catch_up.agree_iou
    turn.count("catch_ups_agreed" if agrees else "catch_ups_disagreed")
    turn.set(catch_up_s=(turn.at_ns - branch.started_ns) / NS)
    twin = _twin_at_join(turn, camera, track, result, live)
    if twin is not None:
        turn.count("tracks_merged")
        merged = twin
        for query_id in track.query_ids:
            merged = merged.named_by(
                query_id,
                max(twin.answered_stamp_ns, track.answered_stamp_ns),
                turn.state.query_ids,
            )
        others = tuple(merged if t is twin else t for t in camera.tracks)
        drop_tracks(turn, turn.set_camera(camera_id, tracks=others), (track,))
        return
    confirmed = replace(track, confirmed=True, catching_up=False)
    turn.set_camera(
        camera_id,
        tracks=tuple(confirmed if t is track else t for t in camera.tracks),
        catch_ups=tuple(c for c in camera.catch_ups if c.branch != branch.branch),
    )


def _twin_at_join(
    turn: Turn, camera: CameraState, track: LiveTrack, caught: TrackedObject, live: StepResult
) -> LiveTrack | None:
    """Another track that the branch turns out to be: the hop had not shown it."""
    if not track.query_ids or caught.object_logit <= 0:
        return None
    results = {result.key: result for result in live.objects}
    limit = turn.state.config.scheduler.match_iou
    return next(
        (
            t
            for t in camera.tracks
            if t is not track and t.key in results and _overlap(caught, results[t.key]) >= limit
        ),
        None,
    )


def _update(turn: Turn, frame: FrameRef, final: StepResult) -> None:
    camera = turn.camera(frame.camera)
    if camera.newest is not None and camera.newest.stamp_ns < frame.stamp_ns:
        frame = replace(frame, stamp_ns=camera.newest.stamp_ns)  # the stream has restarted since
    config = turn.state.config.tracker
    results = {result.key: result for result in final.objects}
    tracks: list[LiveTrack] = []
    lost: list[QueryId] = []
    for track in camera.tracks:
        result = results.get(track.key)
        changed = track if result is None else track.updated(result, frame)
        is_lost = changed.state(frame.stamp_ns, config) is TrackState.LOST
        if is_lost and not track.is_lost:
            lost.extend(changed.query_ids)
        changed = replace(changed, is_lost=is_lost)
        tracks.append(changed)
    turn.set_camera(camera.camera, tracks=tuple(tracks))
    if lost:
        turn.count("targets_lost")
        queries.ask_again(turn, lost)
    following.watch(turn, frame)


def _overlap(a: TrackedObject, b: TrackedObject) -> float:
    if (a.mask.height, a.mask.width) != (b.mask.height, b.mask.width):
        return 0.0
    return rle_iou(a.mask, b.mask)
