# SPDX-License-Identifier: Apache-2.0
"""How far confidences can be trusted, and a mapping that makes them more honest.

An answer counts as right by `right_target`: the named object is the true one, or "no target" is.
Does not know: how confidences come about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foreseg.errors import InputError
from foreseg.reasoner.calibration import Calibration, logit

from .results import EpisodeResult

NUM_BINS = 10
NUM_FOLDS = 5
MIN_ANSWERS = 20  # fewer fit noise
_RIDGE = 1e-2  # keeps slope and intercept finite where all answers are right, or all wrong
_F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Answers whose confidence lies in one bin."""

    low: float  # included
    high: float  # excluded, except in the last bin
    answers: int
    confidence: float  # their mean; NaN without answers
    right: float  # share of them that is right; likewise


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Confidence against truth over many answers."""

    answers: int  # with a confidence and a known truth
    ece: float  # NaN without answers
    bins: tuple[ReliabilityBin, ...]


def answers_of(results: Sequence[EpisodeResult]) -> list[tuple[float, float]]:
    """(confidence, 1 if right else 0) of every answer that has both."""
    pairs = (
        (result.scores.get("confidence", math.nan), result.scores.get("right_target", math.nan))
        for result in results
        if result.is_scored
    )
    return [pair for pair in pairs if not math.isnan(pair[0] + pair[1])]


def reliability(answers: Sequence[tuple[float, float]]) -> Reliability:
    """Expected calibration error over bins of equal width (Guo et al. 2017, "On calibration").

    Args:
        answers: (confidence in 0..1, share right in 0..1).
    """
    bins = []
    for i in range(NUM_BINS):
        low, high = i / NUM_BINS, (i + 1) / NUM_BINS
        inside = [(c, r) for c, r in answers if low <= c and (c < high or i == NUM_BINS - 1)]
        num = len(inside)
        bins.append(
            ReliabilityBin(
                low=low,
                high=high,
                answers=num,
                confidence=math.fsum(c for c, _ in inside) / num if num else math.nan,
                right=math.fsum(r for _, r in inside) / num if num else math.nan,
            )
        )
    total = len(answers)
    gaps = (b.answers * abs(b.confidence - b.right) for b in bins if b.answers)
    ece = math.fsum(gaps) / total if total else math.nan
    return Reliability(answers=total, ece=ece, bins=tuple(bins))


def fit_calibration(answers: Sequence[tuple[float, float]], source: str) -> Calibration:
    """Fit Platt scaling by ridged logistic regression; its error is measured by cross-fitting.

    Args:
        answers: (confidence, right) in an order that does not depend on either; every
            `NUM_FOLDS`-th is left out in turn.
        source: where they come from.

    Raises:
        InputError: fewer than `MIN_ANSWERS`.
    """
    if len(answers) < MIN_ANSWERS:
        msg = (
            f"a calibration wants at least {MIN_ANSWERS} answers with a confidence and a known"
            f" truth, {source} has {len(answers)}"
        )
        raise InputError(msg)
    mapped: list[tuple[float, float]] = []
    for fold in range(NUM_FOLDS):
        rest = [pair for i, pair in enumerate(answers) if i % NUM_FOLDS != fold]
        fitted = _fitted(rest, source)
        mapped += [(fitted.calibrated(c), r) for c, r in answers[fold::NUM_FOLDS]]
    return replace(
        _fitted(answers, source),
        ece_before=reliability(answers).ece,
        ece_after=reliability(mapped).ece,
    )


def _fitted(answers: Sequence[tuple[float, float]], source: str) -> Calibration:
    slope, intercept = _platt(answers)
    return Calibration(
        slope=slope,
        intercept=intercept,
        answers=len(answers),
        ece_before=math.nan,
        ece_after=math.nan,
        source=source,
    )


def _platt(answers: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Slope and intercept of the least regularised log loss."""
    from scipy.optimize import minimize  # imported when something is fitted

    x: _F64 = np.array([logit(c) for c, _ in answers])
    y: _F64 = np.array([r for _, r in answers])

    def loss(weights: _F64) -> float:
        z = weights[0] * x + weights[1]
        misfit = np.logaddexp(0, z) - y * z
        return float(misfit.mean() + _RIDGE / 2 * ((weights[0] - 1) ** 2 + weights[1] ** 2))

    slope, intercept = minimize(loss, np.array([1.0, 0.0]), method="BFGS").x
    return float(slope), float(intercept)
