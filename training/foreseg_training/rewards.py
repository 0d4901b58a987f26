# SPDX-License-Identifier: Apache-2.0
"""The rewards of the four papers, as pure functions over what a completion says and what is true.

Sources: [V] Veason-R1 (arXiv 2508.11538), [S] VideoSeg-R1 (its formulae; VisionReasoner's public
code where the paper names only the terms), [F] FeVOS-R1, [O] ours. Distances are in the pixels
that are given: [S] scales boxes, points and masks to a frame of 840 px first.

`None` means that a reward does not apply, and it depends on the prompt and its truth alone, never
on the completion: trainers count a missing reward as 0, which would else be a way out.

Does not know: models, trainers, the form of any method's answer. Imports no torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foreseg.methods.grammar import Form
from foreseg_evaluation.aggregates import keyframe_score
from foreseg_evaluation.box_matching import (
    box_ious,
    check_finite,
    matched_sum,
    rows_of,
    spatial_score,
)

F64 = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

MATCH_IOU = 0.5  # [S], as VisionReasoner: a box is right above this
MATCH_BOX_PX = 10.0  # mean distance of its four numbers, below this
MATCH_POINT_PX = 30.0  # Euclidean; the paper writes L1, VisionReasoner's code has this
NEGATIVE_REACH_PX = 40.0  # [S]: a negative point may be so far from the nearest target
REPEATS_ALLOWED = 1  # [S], as VisionReasoner: the second repeated sentence costs the reward
BUDGETS = ((4.0, 32), (7.0, 64), (math.inf, 96))  # [O] difficulty below, tokens
ADVANTAGE_EPSILON = 1e-4  # [V], as VERL
LATENCY_TOKENS = 256  # [O] so many tokens, or
LATENCY_AGE_S = 2.0  # [O] so old a keyframe, halve the latency reward
_SENTENCE_END = re.compile(r"[.!?]+(?:\s+|$)|\n+")


def grammar_reward(text: str, form: Form) -> float:
    """1 if a completion keeps to the grammar in the form asked for, else 0: R_f, first part, [V].

    Args:
        text: the whole completion.
        form: what the template asked for.
    """
    return float(form.matches(text))


def box_form_reward(items: Sequence[object]) -> float:
    """Share of an answer's items that are four finite numbers, 0..1: R_f, second part, [V]'s code.

    An answer without items has 0. Numbers in quotes, `true`, NaN and infinities do not count.
    """
    if not items:
        return 0.0
    return sum(_is_box(item) for item in items) / len(items)


def keyframe_reward(keyframe: int | None, target_areas: Mapping[int, float]) -> float | None:
    """Area of the targets in the keyframe against their largest in any shown frame, 0..1: R_k, [V].

    Args:
        keyframe: label that was answered; None if there was none that could be read.
        target_areas: by label of each frame that was *shown*, area of all targets together.

    Returns:
        0 for a keyframe that is None or was not shown; None if no shown frame has a target.

    Raises:
        ValueError: an area is negative or not finite.
    """
    for label, area in target_areas.items():
        if not (math.isfinite(area) and area >= 0):
            msg = f"an area wants at least 0, got {area} of frame {label}"
            raise ValueError(msg)
    score = keyframe_score(target_areas, keyframe)
    return None if math.isnan(score) else score


def spatial_reward(predicted_xyxy: ArrayLike, truth_xyxy: ArrayLike) -> float:
    """Summed IoU of matched boxes over the larger number of boxes, 0..1: R_s, [V].

    The matching is Hungarian on 1 - IoU. Repeated and broken boxes stay in the count: give NaN
    rows for what was no box. Without predicted and true boxes it is 1.

    Args:
        predicted_xyxy: (N, 4).
        truth_xyxy: (M, 4), the targets *in the answered keyframe*.
    """
    return spatial_score(predicted_xyxy, truth_xyxy)


def consistency_reward(predicted: BoolArray, truth: BoolArray) -> float:
    """Mean over frames of the IoU of tracked and true masks, 0..1: R_u, [V].

    Only *matched* boxes are tracked for it (`vlm.rewards_tracked`). A frame on which both are empty has 1.

    Args:
        predicted: (T, H, W) bool.
        truth: (T, H, W) bool.

    Raises:
        ValueError: the shapes differ, or there is no frame.
    """
    if predicted.shape != truth.shape or predicted.ndim != 3 or not len(truth):
        msg = f"masks want one shape (T, H, W), got {predicted.shape} and {truth.shape}"
        raise ValueError(msg)
    overlap = (predicted & truth).sum(axis=(1, 2)).astype(np.float64)
    union = (predicted | truth).sum(axis=(1, 2)).astype(np.float64)
    return float(np.where(union == 0, 1.0, overlap / np.maximum(union, 1)).mean())


def accuracy_reward(
    predicted_xyxy: ArrayLike, predicted_xy: ArrayLike, truth_xyxy: ArrayLike, truth_xy: ArrayLike
) -> float:
    """VisionReasoner's accuracy over matched objects, 0..3: R_acc, [S].

    Three marks an object: box IoU above 0.5, the box's numbers less than 10 px off on average, the
    point less than 30 px off and inside the predicted box. Objects are matched to get the most
    marks; the sum is divided by the larger number of objects. Without any object it is 3.

    Args:
        predicted_xyxy: (N, 4); NaN rows for what was no box.
        predicted_xy: (N, 2), one centre point an object; NaN rows for what was no point.
        truth_xyxy: (M, 4).
        truth_xy: (M, 2).

    Raises:
        ValueError: boxes and points differ in number.
    """
    boxes, points = rows_of(predicted_xyxy, 4, "boxes"), rows_of(predicted_xy, 2, "points")
    true_boxes, true_points = rows_of(truth_xyxy, 4, "boxes"), rows_of(truth_xy, 2, "points")
    if len(boxes) != len(points) or len(true_boxes) != len(true_points):
        msg = (
            "every object wants a box and a point, got"
            f" {len(boxes)} and {len(points)}, in truth {len(true_boxes)} and {len(true_points)}"
        )
        raise ValueError(msg)
    check_finite(true_boxes, "true boxes")
    check_finite(true_points, "true points")
    most = max(len(boxes), len(true_boxes))
    if not most:
        return 3.0
    overlaps = box_ious(boxes, true_boxes) > MATCH_IOU
    box_px = np.abs(boxes[:, None] - true_boxes[None]).mean(axis=2)
    point_px = np.linalg.norm(points[:, None] - true_points[None], axis=2)
    inside = np.all((points >= boxes[:, :2]) & (points <= boxes[:, 2:]), axis=1)
    marks = (
        overlaps.astype(np.float64)
        + (box_px < MATCH_BOX_PX)
        + ((point_px < MATCH_POINT_PX) & inside[:, None])
    )
    return matched_sum(marks) / most


def repetition_reward(text: str) -> float:
    """0 if two or more sentences are repetitions, else 1: R_nonrep, [S].

    Sentences end at `.`, `!`, `?` before a space, or at a line's end; case and spaces are ignored.

    Args:
        text: the reasoning.
    """
    pieces = (" ".join(piece.split()).casefold() for piece in _SENTENCE_END.split(text))
    sentences = [piece for piece in pieces if piece]
    return float(len(sentences) - len(set(sentences)) <= REPEATS_ALLOWED)


def negative_point_reward(points_xy: ArrayLike, targets: BoolArray) -> float | None:
    """Share of negative points that lie outside every target and near one, 0..1: R_neg, [S].

    Near: the L1 distance to the nearest target is above 0 and at most 40 px. A target's pixel
    spans [x, x + 1]: on its border the distance is 0.

    Args:
        points_xy: (K, 2); NaN rows for what was no point. None of them: 0.
        targets: (M, H, W) bool, the frame's targets.

    Returns:
        None if there is no target in the frame.
    """
    points = rows_of(points_xy, 2, "points")
    if targets.ndim != 3:
        msg = f"targets want the shape (M, H, W), got {targets.shape}"
        raise ValueError(msg)
    union = targets.any(axis=0)
    if not union.any():
        return None
    if not len(points):
        return 0.0
    ys, xs = np.nonzero(union)
    good = 0
    for x, y in points:
        across = np.maximum(np.maximum(xs - x, x - (xs + 1)), 0)
        down = np.maximum(np.maximum(ys - y, y - (ys + 1)), 0)
        good += bool(0 < (across + down).min() <= NEGATIVE_REACH_PX)
    return good / len(points)


def soft_length_factor(num_tokens: int, budget: int, beta: float) -> float:
    """What the other rewards are multiplied by: 1 within the budget, falling to 0 beyond it, [S].

    clamp(1 - beta (num_tokens - budget), 0, 1).

    Args:
        num_tokens: of the reasoning, counted in token ids, not in words.
        budget: L(D), see `token_budget`.
        beta: loss for each token beyond it.

    Raises:
        ValueError: a number is negative.
    """
    if min(num_tokens, budget) < 0 or not beta >= 0:
        msg = f"a length wants numbers of at least 0, got {num_tokens}, {budget} and {beta}"
        raise ValueError(msg)
    return min(1.0, max(0.0, 1 - beta * (num_tokens - budget)))


def token_budget(difficulty: float) -> int:
    """L(D): reasoning tokens that a sample of this difficulty is worth.

    [S] has three classes; where they part, and 32, 64, 96 tokens, are ours, after its table of
    lengths (43 to 56 tokens a dataset).

    Args:
        difficulty: D, the mean of five ratings, 1..10.

    Raises:
        ValueError: out of range.
    """
    if not 1 <= difficulty <= 10:
        msg = f"a difficulty wants 1 to 10, got {difficulty}"
        raise ValueError(msg)
    return next(tokens for below, tokens in BUDGETS if difficulty < below)


def no_target_reward(says_none: bool, is_none: bool) -> float:  # noqa: FBT001 (two of one kind)
    """1 if a completion says that nothing fits exactly where nothing does, else 0; [O], weight 0."""
    return float(says_none is is_none)


def latency_reward(num_tokens: int, keyframe_age_s: float) -> float:
    """1 for an answer at once about the newest frame, falling with both to 0; [O], weight 0.

    1 / (1 + tokens / 256 + age / 2 s): what comes late is about the past.

    Args:
        num_tokens: generated before the answer was closed.
        keyframe_age_s: from the keyframe to the newest shown frame.

    Raises:
        ValueError: a number is negative.
    """
    if num_tokens < 0 or not keyframe_age_s >= 0:
        msg = f"tokens and age want at least 0, got {num_tokens} and {keyframe_age_s}"
        raise ValueError(msg)
    return 1 / (1 + num_tokens / LATENCY_TOKENS + keyframe_age_s / LATENCY_AGE_S)


def group_advantages(rewards: ArrayLike) -> F64:
    """(r - mean) / (std + 1e-4) over a prompt's completions: GRPO's advantage, [V] and [S].

    The deviation is the sample's (over G - 1), as in VERL and TRL; a group of one has 0.

    Args:
        rewards: (G,).

    Returns:
        (G,) float64; equal rewards have 0.

    Raises:
        ValueError: no reward, or one that is not finite.
    """
    values = np.asarray(rewards, dtype=np.float64)
    if values.ndim != 1 or not len(values):
        msg = f"rewards want the shape (G,) with G of at least 1, got {values.shape}"
        raise ValueError(msg)
    check_finite(values, "rewards")
    if len(values) == 1:
        return np.zeros(1)
    advantages: F64 = (values - values.mean()) / (values.std(ddof=1) + ADVANTAGE_EPSILON)
    return advantages


def _is_box(item: object) -> bool:
    return isinstance(item, list | tuple) and len(item) == 4 and all(map(_is_number, item))


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond float64
        return False
