# SPDX-License-Identifier: Apache-2.0
"""Writes a run's page: one HTML file with figures, tables, plots and filmstrips inside.

Questions, answers and errors come from outside: Jinja escapes them, and they enter no plot.
Does not know: how episodes were scored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from foreseg.errors import ForesegError, MissingExtraError
from foreseg_evaluation.bootstrap import MeanInterval
from foreseg_evaluation.calibration import answers_of, reliability
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.problems import refuse
from foreseg_evaluation.results import EpisodeResult, read_results

from .filmstrip import ANSWER_RGB, CASING_RGB, TRUTH_RGB, StripFrame, make_filmstrip
from .official import OfficialTable, official_table
from .plots import plot_distribution, plot_over_clip, plot_reliability
from .summary import (
    Comparison,
    EpisodeScore,
    GroupSummary,
    Summary,
    bounds_in_words,
    compare_results,
    episode_score,
    number_in_words,
    summarise,
)
from .template import TEMPLATE

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_STRIPS = 4  # best, and as many worst
MAX_PAIRS = 6  # wins, and as many losses
MAX_ROWS = 1000  # of the list of episodes; the run's folder has them all
MAX_NOTES = 200
MAX_TIME_PLOTS = 6
FACTS = ("dataset", "form", "split", "protocol", "system", "created", "machine", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plot:
    """One plot, and what it says to those who do not see it."""

    title: str
    alt: str
    svg: Markup


@dataclass(frozen=True, slots=True, kw_only=True)
class _Strip:
    """One episode that is worth a look."""

    id: str
    question: str
    answer: str  # the true one
    said: str
    facts: str
    score: EpisodeScore
    frames: tuple[StripFrame, ...]
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A run's folder, read."""

    title: str
    about: Mapping[str, object]
    results: Sequence[EpisodeResult]


def write_report(
    run_folder: Path,
    *,
    compare: Path | None = None,
    episodes: Mapping[str, Episode] | None = None,
    official: OfficialTable | None = None,
) -> Path:
    """Write `report.html` into a run's folder.

    Args:
        run_folder: holds `episodes/*.json`, and `run.json` if the run has a name.
        compare: the folder of another run over the same episodes.
        episodes: by id; where one is given, the best and worst episodes are shown as filmstrips.
        official: the benchmark's own table; None makes it from the results, where they suffice.

    Raises:
        DatasetError: a folder without results, or one that cannot be read.
        MissingExtraError: Jinja or matplotlib is not installed.
    """
    run = _read_run(run_folder)
    other = None if compare is None else _read_run(compare)
    page = _render(run, other, episodes or {}, official)
    path = run_folder / "report.html"
    path.write_bytes(page.encode("utf-8", "replace"))  # lone surrogates come in from JSON
    return path


def _read_run(folder: Path) -> _Run:
    results = read_results(folder)
    if not results:
        key, message = "", "no results, expected episodes/*.json of a run"
        raise refuse(folder, key, message)
    about: object = {}
    path = folder / "run.json"
    if path.is_file():
        try:
            about = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise refuse(path, "", f"no JSON ({error})") from error
        if not isinstance(about, dict):
            raise refuse(path, "", f"expected an object, got {type(about).__name__}")
    assert isinstance(about, dict)  # noqa: S101 (checked above)
    named = [str(about[key]) for key in ("system", "dataset") if about.get(key)]
    title = str(about.get("title") or " on ".join(named) or folder.resolve().name)
    return _Run(title=title, about=about, results=results)


def _render(
    run: _Run,
    other: _Run | None,
    episodes: Mapping[str, Episode],
    official: OfficialTable | None,
) -> str:
    try:
        from jinja2 import Environment, StrictUndefined
    except ImportError as error:
        package, extra, purpose = "jinja2", "evaluation", "writing a report"
        raise MissingExtraError(package, extra, purpose) from error
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(number=number_in_words, signed=_signed, bounds=bounds_in_words)
    summary = summarise(run.results)
    ranked = sorted(
        ((r, episode_score(r)) for r in run.results if r.is_scored),
        key=lambda item: (-item[1].j_and_f, item[0].id),
    )
    shown = [item for item in ranked if not math.isnan(item[1].j_and_f)]
    half = min(MAX_STRIPS, (len(shown) + 1) // 2)
    best = [_strip(*item, episodes) for item in shown[:half]]
    worst = [_strip(*item, episodes) for item in shown[half:][: -MAX_STRIPS - 1 : -1]]
    return environment.from_string(TEMPLATE).render(
        title=run.title,
        facts=_facts(run.about),
        total=summary.total,
        headline=_headline(summary.total),
        official=official or official_table(str(run.about.get("form", "")), run.results),
        groups=_groups(summary),
        scores=[item for item in summary.scores.items() if item[1].count],
        plots=_plots(run.results),
        best=best,
        worst=worst,
        has_frames=any(strip.frames for strip in (*best, *worst)),
        failed=[result for result in run.results if not result.is_scored],
        rows=ranked[:MAX_ROWS],
        num_rows_left=max(0, len(ranked) - MAX_ROWS),
        notes=_notes(run.about),
        truth_rgb=TRUTH_RGB,
        answer_rgb=ANSWER_RGB,
        casing_rgb=CASING_RGB,
        **_comparison(run, other),
    )


def _headline(total: GroupSummary) -> list[tuple[str, MeanInterval]]:
    return [("J&F", total.j_and_f), ("J, region", total.j), ("F, boundary", total.f)]


def _groups(summary: Summary) -> list[tuple[str, tuple[GroupSummary, ...]]]:
    named = [
        ("kind", summary.kinds),
        ("skill", summary.skills),
        ("difficulty", summary.difficulties),
    ]
    return [(what, members) for what, members in named if members]


def _comparison(run: _Run, other: _Run | None) -> dict[str, object]:
    if other is None:
        return {"comparison": None}
    found = compare_results(run.results, other.results)
    wins = [pair for pair in found.pairs if pair.difference > 0][:MAX_PAIRS]
    losses = [pair for pair in reversed(found.pairs) if pair.difference < 0][:MAX_PAIRS]
    return {
        "comparison": found,
        "other_title": other.title,
        "comparison_plots": _comparison_plots(found),
        "wins": wins,
        "losses": losses,
    }


def _strip(result: EpisodeResult, score: EpisodeScore, episodes: Mapping[str, Episode]) -> _Strip:
    frames: tuple[StripFrame, ...] = ()
    problem = ""
    episode = episodes.get(result.id)
    if episode is not None:
        try:
            frames = make_filmstrip(result, episode)
        except ForesegError as error:  # the page is worth having without these pictures
            problem = str(error)
    said = result.answered.get("answer") or result.answered.get("reason") or ""
    over_time = result.answered.get("over_time", "")
    if ";" in over_time:
        said = over_time
    elif result.answered.get("status") in {"no_target", "abstained"}:
        said = f"{result.answered['status'].replace('_', ' ')}: {said}"
    return _Strip(
        id=result.id,
        question=result.question,
        answer=result.answer,
        said=said,
        facts=", ".join(filter(None, (result.kind, result.skill, result.difficulty))),
        score=score,
        frames=frames,
        problem=problem,
    )


def _plots(results: Sequence[EpisodeResult]) -> list[_Plot]:
    values = [episode_score(result).j_and_f for result in results]
    values = [value for value in values if not math.isnan(value)]
    plots = []
    if values:
        svg = plot_distribution(values, name="jf", label="J&F, %", bounds=(0, 100))
        quartiles = ", ".join(f"{v:.1f}" for v in np.quantile(values, [0.25, 0.5, 0.75]))
        alt = f"Histogram of J&F over {len(values)} episodes; quartiles {quartiles} percent"
        plots.append(_plot("J&F per episode", alt, svg))
    places, heights = _over_clip(results)
    if places.size and places.max() > 0:
        svg = plot_over_clip(places, heights, name="clip")
        first, last = heights[places < 0.5].mean(), heights[places >= 0.5].mean()
        alt = f"J&F over the clip: mean {first:.1f} in its first half, {last:.1f} in its second"
        plots.append(_plot("J&F over the clip", alt, svg))
    return [*plots, *_reliability_plots(results), *_time_plots(results)]


def _reliability_plots(results: Sequence[EpisodeResult]) -> list[_Plot]:
    found = reliability(answers_of(results))
    if not found.answers:
        return []
    bins = [(b.low, b.right, b.answers) for b in found.bins if b.answers]
    svg = plot_reliability(bins, name="reliability", bin_width=1 / len(found.bins))
    alt = (
        f"Share of right answers against confidence, over {found.answers} answers:"
        f" expected calibration error {100 * found.ece:.1f} percent"
    )
    return [_plot(f"Confidence: expected calibration error {100 * found.ece:.1f} %", alt, svg)]


def _time_plots(results: Sequence[EpisodeResult]) -> list[_Plot]:
    """Histograms of what is measured in seconds."""
    seconds: dict[str, list[float]] = {}
    for result in results:
        if result.is_scored:
            for name, value in result.scores.items():
                if name.endswith("_s") and math.isfinite(value):
                    seconds.setdefault(name, []).append(value)
    plots = []
    for number, name in enumerate(sorted(seconds)[:MAX_TIME_PLOTS]):
        values = seconds[name]
        svg = plot_distribution(values, name=f"time{number}", label="seconds", least=0.0)
        alt = f"Histogram of {name} over {len(values)} episodes; median {np.median(values):.2f} s"
        plots.append(_plot(name, alt, svg))
    return plots


def _over_clip(results: Sequence[EpisodeResult]) -> tuple[np.ndarray, np.ndarray]:
    """Every J&F there is, with its place: 0 = first scored position of its clip, 1 = last."""
    places, heights = [], []
    for result in results:
        if not result.is_scored or not result.positions:
            continue
        first, last = result.positions[0], result.positions[-1]
        for row in result.objects:
            for position, j, f in zip(result.positions, row.j, row.f, strict=True):
                if j is not None and f is not None:
                    places.append((position - first) / max(1, last - first))
                    heights.append(50 * (j + f))
    return np.array(places, dtype=np.float64), np.array(heights, dtype=np.float64)


def _comparison_plots(comparison: Comparison) -> list[_Plot]:
    differences = [pair.difference for pair in comparison.pairs]
    if not differences:
        return []
    reach = max(1.0, *map(abs, differences))
    svg = plot_distribution(
        differences, name="pairs", label="points of J&F", bounds=(-reach, reach)
    )
    better = sum(value > 0 for value in differences)
    worse = sum(value < 0 for value in differences)
    alt = f"Histogram of paired differences: {better} episodes better, {worse} worse"
    return [_plot(f"Difference per episode: {better} better, {worse} worse", alt, svg)]


def _plot(title: str, alt: str, svg: str) -> _Plot:
    from markupsafe import Markup  # comes with Jinja

    return _Plot(title=title, alt=alt, svg=Markup(svg))  # noqa: S704 (numbers and our own words)


def _facts(about: Mapping[str, object]) -> list[tuple[str, str]]:
    facts = [(key, str(about[key])) for key in FACTS if about.get(key)]
    versions = about.get("versions")
    if isinstance(versions, dict):
        versions = ", ".join(f"{name} {version}" for name, version in versions.items())
    return [*facts, ("versions", str(versions))] if versions else facts


def _notes(about: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """What was assumed of the dataset, and what is wrong with it."""
    notes = []
    for key, what in (("assumptions", "Assumptions"), ("problems", "Problems of the dataset")):
        lines = about.get(key)
        if isinstance(lines, list) and lines:
            notes.append((what, [str(line) for line in lines[:MAX_NOTES]]))
    return notes


def _signed(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:+.1f}"
