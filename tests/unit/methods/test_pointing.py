# SPDX-License-Identifier: Apache-2.0
"""Answers that point: as they are said, and what of it becomes prompts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.reasoners import window_of

from foreseg.dialogue import NoTarget, TargetsFound
from foreseg.geometry import BoxXyxy
from foreseg.methods.grounding import View
from foreseg.methods.pointing import PointedObject, parse_pointed, worded
from foreseg.methods.videoseg import VideosegMethod, VideosegSettings
from foreseg.prompts import Point, PointLabel, SpatialPrompt

SIZE_WH = (112, 56)
FRAME = window_of([np.zeros((56, 112, 3), np.uint8)]).frames[0]
METHOD = VideosegMethod(VideosegSettings(view=View(image_side_px=112)))
BOX = [4, 4, 20, 24]


def test_what_is_broken_outside_or_repeated_stays_in_the_count() -> None:
    text = json.dumps(
        [
            {"bbox_2d": BOX, "point_2d": [10, 10], "negative_point_2d": [30, 10], "label": "cup"},
            {"bbox_2d": BOX, "point_2d": [10, 10], "negative_point_2d": [30, 10], "label": "cup"},
            {"bbox_2d": [4, 4, 20], "point_2d": "middle"},
            {"bbox_2d": [104, 4, 120, 24], "point_2d": [50, 50]},
            "a cup",
        ]
    )
    said = parse_pointed(text)
    cup = PointedObject(box=BOX, points=([10, 10],), negatives=([30, 10],), name="cup")
    assert said.objects[:2] == (cup, cup)
    assert said.objects[2] == PointedObject(box=[4, 4, 20], points=("middle",))
    assert said.objects[3].points == ([50, 50],)  # outside its own box
    assert said.objects[4] == PointedObject()
    assert not said.says_none
    part = METHOD.read(text, FRAME).part
    assert isinstance(part, TargetsFound)
    assert len(part.prompts) == 2  # a robot leaves the rest out


def test_several_points_of_an_object_are_all_there() -> None:
    (said,) = parse_pointed(
        '{"box": [1, 2, 3, 4], "points": 3, "negative_points": [[5, 6], [7]]}'
    ).objects
    assert said == PointedObject(box=[1, 2, 3, 4], negatives=([5, 6], [7]))


@pytest.mark.parametrize(
    ("text", "num_objects"),
    [
        ("[]", 0),
        ('{"no_target": "it is over"}', 0),
        ("There are none.", 0),
        ('[{"bbox_2d": [0, 0, 0, 0], "point_2d": [0, 0]}]', 1),
    ],
)
def test_nothing_is_said_as_it_is_read(text: str, num_objects: int) -> None:
    said = parse_pointed(text)
    assert (said.says_none, len(said.objects)) == (True, num_objects)
    assert isinstance(METHOD.read(text, FRAME).part, NoTarget)


@pytest.mark.parametrize("text", ["", "perhaps the cup", "7"])
def test_what_cannot_be_read_says_nothing_at_all(text: str) -> None:
    said = parse_pointed(text)
    assert (said.objects, said.says_none) == ((), False)


def test_no_prompt_in_words_is_no_target() -> None:
    assert parse_pointed(worded([], (1.0, 1.0))).says_none


@given(
    x0=st.integers(0, SIZE_WH[0] - 2),
    y0=st.integers(0, SIZE_WH[1] - 2),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    across=st.floats(0, 1),
)
def test_prompts_in_words_are_read_back(
    x0: int, y0: int, width: int, height: int, across: float
) -> None:
    x1, y1 = min(x0 + width, SIZE_WH[0]), min(y0 + height, SIZE_WH[1])
    inside = Point(x0 + across * (x1 - x0), (y0 + y1) / 2, PointLabel.FOREGROUND)
    beside = Point(0, 0, PointLabel.BACKGROUND)
    prompt = SpatialPrompt(box=BoxXyxy(x0, y0, x1, y1), points=(inside, beside))
    part = METHOD.read(METHOD.worded(FRAME, [prompt]), FRAME).part
    assert isinstance(part, TargetsFound)
    (found,) = part.prompts
    assert found.box == prompt.box
    assert [point.label for point in found.points] == [point.label for point in prompt.points]
    assert abs(found.points[0].x - inside.x) <= 0.5


def test_a_box_too_thin_for_the_models_pixels_keeps_a_pixel() -> None:
    prompt = SpatialPrompt(box=BoxXyxy(10, 10, 11, 30))
    (said,) = parse_pointed(worded([prompt], (0.25, 0.25))).objects
    assert said.box == [2, 2, 3, 8]
