# SPDX-License-Identifier: Apache-2.0
"""The figures of a run, and of two runs over the same episodes, with 95 % intervals.

All figures are percent except further scores, which keep their unit. A failed episode is counted
and never scored. Does not know: pages, frames, benchmarks' own averages (`aggregates`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from foreseg_evaluation.aggregates import mean_of
from foreseg_evaluation.bootstrap import MeanInterval, mean_interval
from foreseg_evaluation.episode import QuestionKind
from foreseg_evaluation.results import EpisodeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeScore:
    """J and F of one episode, percent; NaN where no position counts."""

    j: float
    f: float

    @property
    def j_and_f(self) -> float:
        """The mean of J and F."""
        return (self.j + self.f) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSummary:
    """The episodes of one kind, skill or difficulty; percent."""

    name: str
    num_scored: int
    num_failed: int
    j_and_f: MeanInterval
    j: MeanInterval
    f: MeanInterval


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in figures.

    Attributes:
        total: all episodes.
        kinds, skills, difficulties: the same by what results state, sorted by name; those that
            state nothing stand under "not stated", and a grouping of nothing else is empty.
            Difficulties are of questions with a target: whether silence is hard is another matter.
        scores: means of further scores over the episodes that have them, in their own unit.
    """

    total: GroupSummary
    kinds: tuple[GroupSummary, ...]
    skills: tuple[GroupSummary, ...]
    difficulties: tuple[GroupSummary, ...]
    scores: Mapping[str, MeanInterval]


NOT_STATED = "not stated"


def episode_score(result: EpisodeResult) -> EpisodeScore:
    """Average over the positions that count, then over objects; NaN for a failed episode."""
    if not result.is_scored:
        return EpisodeScore(j=math.nan, f=math.nan)
    return EpisodeScore(
        j=100 * mean_of(_mean_present(row.j) for row in result.objects),
        f=100 * mean_of(_mean_present(row.f) for row in result.objects),
    )


def _mean_present(values: Iterable[float | None]) -> float:
    return mean_of(value for value in values if value is not None)


def summarise(results: Sequence[EpisodeResult]) -> Summary:
    """Compute every figure that a report shows."""
    return Summary(
        total=_group("all", results),
        kinds=_groups(results, lambda result: result.kind),
        skills=_groups(results, lambda result: result.skill),
        difficulties=_groups(
            [result for result in results if result.kind != QuestionKind.NO_TARGET.value],
            lambda result: result.difficulty,
        ),
        scores=_further_scores(results),
    )


def _groups(
    results: Sequence[EpisodeResult], name_of: Callable[[EpisodeResult], str]
) -> tuple[GroupSummary, ...]:
    members: dict[str, list[EpisodeResult]] = {}
    for result in results:
        members.setdefault(name_of(result), []).append(result)
    if set(members) <= {""}:
        return ()
    return tuple(_group(name or NOT_STATED, members[name]) for name in sorted(members))


def _group(name: str, results: Sequence[EpisodeResult]) -> GroupSummary:
    scored = [result for result in results if result.is_scored]
    scores = [episode_score(result) for result in scored]
    return GroupSummary(
        name=name,
        num_scored=len(scored),
        num_failed=len(results) - len(scored),
        j_and_f=mean_interval([score.j_and_f for score in scores]),
        j=mean_interval([score.j for score in scores]),
        f=mean_interval([score.f for score in scores]),
    )


def _further_scores(results: Sequence[EpisodeResult]) -> dict[str, MeanInterval]:
    values: dict[str, list[float]] = {}
    for result in results:
        if result.is_scored:
            for name, value in result.scores.items():
                values.setdefault(name, []).append(value)
    return {name: mean_interval(values[name]) for name in sorted(values)}


def record_from_summary(summary: Summary) -> dict[str, object]:
    """Make what `results.json` holds: plain values, None for NaN."""
    return {
        **_record_from_group(summary.total),
        "by_kind": {group.name: _record_from_group(group) for group in summary.kinds},
        "by_skill": {group.name: _record_from_group(group) for group in summary.skills},
        "by_difficulty": {group.name: _record_from_group(group) for group in summary.difficulties},
        "scores": {
            name: {"mean": _plain(found.mean), "interval_95": _bounds(found), "count": found.count}
            for name, found in summary.scores.items()
        },
    }


def _record_from_group(group: GroupSummary) -> dict[str, object]:
    return {
        "j_and_f": _plain(group.j_and_f.mean),
        "j": _plain(group.j.mean),
        "f": _plain(group.f.mean),
        "scored": group.num_scored,
        "failed": group.num_failed,
        "intervals_95": {
            "j_and_f": _bounds(group.j_and_f),
            "j": _bounds(group.j),
            "f": _bounds(group.f),
        },
    }


def _bounds(interval: MeanInterval) -> list[float | None]:
    return [_plain(interval.low), _plain(interval.high)]


def number_in_words(value: float, places: int = 1) -> str:
    """A figure as people read it; "n/a" for NaN."""
    if math.isnan(value):
        return "n/a"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{places}f}"


def bounds_in_words(interval: MeanInterval, places: int = 1) -> str:
    """An interval as people read it; "n/a" where one value says nothing of the spread."""
    if math.isnan(interval.low):
        return "n/a"
    return f"{number_in_words(interval.low, places)} to {number_in_words(interval.high, places)}"


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedEpisode:
    """One episode that both runs scored; J&F in percent."""

    result: EpisodeResult
    own: float
    other: float

    @property
    def difference(self) -> float:
        """Points of J&F that the first run is better."""
        return self.own - self.other


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedGroup:
    """Mean difference over the pairs of one kind, points of J&F."""

    name: str
    difference: MeanInterval


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two runs over the episodes that both scored.

    Attributes:
        difference: first run minus second, points of J&F, over pairs.
        kinds: the same by kind; empty if only one is there.
        pairs: by difference, the biggest win of the first run first.
        num_unpaired: episodes that only one of the two has, or scored.
    """

    difference: MeanInterval
    kinds: tuple[PairedGroup, ...]
    pairs: tuple[PairedEpisode, ...]
    num_unpaired: int


def compare_results(own: Sequence[EpisodeResult], other: Sequence[EpisodeResult]) -> Comparison:
    """Pair episodes by id and bound the mean of their differences."""
    theirs = {result.id: episode_score(result).j_and_f for result in other}
    scores = [(result, episode_score(result).j_and_f) for result in own]
    pairs = [
        PairedEpisode(result=result, own=score, other=theirs[result.id])
        for result, score in scores
        if result.id in theirs and not math.isnan(score) and not math.isnan(theirs[result.id])
    ]
    pairs.sort(key=lambda pair: (-pair.difference, pair.result.id))
    kinds = sorted({pair.result.kind for pair in pairs})
    return Comparison(
        difference=mean_interval([pair.difference for pair in pairs]),
        kinds=tuple(_paired_group(kind, pairs) for kind in kinds) if len(kinds) > 1 else (),
        pairs=tuple(pairs),
        num_unpaired=len(theirs.keys() | {result.id for result in own}) - len(pairs),
    )


def _paired_group(kind: str, pairs: Sequence[PairedEpisode]) -> PairedGroup:
    members = [pair.difference for pair in pairs if pair.result.kind == kind]
    return PairedGroup(name=kind or NOT_STATED, difference=mean_interval(members))
