# SPDX-License-Identifier: Apache-2.0
"""Lines that drill reckoning with places: their arithmetic is right, and what is to be said is what can be reckoned."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("torch", reason="trains: pip install 'foreseg[train]'")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

import torch
from tests.support.prepared_nano import SMALL

from foreseg_training.nano.architecture import build_nano_reasoner
from foreseg_training.nano.drills import Drills, draw_drill
from foreseg_training.nano.numbers import number_ids
from foreseg_training.nano.tokenizer import train_tokenizer
from foreseg_training.nano.tracks import NEAR_PX
from foreseg_training.nano.training import drill_loss

_SIZE = (168, 112)
_LINES = [
    draw_drill(np.random.default_rng(seed), _SIZE, num_places=2 + seed % 4) for seed in range(300)
]


def places(text: str) -> list[tuple[int, int]]:
    return [(int(x), int(y)) for x, y in re.findall(r"\[(\d+), (\d+)\]", text)]


def test_the_last_step_is_from_the_last_place_but_one_to_the_last() -> None:
    signs = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}
    num_steps = 0
    for line in _LINES:
        _, seen, rest = line.text.split(". ", 2)  # behind the list
        found = re.match("It moves([^.]*)[.] ", rest)
        if found:
            words = re.findall("(right|left|up|down) ([0-9]+)", found[1])
            step = sum(int(n) * np.array(signs[word]) for word, n in words)
            assert np.array_equal(np.subtract(*places(seen)[:-3:-1]), step)
            num_steps += 1
    assert num_steps > 200


def test_a_way_ahead_goes_on_as_the_last_step_went_or_turns_back_at_an_edge() -> None:
    num_turned = num_gone = 0
    for line in _LINES:
        seen, _, ahead = line.text.partition("Ahead, ")
        if not ahead:
            continue
        way = [*places(seen)[-2:], *places(ahead)]
        steps = np.diff(way, axis=0)
        is_ball = "The ball: " in line.text
        off = np.abs(np.abs(steps) - np.abs(steps[0])).max(axis=1)
        kept = off <= 2
        assert kept.all() or is_ball, line.text
        num_turned += bool((np.sign(steps[:, 0]) != np.sign(steps[0, 0])).any() and is_ball)
        num_gone += "[]" in ahead
        assert not (is_ball and "[]" in ahead)
        assert all(0 <= x <= _SIZE[0] and 0 <= y <= _SIZE[1] for x, y in way)
    assert num_turned > 20
    assert num_gone > 20


def test_what_follows_from_the_list_and_the_places_is_to_be_said() -> None:
    for line in _LINES:
        said = [line.text[first:last] for first, last in line.said]
        track, first, *marks, step, ahead = said
        assert set(marks) <= {"], ", "]; ", "]. "}
        assert line.text.endswith(f"{step}{ahead}")
        here, _, rest = line.text.partition(". ")
        name = re.match("The ([a-z ]+): ", track)
        assert name is not None
        assert rest.startswith(track)
        assert "Ahead" not in line.text[: line.said[-1][0]]
        stands = re.search(r"\[(\d+, \d+)\] the " + name[1] + r" \[([^]]*)\]", here)
        assert stands is not None
        assert (track, first) == (f"The {name[1]}: ", f"[{stands[2]}")
        assert step.startswith(f"[{stands[1]}]. ")


def test_equal_seeds_draw_equal_lines() -> None:
    again = [
        draw_drill(np.random.default_rng(seed), _SIZE, num_places=2 + seed % 4)
        for seed in range(20)
    ]
    assert again == _LINES[:20]


def test_of_several_things_all_places_come_before_what_lies_ahead() -> None:
    for seed in range(50):
        text = draw_drill(np.random.default_rng(seed), _SIZE, num_things=3, num_places=6).text
        tracks, _, ahead = text.partition("Ahead, ")
        assert tracks.count("The ") == 3
        assert tracks.startswith("Here: ")
        assert ahead.count("Ahead, ") <= 2
        assert tracks.count("[") == 18 + 2 * 3  # and where each is now, and was first


def test_a_ball_meets_the_first_thing_on_its_way() -> None:
    num_met = 0
    for seed in range(200):
        line = draw_drill(
            np.random.default_rng(seed), _SIZE, num_things=1, num_places=3, num_standing=4
        )
        found = re.search("So the ball will hit the ([a-z ]+) next", line.text)
        here = re.match("Here: ([^.]*)[.]", line.text)
        assert here is not None
        if "The ball" not in line.text:
            assert found is None
            continue
        where = {name: np.array([int(x), int(y)]) for x, y, name in re.findall(
            r"\[(\d+), (\d+)\] the ([a-z ]+) \[", here[1]
        )}  # fmt: skip
        last = where.pop("ball")
        assert f"[{last[0]}, {last[1]}]. It" in line.text
        way = places(re.sub(r"Near it: [^.]*[.]", "", line.text.partition("Ahead, ")[2]))
        near = re.search(r"Near it: \[\d+, \d+\] the ([a-z ]+)[.]", line.text)
        gaps = [min(np.linalg.norm(at - p) for at in where.values()) for p in way]
        assert all(gap > 20 for gap in gaps[:-1]), line.text
        if found:
            assert np.linalg.norm(where[found[1]] - way[-1]) <= 23, line.text
            assert near is not None
            assert near[1] == found[1], line.text
            num_met += 1
        elif way:
            assert gaps[-1] > 20, line.text
            assert (near is not None) == (gaps[-1] <= NEAR_PX) or abs(gaps[-1] - NEAR_PX) < 1
    assert num_met > 25


def test_a_model_learns_from_a_batch_of_them() -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer([line.text for line in _LINES], [])
    model = build_nano_reasoner(SMALL, tokenizer, 0)
    drills = Drills(tokenizer, size_wh=_SIZE, count=8)
    batch = drills.draw(np.random.default_rng(0))
    is_said = batch.labels >= 0
    assert batch.ids[:, 1:][is_said[:, :-1]].equal(batch.labels[:, :-1][is_said[:, :-1]])
    assert int((batch.side >= 0).sum()) > 20
    assert not (is_said & ~batch.is_there).any()
    numbers = number_ids(tokenizer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    lost = []
    for _ in range(12):
        loss = sum(drill_loss(model, batch, numbers))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        lost.append(loss.item())
    assert lost[-1] < 0.7 * lost[0]
