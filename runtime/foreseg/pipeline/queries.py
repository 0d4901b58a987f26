# SPDX-License-Identifier: Apache-2.0
"""Queries that come, go and wait: what is on its way for one that goes is withdrawn.

Which of them is due is in `scheduler`, how one is asked in `asking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreseg.dialogue import Answer, AnswerStatus, Query, QueryId
from foreseg.frames import CameraId
from foreseg.pipeline import following, scheduler
from foreseg.pipeline.asking import draft, empty_answer
from foreseg.pipeline.events import CancelAsk, QueryAdded, QueryRemoved, Reply, SceneMeasured
from foreseg.pipeline.roster import leave_out, void_running_arrivals
from foreseg.pipeline.state import StandingQuery
from foreseg.pipeline.turn import Turn


def add_query(turn: Turn, event: QueryAdded) -> None:
    """Take a query, or refuse it with the reason."""
    state, query = turn.state, event.query
    problem = scheduler.refusal(query, state.queries, state.config.scheduler, state.reasoner_s)
    if query.camera not in state.cameras:
        known = ", ".join(sorted(state.cameras))
        problem = f"no camera {query.camera!r}; cameras are {known}"
    if problem is not None:
        turn.count("requests_refused")
        turn.reply(event.request_id, success=False, message=problem)
        return
    old = scheduler.find(state.queries, query.id)
    if old is not None:
        _supersede(turn, old, "the query was changed before its answer came")
    wants = event.request_id if event.wants_answer else None
    turn.set(
        queries=scheduler.added(
            turn.state.queries, query, turn.at_ns, request_id=wants, timeout_s=event.timeout_s
        )
    )
    turn.count("queries_added")
    if not event.wants_answer:
        turn.emit(Reply(request_id=event.request_id, success=True, query_id=query.id))


def remove_query(turn: Turn, event: QueryRemoved) -> None:
    """Forget a query; tracks that only it wanted go too."""
    entry = scheduler.find(turn.state.queries, event.query_id)
    if entry is None:
        known = ", ".join(sorted(q.query.id for q in turn.state.queries)) or "none"
        turn.count("requests_refused")
        message = f"no query {event.query_id!r} stands; standing are {known}"
        turn.reply(event.request_id, success=False, message=message)
        return
    _supersede(turn, entry, "the query was removed before its answer came")
    turn.set(queries=scheduler.without(turn.state.queries, event.query_id))
    forget_query(turn, event.query_id)
    turn.emit(Reply(request_id=event.request_id, success=True, query_id=event.query_id))


def forget_query(turn: Turn, query_id: QueryId) -> None:
    """Unlink a removed query from all tracks at once; those without any other go."""
    limit = turn.state.config.scheduler.answers_to_let_go
    for camera_id in turn.state.cameras:
        for _ in range(limit):
            leave_out(turn, camera_id, query_id, frozenset())


def begin_anew(turn: Turn, camera_id: CameraId, reason: str) -> None:
    """The sensor's time has begun anew: no answer of this camera comes from before to after it.

    To be called while the newest frame is still the last one before. What is on its way is
    published as STALE; standing queries are asked again, of the new stream.
    """
    following.judge_none(turn, camera_id, reason)
    asking = turn.state.asking
    if asking is not None and asking.query.camera == camera_id and asking.is_answered:
        turn.emit(CancelAsk(ask_id=asking.ask_id))  # its rationale will not be whole
        turn.set(asking=None)
    for entry in turn.state.queries:
        query = entry.query
        if query.camera != camera_id:
            continue
        followed = following.observed_of(turn, query.id)
        if followed is not None:
            following.end_observation(turn, followed, reason)
        answer = _on_its_way(turn, query)
        if answer is None:
            continue
        _withdraw(turn, query.id)
        turn.count("answers_stale")
        following.deliver(turn, replace(answer, status=AnswerStatus.STALE, reason=reason))
        turn.set(queries=scheduler.due_now(turn.state.queries, query.id, turn.at_ns))


def _on_its_way(turn: Turn, query: Query) -> Answer | None:
    """What is known of the answer that a query waits for; None if it is not under way."""
    asking = turn.state.asking
    if asking is not None and asking.query.id == query.id:
        begun = draft(turn, asking, AnswerStatus.STALE)
        return replace(begun, rationale=asking.rationale)
    running = () if turn.state.running is None else turn.state.running.arrivals
    return next(
        (
            arrival.answer
            for arrival in (*turn.state.arrivals, *running)
            if arrival.query_id == query.id and arrival.answer is not None
        ),
        None,
    )


def check_deadlines(turn: Turn) -> None:
    """Answer users who have waited for as long as they would."""
    for entry in turn.state.queries:
        if entry.deadline_ns is None or turn.at_ns < entry.deadline_ns:
            continue
        turn.count("requests_timed_out")
        followed = following.observed_of(turn, entry.query.id)
        if followed is not None:
            following.end_observation(turn, followed, "there was no time left for it")
            continue
        waited = "no answer in time"
        if not turn.state.reasoner_up:
            waited += f"; the reasoner is down: {turn.state.reasoner_reason}"
        answer = empty_answer(entry.query, AnswerStatus.FAILED, waited)
        asking = turn.state.asking
        if asking is not None and asking.query.id == entry.query.id:
            begun = draft(turn, asking, AnswerStatus.FAILED)
            answer = replace(begun, reason=waited, rationale=asking.rationale)
        _withdraw(turn, entry.query.id)
        turn.count("answers_failed")
        following.deliver(turn, answer)


def ask_again(turn: Turn, query_ids: Sequence[QueryId]) -> None:
    """A target was lost, or the scene has changed: its standing queries are due early."""
    pause_s = turn.state.config.scheduler.reask_pause_s
    turn.set(
        queries=scheduler.due_early(turn.state.queries, query_ids, turn.at_ns, pause_s),
    )


def take_scene(turn: Turn, event: SceneMeasured) -> None:
    """A scene that has changed since a query was asked makes it due early."""
    limit = turn.state.config.scheduler.scene_change
    changed = [change.query_id for change in event.changes if change.share > limit]
    due_before = {e.query.id: e.due_ns for e in turn.state.queries}
    ask_again(turn, changed)
    moved = [e for e in turn.state.queries if e.due_ns < due_before[e.query.id]]
    turn.count("asked_early_scene_changed", len(moved))


def _withdraw(turn: Turn, query_id: QueryId) -> bool:
    """Stop what is on its way for a query: its question, and its arrivals; True if there was.

    What its earlier answers come to is not followed any more either.
    """
    following.abandon(turn, query_id)
    asking = turn.state.asking
    is_asked = asking is not None and asking.query.id == query_id
    if asking is not None and is_asked:
        turn.emit(CancelAsk(ask_id=asking.ask_id))
        turn.set(asking=None)
    rest = tuple(a for a in turn.state.arrivals if a.query_id != query_id)
    is_waiting = len(rest) < len(turn.state.arrivals)
    turn.set(arrivals=rest)
    is_hopping = bool(void_running_arrivals(turn, query_id))
    return is_asked or is_waiting or is_hopping


def _supersede(turn: Turn, entry: StandingQuery, reason: str) -> None:
    """A query is no longer current: what is on its way for it is stale."""
    if _withdraw(turn, entry.query.id):
        turn.count("answers_stale")
    if entry.request_id is not None:
        answer = empty_answer(entry.query, AnswerStatus.STALE, reason)
        turn.emit(Reply(request_id=entry.request_id, success=False, message=reason, answer=answer))
