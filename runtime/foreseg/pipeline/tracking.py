# SPDX-License-Identifier: Apache-2.0
"""Which job the tracker runs next: always on the newest frame, never from a queue.

A late answer hops from its keyframe to the newest frame in one memory step; a branch of it catches
up through the ring beside the live tracks. What a job's results mean is in `results`.
"""

from __future__ import annotations

from dataclasses import replace

from foreseg.frames import FrameRef
from foreseg.pipeline import observing
from foreseg.pipeline.arrivals import hop_together, steps_of_arrivals
from foreseg.pipeline.catch_up import CatchUp
from foreseg.pipeline.degradation import Rung
from foreseg.pipeline.events import JobId, JobStep, PromoteStep, RunTracker, TrackerJob, TrackStep
from foreseg.pipeline.publishing import is_held, mark_served
from foreseg.pipeline.state import Arrival, CameraState, JobKind, RunningJob
from foreseg.pipeline.tracks import NS
from foreseg.pipeline.turn import Turn


def begin_next_job(turn: Turn, *, may_tidy: bool) -> None:
    """Give the tracker its next job, if it is idle and there is one.

    Args:
        turn: the step.
        may_tidy: begin a job of chores alone; not right after a failure, or a tracker that
            fails in them would be asked again at once and for ever.
    """
    state = turn.state
    if state.running is not None or not state.enabled or is_held(turn):
        return
    for arrival in state.arrivals:
        camera = turn.camera(arrival.camera)
        if camera.newest is not None and arrival.last_index <= camera.newest.index:
            _begin_hop(turn, camera, camera.newest, hop_together(turn, arrival))
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


def _begin(
    turn: Turn,
    camera: CameraState,
    frame: FrameRef,
    kind: JobKind,
    steps: tuple[JobStep, ...],
    arrivals: tuple[Arrival, ...] = (),
    catch_up: CatchUp | None = None,
    new_catch_ups: tuple[CatchUp, ...] = (),
) -> RunningJob:
    job_id = JobId(turn.state.next_job)
    job = TrackerJob(id=job_id, camera=camera.camera, steps=(*camera.chores, *steps))
    running = RunningJob(
        job=job,
        kind=kind,
        frame=frame,
        arrivals=arrivals,
        catch_up=catch_up,
        new_catch_ups=new_catch_ups,
    )
    turn.set_camera(camera.camera, chores=())
    turn.set(next_job=job_id + 1, running=running)
    turn.emit(RunTracker(job=job))
    return running


def _begin_live(turn: Turn, camera: CameraState, frame: FrameRef) -> None:
    mark_served(turn, frame)
    keys = tuple(track.key for track in camera.tracks)
    steps = (TrackStep(frame_index=frame.index, keys=keys),)
    _begin(turn, turn.camera(camera.camera), frame, JobKind.LIVE, steps)


def _begin_hop(
    turn: Turn, camera: CameraState, frame: FrameRef, arrivals: tuple[Arrival, ...]
) -> None:
    turn.set(arrivals=tuple(a for a in turn.state.arrivals if a not in arrivals))
    mark_served(turn, frame)
    camera = turn.camera(camera.camera)
    steps, catch_ups = steps_of_arrivals(turn, camera, frame, arrivals)
    _begin(turn, camera, frame, JobKind.HOP, steps, arrivals=arrivals, new_catch_ups=catch_ups)


def _begin_catch_up(turn: Turn, camera: CameraState, frame: FrameRef) -> None:
    branch = camera.catch_ups[0]
    turn.set_camera(camera.camera, branch_credit=max(0.0, camera.branch_credit - 1))
    if branch.joins_at(frame.index):
        mark_served(turn, frame)
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


def _least_interval_ns(turn: Turn) -> float:
    """Between two live steps; 0 unless the tracker is to be slower."""
    if turn.state.ladder.rung < Rung.SLOWER_TRACKER:
        return 0.0
    return NS / turn.state.config.degradation.tracker_hz
