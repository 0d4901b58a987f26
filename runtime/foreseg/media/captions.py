# SPDX-License-Identifier: Apache-2.0
"""What an overlay says, in words: of each track, of a question and of its answer. No pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from foreseg.dialogue import Answer, AnswerStatus
from foreseg.pipeline.state import Asking
from foreseg.pipeline.tracks import Track, TrackState

MAX_OTHERS = 3  # queries beside the newest one


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlayLabel:
    """What the legend says of one label of the map."""

    index: int  # value in the label map
    name: str
    state: TrackState = TrackState.TRACKED
    detail: str = ""  # which query it answers, how old that answer is


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The question and what is known of its answer; what is not given is not shown."""

    query: str
    answer: str = ""  # or why there is none
    status: AnswerStatus = AnswerStatus.OK
    age_s: float | None = None  # of the frame that the answer is about
    keyframe: int | None = None
    confidence: float = math.nan
    rationale: str = ""
    is_thinking: bool = False  # the rationale still grows: its newest part is shown
    others: tuple[tuple[str, str], ...] = ()  # further queries, each with its newest answer


def overlay_labels(tracks: Iterable[Track]) -> tuple[OverlayLabel, ...]:
    """Legend rows of published tracks."""
    return tuple(
        OverlayLabel(
            index=track.index,
            name=track.object_id,
            state=track.state,
            detail=", ".join((*track.query_ids, *(("catching up",) if track.catching_up else ()))),
        )
        for track in tracks
    )


def banner_from_answer(answer: Answer, stamp_ns: int) -> Banner:
    """What an answer says, seen from a frame with this stamp."""
    has_keyframe = answer.keyframe_index is not None
    age_s = max(0, stamp_ns - answer.keyframe_stamp_ns) / 1e9 if has_keyframe else None
    return Banner(
        query=answer.query_text,
        answer=words_of(answer),
        status=answer.status,
        age_s=age_s,
        keyframe=answer.keyframe_index,
        confidence=answer.confidence,
        rationale=answer.rationale,
    )


def banner_while_asking(asking: Asking, before: Banner | None) -> Banner:
    """While a question is with the reasoner: its thoughts, where they are wanted, else `before`."""
    thought = asking.rationale if asking.query.want_rationale else ""
    text = asking.query.text
    banner = before
    if banner is None or (thought and banner.query != text):
        banner = Banner(query=text)
    return replace(banner, rationale=thought, is_thinking=True) if thought else banner


def with_others(banner: Banner, answers: Iterable[Answer]) -> Banner:
    """The banner with the answers to other queries, newest first, at most `MAX_OTHERS`."""
    others = [(a.query_text, words_of(a)) for a in answers if a.query_text != banner.query]
    return replace(banner, others=tuple(others[:MAX_OTHERS]))


def words_of(answer: Answer) -> str:
    """An answer in a sentence: its text, or what became of it and why."""
    if answer.status is AnswerStatus.OK:
        return answer.text or "an answer without words"
    name = answer.status.name.lower().replace("_", " ")
    return f"{name}: {answer.reason or answer.text}".rstrip(": ")
