# SPDX-License-Identifier: Apache-2.0
"""Which query is asked when: once, every period, and early on a lost target or a new scene. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from foreseg.config import SchedulerConfig
from foreseg.dialogue import Query, QueryId
from foreseg.pipeline.events import RequestId
from foreseg.pipeline.state import CameraState, StandingQuery
from foreseg.pipeline.tracks import NS


def refusal(
    query: Query,
    queries: Sequence[StandingQuery],
    config: SchedulerConfig,
    reasoner_s: float,
) -> str | None:
    """Why this query cannot be taken, or None if it can.

    Args:
        query: the new one; one with a known id replaces the old.
        queries: those that stand.
        config: limits.
        reasoner_s: measured latency of an answer, 0 if there was none yet.
    """
    known = {entry.query.id for entry in queries}
    if query.id not in known and len(known) >= config.max_queries:
        return f"{len(known)} queries stand already, at most {config.max_queries} may"
    if 0 < query.period_s < reasoner_s:
        return (
            f"a period of {query.period_s:g} s is shorter than an answer takes here"
            f" ({reasoner_s:.2f} s): answers would pile up; ask less often"
        )
    return None


def added(
    queries: Sequence[StandingQuery],
    query: Query,
    at_ns: int,
    *,
    request_id: RequestId | None,
    timeout_s: float,
) -> tuple[StandingQuery, ...]:
    """With this query due now, in place of one with the same id."""
    deadline = at_ns + round(timeout_s * NS) if timeout_s > 0 else None
    entry = StandingQuery(query=query, due_ns=at_ns, request_id=request_id, deadline_ns=deadline)
    return (*without(queries, query.id), entry)


def without(queries: Sequence[StandingQuery], query_id: QueryId) -> tuple[StandingQuery, ...]:
    """All but this one."""
    return tuple(entry for entry in queries if entry.query.id != query_id)


def find(queries: Sequence[StandingQuery], query_id: QueryId) -> StandingQuery | None:
    """The entry of an id."""
    return next((entry for entry in queries if entry.query.id == query_id), None)


def next_due(
    queries: Sequence[StandingQuery], ready: Sequence[CameraState], at_ns: int
) -> StandingQuery | None:
    """The query to ask now: due, its camera ready, and due for the longest.

    First come, first served: what becomes due later, for whatever reason, waits behind. So a due
    query waits for at most one asking of each of the others. A camera that is silent is not asked
    about again.
    """
    newest = {camera.camera: camera.newest.index for camera in ready if camera.newest is not None}
    due = [
        e for e in queries if e.due_ns <= at_ns and newest.get(e.query.camera, -1) > e.asked_index
    ]
    return min(due, key=lambda e: (e.due_ns, e.last_asked_ns, e.query.id), default=None)


def is_warm(camera: CameraState, config: SchedulerConfig) -> bool:
    """True once the stream is old enough for a first question."""
    if camera.newest is None:
        return False
    return camera.newest.stamp_ns - camera.first_stamp_ns >= config.warm_up_s * NS


def asked(
    queries: Sequence[StandingQuery],
    query_id: QueryId,
    newest_index: int,
    at_ns: int,
    *,
    period_factor: float = 1.0,
) -> tuple[StandingQuery, ...]:
    """After it was asked: a standing one is due a period later, a single one never again.

    Args:
        queries: all.
        query_id: the one.
        newest_index: of its camera's frames.
        at_ns: now.
        period_factor: by which periods are longer.
    """
    never = 2**63 - 1

    def mark(entry: StandingQuery) -> StandingQuery:
        if entry.query.id != query_id:
            return entry
        period = entry.query.period_s * period_factor
        due = at_ns + round(period * NS) if period > 0 else never
        return replace(
            entry,
            due_ns=due,
            num_asked=entry.num_asked + 1,
            last_asked_ns=at_ns,
            asked_index=newest_index,
        )

    return tuple(mark(entry) for entry in queries)


def due_now(
    queries: Sequence[StandingQuery], query_id: QueryId, at_ns: int
) -> tuple[StandingQuery, ...]:
    """A standing query is due again at once; a single one is asked no second time."""
    return tuple(
        replace(e, due_ns=at_ns) if e.query.id == query_id and e.query.period_s else e
        for e in queries
    )


def due_early(
    queries: Sequence[StandingQuery], query_ids: Sequence[QueryId], at_ns: int, pause_s: float
) -> tuple[StandingQuery, ...]:
    """Standing queries whose target was lost, or whose scene has changed, become due early.

    At once, or `pause_s` after they were last asked: a camera that flickers cannot flood.
    """
    wanted = set(query_ids)
    pause_ns = round(pause_s * NS)
    return tuple(
        replace(e, due_ns=min(e.due_ns, max(at_ns, e.last_asked_ns + pause_ns)))
        if e.query.id in wanted and e.query.period_s
        else e
        for e in queries
    )
