# SPDX-License-Identifier: Apache-2.0
"""From values per frame and expression to the figures that each benchmark publishes.

The benchmarks disagree on what is averaged, rounded and left out; each function here is one
benchmark's own way, and says where it departs from the official code.
Does not know: masks, files, confidence intervals.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .episode import QuestionKind

_Array = NDArray[np.float64]

RECALL_ABOVE = 0.5
NUM_BINS = 4  # of a sequence, for the decay
_GIOU_EPSILON = 1e-5  # pixels; the official ones
_CIOU_EPSILON = 1e-10


def mean_of(values: Iterable[float]) -> float:
    """Average what applies, such as the answers' tokens; NaN values are left out.

    NaN if nothing is left.
    """
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan


# --- sequences: DAVIS and SA-V ---


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceStatistics:
    """What DAVIS reports of J or F over the frames of one object, 0..1."""

    mean: float
    recall: float  # share of frames above 0.5
    decay: float  # mean of the first quarter minus mean of the last


def sequence_statistics(values: Sequence[float]) -> SequenceStatistics:
    """Compute mean, recall and decay of one object's values as davis2017-evaluation does.

    The official code stores the edges of the four bins in uint8, so that its decay means nothing
    above 255 frames. DAVIS has no sequence of that length: here the edges are right at any
    length, and equal to the official ones up to 255.

    Args:
        values: per frame in order; NaN = does not count. All NaN, or none, gives NaN.
    """
    array = np.asarray(values, dtype=np.float64)
    kept = array[~np.isnan(array)]
    if not kept.size:
        return SequenceStatistics(mean=math.nan, recall=math.nan, decay=math.nan)
    edges = (np.round(np.linspace(1, array.size, NUM_BINS + 1) + 1e-10) - 1).astype(int)
    first, last = array[: edges[1] + 1], array[edges[-2] :]
    return SequenceStatistics(
        mean=float(kept.mean()),
        recall=float(np.mean(kept > RECALL_ABOVE)),
        decay=mean_of(first.tolist()) - mean_of(last.tolist()),
    )


def sav_counted(in_truth: Sequence[bool], in_prediction: Sequence[bool]) -> range:
    """Tell which annotated frames of an object count for SA-V, as sam2's sav_benchmark does.

    The first and the last annotated frame are dropped. Of the others an object counts from the
    first that shows it in truth or answer: before, nothing can be got wrong; later, right silence
    counts 1. An object whose truth is empty on all of them is not scored: an empty range (the
    official code stops with an assertion).

    Args:
        in_truth: per annotated frame in order, whether the truth has a pixel.
        in_prediction: likewise, whether the answer has.

    Returns:
        Indices into the annotated frames.
    """
    if len(in_truth) != len(in_prediction):
        msg = f"one answer per annotated frame is wanted: {len(in_truth)}, {len(in_prediction)}"
        raise ValueError(msg)
    kept = range(1, len(in_truth) - 1)
    if not any(in_truth[i] for i in kept):
        return range(0)
    first = next(i for i in kept if in_truth[i] or in_prediction[i])
    return range(first, kept.stop)


# --- expressions of ReVOS ---


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpressionScores:
    """One expression's means over its frames, 0..1; a failed one scores 0 officially."""

    kind: QuestionKind
    j: float
    f: float
    accuracy: float  # A
    robustness: float  # R
    is_empty_answer: bool  # no pixel on any frame


@dataclass(frozen=True, slots=True, kw_only=True)
class RevosRow:
    """Percent; NaN without expressions of the kind."""

    j_and_f: float
    j: float
    f: float
    accuracy: float
    robustness: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RevosTable:
    """The official rows, and beside them what the official code leaves out.

    Attributes:
        referring: mean over expressions of type 0.
        reasoning: mean over expressions of type 1.
        overall: mean of the two rows, however many expressions each has.
        no_target_accuracy: ours; percent of type 2 that were answered with nothing.
    """

    referring: RevosRow
    reasoning: RevosRow
    overall: RevosRow
    no_target_accuracy: float


def revos_table(expressions: Iterable[ExpressionScores]) -> RevosTable:
    """Aggregate as ReVOS' eval_revos does.

    Every expression's percent is rounded to two decimals before it is averaged, with numpy's
    rounding. Expressions without a target are in no official row.
    """
    expressions = list(expressions)
    referring = _revos_row(e for e in expressions if e.kind is QuestionKind.REFERRING)
    reasoning = _revos_row(e for e in expressions if e.kind is QuestionKind.REASONING)
    silent = [e.is_empty_answer for e in expressions if e.kind is QuestionKind.NO_TARGET]
    return RevosTable(
        referring=_named(referring),
        reasoning=_named(reasoning),
        overall=_named((referring + reasoning) / 2),
        no_target_accuracy=100 * mean_of(map(float, silent)),
    )


def _revos_row(expressions: Iterable[ExpressionScores]) -> _Array:
    rows = [(e.j, e.f, e.accuracy, e.robustness) for e in expressions]
    if not rows:
        return np.full(4, np.nan)
    mean: _Array = np.round(100 * np.array(rows, dtype=np.float64), 2).mean(axis=0)
    return mean


def _named(row: _Array) -> RevosRow:
    j, f, accuracy, robustness = map(float, row)
    return RevosRow(j_and_f=(j + f) / 2, j=j, f=f, accuracy=accuracy, robustness=robustness)


# --- single frames: ReasonSeg, RefCOCO and their kin ---


@dataclass(frozen=True, slots=True, kw_only=True)
class OverlapScores:
    """Overlaps of a set of single frames, 0..1."""

    giou: float  # mean of each
    ciou: float  # of all pixels together; RefCOCO papers say oIoU


def giou_ciou(counts: Iterable[tuple[int, int]]) -> OverlapScores:
    """Compute gIoU and cIoU as LISA's validation does, with its epsilons.

    A union of nothing counts 1 in gIoU. The official code divides in float32.

    Args:
        counts: pixels of intersection and union, per frame and sentence.
    """
    array = np.array(list(counts), dtype=np.float64).reshape(-1, 2)
    if not len(array):
        return OverlapScores(giou=math.nan, ciou=math.nan)
    both, either = array.T
    each = np.where(either == 0, 1.0, both / (either + _GIOU_EPSILON))
    return OverlapScores(
        giou=float(each.mean()), ciou=float(both.sum() / (either.sum() + _CIOU_EPSILON))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetAccuracy:
    """Whether an answer was given where there is a target, and only there, 0..1 (gRefCOCO)."""

    no_target: float  # N-acc: share of those without a target that were answered with nothing
    target: float  # T-acc: share of those with one that were answered with something


def target_accuracy(has_target: Sequence[bool], has_answer: Sequence[bool]) -> TargetAccuracy:
    """Compute N-acc and T-acc; NaN where there is no such episode.

    Args:
        has_target: per episode, whether anything fits the question.
        has_answer: per episode, whether a pixel was answered; where nothing fits, True too if
            nothing was said at all.
    """
    if len(has_target) != len(has_answer):
        msg = f"one answer per episode is wanted: {len(has_target)}, {len(has_answer)}"
        raise ValueError(msg)
    pairs = list(zip(has_target, has_answer, strict=True))
    return TargetAccuracy(
        no_target=mean_of(float(not answer) for target, answer in pairs if not target),
        target=mean_of(float(answer) for target, answer in pairs if target),
    )


# --- keyframes of Veason-R1 ---


def keyframe_score(areas: Mapping[int, float], keyframe: int | None) -> float:
    """Compute R_k: the target's area at the keyframe over its largest among the shown frames.

    0 for a keyframe that was not shown, or none; NaN if the target is on none of the frames.

    Args:
        areas: the true targets' area in pixels, by position of the frames that were shown.
        keyframe: position that was chosen.
    """
    largest = max(areas.values(), default=0)
    if largest <= 0:
        return math.nan
    return areas.get(keyframe, 0) / largest if keyframe is not None else 0.0


def keyframe_accuracy(scores: Iterable[float]) -> float:
    """Compute the share of keyframes that show the target at all.

    Args:
        scores: R_k per episode; NaN = does not apply.
    """
    return mean_of(score if math.isnan(score) else float(score > 0) for score in scores)
