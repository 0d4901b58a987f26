# SPDX-License-Identifier: Apache-2.0
"""The tracker's side of a step: which job runs next, and what its results mean.

Always the newest frame, never a queue. A late answer hops from its keyframe to the newest frame
in one memory step; a branch of it catches up through the ring beside the live tracks.
"""

from __future__ import annotations

from dataclasses import replace

from foreseg.dialogue import MAX_ID_CHARS, QueryId
from foreseg.frames import CameraId, FrameRef
from foreseg.masks import rle_iou
from foreseg.pipeline import asking, following, observing
from foreseg.pipeline.arrivals import match_arrival, steps_of_arrival
from foreseg.pipeline.catch_up import BRANCH_MARK, CatchUp
from foreseg.pipeline.degradation import Rung
from foreseg.pipeline.events import (
    DropStep,
    JobId,
    JobStep,
    ObjectRemoved,
    ObjectsAdded,
    PromoteStep,
    PublishMasks,
    ResetRequested,
    RunTracker,
    StepResult,
    TrackerFailed,
    TrackerFinished,
    TrackerJob,
    TrackStep,
)
from foreseg.pipeline.roster import (
    drop_begun_rows,
    drop_tracks,
    give_up_branch,
    new_object_ids,
    spare_tracks,
    void_running_arrival,
)
from foreseg.pipeline.state import Arrival, CameraState, JobKind, RunningJob, running_mean
from foreseg.pipeline.tracks import NS, LiveTrack, Track, TrackState
from foreseg.pipeline.turn import Turn
from foreseg.prompts import ObjectId
from foreseg.telemetry import DropCause
from foreseg.tracker.base import TrackedObject

MAX_LIVE_STEPS_OWED = 2  # so many live steps' worth of branch steps may pile up
MAX_CREDIT = 1000.0  # branch steps for a live one, where live tracks keep nothing
MAX_ARRIVALS = 64  # that wait for the tracker; users' prompts beyond are refused
ABANDON_FACTOR = 3.0  # a catch-up that takes this many budgets is given up


def publish_untracked(turn: Turn, frame: FrameRef) -> None:
    """Publish what needs no tracker, at once: no track, or masks that are held."""
    camera = turn.camera(frame.camera)
    if turn.state.enabled and camera.tracks and _is_held(turn) and turn.state.running is None:
        _mark_served(turn, frame)
        _publish(turn, frame, None)
        return
    is_awaited = any(
        arrival.camera == frame.camera and arrival.keyframe_index <= frame.index
        for arrival in turn.state.arrivals
    )
    running = turn.state.running
    is_hopping = (
        running is not None and running.arrival is not None and running.job.camera == frame.camera
    )
    if not turn.state.enabled or camera.tracks or is_awaited or is_hopping:
        return
    _mark_served(turn, frame)
    _publish(turn, frame, None)


def begin_next_job(turn: Turn, *, may_tidy: bool) -> None:
    """Give the tracker its next job, if it is idle and there is one.

    Args:
        turn: the step.
        may_tidy: begin a job of chores alone; not right after a failure, or a tracker that
            fails in them would be asked again at once and for ever.
    """
    state = turn.state
    if state.running is not None or not state.enabled or _is_held(turn):
        return
    for arrival in state.arrivals:
        camera = turn.camera(arrival.camera)
        if camera.newest is not None and arrival.keyframe_index <= camera.newest.index:
            turn.set(arrivals=tuple(a for a in state.arrivals if a is not arrival))
            _begin_hop(turn, camera, camera.newest, arrival)
            return
    waiting = sorted(state.cameras.values(), key=lambda camera: camera.served_at_ns)
    for camera in waiting:
        if camera.newest is None:
            continue
        is_live_due = (
            bool(camera.tracks)
            and camera.newest.index > camera.served_index
            and turn.at_ns >= camera.served_at_ns + _least_interval_ns(turn)
        )
        if is_live_due and camera.catch_ups and camera.branch_credit >= 1:
            _begin_catch_up(turn, camera, camera.newest)
            return
        if is_live_due and camera.branch_credit >= 1 and _begin_observing(turn, camera):
            return
        if is_live_due:
            _begin_live(turn, camera, camera.newest)
            return
    for camera in waiting:
        if camera.catch_ups and camera.newest is not None:
            _begin_catch_up(turn, camera, camera.newest)
            return
    if any(observing.may_step(turn, c) and _begin_observing(turn, c) for c in waiting):
        return
    for camera in waiting:
        if may_tidy and camera.chores and camera.newest is not None:
            _begin(turn, camera, camera.newest, JobKind.CHORES, ())
            return


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
    if running.arrival is not None:
        match_arrival(turn, running, final)
    if running.kind is JobKind.JOIN and running.catch_up is not None:
        _join(turn, camera.camera, running.catch_up, event.results[-3], event.results[-2])
    _update(turn, running.frame, final)
    _publish(turn, running.frame, running.job.id)


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
    if running.arrival is not None:
        drop_begun_rows(turn, running)
        asking.resolve_arrival(
            turn, running.arrival, (), failure=event.reason, is_evicted=event.is_evicted
        )


def add_objects(turn: Turn, event: ObjectsAdded) -> None:
    """A user's prompts, on the newest, a past, or (where a file is played) the next frame."""
    camera = turn.state.cameras.get(event.camera)
    problem = _problem_with(turn, event, camera)
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
    running = turn.state.running
    void_running_arrival(turn)
    on_the_way = (*turn.state.arrivals, *(() if running is None else (running.arrival,)))
    turn.set(arrivals=())
    for arrival in on_the_way:
        if arrival is not None:
            asking.resolve_arrival(turn, arrival, (), failure="tracks were reset")
    turn.set(
        queries=tuple(
            replace(q, due_ns=min(q.due_ns, turn.at_ns)) if q.query.period_s else q
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


def _begin(
    turn: Turn,
    camera: CameraState,
    frame: FrameRef,
    kind: JobKind,
    steps: tuple[JobStep, ...],
    arrival: Arrival | None = None,
    catch_up: CatchUp | None = None,
    new_catch_ups: tuple[CatchUp, ...] = (),
) -> RunningJob:
    job_id = JobId(turn.state.next_job)
    job = TrackerJob(id=job_id, camera=camera.camera, steps=(*camera.chores, *steps))
    running = RunningJob(
        job=job,
        kind=kind,
        frame=frame,
        arrival=arrival,
        catch_up=catch_up,
        new_catch_ups=new_catch_ups,
    )
    turn.set_camera(camera.camera, chores=())
    turn.set(next_job=job_id + 1, running=running)
    turn.emit(RunTracker(job=job))
    return running


def _begin_live(turn: Turn, camera: CameraState, frame: FrameRef) -> None:
    _mark_served(turn, frame)
    keys = tuple(track.key for track in camera.tracks)
    steps = (TrackStep(frame_index=frame.index, keys=keys),)
    _begin(turn, turn.camera(camera.camera), frame, JobKind.LIVE, steps)


def _begin_hop(turn: Turn, camera: CameraState, frame: FrameRef, arrival: Arrival) -> None:
    _mark_served(turn, frame)
    camera = turn.camera(camera.camera)
    steps, catch_ups = steps_of_arrival(turn, camera, frame, arrival)
    _begin(turn, camera, frame, JobKind.HOP, steps, arrival=arrival, new_catch_ups=catch_ups)


def _begin_catch_up(turn: Turn, camera: CameraState, frame: FrameRef) -> None:
    branch = camera.catch_ups[0]
    turn.set_camera(camera.camera, branch_credit=max(0.0, camera.branch_credit - 1))
    if branch.joins_at(frame.index):
        _mark_served(turn, frame)
        camera = turn.camera(camera.camera)
        hopped = next(t for t in camera.tracks if t.object_id == branch.object_id)
        together = TrackStep(frame_index=frame.index, keys=tuple(t.key for t in camera.tracks))
        steps: tuple[JobStep, ...] = (
            TrackStep(frame_index=frame.index, keys=(branch.branch,)),
            together,  # to compare with; what is published comes after the promotion
            PromoteStep(source=branch.branch, target=hopped.key),
            together,
        )
        _begin(turn, camera, frame, JobKind.JOIN, steps, catch_up=branch)
        return
    index = branch.next_index(camera.oldest_index, frame.index)
    turn.count("catch_up_frames_evicted", max(0, index - branch.position - branch.stride))
    step = TrackStep(frame_index=index, keys=(branch.branch,))
    moved = replace(branch, position=index)
    _begin(turn, turn.camera(camera.camera), frame, JobKind.CATCH_UP, (step,), catch_up=moved)


def _begin_observing(turn: Turn, camera: CameraState) -> bool:
    """One step through the window of an answer, if one is to be segmented."""
    followed = observing.waiting_on(turn, camera)
    if followed is None or followed.observation is None or camera.newest is None:
        return False
    newest, steps = camera.newest, followed.observation.jobs[0]
    credit = max(0.0, camera.branch_credit - 1)
    camera = turn.set_camera(camera.camera, branch_credit=credit)
    running = _begin(turn, camera, newest, JobKind.OBSERVE, steps)
    turn.set(running=replace(running, observed=followed.ask_id))
    return True


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
                query_id, max(twin.answered_stamp_ns, track.answered_stamp_ns)
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
        asking.ask_again(turn, lost)
    following.watch(turn, frame)


def _is_held(turn: Turn) -> bool:
    return turn.state.ladder.rung >= Rung.HELD_MASKS


def _least_interval_ns(turn: Turn) -> float:
    """Between two live steps; 0 unless the tracker is to be slower."""
    if turn.state.ladder.rung < Rung.SLOWER_TRACKER:
        return 0.0
    return NS / turn.state.config.degradation.tracker_hz


def _publish(turn: Turn, frame: FrameRef, job_id: JobId | None) -> None:
    camera = turn.camera(frame.camera)
    if frame.index <= camera.published_index:
        return
    turn.set_camera(frame.camera, published_index=int(frame.index))
    tracker = turn.state.config.tracker
    tracks = [t.published(frame, tracker) for t in camera.tracks if t.last is not None]
    tracks.sort(key=lambda track: track.index)
    if job_id is None:
        tracks = [_as_held(track) for track in tracks]
    turn.count("masks_out")
    turn.emit(PublishMasks(frame=frame, job_id=job_id, tracks=tuple(tracks)))


def _as_held(track: Track) -> Track:
    """An old mask under a new frame is never sure."""
    if track.state is TrackState.TRACKED:
        return replace(track, state=TrackState.UNCERTAIN)
    return track


def _mark_served(turn: Turn, frame: FrameRef) -> None:
    camera = turn.camera(frame.camera)
    skipped = int(frame.index) - camera.served_index - 1
    if skipped > 0:
        turn.count(f"dropped_{DropCause.TRACKER_BUSY.value}", skipped)
    index = max(int(frame.index), camera.served_index)
    turn.set_camera(frame.camera, served_index=index, served_at_ns=turn.at_ns)


def _overlap(a: TrackedObject, b: TrackedObject) -> float:
    if (a.mask.height, a.mask.width) != (b.mask.height, b.mask.width):
        return 0.0
    return rle_iou(a.mask, b.mask)
