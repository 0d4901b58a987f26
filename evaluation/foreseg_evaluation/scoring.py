# SPDX-License-Identifier: Apache-2.0
"""Scores an episode: masks by the datasets' own measures, answers, and, in a stream, time.

Does not know: how the masks came about, files, aggregation over episodes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from foreseg.dialogue import Answer, AnswerStatus
from foreseg.errors import InputError
from foreseg.geometry import BoxXyxy, box_from_mask
from foreseg.masks import Mask, MaskRle, mask_from_rle
from foreseg.prompts import SpatialPrompt

from .aggregates import keyframe_accuracy, keyframe_score, mean_of
from .baselines import prompt_mask
from .box_matching import spatial_score
from .episode import Episode, QuestionKind, TruthSpan
from .metrics import (
    boundary_f,
    intersection_and_union,
    pixel_accuracy,
    region_similarity,
    robustness,
    robustness_sane,
)
from .prediction import Prediction, Spoken
from .results import TARGET, EpisodeResult, ObjectResult, blank_result, words_over_time
from .streaming import CLAIMS, STATUS, PublishedAt, StreamRecord, masks_of, spoken_from_answer

WRONG_BELOW_IOU = 0.1  # a mask that overlaps the truth less is on the wrong object
AFTER_ANSWER_NS = 1_000_000_000
_NS = 1_000_000_000
_NO_BOX = (math.nan,) * 4  # counts against an answer, and matches nothing
_NO_WORD = re.compile(r"[\W_]+")
_ARTICLES = {"a", "an", "the"}


def score_episode(
    episode: Episode, prediction: Prediction, *, from_first_seen: bool = False
) -> EpisodeResult:
    """Score masks and answer against the truth.

    Args:
        episode: the truth; only its `scored` positions count.
        prediction: masks; a position that it leaves out counts as empty, and to a question as
            not answered: J and F are 0 even where nothing fits.
        from_first_seen: an object counts from the first scored position at which it shows in
            the truth or in the prediction (SA-V's rule).

    Raises:
        DatasetError: a true mask or frame that cannot be read.
        InputError: a predicted mask of another size than the frames.
    """
    rows = (TARGET,) if episode.question is not None else episode.object_ids
    tally = _Tally(episode, prediction)
    objects = tuple(tally.score_row(row, from_first_seen=from_first_seen) for row in rows)
    spoken = prediction.spoken
    return replace(
        blank_result(episode),
        size_hw=(episode.size_wh[1], episode.size_wh[0]),
        positions=episode.scored,
        objects=objects,
        scores={**tally.means(), **_answer_scores(episode, prediction)},
        answered={
            "status": spoken.status,
            "answer": spoken.text,
            "reason": spoken.reason,
            "rationale": spoken.rationale,
            "keyframe": "" if spoken.keyframe is None else str(spoken.keyframe),
            "shown": ", ".join(map(str, spoken.shown or ())),
        },
    )


class _Tally:
    """Per-frame measures of a whole frame (the union of the targets), while rows are scored."""

    def __init__(self, episode: Episode, prediction: Prediction) -> None:
        self._episode, self._prediction = episode, prediction
        self._frames: list[tuple[float, float, float, int, int]] = []

    def score_row(self, row: str, *, from_first_seen: bool) -> ObjectResult:
        """J, F of one row over the scored positions."""
        given = self._prediction.masks.get(row, {})
        positions = self._episode.scored
        js: list[float | None] = []
        fs: list[float | None] = []
        in_truth, in_either = [], []
        for position in positions:
            truth, void = self._truth(row, position), self._episode.media.void(position)
            mask = self._mask(given.get(position), truth, position)
            is_answered = row != TARGET or position in given
            js.append(region_similarity(truth, mask, void) if is_answered else 0.0)
            fs.append(boundary_f(truth, mask, void) if is_answered else 0.0)
            in_truth.append(bool(truth.any()))
            in_either.append(in_truth[-1] or bool(mask.any()))
            if row == TARGET:
                self._add_frame(position, truth, mask, void, is_answered=is_answered)
        if from_first_seen:
            num_out = in_either.index(True) if any(in_truth) else len(positions)
            js[:num_out] = fs[:num_out] = [None] * num_out
        texts = tuple(None if i not in given else given[i].counts for i in positions)
        return ObjectResult(object_id=row, j=tuple(js), f=tuple(fs), masks=texts)

    def means(self) -> dict[str, float]:
        """The measures that whole frames have; none without a question."""
        if not self._frames:
            return {}
        accuracies, robust, robust_sane, both_px, either_px = zip(*self._frames, strict=True)
        return {
            "accuracy": float(np.mean(accuracies)),
            "robustness": float(np.mean(robust)),
            "robustness_sane": float(np.mean(robust_sane)),
            "intersection_px": float(sum(both_px)),
            "union_px": float(sum(either_px)),
        }

    def _mask(self, rle: MaskRle | None, truth: Mask, position: int) -> Mask:
        mask = np.zeros_like(truth) if rle is None else mask_from_rle(rle)
        if mask.shape != truth.shape:
            msg = (
                f"episode {self._episode.id!r}, position {position}: the truth is"
                f" {truth.shape}, the prediction {mask.shape}"
            )
            raise InputError(msg)
        return mask

    def _truth(self, row: str, position: int) -> Mask:
        if row == TARGET:
            return self._episode.truth(position)
        mask = self._episode.media.mask(row, position)
        size_hw = self._episode.size_wh[::-1]
        return np.zeros(size_hw, dtype=np.bool_) if mask is None else mask

    def _add_frame(
        self, position: int, truth: Mask, mask: Mask, void: Mask | None, *, is_answered: bool
    ) -> None:
        foreground = self._episode.media.foreground(position)
        if foreground is None:
            foreground = np.zeros_like(truth)
        # The official value sums the targets in uint8, so that overlaps count twice.
        counts = np.zeros(truth.shape, dtype=np.uint8)
        for one in self._episode.target_masks(position).values():
            counts += one
        both_px, either_px = intersection_and_union(truth, mask, void)
        if not is_answered:  # a union of nothing would count as right
            either_px = max(either_px, 1)
        self._frames.append(
            (
                pixel_accuracy(counts, mask),
                robustness(counts, mask, foreground),
                robustness_sane(truth, mask, foreground),
                both_px,
                either_px,
            )
        )


def _answer_scores(episode: Episode, prediction: Prediction) -> dict[str, float]:
    """What was said, against the truth: NaN where it does not apply."""
    if episode.question is None or not prediction.spoken.status:
        return {}
    spoken = prediction.spoken
    has_target = episode.question.kind is not QuestionKind.NO_TARGET
    scores = {
        "abstained": float(spoken.status == "abstained"),
        "no_target_accuracy": (
            math.nan if has_target else float(spoken.is_claim and prediction.is_empty)
        ),
        "target_accuracy": float(not prediction.is_empty) if has_target else math.nan,
        "answer_tokens": float(spoken.tokens),
        "answer_s": spoken.seconds,
        "right_target": right_target(episode, spoken),
        "confidence": spoken.confidence,
    }
    return {**scores, **_words_scores(episode, spoken), **_place_scores(episode, spoken)}


def _words_scores(episode: Episode, spoken: Spoken) -> dict[str, float]:
    """The answer's text against the truth's; nothing where the dataset has none."""
    question = episode.question
    assert question is not None  # noqa: S101 (the caller looked)
    span = None if spoken.keyframe is None else episode.span_at(spoken.keyframe)
    if span is None and len(episode.spans) == 1:
        span = episode.spans[0]
    truth = (span.answer if span is not None else "") or question.answer
    if not normalised(truth) or (span is None and len(episode.spans) > 1):
        return {}
    if spoken.status == "no_target" and question.kind is QuestionKind.NO_TARGET:
        return {"answer_accuracy": 1.0}  # in whatever words
    is_right = spoken.status == "ok" and normalised(spoken.text) == normalised(truth)
    return {"answer_accuracy": float(is_right)}


def normalised(text: str) -> str:
    """An answer's words in small letters, without articles and what is neither letter nor number."""
    words = _NO_WORD.sub(" ", text.casefold()).split()
    return " ".join(word for word in words if word not in _ARTICLES)


def _place_scores(episode: Episode, spoken: Spoken) -> dict[str, float]:
    """R_k, R_s and whether the keyframe is evidence; nothing where they do not apply.

    As rewards have them: over the frames that were *shown*, of which one has a target. Of those the
    annotated ones are known.
    """
    span = None if spoken.keyframe is None else episode.span_at(spoken.keyframe)
    if spoken.keyframe is None and len(episode.spans) == 1:
        span = episode.spans[0]
    is_known = spoken.keyframe is None or spoken.keyframe in episode.annotated
    if span is None or spoken.shown is None or not is_known:
        return {}
    annotated = set(episode.annotated)
    masks = {p: _masks_of(episode, span, p) for p in spoken.shown if p in annotated}
    areas = {p: _union_area(found) for p, found in masks.items()}
    score = keyframe_score(areas, spoken.keyframe)
    if math.isnan(score):
        return {}
    scores = {"keyframe_score": score, "keyframe_accuracy": keyframe_accuracy([score])}
    evidence = None if episode.question is None else episode.question.evidence
    if evidence is not None:
        is_evidence = spoken.keyframe in {evidence.keyframe, *evidence.frames}
        scores["evidence_score"] = float(is_evidence)
    if spoken.keyframe is None:
        return {**scores, "spatial_score": 0.0}
    truth = [box_from_mask(mask) for mask in masks.get(spoken.keyframe, ())]
    predicted = [_box_of(prompt) or _NO_BOX for prompt in spoken.prompts]
    scores["spatial_score"] = spatial_score(predicted, [box for box in truth if box is not None])
    return scores


def _masks_of(episode: Episode, span: TruthSpan, position: int) -> list[Mask]:
    found = (episode.media.mask(object_id, position) for object_id in span.object_ids)
    return [mask for mask in found if mask is not None]


def _union_area(masks: Sequence[Mask]) -> int:
    return int(np.count_nonzero(np.logical_or.reduce(masks))) if masks else 0


def _box_of(prompt: SpatialPrompt) -> BoxXyxy | None:
    """A prompt's box, or its mask's; points alone have none."""
    if prompt.box is None and prompt.mask is not None:
        return box_from_mask(mask_from_rle(prompt.mask))
    return prompt.box


def right_target(episode: Episode, spoken: Spoken, asked_position: int | None = None) -> float:
    """Whether an answer names the true target, whatever becomes of its mask: 1 or 0.

    It does if each of its prompts overlaps a true target more than any other annotated object of
    the keyframe; where nothing fits, "no target" is right. Abstaining is not. NaN where nothing is
    judged: a keyframe without annotation or between two truths, "no target" said between them.

    Args:
        episode: the truth.
        spoken: the answer.
        asked_position: in a stream, the newest frame when it was asked: "no target" is judged by
            what was true then. None = by the whole episode.
    """
    if not episode.spans:  # the dataset keeps its truth to itself
        return math.nan
    if spoken.keyframe is None:
        spans = episode.spans
        if asked_position is not None:
            span = episode.span_at(asked_position)
            if span is None:
                return math.nan
            spans = (span,)
        nothing_fits = not any(span.object_ids for span in spans)
        return float(spoken.status == "no_target" and nothing_fits)
    span = episode.span_at(spoken.keyframe)
    if span is None or spoken.keyframe not in episode.annotated:
        return math.nan
    named = [_named(episode, spoken.keyframe, prompt) for prompt in spoken.prompts]
    return float(bool(named) and all(name in span.object_ids for name in named))


def _named(episode: Episode, position: int, prompt: SpatialPrompt) -> str | None:
    """The annotated object that a prompt overlaps most; None if it is on none."""
    pointed = prompt_mask(prompt, episode.size_wh)
    overlaps = {}
    for object_id in episode.object_ids:
        own = episode.media.mask(object_id, position)
        if own is not None and (own & pointed).any():
            overlaps[object_id] = region_similarity(own, pointed)
    return max(overlaps, key=lambda i: overlaps[i], default=None)


def stream_scores(episode: Episode, record: StreamRecord) -> Mapping[str, float]:
    """What time does to an answer; seconds and shares, NaN where it does not apply.

    - `time_to_first_answer_s`, `time_to_first_mask_s`: from the question; NaN = never came.
    - `no_answer_share`: of the time from the question to the end, without any answer yet.
    - `wrong_target_s`, `wrong_target_share`: time with a mask on screen that overlaps the truth
      by an IoU of less than 0.1 (where nothing fits: any mask).
    - `j_and_f_after_answer_1s`: J&F of what was on screen one second after each answer that
      named a target, where that second is inside the episode.
    - `right_target`: share of the answers, those that abstained among them, that name the target
      that is true at their keyframe.
    - `abstained`: share of the answers that abstained.
    - `answers`, `answer_latency_s`: how many did not, and their mean latency.
    - `dropped_frames`: refused by the node.
    """
    if episode.question is None or record.asked_ns is None or not record.arrivals_ns:
        return {"dropped_frames": float(record.num_dropped)}
    asked_ns, end_ns = record.asked_ns, record.end_ns(len(record.arrivals_ns) - 1)
    good = [item for item in record.answers if item.answer.status in CLAIMS]
    said = [item for item in record.answers if item.answer.status in STATUS]
    shown = [item.at_ns for item in record.published if masks_of(item, episode)[TARGET].any()]
    total_s = max((end_ns - asked_ns) / _NS, 1e-9)
    first_s = (good[0].at_ns - asked_ns) / _NS if good else math.nan
    wrong_s = _wrong_target_s(episode, record)
    latencies = [item.answer.latency_s for item in good]
    right = [right_target(episode, spoken_from_answer(item), item.asked_position) for item in said]
    return {
        "right_target": mean_of(right),
        "abstained": 1 - len(good) / len(said) if said else math.nan,
        "time_to_first_answer_s": first_s,
        "time_to_first_mask_s": (shown[0] - asked_ns) / _NS if shown else math.nan,
        "no_answer_share": min(1.0, first_s / total_s) if good else 1.0,
        "wrong_target_s": wrong_s,
        "wrong_target_share": wrong_s / total_s,
        "j_and_f_after_answer_1s": _after_answers(episode, record),
        "answers": float(len(good)),
        "answer_latency_s": float(np.mean(latencies)) if latencies else math.nan,
        "dropped_frames": float(record.num_dropped),
    }


def said_over_time(record: StreamRecord) -> str:
    """The answers of a stream with their times, from the first frame; "" without any."""
    if not record.arrivals_ns:
        return ""
    first_ns = record.arrivals_ns[0]
    return words_over_time(
        ((item.at_ns - first_ns) / _NS, _words_of(item.answer)) for item in record.answers
    )


def _words_of(answer: Answer) -> str:
    if answer.status is AnswerStatus.OK:
        return answer.text or "an answer without words"
    return answer.status.name.lower().replace("_", " ")


def _wrong_target_s(episode: Episode, record: StreamRecord) -> float:
    wrong_ns = 0
    for position in episode.annotated:
        if position >= len(record.arrivals_ns) or episode.span_at(position) is None:
            continue
        mask = _shown(record.on_screen(record.end_ns(position)), episode)
        truth = episode.truth(position)
        if mask.any() and (not truth.any() or region_similarity(truth, mask) < WRONG_BELOW_IOU):
            wrong_ns += record.end_ns(position) - record.arrivals_ns[position]
    return wrong_ns / _NS


def _after_answers(episode: Episode, record: StreamRecord) -> float:
    scores = []
    for item in record.answers:
        at_ns = item.at_ns + AFTER_ANSWER_NS
        position = int(np.searchsorted(record.arrivals_ns, at_ns, side="right")) - 1
        is_judged = position in episode.annotated and episode.span_at(position) is not None
        is_inside = is_judged and at_ns < record.end_ns(position)
        if item.answer.status is not AnswerStatus.OK or not is_inside:
            continue
        mask, truth = _shown(record.on_screen(at_ns), episode), episode.truth(position)
        scores.append((region_similarity(truth, mask) + boundary_f(truth, mask)) / 2)
    return float(np.mean(scores)) if scores else math.nan


def _shown(item: PublishedAt | None, episode: Episode) -> Mask:
    return masks_of(item, episode)[TARGET]
