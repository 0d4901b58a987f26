# SPDX-License-Identifier: Apache-2.0
"""Queries, answers, prompts and tracks between foreseg_msgs and the core's records.

Messages come from outside: what cannot be a record is refused as `InputError` with the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from foreseg_msgs import msg as messages

from foreseg.dialogue import Answer, Query, QueryId
from foreseg.errors import InputError
from foreseg.frames import CameraId, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle
from foreseg.pipeline.tracks import Track
from foreseg.prompts import ObjectId, Point, PointLabel, SpatialPrompt
from foreseg.texts import utf8_text
from foreseg_ros.conversions import (
    header_from_stamp,
    nearest_time_from_stamp_ns,
    time_from_stamp_ns,
)

MAX_POINTS = 256  # of one prompt
MAX_RLE_CHARS = 4_000_000


def query_from_msg(msg: messages.Query, *, default_id: QueryId, default_camera: CameraId) -> Query:
    """The query of a message; an empty id or camera is filled in.

    Raises:
        InputError: empty or over-long text, a number that is negative or not finite.
    """
    return Query(
        id=QueryId(msg.id) if msg.id else default_id,
        text=msg.text,
        method=msg.method,
        camera=CameraId(msg.camera) if msg.camera else default_camera,
        period_s=float(msg.period_s),
        horizon_s=float(msg.horizon_s),
        max_reasoning_tokens=int(msg.max_reasoning_tokens),
        answer_first=bool(msg.answer_first),
        want_rationale=bool(msg.want_rationale),
    )


def query_msg_from_query(query: Query) -> messages.Query:
    """A query as it is listed."""
    return messages.Query(
        id=query.id,
        text=query.text,
        method=query.method,
        camera=query.camera,
        period_s=float(query.period_s),
        horizon_s=float(query.horizon_s),
        max_reasoning_tokens=min(query.max_reasoning_tokens, 0xFFFF),
        answer_first=query.answer_first,
        want_rationale=query.want_rationale,
    )


def prompt_from_msg(msg: messages.SpatialPrompt) -> tuple[ObjectId, SpatialPrompt]:
    """The object id ("" = a new object) and the prompt, not yet checked against a frame.

    Raises:
        InputError: nothing in it, a mask beside a box or points, too many points, an unknown
            point label.
    """
    if len(msg.points) > MAX_POINTS:
        text = f"a spatial prompt takes at most {MAX_POINTS} points, got {len(msg.points)}"
        raise InputError(text)
    box = BoxXyxy(*(float(v) for v in msg.box_xyxy_px)) if msg.has_box else None
    mask = mask_rle_from_msg(msg.mask) if msg.mask.counts else None
    points = tuple(_point_from_msg(point) for point in msg.points)
    return ObjectId(msg.object_id), SpatialPrompt(box=box, points=points, mask=mask)


def prompt_msg_from_prompt(
    prompt: SpatialPrompt, object_id: ObjectId | None = None
) -> messages.SpatialPrompt:
    """A prompt as an answer publishes it."""
    msg = messages.SpatialPrompt(object_id=object_id or "", has_box=prompt.box is not None)
    if prompt.box is not None:
        msg.box_xyxy_px = [float(v) for v in prompt.box]
    msg.points = [
        messages.Point2D(x=float(point.x), y=float(point.y), label=int(point.label))
        for point in prompt.points
    ]
    if prompt.mask is not None:
        msg.mask = msg_from_mask_rle(prompt.mask)
    return msg


def mask_rle_from_msg(msg: messages.MaskRle) -> MaskRle:
    """A run-length mask; its counts are decoded, and so checked, where it is used.

    Raises:
        InputError: counts that are too long.
    """
    if len(msg.counts) > MAX_RLE_CHARS:
        text = f"run-length counts take at most {MAX_RLE_CHARS} characters, got {len(msg.counts)}"
        raise InputError(text)
    return MaskRle(height=int(msg.height), width=int(msg.width), counts=msg.counts)


def msg_from_mask_rle(rle: MaskRle) -> messages.MaskRle:
    """A run-length mask as a message."""
    return messages.MaskRle(height=rle.height, width=rle.width, counts=rle.counts)


def answer_msg_from_answer(answer: Answer) -> messages.Answer:
    """An answer with the header of its keyframe."""
    ids: Sequence[ObjectId | None] = answer.object_ids or [None] * len(answer.prompts)
    if len(ids) != len(answer.prompts):
        ids = [None] * len(answer.prompts)
    return messages.Answer(
        header=header_from_stamp(answer.keyframe_stamp_ns, answer.frame_id),
        query_id=answer.query_id,
        query_text=utf8_text(answer.query_text),
        status=int(answer.status),
        text=utf8_text(answer.text),
        rationale=utf8_text(answer.rationale),
        reason=utf8_text(answer.reason),
        confidence=float(answer.confidence),
        keyframe_index=int(answer.keyframe_index or 0),
        prompts=[
            prompt_msg_from_prompt(prompt, object_id)
            for prompt, object_id in zip(answer.prompts, ids, strict=True)
        ],
        object_ids=list(answer.object_ids),
        asked=time_from_stamp_ns(answer.asked_stamp_ns),
        answered=time_from_stamp_ns(answer.answered_stamp_ns),
        valid_until=nearest_time_from_stamp_ns(answer.valid_until_stamp_ns),
        latency_s=float(answer.latency_s),
        tokens=int(answer.tokens),
        outcome=int(answer.outcome),
    )


def track_msg_from_track(track: Track, *, with_mask: bool) -> messages.Track:
    """One track; its run-length mask only on request."""
    msg = messages.Track(
        object_id=track.object_id,
        query_ids=list(track.query_ids),
        index=track.index,
        state=int(track.state),
        score=float(track.score),
        area_px=int(track.area_px),
        answer_age_s=float(track.answer_age_s),
        catching_up=track.catching_up,
    )
    if track.box is not None:
        msg.box_xyxy_px = [float(v) for v in track.box]
    if with_mask and track.mask is not None:
        msg.mask = msg_from_mask_rle(track.mask)
    return msg


def track_array_msg_from_tracks(
    frame: FrameRef, tracks: Iterable[Track], *, with_masks: bool = False
) -> messages.TrackArray:
    """All tracks on a frame, with the source frame's header."""
    return messages.TrackArray(
        header=header_from_stamp(frame.stamp_ns, frame.frame_id),
        camera=frame.camera,
        frame_index=int(frame.index),
        height=frame.size_wh[1],
        width=frame.size_wh[0],
        tracks=[track_msg_from_track(track, with_mask=with_masks) for track in tracks],
    )


def _point_from_msg(msg: messages.Point2D) -> Point:
    try:
        label = PointLabel(msg.label)
    except ValueError as error:
        text = f"a point's label is FOREGROUND=1 or BACKGROUND=0, got {msg.label}"
        raise InputError(text) from error
    return Point(float(msg.x), float(msg.y), label)
