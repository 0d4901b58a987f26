# SPDX-License-Identifier: Apache-2.0
"""foreseg_msgs as the contract lists it, and the core's records through it and back."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("foreseg_msgs.msg", reason="foreseg_msgs is not built")

from foreseg_msgs import action, msg, srv
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rclpy.serialization import deserialize_message, serialize_message

from foreseg.dialogue import MAX_QUERY_S, Answer, AnswerStatus, Outcome, Query, QueryId
from foreseg.errors import InputError
from foreseg.frames import CameraId, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import mask_from_rle, rle_from_mask
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId, Point, PointLabel, SpatialPrompt
from foreseg.tracker.base import TrackKey
from foreseg_ros import qos, records

pytestmark = pytest.mark.ros

NAMES = {"boolean": "bool", "float": "float32", "sequence<string>": "string[]"}
CONTRACT = {
    msg.SpatialPrompt: "string object_id | bool has_box | float32[4] box_xyxy_px"
    " | Point2D[] points | MaskRle mask",
    msg.Point2D: "float32 x | float32 y | uint8 label",
    msg.MaskRle: "uint32 height | uint32 width | string counts",
    msg.Query: "string id | string text | string method | string camera | float32 period_s"
    " | float32 horizon_s | uint16 max_reasoning_tokens | bool answer_first"
    " | bool want_rationale",
    msg.Answer: "std_msgs/Header header | string query_id | string query_text | uint8 status"
    " | string text | string rationale | string reason | float32 confidence"
    " | uint64 keyframe_index | SpatialPrompt[] prompts | string[] object_ids"
    " | builtin_interfaces/Time asked | builtin_interfaces/Time answered"
    " | builtin_interfaces/Time valid_until | float32 latency_s | uint32 tokens"
    " | uint8 outcome",
    msg.Track: "string object_id | string[] query_ids | uint16 index | uint8 state"
    " | float32 score | float32[4] box_xyxy_px | uint32 area_px | float32 answer_age_s"
    " | bool catching_up | MaskRle mask",
    msg.TrackArray: "std_msgs/Header header | string camera | uint64 frame_index"
    " | uint32 height | uint32 width | Track[] tracks",
    srv.Ask.Request: "Query query | float32 timeout_s",
    srv.Ask.Response: "Answer answer",
    srv.AddQuery.Request: "Query query",
    srv.AddQuery.Response: "bool success | string message | string query_id",
    srv.RemoveQuery.Request: "string query_id",
    srv.RemoveQuery.Response: "bool success | string message",
    srv.ListQueries.Response: "Query[] queries",
    srv.AddObjects.Request: "std_msgs/Header header | string camera | SpatialPrompt[] prompts"
    " | SpatialPrompt[] more_prompts | builtin_interfaces/Time[] more_stamps",
    srv.AddObjects.Response: "bool success | string message | string[] object_ids"
    " | uint16[] indices",
    srv.RemoveObject.Request: "string object_id",
    srv.RemoveObject.Response: "bool success | string message",
    action.AskForesight.Goal: "Query query | bool want_observed_masks",
    action.AskForesight.Result: "Answer answer | MaskRle[] observed_masks"
    " | uint64[] observed_frame_indices",
    action.AskForesight.Feedback: "uint8 stage | string partial_rationale | uint64 keyframe_index",
}


def written(field_type: str) -> str:
    """A generated type name as the contract writes it."""
    if field_type.startswith("sequence<"):
        return f"{written(field_type[len('sequence<') : -1])}[]"
    if field_type.endswith("[4]"):
        return f"{written(field_type[:-3])}[4]"
    return NAMES.get(field_type, field_type.removeprefix("foreseg_msgs/"))


@pytest.mark.parametrize("kind", CONTRACT, ids=lambda kind: kind.__name__)
def test_fields_are_the_contracts(kind: Any) -> None:
    fields = kind.get_fields_and_field_types()
    got = " | ".join(f"{written(field_type)} {name}" for name, field_type in fields.items())
    assert got == CONTRACT[kind]


def test_an_empty_request_lists_queries() -> None:
    assert set(srv.ListQueries.Request.get_fields_and_field_types()) <= {
        "structure_needs_at_least_one_member"
    }


@pytest.mark.parametrize(
    ("kind", "enum"),
    [
        (msg.Answer, AnswerStatus),
        (msg.Answer, Outcome),
        (msg.Track, TrackState),
        (msg.Point2D, PointLabel),
    ],
    ids=lambda value: value.__name__,
)
def test_constants_are_the_cores_enums(kind: Any, enum: type[IntEnum]) -> None:
    assert {member.name: getattr(kind, member.name) for member in enum} == {
        member.name: int(member) for member in enum
    }


def test_stages_are_in_the_feedback() -> None:
    feedback = action.AskForesight.Feedback
    stages = (feedback.ACCEPTED, feedback.REASONING, feedback.CATCHING_UP, feedback.SEGMENTING)
    assert stages == (0, 1, 2, 3)


def over_the_wire(message: Any) -> Any:
    return deserialize_message(serialize_message(message), type(message))


@given(
    text=st.text(
        alphabet=st.characters(exclude_characters="\x00", exclude_categories=["Cs"]),
        min_size=1,
        max_size=200,
    ).filter(str.strip),
    period_s=st.floats(0, MAX_QUERY_S, width=32),
    tokens=st.integers(0, 0xFFFF),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_a_query_survives_the_wire(
    text: str, period_s: float, tokens: int, flags: tuple[bool, bool]
) -> None:
    query = Query(
        id=QueryId("q1"),
        text=text,
        method="kinematic",
        camera=CameraId("left"),
        period_s=period_s,
        horizon_s=2.5,
        max_reasoning_tokens=tokens,
        answer_first=flags[0],
        want_rationale=flags[1],
    )
    message = over_the_wire(records.query_msg_from_query(query))
    back = records.query_from_msg(
        message, default_id=QueryId("other"), default_camera=CameraId("other")
    )
    assert back == query


def test_an_empty_id_and_camera_are_filled_in() -> None:
    query = records.query_from_msg(
        msg.Query(text="what next?"), default_id=QueryId("q7"), default_camera=CameraId("cam")
    )
    assert (query.id, query.camera) == ("q7", "cam")


@pytest.mark.parametrize(
    "message",
    [
        msg.Query(text=""),
        msg.Query(text="x" * 100_000),
        msg.Query(text="x", id="y" * 100_000),
        msg.Query(text="x", period_s=math.nan),
        msg.Query(text="x", period_s=-1.0),
        msg.Query(text="x", horizon_s=math.inf),
    ],
    ids=["empty", "long text", "long id", "nan period", "negative period", "endless horizon"],
)
def test_a_bad_query_is_refused(message: msg.Query) -> None:
    with pytest.raises(InputError):
        records.query_from_msg(message, default_id=QueryId("q"), default_camera=CameraId("c"))


MASK = np.zeros((6, 9), dtype=np.bool_)
MASK[2:4, 3:7] = True
PROMPTS = [
    SpatialPrompt(box=BoxXyxy(1.0, 2.5, 3.0, 4.0)),
    SpatialPrompt(points=(Point(1.0, 2.0), Point(3.5, 4.0, PointLabel.BACKGROUND))),
    SpatialPrompt(box=BoxXyxy(0.0, 0.0, 3.0, 4.0), points=(Point(1.0, 2.0),)),
    SpatialPrompt(mask=rle_from_mask(MASK)),
]


@pytest.mark.parametrize("prompt", PROMPTS, ids=["box", "points", "box and point", "mask"])
def test_a_prompt_survives_the_wire(prompt: SpatialPrompt) -> None:
    message = over_the_wire(records.prompt_msg_from_prompt(prompt, ObjectId("cup")))
    object_id, back = records.prompt_from_msg(message)
    assert object_id == "cup"
    assert back == prompt


@pytest.mark.parametrize(
    "message",
    [
        msg.SpatialPrompt(),
        msg.SpatialPrompt(has_box=True, mask=msg.MaskRle(height=1, width=1, counts="1")),
        msg.SpatialPrompt(points=[msg.Point2D(label=7)]),
        msg.SpatialPrompt(points=[msg.Point2D()] * 1000),
    ],
    ids=["nothing", "box and mask", "unknown label", "1000 points"],
)
def test_a_bad_prompt_is_refused(message: msg.SpatialPrompt) -> None:
    with pytest.raises(InputError):
        records.prompt_from_msg(message)


def test_a_box_is_read_only_where_has_box_says_so() -> None:
    message = msg.SpatialPrompt(points=[msg.Point2D(x=1.0, y=1.0, label=1)])
    message.box_xyxy_px = [1.0, 2.0, 3.0, 4.0]
    assert records.prompt_from_msg(message)[1].box is None


def test_an_answer_carries_its_keyframes_header() -> None:
    answer = Answer(
        query_id=QueryId("q"),
        query_text="which one?",
        camera=CameraId("cam"),
        status=AnswerStatus.OK,
        text="the red one",
        confidence=0.5,
        keyframe_index=FrameIndex(2**40),
        keyframe_stamp_ns=12_000_000_345,
        frame_id="optical",
        prompts=(PROMPTS[0], PROMPTS[3]),
        object_ids=(ObjectId("a"), ObjectId("b")),
        asked_stamp_ns=13_000_000_000,
        answered_stamp_ns=15_000_000_000,
        valid_until_stamp_ns=20_000_000_000,
        latency_s=2.0,
        tokens=17,
        outcome=Outcome.CAME_TRUE,
    )
    message = over_the_wire(records.answer_msg_from_answer(answer))
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (12, 345)
    assert message.header.frame_id == "optical"
    assert message.status == msg.Answer.OK
    assert message.outcome == msg.Answer.CAME_TRUE
    assert message.keyframe_index == 2**40
    assert [prompt.object_id for prompt in message.prompts] == ["a", "b"]
    assert message.object_ids == ["a", "b"]
    assert message.valid_until.sec == 20
    assert [records.prompt_from_msg(prompt)[1] for prompt in message.prompts] == list(
        answer.prompts
    )


def test_an_answer_without_target_has_a_reason_and_an_unknown_confidence() -> None:
    answer = Answer(
        query_id=QueryId("q"),
        query_text="which one?",
        camera=CameraId("cam"),
        status=AnswerStatus.NO_TARGET,
        reason="nothing moves",
    )
    message = over_the_wire(records.answer_msg_from_answer(answer))
    assert message.status == msg.Answer.NO_TARGET
    assert message.reason == "nothing moves"
    assert math.isnan(message.confidence)
    assert (message.valid_until.sec, message.valid_until.nanosec) == (0, 0)
    assert message.prompts == []


def track(**changes: Any) -> Track:
    fields: dict[str, Any] = {
        "object_id": ObjectId("a"),
        "query_ids": (QueryId("q"),),
        "index": 1,
        "key": TrackKey("a"),
        "state": TrackState.UNCERTAIN,
        "score": 0.75,
        "box": BoxXyxy(3.0, 2.0, 7.0, 4.0),
        "area_px": 8,
        "answer_age_s": 1.5,
        "catching_up": True,
        "mask": rle_from_mask(MASK),
    }
    return Track(**(fields | changes))


FRAME = FrameRef(
    camera=CameraId("cam"),
    index=FrameIndex(41),
    epoch=0,
    stamp_ns=7_000_000_009,
    received_ns=1,
    size_wh=(9, 6),
    frame_id="optical",
)


def test_tracks_carry_the_source_frames_header() -> None:
    message = over_the_wire(
        records.track_array_msg_from_tracks(
            FRAME, [track(), track(state=TrackState.LOST, box=None, index=2)], with_masks=True
        )
    )
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (7, 9)
    assert (message.frame_index, message.height, message.width) == (41, 6, 9)
    first, second = message.tracks
    assert first.state == msg.Track.UNCERTAIN
    assert list(first.box_xyxy_px) == [3.0, 2.0, 7.0, 4.0]
    assert first.catching_up
    np.testing.assert_array_equal(mask_from_rle(records.mask_rle_from_msg(first.mask)), MASK)
    assert second.state == msg.Track.LOST
    assert list(second.box_xyxy_px) == [0.0] * 4


def test_masks_are_left_out_unless_asked_for() -> None:
    message = records.track_array_msg_from_tracks(FRAME, [track()])
    assert message.tracks[0].mask.counts == ""


def test_no_track_is_still_a_message() -> None:
    message = over_the_wire(records.track_array_msg_from_tracks(FRAME, []))
    assert message.tracks == []
    assert message.camera == "cam"


def test_what_others_read_is_reliable_and_what_comes_in_is_not() -> None:
    assert qos.image_in().reliability == ReliabilityPolicy.BEST_EFFORT
    assert qos.image_in().depth == 1
    for profile in (qos.masks(), qos.overlay(), qos.answers(), qos.queries(), qos.diagnostics()):
        assert profile.reliability == ReliabilityPolicy.RELIABLE
    assert qos.masks().depth in range(2, 6)
    assert qos.answers().durability == DurabilityPolicy.TRANSIENT_LOCAL
