# SPDX-License-Identifier: Apache-2.0
"""Lines that drill what was hit: what they say befell is what the places show."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")

import itertools

from foreseg_training.nano.hit_drills import draw_hits

_SIZE = (168, 126)
_LINES = [
    draw_hits(np.random.default_rng(seed), _SIZE, num_standing=3 + seed % 3) for seed in range(300)
]
_PLACE = r"\[(\d+), (\d+)\](?! the)"
_THING = r"\[(\d+), (\d+)\] the ([a-z ]+)"


def things_of(text: str) -> dict[str, np.ndarray]:
    here = text.partition(". ")[0]
    return {name: np.array([int(x), int(y)]) for x, y, name in re.findall(_THING + r" \[", here)}


def hits_of(text: str) -> list[str]:
    return [name for _, _, name in re.findall(_THING, text.partition("Before: ")[2])]


def touches_of(text: str) -> list[tuple[int, str]]:
    """What is said to be touched, and after how many places of the ball."""
    track = text.partition("The ball: ")[2].partition(". ")[0]
    found = re.finditer(r"(?<=: )" + _THING, track)
    return [(len(re.findall(_PLACE, track[: one.start()])), one[3]) for one in found]


def words_after(track: str, number: int) -> str:
    """What follows one of the places of a track, up to the next one's label."""
    places = list(re.finditer(_PLACE, track))
    return track[places[number].end() : places[number + 1].start()].rstrip("0123456789")


def ball_of(text: str) -> np.ndarray:
    track = re.search(r"The ball: ([^.]*)[.]", text)
    assert track is not None
    return np.array([[int(x), int(y)] for x, y in re.findall(_PLACE, track[1])])


def test_what_is_to_be_said_are_the_last_step_and_what_was_hit() -> None:
    for line in _LINES:
        *marks, (first, last) = line.said
        for a, b in marks:
            assert re.fullmatch(r"\](, |; |\. |(: " + _THING + ")+(; |[.] ))", line.text[a:b])
        assert len(marks) == 12
        assert last == len(line.text)
        said = line.text[first:]
        assert re.match("It (moves|lies)", said)
        assert "Before: " in said
        assert len(ball_of(line.text)) == 12


def test_a_ball_was_beside_what_it_hit_and_never_beside_what_it_did_not() -> None:
    num_hits = 0
    for line in _LINES:
        things, hits, ball = things_of(line.text), hits_of(line.text), ball_of(line.text)
        assert hits
        assert set(hits) <= set(things) - {"ball"}
        assert all(a != b for a, b in itertools.pairwise(hits)), line.text
        ends = np.linspace(ball[:-1], ball[1:], 33).reshape(-1, 2)  # between places it is straight
        for name, place in things.items():
            near = np.linalg.norm(ends - place, axis=1).min()
            if name not in ["ball", *hits]:
                assert near > 17, line.text  # a corner between two places is cut
        step = np.linalg.norm(np.diff(ball, axis=0), axis=1).max()
        for name in hits:
            near = np.linalg.norm(ball - things[name], axis=1).min()
            assert near < 23 + step / 2 + 2, line.text
            num_hits += 1
        touches = touches_of(line.text)
        assert [name for _, name in touches] == hits  # in this order
        for count, name in touches:  # by one of the last three places, or between them
            legs = np.linspace(ball[count - 3 : count - 1], ball[count - 2 : count], 9)
            near = np.linalg.norm(legs - things[name], axis=-1).min()
            assert near < 23 + step / 2 + 2, line.text
    assert num_hits > 400


def test_a_semicolon_follows_the_place_after_a_turn() -> None:
    turns = 0
    for line in _LINES:
        ball = ball_of(line.text).astype(float)
        track = line.text.partition("The ball: ")[2].partition(".")[0]
        touched = {count - 1 for count, _ in touches_of(line.text)}
        steps = np.diff(ball, axis=0)
        change = np.linalg.norm(np.diff(steps, axis=0), axis=1)
        longest = np.maximum(*(np.linalg.norm(part, axis=1) for part in (steps[:-1], steps[1:])))
        is_turn = change > np.maximum(4.0, longest / 2)
        for n, turns_here in enumerate(is_turn[:-1], start=2):
            if n not in touched:
                assert (words_after(track, n) == "; ") == turns_here, line.text
        turns += int(is_turn.sum())
    assert turns > 400


def test_some_are_named_by_their_sides_and_stand_there() -> None:
    pairs = 0
    for line in _LINES:
        things = things_of(line.text)
        for name, place in things.items():
            if name.startswith("left "):
                other = things["right " + name.removeprefix("left ")]
                assert place[0] < other[0]
                pairs += 1
    assert 20 < pairs < 120


def test_a_frame_without_room_is_refused_and_not_waited_for() -> None:
    with pytest.raises(ValueError, match="a frame of 24 x 24 has no room"):
        draw_hits(np.random.default_rng(0), (24, 24))


def test_equal_seeds_draw_equal_lines() -> None:
    again = [
        draw_hits(np.random.default_rng(seed), _SIZE, num_standing=3 + seed % 3)
        for seed in range(20)
    ]
    assert again == _LINES[:20]
