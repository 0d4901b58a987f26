# SPDX-License-Identifier: Apache-2.0
"""A run's figures in the form that its benchmark publishes, to stand beside published ones.

Where a benchmark has only means of J and F over expressions, the summary is that already.
Does not know: masks, pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg_evaluation.aggregates import (
    ExpressionScores,
    RevosRow,
    giou_ciou,
    mean_of,
    revos_table,
    sequence_statistics,
    target_accuracy,
)
from foreseg_evaluation.episode import QuestionKind
from foreseg_evaluation.results import EpisodeResult

from .summary import episode_score


@dataclass(frozen=True, slots=True, kw_only=True)
class OfficialTable:
    """Percent; NaN where a figure does not apply.

    Attributes:
        about: whose way this is, and what becomes of failed episodes.
        columns: names of the figures.
        rows: name, and one value for each column.
    """

    about: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


def official_table(form: str, results: Sequence[EpisodeResult]) -> OfficialTable | None:
    """Aggregate as the benchmark of a dataset's form does; None if it adds nothing."""
    make = _MAKERS.get(form)
    return None if make is None else make(results)


def record_from_official(table: OfficialTable) -> dict[str, object]:
    """Make what `results.json` holds: plain values by row and column, None for NaN."""
    rows = {
        name: {
            column: None if np.isnan(value) else value
            for column, value in zip(table.columns, values, strict=True)
        }
        for name, values in table.rows
    }
    return {"about": table.about, "rows": rows}


def _revos(results: Sequence[EpisodeResult]) -> OfficialTable:
    table = revos_table(_expression(result) for result in results if result.kind)
    nan = float("nan")
    return OfficialTable(
        about="As ReVOS' eval_revos: rounded per expression, both kinds weigh alike, failed"
        " episodes count 0. No-target accuracy is ours.",
        columns=("J&F", "J", "F", "A", "R", "no-target accuracy"),
        rows=(
            ("referring", (*_revos_values(table.referring), nan)),
            ("reasoning", (*_revos_values(table.reasoning), nan)),
            ("overall", (*_revos_values(table.overall), table.no_target_accuracy)),
        ),
    )


def _revos_values(row: RevosRow) -> tuple[float, ...]:
    return row.j_and_f, row.j, row.f, row.accuracy, row.robustness


def _expression(result: EpisodeResult) -> ExpressionScores:
    kind = QuestionKind(result.kind)
    if not result.is_scored:
        return ExpressionScores(
            kind=kind, j=0.0, f=0.0, accuracy=0.0, robustness=0.0, is_empty_answer=False
        )
    score = episode_score(result)
    return ExpressionScores(
        kind=kind,
        j=score.j / 100,
        f=score.f / 100,
        accuracy=result.scores.get("accuracy", float("nan")),
        robustness=result.scores.get("robustness", float("nan")),
        is_empty_answer=_says_nothing_fits(result),
    )


def _has_pixel(result: EpisodeResult) -> bool:
    return any(text for row in result.objects for text in row.masks)


def _says_nothing_fits(result: EpisodeResult) -> bool:
    """True for empty masks; who abstained left none."""
    said = [text for row in result.objects for text in row.masks if text is not None]
    return bool(said) and not any(said)


def _single_frames(results: Sequence[EpisodeResult]) -> OfficialTable:
    scored = [result for result in results if result.is_scored]
    counts = [
        (int(result.scores["intersection_px"]), int(result.scores["union_px"]))
        for result in scored
        if {"intersection_px", "union_px"} <= result.scores.keys()
    ]
    overlaps = giou_ciou(counts)
    found = target_accuracy(
        [result.kind != QuestionKind.NO_TARGET.value for result in scored],
        [
            not _says_nothing_fits(result)
            if result.kind == QuestionKind.NO_TARGET.value
            else _has_pixel(result)
            for result in scored
        ],
    )
    shares = (overlaps.giou, overlaps.ciou, found.no_target, found.target)
    return OfficialTable(
        about="gIoU and cIoU as LISA's validation, N-acc and T-acc as gRefCOCO; who abstains is"
        " never right; failed episodes are left out.",
        columns=("gIoU", "cIoU", "N-acc", "T-acc"),
        rows=(("all", tuple(100 * share for share in shares)),),
    )


def _objects(results: Sequence[EpisodeResult]) -> OfficialTable:
    rows = [
        row
        for result in results
        if result.is_scored
        for row in result.objects
        if any(value is not None for value in row.j)
    ]
    j, f = (
        [sequence_statistics([np.nan if v is None else v for v in values]) for values in series]
        for series in ([row.j for row in rows], [row.f for row in rows])
    )
    j_mean, f_mean = mean_of(s.mean for s in j), mean_of(s.mean for s in f)
    shares = [(j_mean + f_mean) / 2]
    for mean, series in ((j_mean, j), (f_mean, f)):
        shares += [mean, mean_of(s.recall for s in series), mean_of(s.decay for s in series)]
    return OfficialTable(
        about="As davis2017-evaluation and sav_benchmark: over the objects of all videos; failed"
        " episodes are left out.",
        columns=("J&F", "J mean", "J recall", "J decay", "F mean", "F recall", "F decay"),
        rows=((f"{len(rows)} objects", tuple(100 * share for share in shares)),),
    )


_MAKERS: dict[str, Callable[[Sequence[EpisodeResult]], OfficialTable]] = {
    "revos": _revos,
    "reason_seg": _single_frames,
    "refcoco": _single_frames,
    "refcoco_plus": _single_frames,
    "refcocog": _single_frames,
    "grefcoco": _single_frames,
    "davis2016": _objects,
    "davis2017": _objects,
    "sa_v": _objects,
}
