# SPDX-License-Identifier: Apache-2.0
"""Answers, tracks and diagnostics of a node's messages as the core's records; the other way of `records`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from foreseg_msgs import msg as messages

from foreseg.dialogue import Answer, AnswerStatus, Outcome, QueryId
from foreseg.frames import CameraId, FrameIndex
from foreseg.geometry import BoxXyxy
from foreseg.masks import rle_from_mask
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId
from foreseg.tracker.base import LabelMap, TrackKey
from foreseg_ros.conversions import stamp_ns_from_time
from foreseg_ros.records import prompt_from_msg


def answer_from_msg(msg: messages.Answer, camera: CameraId) -> Answer:
    """An answer as it was published.

    Raises:
        InputError: a prompt or stamp that cannot be.
        ValueError: a status or outcome that is unknown.
    """
    stamp_ns = stamp_ns_from_time(msg.header.stamp)
    has_keyframe = stamp_ns != 0 or bool(msg.prompts)
    return Answer(
        query_id=QueryId(msg.query_id),
        query_text=msg.query_text,
        camera=camera,
        status=AnswerStatus(msg.status),
        text=msg.text,
        rationale=msg.rationale,
        reason=msg.reason,
        confidence=float(msg.confidence),
        keyframe_index=FrameIndex(int(msg.keyframe_index)) if has_keyframe else None,
        keyframe_stamp_ns=stamp_ns,
        frame_id=msg.header.frame_id,
        prompts=tuple(prompt_from_msg(prompt)[1] for prompt in msg.prompts),
        object_ids=tuple(ObjectId(name) for name in msg.object_ids),
        asked_stamp_ns=stamp_ns_from_time(msg.asked),
        answered_stamp_ns=stamp_ns_from_time(msg.answered),
        valid_until_stamp_ns=stamp_ns_from_time(msg.valid_until),
        latency_s=float(msg.latency_s),
        tokens=int(msg.tokens),
        outcome=Outcome(msg.outcome),
    )


def tracks_from_msg(msg: messages.TrackArray, label_map: LabelMap) -> tuple[Track, ...]:
    """The tracks of a frame, each with its mask from the label map.

    Raises:
        ValueError: a state that is unknown.
    """
    return tuple(_track(track, label_map) for track in msg.tracks)


def _track(msg: messages.Track, label_map: LabelMap) -> Track:
    box = BoxXyxy(*(float(value) for value in msg.box_xyxy_px))
    mask = np.asarray(label_map == msg.index)
    return Track(
        object_id=ObjectId(msg.object_id),
        query_ids=tuple(QueryId(name) for name in msg.query_ids),
        index=int(msg.index),
        key=TrackKey(msg.object_id),
        state=TrackState(msg.state),
        score=float(msg.score),
        box=box if any(box) else None,
        area_px=int(msg.area_px),
        answer_age_s=float(msg.answer_age_s),
        catching_up=bool(msg.catching_up),
        mask=rle_from_mask(mask) if msg.area_px else None,
    )


def parts_of(msg: DiagnosticArray, node: str) -> Mapping[str, DiagnosticStatus]:
    """What a node says of its parts, by part: "tracker", "camera front"; empty if it is another's."""
    start = f"{node}: "
    return {s.name.removeprefix(start): s for s in msg.status if s.name.startswith(start)}


def values_of(status: DiagnosticStatus | None) -> Mapping[str, str]:
    """The values of a part."""
    return {} if status is None else {pair.key: pair.value for pair in status.values}
