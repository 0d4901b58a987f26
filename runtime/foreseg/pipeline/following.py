# SPDX-License-Identifier: Apache-2.0
"""Answers on their way out, and what becomes of them afterwards: hindsight and observed masks.

An answer is delivered once: published, and the request that waits for it completed. What is known
only later is published again under the same query and keyframe. Does not know how a window is
segmented, only that it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from foreseg.dialogue import Answer, AnswerStatus, Outcome, QueryId
from foreseg.frames import CameraId, FrameRef
from foreseg.pipeline import scheduler
from foreseg.pipeline.events import AskId, DropStep, PublishAnswer, Reply
from foreseg.pipeline.hindsight import Sighting, Watched, claim_from_text, judged, watched_on
from foreseg.pipeline.state import Followed, Observation
from foreseg.pipeline.tracks import LiveTrack, TrackState
from foreseg.pipeline.turn import Turn
from foreseg.prompts import ObjectId

MAX_FOLLOWED = 64  # answers whose horizon has not passed; the oldest is let go, and counted


def deliver(turn: Turn, answer: Answer, ask_id: AskId | None = None) -> None:
    """Publish an answer, and complete who waits for it unless its window is yet to be segmented."""
    turn.emit(PublishAnswer(answer=answer))
    followed = _find(turn, ask_id)
    if followed is None or followed.observation is None:
        _complete(turn, answer)


def follow(turn: Turn, answer: Answer, ask_id: AskId, observation: Observation | None) -> None:
    """An answer has found targets: watch them until its horizon, and segment its window.

    An earlier window of the same query is not segmented any further.
    """
    newest = turn.camera(answer.camera).newest
    ids = dict.fromkeys(answer.object_ids)
    watched = tuple(Watched(object_id=object_id) for object_id in ids)
    entry = Followed(
        ask_id=ask_id,
        answer=answer,
        size_wh=(0, 0) if newest is None else newest.size_wh,
        watched=watched if answer.valid_until_stamp_ns else None,
        observation=observation,
    )
    for other in turn.state.followed:
        if other.answer.query_id == answer.query_id and other.observation is not None:
            turn.count("observations_superseded")
            _stop_observing(turn, other)
    _put(turn, entry)
    foretold = [f for f in turn.state.followed if f.watched is not None]
    if len(foretold) > MAX_FOLLOWED:
        turn.count("foresights_let_go")
        _put(turn, replace(foretold[0], watched=None))


def amend(turn: Turn, ask_id: AskId, rationale: str, tokens: int) -> None:
    """The completion of a followed answer has ended."""
    followed = _find(turn, ask_id)
    if followed is not None:
        whole = replace(followed.answer, rationale=rationale, tokens=tokens)
        _put(turn, replace(followed, answer=whole))


def abandon(turn: Turn, query_id: QueryId) -> None:
    """A query is no longer current: what became of its answers is not wanted any more."""
    for followed in turn.state.followed:
        if followed.answer.query_id == query_id:
            _stop_observing(turn, replace(followed, watched=None))


def watch(turn: Turn, frame: FrameRef) -> None:
    """The tracks have a frame's results: note what they show of the targets."""
    pending = [
        f
        for f in turn.state.followed
        if f.watched is not None
        and f.answer.camera == frame.camera
        and f.size_wh == frame.size_wh
        and frame.stamp_ns <= f.answer.valid_until_stamp_ns
    ]
    if not pending:
        return
    shown = _shown(turn, frame)
    for followed in pending:
        watched = tuple(_watched_on(w, shown, frame) for w in followed.watched or ())
        _put(turn, replace(followed, watched=watched))


def judge_due(turn: Turn, camera_id: CameraId, stamp_ns: int) -> None:
    """The sensor's time is this: judge the answers whose horizon has passed."""
    alive = frozenset(track.object_id for track in turn.camera(camera_id).tracks)
    for followed in turn.state.followed:
        answer = followed.answer
        if followed.watched is None or answer.camera != camera_id:
            continue
        if stamp_ns <= answer.valid_until_stamp_ns:
            continue
        if answer.answered_stamp_ns >= answer.valid_until_stamp_ns:
            outcome, reason = Outcome.UNKNOWN, "the answer came after its horizon"
        else:
            outcome, reason = judged(
                claim_from_text(answer.query_text),
                followed.watched,
                alive=alive,
                begin_ns=answer.keyframe_stamp_ns,
                end_ns=answer.valid_until_stamp_ns,
                size_wh=followed.size_wh,
            )
        _close(turn, followed, outcome, reason)


def judge_none(turn: Turn, camera_id: CameraId, reason: str) -> None:
    """The sensor's time has begun anew: no horizon of this camera will ever pass."""
    for followed in turn.state.followed:
        if followed.watched is not None and followed.answer.camera == camera_id:
            _close(turn, followed, Outcome.UNKNOWN, reason)


def observed_of(turn: Turn, query_id: QueryId) -> Followed | None:
    """The answer of a query whose window is being segmented."""
    return next(
        (
            f
            for f in turn.state.followed
            if f.observation is not None and f.answer.query_id == query_id
        ),
        None,
    )


def advance_observation(turn: Turn, ask_id: AskId, observation: Observation) -> None:
    """Some more of a window is segmented; publish it when it is whole."""
    followed = _find(turn, ask_id)
    if followed is None or followed.observation is None:
        return  # it is not wanted any more
    followed = replace(followed, observation=observation)
    _put(turn, followed)
    if not observation.jobs:
        turn.count("windows_observed")
        end_observation(turn, followed)


def end_observation(turn: Turn, followed: Followed, failure: str = "") -> None:
    """Publish an answer again with the masks of its window, or with why there are none."""
    if followed.observation is None:
        return
    answer, masks = followed.answer, followed.observation.masks
    if failure:
        turn.count("observations_failed")
        answer = replace(answer, reason=f"the window was not segmented: {failure}")
        masks = ()
    _stop_observing(turn, replace(followed, answer=answer))
    whole = replace(answer, observed=masks)
    _publish_again(turn, followed.ask_id, whole)
    _complete(turn, whole)


def _complete(turn: Turn, answer: Answer) -> None:
    """Complete who waits for an answer, and let a single query go."""
    entry = scheduler.find(turn.state.queries, answer.query_id)
    if entry is None:
        return
    if entry.request_id is not None:
        turn.emit(
            Reply(
                request_id=entry.request_id,
                success=answer.status in (AnswerStatus.OK, AnswerStatus.NO_TARGET),
                message=answer.reason,
                query_id=answer.query_id,
                answer=answer,
            )
        )
    if entry.query.period_s > 0:
        kept = replace(entry, request_id=None, deadline_ns=None)
        turn.set(queries=tuple(kept if e is entry else e for e in turn.state.queries))
    else:
        turn.set(queries=scheduler.without(turn.state.queries, answer.query_id))


def _close(turn: Turn, followed: Followed, outcome: Outcome, reason: str) -> None:
    turn.count(f"foresights_{outcome.name.lower()}")
    answer = replace(followed.answer, outcome=outcome, reason=reason)
    _put(turn, replace(followed, answer=answer, watched=None))
    _publish_again(turn, followed.ask_id, answer)


def _publish_again(turn: Turn, ask_id: AskId, answer: Answer) -> None:
    turn.emit(PublishAnswer(answer=answer))
    asking = turn.state.asking
    if asking is not None and asking.ask_id == ask_id:  # its rationale is not whole yet
        turn.set(asking=replace(asking, answer=replace(answer, observed=())))


def _stop_observing(turn: Turn, followed: Followed) -> None:
    if followed.observation is not None:
        camera = turn.camera(followed.answer.camera)
        drop = DropStep(key=followed.observation.key)
        turn.set_camera(camera.camera, chores=(*camera.chores, drop))
    _put(turn, replace(followed, observation=None))


def _find(turn: Turn, ask_id: AskId | None) -> Followed | None:
    return next((f for f in turn.state.followed if f.ask_id == ask_id), None)


def _put(turn: Turn, entry: Followed) -> None:
    """In place of what was known of it, or as the newest; gone when nothing is left to know."""
    entries = {f.ask_id: f for f in turn.state.followed}
    entries[entry.ask_id] = entry
    turn.set(
        followed=tuple(
            f for f in entries.values() if f.watched is not None or f.observation is not None
        )
    )


def _shown(turn: Turn, frame: FrameRef) -> Mapping[ObjectId, Sighting]:
    """The tracks that say something for sure on a frame."""
    config = turn.state.config.tracker
    shown = {}
    for track in turn.camera(frame.camera).tracks:
        state = track.state(frame.stamp_ns, config)
        if track.confirmed and (state is not TrackState.UNCERTAIN or _is_empty(track)):
            last = track.last
            box = None if last is None else last.box
            mask = None if last is None else last.mask
            shown[track.object_id] = Sighting(box=box, mask=mask)
    return shown


def _is_empty(track: LiveTrack) -> bool:
    return track.last is None or track.last.box is None


def _watched_on(watched: Watched, shown: Mapping[ObjectId, Sighting], frame: FrameRef) -> Watched:
    sighting = shown.get(watched.object_id)
    if sighting is None:
        return watched
    others = {i: other for i, other in shown.items() if i != watched.object_id}
    return watched_on(watched, sighting, others, stamp_ns=frame.stamp_ns, size_wh=frame.size_wh)
