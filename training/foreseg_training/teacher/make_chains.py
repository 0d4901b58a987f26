# SPDX-License-Identifier: Apache-2.0
"""Chains of thought for a whole dataset: drawn, asked for, checked, and written as datasets read them.

`asked.jsonl` in the folder is the journal; `reasoning_data.json` is made of it anew each time, in the
order of the dataset. Does not know: the command line.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreseg_evaluation.episode import Dataset, Episode
from foreseg_training.samples import Filtered, Sample

from .asking import AskOptions, ask_about, write_whole
from .chain_words import EXAMPLES, EXAMPLES_NONE, RULES, RULES_NONE
from .chains import chain_errand
from .errands import Errand
from .journal import Journal
from .run import Tally, Teacher, accepted

JOURNAL = "asked.jsonl"
CHAINS = "reasoning_data.json"


def make_chains(
    dataset: Dataset, out: Path, options: AskOptions, teacher: Teacher
) -> tuple[Tally, Filtered]:
    """Ask for what the journal in `out` does not have, and write all that was accepted.

    Args:
        dataset: with questions and truth.
        out: a new folder, or that of the same run.
        options: of the run.
        teacher: who is asked.

    Raises:
        ConfigError: `out` holds another run.
        InputError: no sample, nobody answers, or not one chain was accepted.
    """

    def errand_of(sample: Sample, episode: Episode) -> Errand:
        return chain_errand(
            sample,
            episode,
            image_side_px=options.image_side_px,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
        )

    about = options.about("chains of thought", dataset, teacher.settings, _words())
    with Journal(out / JOURNAL, about) as journal:
        try:
            tally, filtered = ask_about(dataset, journal, options, teacher, errand_of)
        finally:  # what was paid for is at hand, however the run ends
            records = _records(journal, dataset.episodes)
            if records:
                about = {"format": "foreseg", "version": 1, "teacher": teacher.settings.model}
                text = json.dumps({**about, "records": records}, indent=1)
                write_whole(out / CHAINS, text + "\n")
    tally.require("chains", filtered)
    return tally, filtered


def _words() -> str:
    words = "".join((RULES, *EXAMPLES, RULES_NONE, *EXAMPLES_NONE))
    return hashlib.sha256(words.encode()).hexdigest()[:12]


def _records(journal: Journal, episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    of = {episode.id: episode for episode in episodes}
    records = []
    for name, found in accepted(journal, list(of)):
        question = of[name].question
        assert question is not None  # noqa: S101 (it was asked)
        evidence = {"evidence": found["evidence"]} if found.get("evidence") else {}
        records.append(
            {
                "video": of[name].video,
                "exp_id": of[name].expression_id,
                "question": question.text,
                "reasoning": found["chain"],
                "answer": question.answer,
                **evidence,
            }
        )
    return records
