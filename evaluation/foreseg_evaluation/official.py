# SPDX-License-Identifier: Apache-2.0
"""A run's figures as its dataset's own evaluator would print them, beside our own summary.

Does not know: how results came about, or intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .aggregates import ExpressionScores, giou_ciou, mean_of, revos_table, sequence_statistics
from .episode import QuestionKind
from .report import episode_score
from .results import EpisodeResult

IMAGE_FORMS = frozenset({"reason_seg", "refcoco", "refcoco_plus", "refcocog", "grefcoco"})
OBJECT_FORMS = frozenset({"davis2016", "davis2017", "ref_davis_classic"})


def official_figures(form: str, results: Sequence[EpisodeResult]) -> Mapping[str, float]:
    """Compute a benchmark's own aggregates over the scored episodes; none if it has no others.

    ReVOS: percent, per type and overall (the mean of referring and reasoning). Images: gIoU and
    cIoU, 0..1. DAVIS: percent, mean, recall and decay over objects.
    """
    scored = [result for result in results if result.is_scored]
    if not scored:
        return {}
    if form == "revos":
        return _revos(scored)
    if form in IMAGE_FORMS:
        areas = [(int(r.scores["intersection_px"]), int(r.scores["union_px"])) for r in scored]
        overlap = giou_ciou(areas)
        return {"giou": overlap.giou, "ciou": overlap.ciou}
    if form in OBJECT_FORMS:
        return _davis(scored)
    return {}


def _revos(scored: Sequence[EpisodeResult]) -> dict[str, float]:
    rows = []
    for result in scored:
        own = episode_score(result)
        rows.append(
            ExpressionScores(
                kind=QuestionKind(result.kind),
                j=own.j / 100,
                f=own.f / 100,
                accuracy=result.scores["accuracy"],
                robustness=result.scores["robustness"],
                is_empty_answer=not any(any(row.masks) for row in result.objects),
            )
        )
    table = revos_table(rows)
    figures = {}
    for name in ("referring", "reasoning", "overall"):
        row = getattr(table, name)
        for measure in ("j", "f", "j_and_f", "accuracy", "robustness"):
            figures[f"{name}_{measure}"] = getattr(row, measure)
    return {**figures, "no_target_accuracy": table.no_target_accuracy}


def _davis(scored: Sequence[EpisodeResult]) -> dict[str, float]:
    figures = {}
    rows = [row for result in scored for row in result.objects]
    for name in ("j", "f"):
        statistics = [
            sequence_statistics([v for v in getattr(row, name) if v is not None]) for row in rows
        ]
        for measure in ("mean", "recall", "decay"):
            figures[f"{name}_{measure}"] = 100 * mean_of(getattr(s, measure) for s in statistics)
    figures["j_and_f"] = (figures["j_mean"] + figures["f_mean"]) / 2
    return figures
