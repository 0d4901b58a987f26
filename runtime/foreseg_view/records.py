# SPDX-License-Identifier: Apache-2.0
"""What viewers are told, as JSON-able records: state, answers, health. docs/view.md has the form."""

from __future__ import annotations

import math
from dataclasses import dataclass

from foreseg.dialogue import MAX_QUERY_CHARS
from foreseg.media.captions import words_of
from foreseg.media.overlay import colour_of
from foreseg.pipeline.tracks import Track
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_view.board import AnswerShown, Board
from foreseg_view.host import QueryNow, Status

NS = 1_000_000_000
MAX_TEXT_CHARS = 2_000
MAX_LIVE_RATIONALE_CHARS = 2_000  # of one that is being written, from its end
Record = dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewers:
    """Of the server itself."""

    num_viewers: int
    num_refused: int


def state_record(board: Board, status: Status, source: str, viewers: Viewers) -> Record:
    """How everything is now."""
    frame = board.frame
    return {
        "type": "state",
        "source": source,
        "run": board.run,
        "frame": None
        if frame is None
        else {
            "index": int(frame.index),
            "stamp_ns": str(frame.stamp_ns),
            "time_s": _seconds(frame.stamp_ns, board),
            "size_wh": list(frame.size_wh),
        },
        "history": None
        if status.oldest_index is None
        else {"oldest": status.oldest_index, "newest": status.newest_index},
        "queries": [_query_record(query) for query in status.queries],
        "objects": [object_record(track, board) for track in board.tracks],
        "reasoner": {"is_up": status.is_reasoner_up, "words": status.reasoner},
        "problem": status.problem,
        "rung": status.rung,
        "viewers": viewers.num_viewers,
        "viewers_refused": viewers.num_refused,
    }


def answer_record(shown: AnswerShown, board: Board) -> Record:
    """An answer with what came of it so far."""
    answer = shown.answer
    has_keyframe = answer.keyframe_index is not None
    return {
        "type": "answer",
        "number": shown.number,
        "run": shown.run,
        "query_id": answer.query_id,
        "query": answer.query_text,
        "status": answer.status.name,
        "words": words_of(answer)[:MAX_TEXT_CHARS],
        "reason": answer.reason[:MAX_TEXT_CHARS],
        "rationale": answer.rationale,
        "confidence": None if math.isnan(answer.confidence) else round(answer.confidence, 3),
        "stage": shown.stage.value,
        "keyframe_index": answer.keyframe_index,
        "keyframe_s": _seconds(answer.keyframe_stamp_ns, board) if has_keyframe else None,
        "has_keyframe_picture": shown.keyframe is not None,
        "has_filmstrip": shown.frames is not None,
        "asked_s": _seconds(answer.asked_stamp_ns, board),
        "answered_s": _seconds(answer.answered_stamp_ns, board),
        "hop_s": _maybe_seconds(shown.hop_stamp_ns, board),
        "caught_up_s": _maybe_seconds(shown.caught_up_stamp_ns, board),
        "valid_until_s": _maybe_seconds(answer.valid_until_stamp_ns or None, board),
        "outcome": answer.outcome.name if answer.valid_until_stamp_ns else None,
        "latency_s": round(answer.latency_s, 3),
        "tokens": answer.tokens,
        "object_ids": list(answer.object_ids),
        "prompts": [_prompt_record(prompt) for prompt in answer.prompts],
    }


def object_record(track: Track, board: Board) -> Record:
    """A track as it is shown."""
    return {
        "id": track.object_id,
        "name": board.name_of(ObjectId(track.object_id)),
        "index": track.index,
        "colour": colour_words(track.index),
        "state": track.state.name,
        "score": round(track.score, 3),
        "box": None if track.box is None else [round(float(v), 1) for v in track.box],
        "area_px": track.area_px,
        "answer_age_s": round(track.answer_age_s, 2),
        "catching_up": track.catching_up,
        "query_ids": list(track.query_ids),
    }


def colour_words(index: int) -> str:
    """The colour of a label as CSS has it."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(index))


def _query_record(query: QueryNow) -> Record:
    return {
        "id": query.id,
        "text": query.text[:MAX_QUERY_CHARS],
        "period_s": query.period_s,
        "stage": None if query.stage is None else query.stage.value,
        "since_s": round(query.since_s, 2),
        "rationale": query.rationale[-MAX_LIVE_RATIONALE_CHARS:],
    }


def _prompt_record(prompt: SpatialPrompt) -> Record:
    return {
        "box": None if prompt.box is None else [float(v) for v in prompt.box],
        "points": [[float(p.x), float(p.y), int(p.label)] for p in prompt.points],
        "has_mask": prompt.mask is not None,
    }


def _seconds(stamp_ns: int, board: Board) -> float:
    return round((stamp_ns - board.origin_ns) / NS, 3)


def _maybe_seconds(stamp_ns: int | None, board: Board) -> float | None:
    return None if stamp_ns is None else _seconds(stamp_ns, board)
