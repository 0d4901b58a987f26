# SPDX-License-Identifier: Apache-2.0
"""What a caller sees of reasoners that keep, bend and break their contract."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.support.reasoners import Disc, discs_window, query, saying

from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    ObservedMask,
    RationalePart,
    TargetsFound,
)
from foreseg.driving.trace import encode
from foreseg.frames import FrameIndex
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, rle_from_mask
from foreseg.prompts import Point, PointLabel, SpatialPrompt
from foreseg.reasoner.exchange import MAX_REPLY_CHARS, MAX_TOKENS, checked_ask

WINDOW = discs_window(Disc(x=20, y=20, radius=9, colour=(255, 0, 0)), size_wh=(64, 48))
KEYFRAME = WINDOW.newest.index
BOX = SpatialPrompt(box=BoxXyxy(5.0, 5.0, 20.0, 20.0))
NONE = NoTarget(reason="nothing")
HALF = "half a \ud83d smile"


def parts_of(*parts: AnswerPart) -> list[AnswerPart]:
    return list(checked_ask(saying(*parts), query("which?"), WINDOW))


def broken(*parts: AnswerPart) -> str:
    ending = parts_of(*parts)[-1]
    assert isinstance(ending, AnswerFailed), ending
    assert ending.reason.startswith("the reasoner broke its contract: ")
    return ending.reason


def found_with(*drawn: ObservedMask) -> TargetsFound:
    return TargetsFound(keyframe_index=KEYFRAME, prompts=(BOX,), masks_by_frame=drawn)


def test_masks_that_a_model_drew_are_handed_on_if_they_fit_frames_that_it_was_given() -> None:
    mask = np.zeros((48, 64), bool)
    mask[4:9, 5:9] = True
    fitting = ObservedMask(frame_index=KEYFRAME, mask=rle_from_mask(mask))
    empty = replace(fitting, mask=rle_from_mask(np.zeros_like(mask)))
    assert parts_of(found_with(fitting), AnswerDone())[0] == found_with(fitting)
    assert parts_of(found_with(fitting, empty), AnswerDone())[0] == found_with(empty)  # once each
    elsewhere = replace(fitting, frame_index=FrameIndex(KEYFRAME + 1))
    assert "a mask on frame" in broken(found_with(elsewhere), AnswerDone())
    small = replace(fitting, mask=rle_from_mask(mask[:20]))
    assert "a mask of 64 x 20 on a frame of (64, 48)" in broken(found_with(small), AnswerDone())
    torn = replace(fitting, mask=MaskRle(height=48, width=64, counts="1"))
    assert "run lengths" in broken(found_with(torn), AnswerDone())


def test_wanted_frames_are_bounded_in_size() -> None:
    assert "frames of 5000 pixels a side" in broken(FramesWanted(indices=(), side_px=5000))
    many = tuple(FrameIndex(i) for i in range(200))
    assert "pixels in all" in broken(FramesWanted(indices=many, side_px=1024))
    assert parts_of(FramesWanted(indices=many), NONE, AnswerDone())[-1] == AnswerDone()


@pytest.mark.parametrize("tokens", [2**70, -5, MAX_TOKENS + 1])
def test_a_count_that_no_message_carries_is_a_broken_contract(tokens: int) -> None:
    assert f"counted {tokens} tokens" in broken(NONE, AnswerDone(tokens=tokens))


def test_text_that_utf8_cannot_carry_is_mended_in_every_part() -> None:
    said = parts_of(
        RationalePart(text=HALF), NoTarget(reason=HALF, text=HALF), AnswerDone(tokens=1)
    )
    whole = "half a ? smile"
    assert said == [
        RationalePart(text=whole),
        NoTarget(reason=whole, text=whole),
        AnswerDone(tokens=1),
    ]
    assert parts_of(AnswerFailed(reason=HALF)) == [AnswerFailed(reason=whole)]
    found = TargetsFound(keyframe_index=KEYFRAME, prompts=(BOX,), text=HALF, confidence=0.5)
    assert parts_of(found, AnswerDone())[0] == replace(found, text=whole)


def test_numbers_of_a_library_become_plain_ones_that_a_trace_holds() -> None:
    point = Point(np.float32(3), np.float64(4), np.int64(1))  # type: ignore[arg-type]
    prompts = (
        SpatialPrompt(box=BoxXyxy(*np.array([5, 5, 20, 20], np.float32))),
        SpatialPrompt(points=(point,)),
    )
    index = FrameIndex(np.int64(KEYFRAME))  # type: ignore[arg-type]
    said = parts_of(
        FramesWanted(indices=(index,)),
        TargetsFound(
            keyframe_index=index,
            prompts=prompts,
            confidence=np.float32(0.5),  # type: ignore[arg-type]
        ),
        AnswerDone(tokens=np.uint16(7)),  # type: ignore[arg-type]
    )
    assert said == [
        FramesWanted(indices=(KEYFRAME,)),
        TargetsFound(
            keyframe_index=KEYFRAME,
            prompts=(BOX, SpatialPrompt(points=(Point(3.0, 4.0, PointLabel.FOREGROUND),))),
            confidence=0.5,
        ),
        AnswerDone(tokens=7),
    ]
    json.dumps([encode(part) for part in said])  # raises for anything but plain numbers


@pytest.mark.parametrize(
    "part",
    [
        RationalePart(text=None),  # type: ignore[arg-type]
        RationalePart(text=b"bytes"),  # type: ignore[arg-type]
        NoTarget(reason="", confidence="high"),  # type: ignore[arg-type]
        FramesWanted(indices=(1.5,)),  # type: ignore[arg-type]
        TargetsFound(keyframe_index="7", prompts=(BOX,)),  # type: ignore[arg-type]
        TargetsFound(keyframe_index=KEYFRAME, prompts=("box",)),  # type: ignore[arg-type]
        TargetsFound(keyframe_index=KEYFRAME, prompts=None),  # type: ignore[arg-type]
        AnswerFailed(reason=3),  # type: ignore[arg-type]
    ],
)
def test_a_part_of_the_wrong_types_is_a_broken_contract_and_no_exception(part: AnswerPart) -> None:
    assert "that cannot be read" in broken(part)


def test_an_unknown_point_label_is_an_unusable_prompt() -> None:
    prompt = SpatialPrompt(points=(Point(1.0, 1.0, 7),))  # type: ignore[arg-type]
    found = TargetsFound(keyframe_index=KEYFRAME, prompts=(prompt,))
    assert "label wants 0 (background) or 1 (foreground), got 7" in broken(found)


def test_what_is_too_long_is_cut() -> None:
    said = parts_of(RationalePart(text="x" * (MAX_REPLY_CHARS + 5)), NONE, AnswerDone())
    assert said[0] == RationalePart(text="x" * MAX_REPLY_CHARS)
    assert said[1] == NoTarget(reason="")


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ((NONE, NONE), "second verdict"),
        ((AnswerDone(),), "ended without a verdict"),
        ((NoTarget(reason="", confidence=1.5),), "confidence 1.5"),
        ((TargetsFound(keyframe_index=FrameIndex(3), prompts=(BOX,)),), "frame 3"),
        ((TargetsFound(keyframe_index=KEYFRAME, prompts=()),), "found 0 targets"),
    ],
)
def test_what_breaks_the_contract_fails_with_what_it_was(
    parts: tuple[AnswerPart, ...], what: str
) -> None:
    assert what in broken(*parts)
