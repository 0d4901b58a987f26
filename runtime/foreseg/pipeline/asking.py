# SPDX-License-Identifier: Apache-2.0
"""The reasoner's side of a step: one question at a time is asked.

The parts of its answer turn into an arrival, into "no target", or into a failure with a reason.
"""

from __future__ import annotations

from dataclasses import replace

from foreseg.dialogue import (
    VERDICTS,
    Abstained,
    Answer,
    AnswerDone,
    AnswerFailed,
    AnswerStatus,
    NoTarget,
    Query,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import InputError
from foreseg.frames import FrameRef
from foreseg.pipeline import following, observing, scheduler
from foreseg.pipeline.degradation import Rung
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskId,
    AskReasoner,
    CancelAsk,
    ConditioningPrompt,
    PublishAnswer,
    ReasonerChanged,
    ReleaseWindow,
    Reply,
    WindowTaken,
)
from foreseg.pipeline.roster import leave_out, new_object_ids
from foreseg.pipeline.state import Arrival, Asking, running_mean
from foreseg.pipeline.tracks import NS
from foreseg.pipeline.turn import Turn
from foreseg.prompts import ObjectId, SpatialPrompt

MAX_RATIONALE_CHARS = 20_000


def ask_next(turn: Turn) -> None:
    """Ask the reasoner the query that is due, if it is up and idle."""
    state = turn.state
    if state.asking is not None or not state.reasoner_up or not state.enabled:
        return
    rung, limits = state.ladder.rung, state.config.degradation
    if rung >= Rung.HELD_MASKS:
        return  # nothing tracks what an answer would name
    warm = [c for c in state.cameras.values() if scheduler.is_warm(c, state.config.scheduler)]
    entry = scheduler.next_due(state.queries, warm, turn.at_ns)
    newest = None if entry is None else state.cameras[entry.query.camera].newest
    if entry is None or newest is None:
        return
    ask_id = AskId(state.next_ask)
    turn.set(
        next_ask=ask_id + 1,
        held=(*state.held, ask_id),
        queries=scheduler.asked(
            state.queries,
            entry.query.id,
            newest.index,
            turn.at_ns,
            period_factor=limits.period_factor if rung >= Rung.LONGER_PERIODS else 1.0,
        ),
        asking=Asking(
            ask_id=ask_id,
            query=entry.query,
            asked_ns=turn.at_ns,
            asked_stamp_ns=newest.stamp_ns,
        ),
    )
    turn.count("queries_asked")
    query = entry.query
    if rung >= Rung.FEWER_TOKENS:
        tokens = min(
            query.max_reasoning_tokens or limits.reasoning_tokens, limits.reasoning_tokens
        )
        query = replace(query, max_reasoning_tokens=tokens)
    turn.emit(AskReasoner(ask_id=ask_id, query=query))


def take_window(turn: Turn, event: WindowTaken) -> None:
    """Frames are held for the question."""
    asking = turn.state.asking
    if asking is None or asking.ask_id != event.ask_id:
        return  # released already
    known = {frame.index: frame for frame in (*asking.frames, *event.frames)}
    turn.set(asking=replace(asking, frames=tuple(known[i] for i in sorted(known))))


def release_windows(turn: Turn) -> None:
    """Let go every window that neither a question nor an arrival needs any more, once."""
    state = turn.state
    running = () if state.running is None else state.running.arrivals
    wanted = {arrival.ask_id for arrival in (*state.arrivals, *running)}
    wanted |= set() if state.asking is None else {state.asking.ask_id}
    wanted |= {f.ask_id for f in state.followed if f.observation is not None}
    for ask_id in state.held:
        if ask_id not in wanted:
            turn.emit(ReleaseWindow(ask_id=ask_id))
    turn.set(held=tuple(ask_id for ask_id in state.held if ask_id in wanted))


def take_part(turn: Turn, event: AnswerPartArrived) -> None:
    """More of an answer."""
    asking = turn.state.asking
    if asking is None or asking.ask_id != event.ask_id:
        turn.count("answer_parts_stale")
        return
    part = event.part
    is_verdict = isinstance(part, VERDICTS)
    if is_verdict and (asking.has_arrival or asking.answer is not None):
        turn.count("answer_parts_odd")  # a second verdict
    elif isinstance(part, RationalePart):
        if asking.query.want_rationale:
            text = (asking.rationale + part.text)[:MAX_RATIONALE_CHARS]
            turn.set(asking=replace(asking, rationale=text))
    elif isinstance(part, TargetsFound):
        _take_targets(turn, asking, part)
    elif isinstance(part, NoTarget):
        answer = draft(turn, asking, AnswerStatus.NO_TARGET)
        turn.set(
            asking=replace(
                asking,
                answer=replace(
                    answer, reason=part.reason, text=part.text, confidence=part.confidence
                ),
            )
        )
    elif isinstance(part, Abstained):
        answer = replace(draft(turn, asking, AnswerStatus.ABSTAINED), reason=part.reason)
        turn.set(asking=replace(asking, answer=answer))
    elif isinstance(part, AnswerFailed):
        _fail(turn, asking, part.reason)
    elif isinstance(part, AnswerDone):
        _finish(turn, asking, part)


def take_reasoner_change(turn: Turn, event: ReasonerChanged) -> None:
    """The reasoner came up or went down; a question it had has failed."""
    turn.set(reasoner_up=event.is_up, reasoner_reason=event.reason, reasoner_caution=event.caution)
    turn.count("reasoner_starts" if event.is_up else "reasoner_stops")
    if turn.state.asking is not None and not event.is_up:
        turn.emit(CancelAsk(ask_id=turn.state.asking.ask_id))
        _fail(turn, turn.state.asking, f"the reasoner stopped: {event.reason}")


def check_deadline(turn: Turn) -> None:
    """Fail a question that takes too long."""
    asking = turn.state.asking
    limit_s = turn.state.config.reasoner.timeout_s
    if asking is not None and turn.at_ns - asking.asked_ns > limit_s * NS:
        turn.count("askings_timed_out")
        turn.emit(CancelAsk(ask_id=asking.ask_id))
        _fail(turn, asking, f"no complete answer within {limit_s:g} s")


def resolve_arrival(
    turn: Turn,
    arrival: Arrival,
    object_ids: tuple[ObjectId, ...],
    *,
    labels: tuple[int, ...] = (),
    failure: str = "",
    is_evicted: bool = False,
) -> None:
    """An arrival has become tracks, or has failed: publish its answer or complete the request."""
    if arrival.request_id is not None:
        success = len(object_ids) == len(arrival.object_ids)
        turn.emit(
            Reply(
                request_id=arrival.request_id,
                success=success,
                message=failure if failure or success else "no track is free",
                object_ids=object_ids,
                label_indices=labels,
            )
        )
    if arrival.answer is None:
        return
    answer = replace(arrival.answer, object_ids=object_ids)
    if failure:
        status = AnswerStatus.EVICTED if is_evicted else AnswerStatus.FAILED
        answer = replace(answer, status=status, reason=failure)
    elif not object_ids:
        answer = replace(answer, status=AnswerStatus.FAILED, reason="no track is free")
    asking = turn.state.asking
    if asking is not None and asking.ask_id == arrival.ask_id:
        answer = replace(answer, rationale=asking.rationale)
        turn.set(asking=replace(asking, answer=answer))  # once more when the rationale is whole
    if answer.status is AnswerStatus.OK and arrival.ask_id is not None:
        observation = observing.observation_from_arrival(arrival, arrival.ask_id)
        following.follow(turn, answer, arrival.ask_id, observation)
    following.deliver(turn, answer, arrival.ask_id)


def _take_targets(turn: Turn, asking: Asking, part: TargetsFound) -> None:
    keyframe = next((f for f in asking.frames if f.index == part.keyframe_index), None)
    if keyframe is None:
        turn.count("answers_evicted")
        answer = replace(
            draft(turn, asking, AnswerStatus.EVICTED),
            reason=f"keyframe {part.keyframe_index} is not among the frames held for the question",
        )
        turn.set(asking=replace(asking, answer=answer))
        return
    limit = turn.state.config.tracker.max_tracks
    try:
        prompts = tuple(prompt.checked(keyframe.size_wh) for prompt in part.prompts[:limit])
    except InputError as error:
        _fail(turn, asking, f"the answer points outside its keyframe: {error}")
        turn.emit(CancelAsk(ask_id=asking.ask_id))
        return
    if not prompts:
        _fail(turn, asking, "the answer has no target and does not say so")
        turn.emit(CancelAsk(ask_id=asking.ask_id))
        return
    ids = new_object_ids(turn, len(prompts))
    try:
        beside = _drawn_beside(asking, part, ids)
    except InputError as error:
        _fail(turn, asking, f"the answer draws on other frames what does not fit them: {error}")
        turn.emit(CancelAsk(ask_id=asking.ask_id))
        return
    answer = replace(
        draft(turn, asking, AnswerStatus.OK, keyframe),
        text=part.text,
        confidence=part.confidence,
        prompts=prompts,
    )
    arrival = Arrival(
        camera=asking.query.camera,
        keyframe_index=keyframe.index,
        keyframe_stamp_ns=keyframe.stamp_ns,
        object_ids=ids,
        prompts=prompts,
        beside=beside,
        query_id=asking.query.id,
        ask_id=asking.ask_id,
        answer=answer,
        window=tuple(f.index for f in asking.frames) if asking.query.want_observed_masks else (),
    )
    newest = turn.camera(asking.query.camera).newest
    if newest is not None and newest.index > keyframe.index:
        turn.count("answers_late")
    turn.set(
        arrivals=(*turn.state.arrivals, arrival),
        asking=replace(asking, has_arrival=True),
    )


def _drawn_beside(
    asking: Asking, part: TargetsFound, ids: tuple[ObjectId, ...]
) -> tuple[ConditioningPrompt, ...]:
    """The only target's masks on the other frames that are held, as Sa2VA-i conditions on them.

    Of several targets it is not known whose they are.

    Raises:
        InputError: a mask is not of its frame's size.
    """
    if len(ids) != 1 or part.num_drawn != 1:
        return ()
    sizes = {frame.index: frame.size_wh for frame in asking.frames}
    return tuple(
        ConditioningPrompt(
            object_id=ids[0],
            frame_index=each.frame_index,
            prompt=SpatialPrompt(mask=each.mask).checked(sizes[each.frame_index]),
        )
        for each in part.masks_by_frame
        if each.frame_index != part.keyframe_index
        and each.frame_index in sizes
        and not each.mask.is_absent
    )


def _finish(turn: Turn, asking: Asking, part: AnswerDone) -> None:
    latency_s = (turn.at_ns - asking.asked_ns) / NS
    turn.set(asking=None, reasoner_s=running_mean(turn.state.reasoner_s, latency_s))
    turn.count("answers")
    _complete_arrival(turn, asking, part.tokens)
    following.amend(turn, asking.ask_id, asking.rationale, part.tokens)
    if asking.answer is not None:
        whole = replace(asking.answer, rationale=asking.rationale, tokens=part.tokens)
        if not asking.has_arrival:
            if whole.status is AnswerStatus.NO_TARGET:
                turn.count("answers_no_target")
                leave_out(turn, asking.query.camera, asking.query.id, frozenset())
            elif whole.status is AnswerStatus.ABSTAINED:  # no evidence: what is tracked stays
                turn.count("answers_abstained")
            following.deliver(turn, whole)
        elif asking.rationale and asking.rationale != asking.answer.rationale:
            turn.emit(PublishAnswer(answer=whole))
    elif not asking.has_arrival:
        following.deliver(
            turn,
            empty_answer(
                asking.query, AnswerStatus.FAILED, "the reasoner ended without an answer"
            ),
        )


def _fail(turn: Turn, asking: Asking, reason: str) -> None:
    turn.set(asking=None)
    turn.count("answers_failed")
    _complete_arrival(turn, asking, 0)
    if not asking.has_arrival:
        answer = replace(
            draft(turn, asking, AnswerStatus.FAILED), reason=reason, rationale=asking.rationale
        )
        following.deliver(turn, answer)


def _complete_arrival(turn: Turn, asking: Asking, tokens: int) -> None:
    """The completion has ended before the hop: its rationale goes with the arrival."""

    def completed(arrival: Arrival) -> Arrival:
        if arrival.ask_id != asking.ask_id or arrival.answer is None:
            return arrival
        whole = replace(arrival.answer, rationale=asking.rationale, tokens=tokens)
        return replace(arrival, answer=whole)

    turn.set(arrivals=tuple(completed(arrival) for arrival in turn.state.arrivals))
    running = turn.state.running
    if running is not None:
        hopping = tuple(completed(arrival) for arrival in running.arrivals)
        turn.set(running=replace(running, arrivals=hopping))


def draft(
    turn: Turn, asking: Asking, status: AnswerStatus, keyframe: FrameRef | None = None
) -> Answer:
    """An answer to a question, without what was said; about its keyframe, else its newest frame."""
    newest = turn.camera(asking.query.camera).newest
    query = asking.query
    basis = keyframe or (asking.frames[-1] if asking.frames else newest)
    horizon_ns = round(query.horizon_s * NS)
    stamp = 0 if basis is None else basis.stamp_ns
    return Answer(
        query_id=query.id,
        query_text=query.text,
        camera=query.camera,
        status=status,
        keyframe_index=None if keyframe is None else keyframe.index,
        keyframe_stamp_ns=stamp,
        frame_id="" if basis is None else basis.frame_id,
        asked_stamp_ns=asking.asked_stamp_ns,
        answered_stamp_ns=0 if newest is None else newest.stamp_ns,
        valid_until_stamp_ns=stamp + horizon_ns if horizon_ns else 0,
        latency_s=(turn.at_ns - asking.asked_ns) / NS,
    )


def empty_answer(query: Query, status: AnswerStatus, reason: str) -> Answer:
    """An answer to a query that nothing was said about."""
    return Answer(
        query_id=query.id,
        query_text=query.text,
        camera=query.camera,
        status=status,
        reason=reason,
    )
