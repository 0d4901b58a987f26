# SPDX-License-Identifier: Apache-2.0
"""Arrivals: prompts on a keyframe that hop to the newest frame and meet the tracks that run.

Those that wait with prompts on one keyframe hop together, in one job. The same object: the track goes on untouched. A new object: a new track, with a branch that
catches up where one can arrive.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreseg.dialogue import QueryId
from foreseg.frames import FrameRef
from foreseg.masks import rle_iou
from foreseg.pipeline import asking
from foreseg.pipeline.catch_up import BRANCH_MARK, CatchUp, plan_catch_up
from foreseg.pipeline.events import DropStep, ForkStep, JobStep, PromptStep, StepResult, TrackStep
from foreseg.pipeline.roster import drop_tracks, leave_out, spare_tracks
from foreseg.pipeline.state import Arrival, CameraState, RunningJob
from foreseg.pipeline.tracks import NS, LiveTrack
from foreseg.pipeline.turn import Turn
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackedObject, TrackKey

DOUBT_SHARE = 0.5  # of `match_iou`: from there on an answer may still mean the query's own track


def key_of(camera: CameraState, object_id: ObjectId) -> TrackKey:
    """The row of an object: its track's, or the one it would get."""
    known = next((t.key for t in camera.tracks if t.object_id == object_id), None)
    return TrackKey(object_id) if known is None else known


def hop_together(turn: Turn, first: Arrival) -> tuple[Arrival, ...]:
    """An arrival with those that wait behind it and can share its job: on the same keyframe.

    No object twice, and no more new ones than there may be tracks.
    """
    group = [first]
    known = {track.object_id for track in turn.camera(first.camera).tracks}
    ids = set(first.object_ids)
    for arrival in turn.state.arrivals:
        is_other = arrival.camera != first.camera or arrival.keyframe_index != first.keyframe_index
        if is_other or arrival is first:
            continue
        is_fit = not (first.is_alone or arrival.is_alone or ids.intersection(arrival.object_ids))
        ids |= set(arrival.object_ids)
        if not is_fit or len(ids - known) > turn.state.config.tracker.max_tracks:
            break  # whoever waits behind it goes on waiting behind it
        group.append(arrival)
    return tuple(group)


def steps_of_arrivals(
    turn: Turn, camera: CameraState, frame: FrameRef, arrivals: Sequence[Arrival]
) -> tuple[tuple[JobStep, ...], tuple[CatchUp, ...]]:
    """Prompt at the keyframe and beside it, fork what shall catch up, then step all rows to `frame`."""
    known = {track.object_id for track in camera.tracks}
    prompts = {
        object_id: arrival.prompted_on(object_id)
        for arrival in arrivals
        for object_id in arrival.object_ids
    }
    steps: list[JobStep] = []
    catch_ups: list[CatchUp] = []
    new_keys: list[TrackKey] = []
    num_new = len(prompts.keys() - known)
    num_rows = len(camera.tracks) + len(camera.catch_ups) + num_new
    num_free = turn.state.config.tracker.max_rows - 1 - num_rows  # one is for observed windows
    for object_id, prompted in prompts.items():
        key = key_of(camera, object_id)
        steps += (PromptStep(frame_index=i, key=key, prompt=prompt) for i, prompt in prompted)
        if object_id in known:
            continue
        new_keys.append(key)
        last_index = prompted[-1][0]
        if frame.index > last_index and len(catch_ups) < num_free:
            branch = TrackKey(f"{key}{BRANCH_MARK}{turn.state.next_job}")
            steps.append(ForkStep(source=key, target=branch))
            catch_ups.append(
                CatchUp(
                    object_id=object_id,
                    branch=branch,
                    position=last_index,
                    stride=0,  # planned after the hop, with the speed that it measured
                    started_ns=turn.at_ns,
                    began_index=last_index,
                )
            )
    keys = (*(track.key for track in camera.tracks), *new_keys)
    steps.append(TrackStep(frame_index=frame.index, keys=keys))
    return tuple(steps), tuple(catch_ups)


def match_arrivals(turn: Turn, running: RunningJob, final: StepResult) -> None:
    """Decide, on the newest frame, which targets are tracks already; start tracks for the rest."""
    if not running.arrivals:
        return
    running = _with_stride(turn, running)
    results = {result.key: result for result in final.objects}
    for arrival in running.arrivals:
        _match_arrival(turn, running, arrival, results)


def _match_arrival(
    turn: Turn, running: RunningJob, arrival: Arrival, results: dict[TrackKey, TrackedObject]
) -> None:
    before = turn.camera(arrival.camera).tracks
    met = [
        _meet(turn, running, arrival, object_id, results, before)
        for object_id in arrival.object_ids
    ]
    named = tuple(track.object_id for track in met if track is not None)
    labels = tuple(track.index for track in met if track is not None)
    if arrival.query_id is not None:
        leave_out(turn, arrival.camera, arrival.query_id, frozenset(named))
    turn.set(hop_s=max(0, running.frame.stamp_ns - arrival.keyframe_stamp_ns) / NS)
    asking.resolve_arrival(turn, arrival, named, labels=labels)


def _meet(
    turn: Turn,
    running: RunningJob,
    arrival: Arrival,
    object_id: ObjectId,
    results: dict[TrackKey, TrackedObject],
    before: tuple[LiveTrack, ...],
) -> LiveTrack | None:
    """The track that a target is or becomes; None if there is none."""
    camera = turn.camera(arrival.camera)
    known = next((t for t in camera.tracks if t.object_id == object_id), None)
    if known is None:
        result = results.get(TrackKey(object_id))
        if result is None or DropStep(key=result.key) in camera.chores:
            return None  # its track was dropped while the job ran
        known, is_sure = _twin(turn, before, results, result, arrival.query_id)
        if known is None:
            return _start_track(turn, running, arrival, object_id, result)
        turn.count("answers_matched" if is_sure else "answers_doubted")
        _discard_row(turn, running, object_id)
        camera = turn.camera(arrival.camera)
        if not is_sure:
            _swap(turn, camera, known, known.doubted_by(arrival.query_id))
            return known
    answered = min(arrival.keyframe_stamp_ns, running.frame.stamp_ns)
    stamp = max(known.answered_stamp_ns, answered)
    is_seen_now = arrival.last_index == running.frame.index
    changed = replace(
        known.named_by(arrival.query_id, stamp, turn.state.query_ids),
        by_user=known.by_user or arrival.query_id is None,
        # another answer that leads to the same mask, or a prompt on this very frame
        confirmed=known.confirmed or arrival.query_id is not None or is_seen_now,
    )
    _swap(turn, camera, known, changed)
    return changed


def _with_stride(turn: Turn, running: RunningJob) -> RunningJob:
    """With branches that can arrive; if none can, they are dropped and the hop has to do."""
    camera = turn.camera(running.job.camera)
    if not running.new_catch_ups or camera.newest is None:
        return running
    backlog = int(camera.newest.index) - min(int(c.began_index) for c in running.new_catch_ups)
    num_branches = len(camera.catch_ups) + len(running.new_catch_ups)
    plan = plan_catch_up(backlog, camera.rates, turn.state.config.catch_up, num_branches)
    turn.count("catch_ups_planned" if plan else "catch_ups_impossible")
    if plan is not None:
        branches = tuple(replace(c, stride=plan.stride) for c in running.new_catch_ups)
        return replace(running, new_catch_ups=branches)
    drops = tuple(DropStep(key=c.branch) for c in running.new_catch_ups)
    turn.set_camera(camera.camera, chores=(*camera.chores, *drops))
    return replace(running, new_catch_ups=())


def _twin(
    turn: Turn,
    tracks: tuple[LiveTrack, ...],
    results: dict[TrackKey, TrackedObject],
    result: TrackedObject,
    query_id: QueryId | None,
) -> tuple[LiveTrack | None, bool]:
    """The running track that is the same object on this frame, and whether that is sure.

    Sure from `match_iou` on. The query's own track is given the benefit of the doubt down to
    half of that, but not `answers_to_let_go` times in a row: masks whose overlap jitters about
    the threshold keep their id, and an answer that goes on disagreeing gets a track of its own.
    """
    if query_id is None or result.object_logit <= 0:
        return None, False
    scheduler = turn.state.config.scheduler
    alive = {t.object_id: t for c in turn.state.cameras.values() for t in c.tracks}
    scored = [
        (rle_iou(result.mask, results[t.key].mask), alive[t.object_id])
        for t in tracks
        if t.key in results and t.object_id in alive and results[t.key].object_logit > 0
    ]
    iou, best = max(scored, key=lambda item: item[0], default=(0.0, None))
    if best is not None and iou >= scheduler.match_iou:
        return best, True
    own = (item for item in scored if query_id in item[1].query_ids)
    iou, best = max(own, key=lambda item: item[0], default=(0.0, None))
    is_near = iou >= DOUBT_SHARE * scheduler.match_iou and iou > 0
    if best is None or not is_near or best.misses_of(query_id) + 1 >= scheduler.answers_to_let_go:
        return None, False
    return best, False


def _start_track(
    turn: Turn, running: RunningJob, arrival: Arrival, object_id: ObjectId, result: TrackedObject
) -> LiveTrack | None:
    _make_room(turn, arrival)
    camera = turn.camera(arrival.camera)
    taken = camera.labels.taken(1, turn.at_ns)
    if taken is None or len(camera.tracks) >= turn.state.config.tracker.max_tracks:
        turn.count("tracks_refused")
        _discard_row(turn, running, object_id)
        return None
    pool, (label,) = taken
    is_past = running.frame.index > arrival.last_index
    branch = tuple(c for c in running.new_catch_ups if c.object_id == object_id)
    answered = min(arrival.keyframe_stamp_ns, running.frame.stamp_ns)
    seen = running.frame.stamp_ns if result.object_logit > 0 else answered
    track = LiveTrack(
        object_id=object_id,
        key=result.key,
        index=label,
        answered_stamp_ns=answered,
        seen_stamp_ns=seen,
        query_ids=() if arrival.query_id is None else (arrival.query_id,),
        by_user=arrival.query_id is None,
        confirmed=not is_past,
        catching_up=bool(branch),
        last=result,
    )
    turn.set_camera(
        camera.camera,
        labels=pool,
        tracks=(*camera.tracks, track),
        catch_ups=(*camera.catch_ups, *branch),
    )
    return track


def _make_room(turn: Turn, arrival: Arrival) -> None:
    """Where all tracks are taken, the longest unseen one that no standing query wants goes."""
    camera = turn.camera(arrival.camera)
    if len(camera.tracks) < turn.state.config.tracker.max_tracks:
        return
    spare = spare_tracks(turn, camera, arrival.query_id)
    if spare:
        victim = min(spare, key=lambda t: (t.seen_stamp_ns, t.answered_stamp_ns, t.index))
        turn.count("tracks_replaced")
        drop_tracks(turn, camera, (victim,))


def _discard_row(turn: Turn, running: RunningJob, object_id: ObjectId) -> None:
    keys = [TrackKey(object_id)]
    keys += [c.branch for c in running.new_catch_ups if c.object_id == object_id]
    camera = turn.camera(running.job.camera)
    turn.set_camera(camera.camera, chores=(*camera.chores, *(DropStep(key=key) for key in keys)))


def _swap(turn: Turn, camera: CameraState, old: LiveTrack, new: LiveTrack) -> None:
    tracks = tuple(new if t.object_id == old.object_id else t for t in camera.tracks)
    turn.set_camera(camera.camera, tracks=tracks)
