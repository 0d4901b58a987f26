# SPDX-License-Identifier: Apache-2.0
"""Tracks: objects under a stable id and label, and the state that subscribers read.

Pure bookkeeping; knows nothing of engines, queries' texts or publishing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from foreseg.config import TrackerConfig
from foreseg.dialogue import QueryId
from foreseg.frames import FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackedObject, TrackKey

NS = 1_000_000_000
MAX_PAST_QUERIES = 16  # that named a track and are over, of a track


class TrackState(IntEnum):
    """How far to trust a track's mask."""

    TRACKED = 0
    UNCERTAIN = 1  # hopped and not yet confirmed, or a low predicted IoU
    OCCLUDED = 2  # not visible now
    LOST = 3  # not visible for `lost_after_s`


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """What is published of a track on one frame."""

    object_id: ObjectId
    query_ids: tuple[QueryId, ...]
    index: int  # label in the map, from 1
    key: TrackKey  # its row in the tracker's result
    state: TrackState
    score: float
    box: BoxXyxy | None
    area_px: int
    answer_age_s: float  # frame's stamp minus the stamp of the answer's keyframe
    catching_up: bool
    mask: MaskRle | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveTrack:
    """What is remembered of a track between frames."""

    object_id: ObjectId
    key: TrackKey
    index: int
    answered_stamp_ns: int  # stamp of the keyframe that named it last
    seen_stamp_ns: int  # stamp of the last frame on which it was visible
    query_ids: tuple[QueryId, ...] = ()
    misses: tuple[tuple[QueryId, int], ...] = ()  # answers in a row that left it out
    by_user: bool = False
    confirmed: bool = True  # False after a hop, until a catch-up or another answer agrees
    catching_up: bool = False
    is_lost: bool = False
    last: TrackedObject | None = None

    def state(self, stamp_ns: int, config: TrackerConfig) -> TrackState:
        """From the object score, the predicted IoU and how long it has been unseen."""
        if self.last is None or self.last.object_logit <= 0:
            unseen_s = (stamp_ns - self.seen_stamp_ns) / NS
            return TrackState.LOST if unseen_s >= config.lost_after_s else TrackState.OCCLUDED
        if not self.confirmed or self.last.score < config.uncertain_below:
            return TrackState.UNCERTAIN
        return TrackState.TRACKED

    def published(self, frame: FrameRef, config: TrackerConfig) -> Track:
        """The record for subscribers; the track must have a result."""
        last = self.last
        age_ns = max(0, frame.stamp_ns - self.answered_stamp_ns)
        return Track(
            object_id=self.object_id,
            query_ids=self.query_ids,
            index=self.index,
            key=self.key,
            state=self.state(frame.stamp_ns, config),
            score=0.0 if last is None else last.score,
            box=None if last is None else last.box,
            area_px=0 if last is None else last.area_px,
            answer_age_s=age_ns / NS,
            catching_up=self.catching_up,
            mask=None if last is None else last.mask,
        )

    def updated(self, result: TrackedObject, frame: FrameRef) -> LiveTrack:
        """With this frame's result."""
        seen = frame.stamp_ns if result.object_logit > 0 else self.seen_stamp_ns
        return replace(self, last=result, seen_stamp_ns=seen)

    def named_by(
        self, query_id: QueryId | None, stamp_ns: int, known: Collection[QueryId] = ()
    ) -> LiveTrack:
        """After an answer named it; `known` queries still stand or wait.

        Of those that were asked once and are over, the newest `MAX_PAST_QUERIES` stay.
        """
        if query_id is None:
            return replace(self, answered_stamp_ns=stamp_ns)
        ids = self.query_ids if query_id in self.query_ids else (*self.query_ids, query_id)
        past = [q for q in ids if q != query_id and q not in known]
        gone = set(past[: max(0, len(past) - MAX_PAST_QUERIES)])
        ids = tuple(q for q in ids if q not in gone)
        misses = tuple(m for m in self.misses if m[0] != query_id and m[0] not in gone)
        return replace(self, query_ids=ids, misses=misses, answered_stamp_ns=stamp_ns)

    def misses_of(self, query_id: QueryId) -> int:
        """Answers in a row of this query that did not name it for sure."""
        return dict(self.misses).get(query_id, 0)

    def doubted_by(self, query_id: QueryId | None) -> LiveTrack:
        """After an answer that may have meant it: it stays, no surer and no younger than before."""
        if query_id is None:
            return self
        others = tuple(m for m in self.misses if m[0] != query_id)
        return replace(self, misses=(*others, (query_id, self.misses_of(query_id) + 1)))

    def left_out_by(self, query_id: QueryId, limit: int) -> LiveTrack:
        """After an answer of one of its queries did not name it; unlinked at the limit."""
        if query_id not in self.query_ids:
            return self
        is_over = self.misses_of(query_id) + 1 >= limit
        return self.unlinked(query_id) if is_over else self.doubted_by(query_id)

    def unlinked(self, query_id: QueryId) -> LiveTrack:
        """Without this query."""
        return replace(
            self,
            query_ids=tuple(q for q in self.query_ids if q != query_id),
            misses=tuple(m for m in self.misses if m[0] != query_id),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelPool:
    """Labels 1..size: the lowest free one is given, a freed one rests for a while first.

    Where none is free, the one that rests the longest is given: a full roster can be changed.
    """

    size: int
    used: frozenset[int] = frozenset()
    resting: tuple[tuple[int, int], ...] = ()  # (label, monotonic ns from which it is free)

    def taken(self, count: int, at_ns: int) -> tuple[LabelPool, tuple[int, ...]] | None:
        """Take `count` labels, or None if not so many are unused."""
        resting = sorted((until_ns, label) for label, until_ns in self.resting if until_ns > at_ns)
        blocked = self.used | {label for _, label in resting}
        free = [label for label in range(1, self.size + 1) if label not in blocked]
        given = [*free, *(label for _, label in resting)][:count]
        if len(given) < count:
            return None
        still = tuple((label, until_ns) for until_ns, label in resting if label not in given)
        return replace(self, used=self.used | set(given), resting=still), tuple(given)

    def freed(self, labels: Sequence[int], until_ns: int) -> LabelPool:
        """Give labels back; they rest until `until_ns`."""
        rest = tuple((label, until_ns) for label in labels if label in self.used)
        return replace(self, used=self.used - set(labels), resting=(*self.resting, *rest))
