# SPDX-License-Identifier: Apache-2.0
"""The board: newest frame, stages of answers, names; bounded, whatever comes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from foreseg.clock import ManualClock
from foreseg.commands.questions import QuestionFrames
from foreseg.dialogue import Answer, AnswerStatus, QueryId
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId
from foreseg.tracker.base import TrackKey
from foreseg_view.board import MAX_ANSWERS, MAX_PAST, MAX_WITH_FRAMES, Board
from foreseg_view.host import Stage

NS = 1_000_000_000
MUG = ObjectId("mug")


def frame_ref(number: int, *, stamp_ns: int | None = None) -> FrameRef:
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(number),
        epoch=0,
        stamp_ns=number * NS // 10 if stamp_ns is None else stamp_ns,
        received_ns=number * NS // 10,
        size_wh=(8, 6),
    )


def track_of(
    name: str = MUG, *, state: TrackState = TrackState.TRACKED, catching_up: bool = False
) -> Track:
    return Track(
        object_id=ObjectId(name),
        query_ids=(),
        index=3,
        key=TrackKey(name),
        state=state,
        score=0.9,
        box=None,
        area_px=4,
        answer_age_s=0.0,
        catching_up=catching_up,
        mask=None,
    )


def masks_of(number: int, *tracks: Track, stamp_ns: int | None = None) -> PublishedMasks:
    return PublishedMasks(
        frame=frame_ref(number, stamp_ns=stamp_ns),
        image=np.full((6, 8, 3), number % 256, np.uint8),
        label_map=np.zeros((6, 8), np.uint8),
        tracks=tracks,
    )


def answer_of(number: int, *names: str, status: AnswerStatus = AnswerStatus.OK) -> Answer:
    return Answer(
        query_id=QueryId("q"),
        query_text="what?",
        camera=DEFAULT_CAMERA,
        status=status,
        keyframe_index=FrameIndex(number),
        keyframe_stamp_ns=number * NS // 10,
        asked_stamp_ns=number * NS // 10,
        answered_stamp_ns=(number + 2) * NS // 10,
        object_ids=tuple(ObjectId(name) for name in names),
    )


def test_only_the_newest_frame_is_kept_and_it_is_a_copy() -> None:
    board = Board()
    masks = masks_of(1)
    board.publish_masks(masks)
    board.publish_masks(masks_of(2))
    assert masks.image is not None
    masks.image[:] = 99
    assert board.newest is not None
    assert (board.newest.frame.index, board.newest.image[0, 0, 0]) == (2, 2)


def test_an_answer_goes_from_its_keyframe_over_the_hop_to_caught_up() -> None:
    board = Board()
    board.publish_masks(masks_of(1))
    board.publish_answer(answer_of(1, MUG))

    def stage() -> Stage:
        return board.answers()[-1].stage

    assert stage() is Stage.KEYFRAME
    board.publish_masks(masks_of(2, track_of()))  # of before the answer
    assert stage() is Stage.KEYFRAME
    unsure = track_of(state=TrackState.UNCERTAIN)
    board.publish_masks(masks_of(3, unsure))
    assert stage() is Stage.HOP
    board.publish_masks(masks_of(4, replace(unsure, catching_up=True)))
    assert stage() is Stage.HOP
    board.publish_masks(masks_of(5, unsure))
    shown = board.answers()[-1]
    assert shown.stage is Stage.CAUGHT_UP
    assert (shown.hop_stamp_ns, shown.caught_up_stamp_ns) == (3 * NS // 10, 5 * NS // 10)
    assert shown.indices == {MUG: 3}


def test_a_hop_that_nothing_confirms_is_never_called_caught_up() -> None:
    board = Board()
    board.publish_answer(answer_of(1, MUG))
    for number in range(3, 40):
        board.publish_masks(masks_of(number, track_of(state=TrackState.UNCERTAIN)))
    assert board.answers()[-1].stage is Stage.HOP
    board.publish_masks(masks_of(40))
    assert board.answers()[-1].stage is Stage.ENDED


def test_an_answer_that_names_nothing_has_no_stages() -> None:
    board = Board()
    board.publish_answer(answer_of(1, status=AnswerStatus.NO_TARGET))
    assert board.answers()[-1].stage is Stage.ENDED


def test_an_answer_that_comes_again_keeps_its_number_and_counts_as_changed() -> None:
    board = Board()
    board.publish_answer(answer_of(1, MUG))
    board.publish_answer(answer_of(9, MUG))
    seen = board.version
    board.publish_answer(replace(answer_of(1, MUG), rationale="because"))
    assert [one.number for one in board.answers(seen)] == [1]
    assert [one.number for one in board.answers()] == [1, 2]
    assert board.answer(1) is not None
    assert board.answer(3) is None


def test_a_stamp_that_runs_backward_is_another_run() -> None:
    board = Board()
    board.publish_answer(answer_of(1, MUG))
    board.publish_masks(masks_of(50))
    board.publish_masks(masks_of(51, track_of(), stamp_ns=3 * NS))
    assert board.run == 1
    assert board.answers()[-1].stage is Stage.KEYFRAME, (
        "masks of the new run are not this answer's"
    )


def test_nothing_grows_without_end() -> None:
    board = Board(clock=ManualClock())
    pixels = np.zeros((90, 120, 3), np.uint8)
    for number in range(MAX_ANSWERS + 20):
        frame = Frame(ref=frame_ref(number), image=pixels)
        window = FrameWindow(frames=(frame,), origin_index=FrameIndex(0))
        frames = QuestionFrames(window=window, num_frames=1)
        board.publish_answer(answer_of(number, MUG), frames)
    shown = board.answers()
    assert len(shown) == MAX_ANSWERS
    kept = [one.keyframe for one in shown if one.keyframe is not None]
    assert len(kept) == MAX_WITH_FRAMES
    assert shown[-1].keyframe is not None, "of the newest answers"
    for number in range(MAX_PAST + 50):
        board.publish_masks(masks_of(number))
    assert len(board._past) == MAX_PAST
    assert len(board.take_latencies_ns()) <= 256


def test_a_frozen_frame_has_the_masks_of_its_time() -> None:
    board = Board()
    board.publish_masks(masks_of(1, track_of("a")))
    board.publish_masks(masks_of(4, track_of("b")))
    board.publish_masks(masks_of(4, track_of("c")))  # once more, with more objects
    names = [[t.object_id for t in board.past_tracks(i)] for i in (0, 1, 3, 4, 9)]
    assert names == [[], ["a"], ["a"], ["c"], ["c"]]


def test_the_last_seconds_are_counted_by_stamps_of_this_run() -> None:
    board = Board()
    assert board.first_index_of(5) is None
    for number in range(20):
        board.publish_masks(masks_of(number))
    assert board.first_index_of(0.5) == 14
    assert board.first_index_of(100) == 0
    board.publish_masks(masks_of(20, stamp_ns=0))
    board.publish_masks(masks_of(21, stamp_ns=NS))
    assert board.first_index_of(100) == 20


def test_names_are_given_once_and_refused_by_name() -> None:
    board = Board()
    board.publish_masks(masks_of(1, track_of("a"), track_of("b")))
    board.rename(ObjectId("a"), "  red mug ")
    assert board.name_of(ObjectId("a")) == "red mug"
    for name, told in (
        ("", "1 to 40"),
        ("x" * 41, "1 to 40"),
        ("\ud800", "1 to 40"),
        ("red mug", "another"),
    ):
        with pytest.raises(InputError, match=told):
            board.rename(ObjectId("b"), name)
    with pytest.raises(InputError, match="another object is called 'b'"):
        board.rename(ObjectId("a"), "b")
    with pytest.raises(InputError, match="no object 'c'"):
        board.rename(ObjectId("c"), "x")
    board.rename(ObjectId("a"), "<b>mug</b>")
    assert board.name_of(ObjectId("a")) == "<b>mug</b>"
