# SPDX-License-Identifier: Apache-2.0
"""What one episode gave: the record that scoring writes, and report and comparison read.

A run's folder holds `run.json` (what was asked), `episodes/*.json` (one `EpisodeResult` each:
that is what makes a run resumable and its shards mergeable), and at the end `results.json`,
`results.csv` and `report.html`. All scores are 0..1 here; percent only where a person reads.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from .episode import Episode
from .problems import refuse

MAX_WORDS_OVER_TIME = 12
TARGET = "target"  # the one row of an episode with a question


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectResult:
    """The scores of one object (of the union of all targets, for a question), 0..1.

    `j` and `f` have one value for each position in `EpisodeResult.positions`; None where the
    position does not count for this object. `masks` are COCO counts by position, of what was
    answered: "" = empty, None = nothing was answered.
    """

    object_id: str
    j: tuple[float | None, ...]
    f: tuple[float | None, ...]
    masks: tuple[str | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """One episode under one system and protocol; failed ones carry the error and no score.

    Attributes:
        id, video, expression_id: as the episode has them.
        question, kind, skill, difficulty, answer: the task; "" where not stated. A truth that
            changes is told with its times: "0.0 s: the ball; 4.5 s: nothing fits".
        status: "scored" or "failed".
        error: why it failed, with file and key where a file is to blame.
        size_hw: (H, W), pixels, of the masks.
        positions: scored positions.
        objects: scores.
        scores: further numbers by name, such as "accuracy", "robustness", "time_to_first_mask_s";
            NaN = does not apply.
        answered: what the system said: "answer" (its text), "status" ("ok", "no_target",
            "abstained", "failed"; "" = unknown), "reason", "keyframe" (position, "" if none),
            "shown" (positions that it was given, "" if not known), "rationale"; in a stream, where the first answer is that, "over_time": all of them.
        seconds: real time that the episode took.
    """

    id: str
    video: str
    expression_id: str = ""
    question: str = ""
    kind: str = ""
    skill: str = ""
    difficulty: str = ""
    answer: str = ""
    status: str = "scored"
    error: str = ""
    size_hw: tuple[int, int] = (0, 0)
    positions: tuple[int, ...] = ()
    objects: tuple[ObjectResult, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    answered: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def is_scored(self) -> bool:
        """False for a failed episode."""
        return self.status == "scored"


def blank_result(episode: Episode) -> EpisodeResult:
    """A result that names the task, and holds no score yet."""
    question = episode.question
    return EpisodeResult(
        id=episode.id,
        video=episode.video,
        expression_id=episode.expression_id,
        question="" if question is None else question.text,
        kind="" if question is None else question.kind.value,
        skill="" if question is None else question.skill,
        difficulty="" if question is None else question.difficulty,
        answer="" if question is None else _answer_over_time(episode, question.answer),
    )


def _answer_over_time(episode: Episode, answer: str) -> str:
    if len(episode.spans) < 2:
        return answer
    said = [
        (span.first / episode.rate_hz, span.answer or ("" if span.object_ids else "nothing fits"))
        for span in episode.spans
    ]
    return words_over_time((at_s, words or answer) for at_s, words in said)


def words_over_time(said: Iterable[tuple[float, str]]) -> str:
    """What was true or said from when on: equal words once, at most `MAX_WORDS_OVER_TIME`.

    Args:
        said: seconds from the first frame, and words, in order.
    """
    changes: list[str] = []
    before = None
    for at_s, words in said:
        if words != before:
            changes.append(f"{at_s:.1f} s: {words}")
        before = words
    left = len(changes) - MAX_WORDS_OVER_TIME
    return "; ".join([*changes[:MAX_WORDS_OVER_TIME], *([f"{left} more"] if left > 0 else [])])


def result_path(folder: Path, episode_id: str) -> Path:
    """The file of an episode's result in a run's folder; ids with slashes stay apart."""
    return folder / "episodes" / f"{quote(episode_id, safe='')}.json"


def write_result(folder: Path, result: EpisodeResult) -> None:
    """Write a result at once or not at all."""
    path = result_path(folder, result.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = asdict(result)
    record["scores"] = {k: None if math.isnan(v) else v for k, v in result.scores.items()}
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(path)


def read_result(path: Path) -> EpisodeResult:
    """Read a result.

    Raises:
        DatasetError: if the file is truncated or no result.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
        objects = tuple(
            ObjectResult(
                object_id=o["object_id"],
                j=tuple(o["j"]),
                f=tuple(o["f"]),
                masks=tuple(o["masks"]),
            )
            for o in record.pop("objects")
        )
        scores = {k: math.nan if v is None else float(v) for k, v in record.pop("scores").items()}
        record["size_hw"] = tuple(record["size_hw"])
        record["positions"] = tuple(record["positions"])
        return EpisodeResult(**record, objects=objects, scores=scores)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise refuse(path, "", f"no episode result ({type(error).__name__}: {error})") from error


def read_results(folder: Path) -> list[EpisodeResult]:
    """Read every result of a run, sorted by episode id."""
    results = [read_result(path) for path in result_paths(folder)]
    return sorted(results, key=lambda result: result.id)


def result_paths(folder: Path) -> list[Path]:
    """The files of a run's results, sorted; hidden ones are none."""
    return sorted(p for p in (folder / "episodes").glob("*.json") if p.name[0] != ".")
