# SPDX-License-Identifier: Apache-2.0
"""Tracks as detections, in records: no ROS is needed."""

from __future__ import annotations

from typing import Any

from foreseg.dialogue import Answer, AnswerStatus, QueryId
from foreseg.frames import CameraId
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackKey
from foreseg_ros.detections import (
    MAX_TEXTS,
    QueryTexts,
    detections_from_tracks,
    names_of_labels,
)

BOX = BoxXyxy(3.0, 2.0, 7.0, 5.0)


def track(object_id: str, index: int, *query_ids: str, box: BoxXyxy | None = BOX) -> Track:
    return Track(
        object_id=ObjectId(object_id),
        query_ids=tuple(map(QueryId, query_ids)),
        index=index,
        key=TrackKey(object_id),
        state=TrackState.TRACKED if box is not None else TrackState.OCCLUDED,
        score=0.75,
        box=box,
        area_px=8,
        answer_age_s=1.5,
        catching_up=False,
        mask=None,
    )


def answer(query_id: str, text: str, **changes: Any) -> Answer:
    return Answer(
        query_id=QueryId(query_id),
        query_text=text,
        camera=CameraId("camera"),
        status=changes.get("status", AnswerStatus.OK),
    )


def texts(**words: str) -> QueryTexts:
    made = QueryTexts()
    for query_id, text in words.items():
        made.take(answer(query_id, text))
    return made


def test_the_words_of_its_queries_are_a_detections_classes() -> None:
    known = texts(q="what moves?", r="which cup?")
    (found,) = detections_from_tracks([track("cup", 1, "r", "q")], known)
    assert found.classes == ("which cup?", "what moves?")
    assert (found.object_id, found.score, found.box) == ("cup", 0.75, BOX)


def test_two_queries_of_the_same_words_are_one_class() -> None:
    known = texts(q="which cup?", r="which cup?")
    assert known.classes_of(track("cup", 1, "q", "r")) == ("which cup?",)


def test_who_was_pointed_at_is_a_class_of_its_own() -> None:
    assert texts().classes_of(track("mug", 1)) == ("mug",)


def test_a_query_without_known_words_has_its_id() -> None:
    assert texts().classes_of(track("cup", 1, "q7")) == ("q7",)


def test_what_is_not_visible_is_no_detection_and_keeps_its_label() -> None:
    tracks = [track("hidden", 2, "q", box=None), track("cup", 1, "q")]
    known = texts(q="what moves?")
    assert [found.object_id for found in detections_from_tracks(tracks, known)] == ["cup"]
    names = names_of_labels(tracks, known)
    assert names == {0: "background", 1: "what moves?", 2: "what moves?"}
    assert list(names) == [0, 1, 2]


def test_a_changed_query_has_its_new_words_once_it_is_answered() -> None:
    known = texts(q="which cup?")
    known.take(answer("q", "", status=AnswerStatus.FAILED))
    assert known.classes_of(track("cup", 1, "q")) == ("which cup?",)
    known.take(answer("q", "which plate?"))
    assert known.classes_of(track("cup", 1, "q")) == ("which plate?",)


def test_words_are_bounded_and_those_in_use_stay() -> None:
    known = texts(q="which cup?")
    for i in range(3 * MAX_TEXTS):
        known.take(answer(f"other-{i}", "x"))
        assert known.classes_of(track("cup", 1, "q")) == ("which cup?",)
    assert len(known._texts) == MAX_TEXTS
