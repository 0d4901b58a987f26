# SPDX-License-Identifier: Apache-2.0
"""Files that say more of a dataset's questions than it does itself: chains of thought, difficulties.

They stand beside any dataset, whatever its form, and name questions by video and expression id. Does
not know who made them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from foreseg_evaluation.episode import Dataset, Episode, Question
from foreseg_evaluation.problems import ProblemLog, refuse

from .entries import read_json, wrong
from .rationales import Rationale, evidence_from, read_rationales
from .reading import Reading

DIFFICULTY_FORMAT = "foreseg-difficulty"
MAX_RATING = 10.0


def with_rationales(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with the chains of a `reasoning_data.json` in place of its own.

    Raises:
        DatasetError: no such file, none of that kind, or none of its chains is of this dataset.
    """
    reading = _reading(path)
    rationales = read_rationales(path, reading)

    def told(episode: Episode, question: Question) -> Question | None:
        own = rationales.get((episode.video, episode.expression_id))
        own = own or rationales.get((episode.video, question.text))
        return None if own is None else _with_chain(episode, question, own, reading)

    return _told(dataset, path, reading, told, "chains of thought")


def with_difficulties(dataset: Dataset, path: Path) -> Dataset:
    """The dataset with the ratings of a file that `foreseg-train make-difficulty` writes.

    Raises:
        DatasetError: no such file, none of that kind, or none of its ratings is of this dataset.
    """
    reading = _reading(path)
    ratings: dict[tuple[str, str], float] = {}
    root = read_json(path, reading.log)
    if root["format"].text() != DIFFICULTY_FORMAT:
        raise wrong(root["format"], f"expected {DIFFICULTY_FORMAT!r}")
    for _, record in root["records"].entries():
        with reading.skipping():
            rating = record["difficulty"].number()
            if not 1 <= rating <= MAX_RATING:
                raise wrong(record["difficulty"], f"expected 1 to {MAX_RATING:g}, got {rating}")
            ratings[record["video"].ident(), record["exp_id"].ident()] = rating

    def told(episode: Episode, question: Question) -> Question | None:
        rating = ratings.get((episode.video, episode.expression_id))
        return None if rating is None else replace(question, rating=rating)

    return _told(dataset, path, reading, told, "difficulties")


def _reading(path: Path) -> Reading:
    if not path.is_file():
        raise refuse(path, "", "is no file")
    return Reading(
        root=path.parent,
        split="",
        rate_hz=1.0,
        rate_note="",
        wanted_rate_hz=None,
        log=ProblemLog(strict=False),
    )


def _with_chain(
    episode: Episode, question: Question, own: Rationale, reading: Reading
) -> Question:
    evidence = None
    if own.evidence is not None:
        with reading.skipping():  # the chain is whole without it
            evidence = evidence_from(own.evidence, episode.frame_names)
    return replace(question, rationale=own.text, evidence=evidence)


def _told(
    dataset: Dataset,
    path: Path,
    reading: Reading,
    told: Callable[[Episode, Question], Question | None],
    what: str,
) -> Dataset:
    episodes, count = [], 0
    for episode in dataset.episodes:
        question = None if episode.question is None else told(episode, episode.question)
        count += question is not None
        episodes.append(episode if question is None else replace(episode, question=question))
    if not count:
        said = f": {reading.log.problems[0]}" if reading.log.problems else ""
        raise refuse(path, "", f"has {what} of no question of {dataset.root}{said}")
    note = f"{path} has {what} of {count} of {len(episodes)} questions"
    return replace(
        dataset,
        episodes=tuple(episodes),
        problems=(*dataset.problems, *reading.log.problems),
        assumptions=(*dataset.assumptions, *reading.log.assumptions, note),
    )
