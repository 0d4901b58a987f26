# SPDX-License-Identifier: Apache-2.0
"""What masks can judge of a foresight, and what they cannot."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from foreseg.dialogue import Outcome
from foreseg.geometry import BoxXyxy, Side
from foreseg.masks import mask_from_box, rle_from_mask
from foreseg.pipeline.hindsight import (
    Claim,
    ClaimKind,
    Sighting,
    Watched,
    claim_from_text,
    judged,
    watched_on,
)
from foreseg.prompts import ObjectId

SIZE_WH = (100, 80)
ME, OTHER = ObjectId("me"), ObjectId("other")
NUM_FRAMES = 20
Place = Callable[[int], "BoxXyxy | None"]
LEAVES, MOVES = Claim(kind=ClaimKind.LEAVES), Claim(kind=ClaimKind.MOVES)
MEET, TOUCHED = Claim(kind=ClaimKind.MEET), Claim(kind=ClaimKind.TOUCHED)


def box(x: float, y: float = 30) -> BoxXyxy:
    return BoxXyxy(x, y, x + 20, y + 20)


def sighting(place: BoxXyxy | None) -> Sighting:
    if place is None:
        return Sighting(box=None, mask=None)
    return Sighting(box=place, mask=rle_from_mask(mask_from_box(place, SIZE_WH)))


def watch(
    place: Place, others: dict[ObjectId, Place] | None = None, who: ObjectId = ME
) -> Watched:
    watched = Watched(object_id=who)
    for i in range(NUM_FRAMES):
        around = {name: sighting(where(i)) for name, where in (others or {}).items()}
        watched = watched_on(
            watched, sighting(place(i)), around, stamp_ns=i * 100, size_wh=SIZE_WH
        )
    return watched


def judge(
    claim: Claim | None, *targets: Watched, alive: Sequence[ObjectId] = (ME, OTHER)
) -> tuple[Outcome, str]:
    return judged(
        claim,
        targets,
        alive=frozenset(alive),
        begin_ns=0,
        end_ns=NUM_FRAMES * 100,
        size_wh=SIZE_WH,
    )


@pytest.mark.parametrize(
    ("text", "kind", "side"),
    [
        ("Which object will leave the view first?", ClaimKind.LEAVES, None),
        ("what exits the frame on the left side next", ClaimKind.LEAVES, Side.LEFT),
        ("What is about to roll out of the picture?", ClaimKind.LEAVES, None),
        ("which car will disappear", ClaimKind.LEAVES, None),
        ("What reaches the right edge first?", ClaimKind.REACHES, Side.RIGHT),
        ("Which block starts to move?", ClaimKind.MOVES, None),
        ("which tool will be picked up next?", ClaimKind.MOVES, None),
        ("What will the robot grasp?", ClaimKind.MOVES, None),
        ("which tower falls over?", ClaimKind.MOVES, None),
        ("What will the ball hit next?", ClaimKind.TOUCHED, None),
        ("what will the ball collide with?", ClaimKind.TOUCHED, None),
        ("which cup will be hit by the ball", ClaimKind.TOUCHED, None),
        ("Which two balls will collide?", ClaimKind.MEET, None),
        ("which objects touch each other next", ClaimKind.MEET, None),
    ],
)
def test_words_that_foretell_what_masks_can_judge(
    text: str, kind: ClaimKind, side: Side | None
) -> None:
    assert claim_from_text(text) == Claim(kind=kind, side=side)


@pytest.mark.parametrize(
    "text",
    [
        "which tool will be used next?",
        "which object will not move?",
        "what won't leave the view?",
        "what stays in the picture?",
        "what will move after the ball hits the cup?",
        "if the red one moves, what is hit?",
        "which object is moving?",
        "why does the tower fall?",
        "which person will leave the table?",
        "what will hit the left cushion?",  # a cushion is no side of the picture
        "what reaches the left side of the table?",
        "what will hit the lamp?",  # who is touched is not known to be tracked
        "the red ball",
        "leave " * 333 + "x",
        "what will leave" + " within a second" * 100 + " x",  # no pattern may take for ever
    ],
)
def test_words_that_masks_cannot_judge(text: str) -> None:
    assert claim_from_text(text) is None
    outcome, reason = judge(None, watch(lambda _: box(40)))
    assert outcome is Outcome.UNKNOWN
    assert "nothing that masks can judge" in reason


def out_left(i: int) -> BoxXyxy | None:
    x = 30 - 3 * i
    return BoxXyxy(max(0, x), 30, x + 20, 50) if x + 20 > 2 else None


@pytest.mark.parametrize(
    ("claim", "place", "outcome", "words"),
    [
        (LEAVES, out_left, Outcome.CAME_TRUE, "left the picture"),
        (LEAVES, lambda i: box(40) if i < 10 else None, Outcome.UNKNOWN, "inside the picture"),
        (LEAVES, lambda _: box(40), Outcome.DID_NOT, "still in the picture"),
        (LEAVES, lambda i: None if 5 < i < 9 else box(0), Outcome.DID_NOT, "still in"),
        (LEAVES, lambda _: None, Outcome.UNKNOWN, "never seen"),
        (
            Claim(kind=ClaimKind.LEAVES, side=Side.LEFT), out_left, Outcome.CAME_TRUE, "left the",
        ),
        (
            Claim(kind=ClaimKind.LEAVES, side=Side.RIGHT), out_left, Outcome.DID_NOT, "left side",
        ),
        (MOVES, lambda i: box(20 + i), Outcome.CAME_TRUE, "moved by 0.9"),
        (MOVES, lambda i: box(20 + 10 * (i == 5)), Outcome.CAME_TRUE, "moved by 0.5"),
        (MOVES, lambda i: box(20 + i % 2), Outcome.DID_NOT, "did not move"),
        (MOVES, lambda i: box(20 + 0.3 * i), Outcome.UNKNOWN, "too little to tell"),
        (MOVES, lambda i: box(20) if i < 15 else None, Outcome.UNKNOWN, "out of sight"),
        (
            Claim(kind=ClaimKind.REACHES, side=Side.RIGHT),
            lambda i: box(min(80, 60 + 2 * i)), Outcome.CAME_TRUE, "reached the right side",
        ),
        (
            Claim(kind=ClaimKind.REACHES, side=Side.TOP),
            lambda i: box(min(80, 60 + 2 * i)), Outcome.DID_NOT, "did not reach the top side",
        ),
        (
            Claim(kind=ClaimKind.REACHES, side=Side.LEFT),
            lambda _: box(0), Outcome.UNKNOWN, "already",
        ),
    ],
)  # fmt: skip
def test_what_one_track_shows(claim: Claim, place: Place, outcome: Outcome, words: str) -> None:
    found, reason = judge(claim, watch(place))
    assert (found, words in reason) == (outcome, True), reason
    assert reason.startswith("me ")


def test_a_contact_is_one_of_masks_that_were_apart() -> None:
    def come(i: int) -> BoxXyxy:
        return box(min(i, 10) * 4)  # ends at 60

    def stand(_: int) -> BoxXyxy:
        return box(60)

    hit = watch(stand, {OTHER: come})
    assert judge(TOUCHED, hit) == (Outcome.CAME_TRUE, "me came to touch other")
    beside = watch(stand, {OTHER: lambda _: box(41)})
    assert judge(TOUCHED, beside)[0] is Outcome.UNKNOWN, "they touched all the time"
    near = watch(stand, {OTHER: lambda i: box(min(i, 10) * 3.6)})  # 4 px between them
    assert judge(TOUCHED, near)[0] is Outcome.UNKNOWN
    both = (watch(stand, {OTHER: come}), watch(come, {ME: stand}, OTHER))
    assert judge(MEET, *both)[0] is Outcome.CAME_TRUE
    apart = (watch(stand, {OTHER: lambda _: box(0)}), watch(lambda _: box(0), {ME: stand}, OTHER))
    assert judge(MEET, *apart)[0] is Outcome.DID_NOT
    assert judge(MEET, apart[0])[0] is Outcome.UNKNOWN, "one target cannot meet itself"


def test_boxes_that_overlap_are_no_contact_where_the_masks_are_apart() -> None:
    corner = np.zeros((80, 100), bool)
    corner[30:50, 40:44] = corner[46:50, 40:60] = True  # an L
    dot = np.zeros((80, 100), bool)
    dot[32:36, 52:56] = True  # inside its box
    watched = Watched(object_id=ME)
    for _ in range(2):
        watched = watched_on(
            watched,
            Sighting(box=BoxXyxy(40, 30, 60, 50), mask=rle_from_mask(corner)),
            {OTHER: Sighting(box=BoxXyxy(52, 32, 56, 36), mask=rle_from_mask(dot))},
            stamp_ns=0,
            size_wh=SIZE_WH,
        )
    assert (watched.touched, watched.apart) == (frozenset(), {OTHER})


def test_nothing_is_denied_of_what_was_not_watched() -> None:
    still = watch(lambda _: box(40))
    assert judge(MOVES, still, alive=())[0] is Outcome.UNKNOWN
    moved = watch(lambda i: box(20 + i))
    assert judge(MOVES, moved, alive=())[0] is Outcome.CAME_TRUE, "what was seen was seen"
    late = Watched(object_id=ME)
    early = Watched(object_id=ME)
    for i in range(NUM_FRAMES):
        shown = sighting(box(40))
        if i >= 12:
            late = watched_on(late, shown, {}, stamp_ns=i * 100, size_wh=SIZE_WH)
        if i < 8:
            early = watched_on(early, shown, {}, stamp_ns=i * 100, size_wh=SIZE_WH)
    assert "last part" in judge(MOVES, late)[1]
    assert "not seen for sure at the end" in judge(MOVES, early)[1]


def test_all_targets_must_have_done_it() -> None:
    moved, stayed = watch(lambda i: box(20 + i)), watch(lambda _: box(40), who=OTHER)
    unseen = watch(lambda _: None, who=OTHER)
    assert judge(MOVES, moved, stayed)[0] is Outcome.DID_NOT
    assert judge(MOVES, moved, unseen)[0] is Outcome.UNKNOWN
    assert judge(MOVES) == (Outcome.UNKNOWN, "there was no track to judge by")
