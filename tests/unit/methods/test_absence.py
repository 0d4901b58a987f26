# SPDX-License-Identifier: Apache-2.0
"""What says that nothing is there, and what only looks like it."""

from __future__ import annotations

import pytest

from foreseg.methods.absence import is_denial, is_no_place
from foreseg.methods.near_json import Json

DENIALS = (
    "none",
    "No target.",
    "There are none.",
    "There is no such object",
    "There are no objects in the image that match the description.",
    "No object in these frames fits the query.",
    "No ball is visible in any of the frames.",
    "None of the objects will leave the view.",
    "None of the objects will fall. Nothing moves.",
    "Nothing in the frames fits the query.",
    "Nobody is there.",
    "I cannot see any ball in these frames.",
    "I can\N{RIGHT SINGLE QUOTATION MARK}t find a cup.",
    "I see no cup.",
    "The frames do not show any ball.",
    "The image shows no ball.",
    "The ball is not visible in these frames.",
    "It is not present.",
)
OTHERS = (
    "",
    "...",
    "the red ball",
    "no, the red one",
    "No, it is the red ball.",
    "No the ball falls",
    "There is no doubt that the red ball will fall.",
    "There is not enough information to tell.",
    "There are no other objects. The red ball will fall.",
    "The red ball will fall. There are no other objects.",
    "There are no balls, but the red box will fall.",
    "Nothing but the ball moves.",
    "None of the objects except the cup.",
    "None of these frames can be seen.",
    "No image was provided.",
    "I cannot see any images.",
    "I cannot see the image.",
    "There are no images in your message.",
    "I cannot tell.",
    "I cannot answer this.",
    "I am not sure.",
    "There may be none.",
    "If there is no ball, nothing.",
    "It is not the ball.",
    "Nothing " + "x" * 1000,
)


@pytest.mark.parametrize("text", DENIALS)
def test_a_denial_is_one(text: str) -> None:
    assert is_denial(text)
    assert is_denial(f" *{text}* \n")


@pytest.mark.parametrize("text", OTHERS)
def test_what_hedges_excepts_or_denies_the_pictures_is_none(text: str) -> None:
    assert not is_denial(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((None, True), ("", True), ("None.", True), ("N/A", True), ([], True), ({}, True)),
        *(([None], True), ([[]], True), ([[0, 0, 0, 0]], True), ([5, 5, 5, 9], True)),
        *((0, False), (False, False), ("cup", False), ([0, 0, 1, 1], False), ([1, 2, 3], False)),
        *(({"bbox": None}, False), ([None, [0, 0, 9, 9]], False), ([0, 0], False)),
    ],
)
def test_what_marks_no_place(value: Json, expected: bool) -> None:  # noqa: FBT001
    assert is_no_place(value) is expected
