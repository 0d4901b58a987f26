# SPDX-License-Identifier: Apache-2.0
"""Difficulties for a whole dataset, by a teacher or from the simulation's scenes, as a file beside it.

`rated.jsonl` in the folder is the teacher's journal; `difficulty.json` is made anew each time. Does not
know: the command line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foreseg.errors import InputError
from foreseg_evaluation.datasets.sidecars import DIFFICULTY_FORMAT
from foreseg_evaluation.episode import Dataset, Episode
from foreseg_training.samples import Filtered, Sample, unfit

from .asking import AskOptions, ask_about, write_whole
from .errands import Errand
from .journal import Journal
from .ratings import RATING_RULES, Ratings, rating_errand
from .run import Tally, Teacher, accepted
from .scene_ratings import scene_ratings

JOURNAL = "rated.jsonl"
DIFFICULTIES = "difficulty.json"
FROM_SCENE = "scene-v1"  # counts up when the formulae change


def rate_by_teacher(
    dataset: Dataset, out: Path, options: AskOptions, teacher: Teacher
) -> tuple[Tally, Filtered]:
    """As `make_chains`, for ratings."""

    def errand_of(sample: Sample, episode: Episode) -> Errand:
        del episode
        return rating_errand(
            sample,
            image_side_px=options.image_side_px,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )

    words = hashlib.sha256(RATING_RULES.encode()).hexdigest()[:12]
    about = options.about("difficulties", dataset, teacher.settings, words)
    with Journal(out / JOURNAL, about) as journal:
        try:
            tally, filtered = ask_about(dataset, journal, options, teacher, errand_of)
        finally:  # what was paid for is at hand, however the run ends
            of = {episode.id: episode for episode in dataset.episodes}
            rated = [(of[i], Ratings(**found)) for i, found in accepted(journal, list(of))]
            if rated:
                _write(out / DIFFICULTIES, teacher.settings.model, rated)
    tally.require("ratings", filtered)
    return tally, filtered


def rate_by_scene(dataset: Dataset, out: Path) -> tuple[int, Filtered]:
    """Write the difficulties that the simulation's scenes have; returns how many.

    Raises:
        InputError: no episode gives a sample, or the dataset does not name its objects.
    """
    filtered = Filtered()
    rated = []
    for episode in dataset.episodes:
        reason = unfit(episode)
        if reason:
            filtered.reasons[reason] += 1
        else:
            rated.append((episode, scene_ratings(episode)))
            filtered.drawn["rated"] += 1
    if not rated:
        msg = f"no episode gives a sample: {str(filtered) or 'there is none'}"
        raise InputError(msg)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / DIFFICULTIES, FROM_SCENE, rated)
    return len(rated), filtered


def _write(path: Path, by: str, rated: Sequence[tuple[Episode, Ratings]]) -> None:
    records: list[dict[str, Any]] = [
        {
            "video": episode.video,
            "exp_id": episode.expression_id,
            "difficulty": round(ratings.difficulty, 3),
            "ratings": {name: round(value, 3) for name, value in asdict(ratings).items()},
        }
        for episode, ratings in rated
    ]
    content = {"format": DIFFICULTY_FORMAT, "version": 1, "by": by, "records": records}
    write_whole(path, json.dumps(content, indent=1) + "\n")
