# SPDX-License-Identifier: Apache-2.0
"""Difficulties: as a teacher rates them, and as the simulation's scenes have them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from foreseg.errors import InputError
from foreseg_evaluation.datasets.sidecars import with_difficulties
from foreseg_evaluation.episode import (
    Dataset,
    Episode,
    Evidence,
    Question,
    QuestionKind,
    TruthSpan,
)
from foreseg_evaluation.problems import DatasetError
from foreseg_training.samples import Filtered, SampleDrawer
from foreseg_training.teacher.make_ratings import rate_by_scene
from foreseg_training.teacher.ratings import NAMES, Ratings, checked_ratings
from foreseg_training.teacher.scene_ratings import scene_ratings

SIZE_WH = (40, 40)


class Square:
    """A square that rests, or goes to the right, `side` pixels wide; unseen where it is hidden."""

    def __init__(self, side: int, step: int = 0, hidden: tuple[int, ...] = ()) -> None:
        self.side, self.step, self.hidden = side, step, hidden

    def image(self, position: int) -> np.ndarray:
        return np.full((40, 40, 3), position, np.uint8)

    def mask(self, object_id: str, position: int) -> np.ndarray:
        mask = np.zeros(SIZE_WH, bool)
        if object_id == "0" and position not in self.hidden:
            left = self.step * position
            mask[: self.side, left : left + self.side] = True
        return mask

    def void(self, position: int) -> None:
        del position

    def foreground(self, position: int) -> None:
        del position


def episode(
    media: Square, *names: str, text: str = "Where is the red star?", skill: str = "naming",
    hard: bool = False, frames: int = 1, targets: tuple[str, ...] = ("0",), name: str = "v",
) -> Episode:  # fmt: skip
    question = Question(
        text=text, kind=QuestionKind.FORESIGHT, skill=skill, difficulty="hard" if hard else "easy",
        evidence=Evidence(keyframe=0, frames=tuple(range(frames))),
    )  # fmt: skip
    return Episode(
        id=f"{name}/0", video=name, expression_id="0", frame_names=tuple("01234"),
        question=question, object_ids=("0", "1"),
        spans=(TruthSpan(first=0, end=5, object_ids=targets),), annotated=tuple(range(5)),
        scored=tuple(range(5)), size_wh=SIZE_WH, media=media,
        object_names={str(i): name for i, name in enumerate(names)},
    )  # fmt: skip


def test_the_easiest_is_one() -> None:
    ratings = scene_ratings(episode(Square(20), "red star"))
    assert asdict(ratings) == dict.fromkeys(NAMES, 1.0)
    assert ratings.difficulty == 1.0


def test_each_rating_by_hand() -> None:
    names = ("red star", "blue star", "ball", "cup")
    media = Square(10, step=7, hidden=(0,))
    made = episode(media, *names, text="What will be hit?", skill="rebound", hard=True, frames=3)
    ratings = scene_ratings(made)
    assert ratings.scene_complexity == pytest.approx(1 + 9 * 3 / 7)
    small = np.log(0.25 / (100 / 1600)) / np.log(0.25 / 0.0005)
    assert ratings.segmentation_challenge == pytest.approx(1 + 9 * (small + 0.2) / 2)
    assert ratings.temporal_ambiguity == pytest.approx(1 + 9 * 2 / 5)
    way = 21 / (2 * np.hypot(40, 40))  # three steps of 7
    assert ratings.motion_complexity == pytest.approx(1 + 9 * (0.5 + way) / 2)
    assert ratings.linguistic_ambiguity == pytest.approx(1 + 9 * (1 + 0.5) / 2)
    assert ratings.difficulty == pytest.approx(np.mean(list(asdict(ratings).values())))


@pytest.mark.parametrize(
    ("easier", "harder", "name"),
    [
        (("a",), ("a", "b", "c"), "scene_complexity"),
        (("red star", "ball"), ("red star", "blue star"), "linguistic_ambiguity"),
    ],
)
def test_more_makes_it_harder(easier: tuple[str, ...], harder: tuple[str, ...], name: str) -> None:
    one, other = (asdict(scene_ratings(episode(Square(9), *n)))[name] for n in (easier, harder))
    assert one < other


def test_nothing_to_segment_is_no_challenge_and_never_seen_is_the_largest() -> None:
    none = scene_ratings(episode(Square(9), "red star", targets=()))
    assert none.segmentation_challenge == 1.0
    unseen = scene_ratings(episode(Square(9, hidden=(0, 1, 2, 3, 4)), "red star"))
    assert unseen.segmentation_challenge == 10.0


def test_without_names_a_teacher_is_wanted() -> None:
    with pytest.raises(InputError, match=r"v/0.*ratings want a teacher"):
        scene_ratings(episode(Square(9)))


@pytest.mark.parametrize("bad", [0.9, 10.1, float("nan"), float("inf")])
def test_ratings_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="motion_complexity wants 1 to 10"):
        Ratings(**{**dict.fromkeys(NAMES, 2.0), "motion_complexity": bad})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, ""),
        ({"scene_complexity": 10.0}, ""),
        ({"scene_complexity": 11}, "not in 1 to 10"),
        ({"scene_complexity": 0}, "not in 1 to 10"),
        ({"scene_complexity": "high"}, "lacks a rating"),
        ({"scene_complexity": None}, "lacks a rating"),
        ({"scene_complexity": True}, "lacks a rating"),
    ],
)
def test_a_teachers_ratings_are_checked(changes: dict[str, object], reason: str) -> None:
    checked = checked_ratings(f"Sure: {json.dumps({**dict.fromkeys(NAMES, 3), **changes})}")
    assert reason in checked.reason
    assert bool(checked.found) == (reason == "")
    if checked.found:
        assert Ratings(**checked.found).difficulty >= 3


def test_nonsense_is_no_rating() -> None:
    for text in ("", "7/10", "[3, 3, 3, 3, 3]", '{"difficulty": 3}'):
        assert "no object of the form" in checked_ratings(text).reason


def test_samples_carry_what_was_rated(tmp_path: Path) -> None:
    one = episode(Square(9), "red star", "ball")
    other = episode(Square(3, step=4), "red star", text="What falls?", name="w")
    streams = replace(one, id="s/0", video="s", spans=(*one.spans, *one.spans))
    dataset = Dataset(form="fevos", root="worlds", split="train", episodes=(one, other, streams))
    count, filtered = rate_by_scene(dataset, tmp_path)
    assert count == 2
    assert filtered.reasons == {"with several truths": 1}
    rated = with_difficulties(dataset, tmp_path / "difficulty.json")
    assert "of 2 of 3 questions" in rated.assumptions[-1]
    samples = list(SampleDrawer().draw(rated.episodes, 0, Filtered()))
    wanted = [round(scene_ratings(made).difficulty, 3) for made in (one, other)]
    assert [sample.difficulty for sample in samples] == wanted
    assert next(SampleDrawer().draw([one], 0, Filtered())).difficulty is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file"),
        ("{", "not|JSON|cannot"),
        ('{"format": "other", "records": []}', "foreseg-difficulty"),
        ('{"format": "foreseg-difficulty", "records": []}', "of no question"),
        (
            '{"format": "foreseg-difficulty", "records": [{"video": "v", "exp_id": "0", "difficulty": 11}]}',
            r"of no question.*expected 1 to 10",
        ),
    ],
)
def test_a_file_that_is_no_sidecar_is_refused(
    content: str | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "difficulty.json"
    if content is not None:
        path.write_text(content, "utf-8")
    dataset = Dataset(
        form="fevos", root="worlds", split="train", episodes=(episode(Square(9), "red star"),)
    )
    with pytest.raises(DatasetError, match=message):
        with_difficulties(dataset, path)
