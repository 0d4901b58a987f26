# SPDX-License-Identifier: Apache-2.0
"""Cut clips and stream episodes out of scenes, with questions about them.

A clip has the observed frames only: it ends some time before the event that is asked about. A
stream goes on; its truths change at each event. Does not know: files.
"""

from __future__ import annotations

import bisect
import enum
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .foresight import FutureTruth, SceneConfig, Skill, StuckSceneError
from .questions import (
    PastEvent,
    SeenQuestion,
    future_answer,
    future_question,
    naming_questions,
    past_questions,
)
from .recording import Shot, events_of, record
from .scenes import SceneMaker

CLIP_RATE_HZ = 6.0  # of the recording; a clip has every frame, every second or every third
STREAM_RATE_HZ = 15.0
STREAM_S = 30.0

_NS_PER_S = 1_000_000_000
RECORDED_FRAMES = 108  # of which a clip is cut: 18 s
_STRIDES = (1, 2, 3)
_NUM_FRAMES = (12, 24)  # of a clip, inclusive
_LEAD_S = (0.35, 4.0)  # from the last observed frame to the event
_MIN_SPAN_S = 0.7  # of a stream's truth
_EXTRA_WEIGHTS = (0.4, 0.3, 0.2, 0.1)  # of 0, 1, 2, 3 questions beside the first one
_KEEP_ABSENT = 0.4  # of the extra questions without a target
_WEIGHTS = (0.62, 0.24, 0.14)  # of hard, easy and absent futures among first questions
_WELL_SEEN = 0.002  # share of the frame: an object that can be asked for


class ClipKind(enum.Enum):
    """What a recording is for."""

    CLIP = "clip"
    STREAM = "stream"
    LONG = "long"  # of a story; see `long_clip`


class ExpressionKind(enum.Enum):
    """What a question asks for."""

    FORESIGHT = "foresight"
    DESCRIPTIVE = "descriptive"
    NO_TARGET = "no_target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The truth from one position (inclusive) to another (exclusive)."""

    first: int
    end: int
    target_ids: tuple[int, ...]
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """One question about a clip, and all that is known of it.

    Attributes:
        text: the question.
        answer: a sentence; of the first span where there are spans.
        kind: what it asks for.
        skill: what it takes.
        is_future: whether it asks for the future, be it that nothing happens.
        is_hard: whether constant velocity gives another answer.
        target_ids: instance ids, none where nothing fits; of the first span where there are spans.
        lead_s: seconds from the last frame to the event; None for streams and for the past.
        reasoning: the chain of thought.
        evidence: positions of the frames that show why, ascending.
        keyframe: position of the frame to point at the target on.
        spans: the truth over time; none in clips.
        judged: positions that scores are of, ascending; none: all.
    """

    text: str
    answer: str
    kind: ExpressionKind
    skill: Skill
    is_future: bool
    is_hard: bool
    target_ids: tuple[int, ...]
    lead_s: float | None
    reasoning: str
    evidence: tuple[int, ...]
    keyframe: int
    spans: tuple[Span, ...] = ()
    judged: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Observed frames and the questions about them."""

    kind: ClipKind
    size_wh: tuple[int, int]
    rate_hz: float
    names: Mapping[int, str]
    shots: tuple[Shot, ...]
    expressions: tuple[Expression, ...]

    def __post_init__(self) -> None:
        names = dict(self.names)  # of a view, which cannot travel between processes
        object.__setattr__(self, "names", names)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    """One way to cut a clip: its last frame and stride in the recording, and what is asked."""

    last: int
    stride: int
    num_needed: int  # frames, so that all the evidence is in
    truth: FutureTruth


def cut_clip(
    make: SceneMaker,
    scene_seed: int,
    rng: np.random.Generator,
    *,
    size_wh: tuple[int, int],
    leg_s: tuple[float, float],
) -> Clip | None:
    """Cut one clip with 1 to 4 questions, one or more of the future; None if nothing fits."""
    config = SceneConfig(
        size_wh=size_wh, rate_hz=CLIP_RATE_HZ, num_targets=int(rng.integers(3, 6)), leg_s=leg_s
    )
    scene = make(scene_seed, config)
    try:
        shots = record(scene, RECORDED_FRAMES)
    except StuckSceneError:  # whoever makes clips draws another seed
        return None
    return cut_recording(rng, shots, scene.names, size_wh)


def cut_recording(
    rng: np.random.Generator,
    recorded: Sequence[Shot],
    names: Mapping[int, str],
    size_wh: tuple[int, int],
) -> Clip | None:
    """Cut one of the many clips of a recording at `CLIP_RATE_HZ`; None if nothing fits."""
    cut = _draw_cut(rng, recorded, size_wh)
    if cut is None:
        return None
    most = min(_NUM_FRAMES[1], cut.last // cut.stride + 1)
    wanted = int(rng.integers(_NUM_FRAMES[0], _NUM_FRAMES[1] + 1))
    num_frames = min(max(wanted, cut.num_needed), most)
    places = [cut.last - k * cut.stride for k in reversed(range(num_frames))]
    shots = tuple(recorded[place] for place in places)
    first = _future_expression(rng, cut.truth, names, shots)
    pool = [
        _future_expression(rng, truth, names, shots)
        for truth in shots[-1].truths
        if truth is not cut.truth and _is_askable(truth, shots, size_wh)
    ]
    events = [
        PastEvent(
            topic=event.topic,
            target_id=event.target_id,
            position=bisect.bisect_left(places, event.position),
        )
        for event in events_of(recorded)
        if places[0] < event.position <= places[-1]
    ]
    seen = past_questions(rng, events, names)
    seen += naming_questions(rng, names, _last_seen(shots, size_wh))
    pool += [_seen_expression(question, shots) for question in seen]
    pool = [e for e in pool if e.target_ids or rng.random() < _KEEP_ABSENT]
    num_extra = int(rng.choice(len(_EXTRA_WEIGHTS), p=_EXTRA_WEIGHTS))
    asked = [first, *(pool[i] for i in rng.permutation(len(pool))[:num_extra])]
    return Clip(
        kind=ClipKind.CLIP,
        size_wh=size_wh,
        rate_hz=CLIP_RATE_HZ / cut.stride,
        names=names,
        shots=shots,
        expressions=tuple(asked[i] for i in rng.permutation(len(asked))),
    )


def naming_clip(
    rng: np.random.Generator,
    shots: Sequence[Shot],
    names: Mapping[int, str],
    size_wh: tuple[int, int],
) -> Clip | None:
    """Ask of any shots for an object by its name, and for one that is not there; None if all are empty."""
    last_seen = _last_seen(shots, size_wh)
    if not last_seen:
        return None
    questions = naming_questions(rng, names, last_seen)
    return Clip(
        kind=ClipKind.CLIP,
        size_wh=size_wh,
        rate_hz=CLIP_RATE_HZ,
        names=names,
        shots=tuple(shots),
        expressions=tuple(_seen_expression(question, shots) for question in questions),
    )


def cut_stream(
    make: SceneMaker,
    scene_seed: int,
    rng: np.random.Generator,
    *,
    size_wh: tuple[int, int],
    leg_s: tuple[float, float],
) -> Clip | None:
    """Record a stream with 1 or 2 questions whose truths expire; None if nothing fits."""
    config = SceneConfig(
        size_wh=size_wh, rate_hz=STREAM_RATE_HZ, num_targets=int(rng.integers(3, 5)), leg_s=leg_s
    )
    scene = make(scene_seed, config)
    try:
        shots = tuple(record(scene, round(STREAM_S * STREAM_RATE_HZ)))
    except StuckSceneError:
        return None
    found = [_stream_expression(rng, question, scene.names, shots) for question in scene.questions]
    usable = [expression for expression in found if expression is not None]
    with_targets = [e for e in usable if sum(bool(span.target_ids) for span in e.spans) >= 2]
    if not with_targets:
        return None
    first = with_targets[rng.integers(len(with_targets))]
    others = [expression for expression in usable if expression is not first]
    has_second = bool(others) and rng.random() < 0.4
    second = [others[rng.integers(len(others))]] if has_second else []
    return Clip(
        kind=ClipKind.STREAM,
        size_wh=size_wh,
        rate_hz=STREAM_RATE_HZ,
        names=scene.names,
        shots=shots,
        expressions=(first, *second),
    )


def _draw_cut(
    rng: np.random.Generator, recorded: Sequence[Shot], size_wh: tuple[int, int]
) -> _Cut | None:
    groups: tuple[list[_Cut], ...] = ([], [], [])  # hard, easy, absent
    for last in range(_NUM_FRAMES[0] - 1, len(recorded)):
        for truth in recorded[last].truths:
            cut = _cut_at(recorded, last, truth, size_wh)
            if cut is not None:
                easy_or_hard = 0 if truth.is_hard else 1
                groups[2 if truth.target_id is None else easy_or_hard].append(cut)
    weights = np.array([w if group else 0.0 for w, group in zip(_WEIGHTS, groups, strict=True)])
    if not weights[:2].any():
        return None
    group = groups[int(rng.choice(len(groups), p=weights / weights.sum()))]
    skills = sorted({cut.truth.skill.value for cut in group})
    skill = skills[int(rng.integers(len(skills)))]  # a rare one comes as often as the others
    chosen = [cut for cut in group if cut.truth.skill.value == skill]
    return chosen[int(rng.integers(len(chosen)))]


def _cut_at(
    recorded: Sequence[Shot], last: int, truth: FutureTruth, size_wh: tuple[int, int]
) -> _Cut | None:
    """Find the smallest stride at which everything that the truth rests on is in the clip."""
    stamps = [shot.stamp_ns for shot in recorded[: last + 1]]
    if not truth.evidence_ns:
        return None
    oldest = bisect.bisect_right(stamps, truth.evidence_ns[0]) - 1
    for stride in _STRIDES:
        needed = -(-(last - oldest) // stride) + 1
        has_room = last - (max(needed, _NUM_FRAMES[0]) - 1) * stride >= 0
        if needed <= _NUM_FRAMES[1] and has_room:
            first = last - (max(needed, _NUM_FRAMES[0]) - 1) * stride
            shots = recorded[first : last + 1 : stride]
            if _is_askable(truth, shots, size_wh):
                return _Cut(last=last, stride=stride, num_needed=needed, truth=truth)
            return None
    return None


def _is_askable(truth: FutureTruth, shots: Sequence[Shot], size_wh: tuple[int, int]) -> bool:
    """Whether the truth can be known from these frames, in time, and its target be shown."""
    lead_s = (truth.event_ns - shots[-1].stamp_ns) / _NS_PER_S
    if not truth.steps or not _LEAD_S[0] <= lead_s <= _LEAD_S[1]:
        return False
    if truth.evidence_ns[0] < shots[0].stamp_ns:
        return False
    return truth.target_id is None or truth.target_id in _last_seen(shots, size_wh)


def _last_seen(shots: Sequence[Shot], size_wh: tuple[int, int]) -> dict[int, int]:
    """Position of the last frame that shows an object well, for each that one does."""
    least = _WELL_SEEN * size_wh[0] * size_wh[1]
    return {
        instance_id: position
        for position, shot in enumerate(shots)
        for instance_id, seen in shot.objects.items()
        if seen.area_px >= least
    }


def _future_expression(
    rng: np.random.Generator,
    truth: FutureTruth,
    names: Mapping[int, str],
    shots: Sequence[Shot],
) -> Expression:
    evidence = _positions(truth.evidence_ns, shots)
    targets = () if truth.target_id is None else (truth.target_id,)
    return Expression(
        text=future_question(rng, truth.topic, truth.question),
        answer=_future_answer(truth, names),
        kind=ExpressionKind.FORESIGHT if targets else ExpressionKind.NO_TARGET,
        skill=truth.skill,
        is_future=True,
        is_hard=truth.is_hard,
        target_ids=targets,
        lead_s=(truth.event_ns - shots[-1].stamp_ns) / _NS_PER_S,
        reasoning=" ".join(truth.steps),
        evidence=evidence,
        keyframe=_keyframe(targets, evidence, shots),
    )


def _seen_expression(question: SeenQuestion, shots: Sequence[Shot]) -> Expression:
    targets = question.target_ids
    evidence = question.positions or (len(shots) - 1,)
    return Expression(
        text=question.text,
        answer=question.answer,
        kind=ExpressionKind.DESCRIPTIVE if targets else ExpressionKind.NO_TARGET,
        skill=question.skill,
        is_future=False,
        is_hard=False,
        target_ids=targets,
        lead_s=None,
        reasoning=question.reasoning,
        evidence=evidence,
        keyframe=_keyframe(targets, evidence, shots),
    )


def _stream_expression(
    rng: np.random.Generator, question: str, names: Mapping[int, str], shots: Sequence[Shot]
) -> Expression | None:
    """Follow one question's truths; from when each can be foreseen to its event."""
    found = [(i, t) for i, shot in enumerate(shots) if (t := shot.truth(question)) and t.steps]
    spans, told = [], []
    for event_ns, group in itertools.groupby(found, key=lambda pair: pair[1].event_ns):
        first, truth = next(iter(group))
        end = next((i for i, s in enumerate(shots) if s.stamp_ns >= event_ns), len(shots))
        if (end - first) / STREAM_RATE_HZ >= _MIN_SPAN_S:
            targets = () if truth.target_id is None else (truth.target_id,)
            answer = _future_answer(truth, names)
            spans.append(Span(first=first, end=end, target_ids=targets, answer=answer))
            told.append(truth)
    if not spans:
        return None
    start, truth = spans[0], told[0]
    skills = [t.skill for t in told]
    evidence = _positions(truth.evidence_ns, shots)
    return Expression(
        text=future_question(rng, truth.topic, question),
        answer=start.answer,
        kind=ExpressionKind.FORESIGHT
        if any(span.target_ids for span in spans)
        else ExpressionKind.NO_TARGET,
        skill=max(skills, key=lambda skill: (skills.count(skill), skill.value)),
        is_future=True,
        is_hard=2 * sum(t.is_hard for t in told) >= len(told),
        target_ids=start.target_ids,
        lead_s=None,
        reasoning=" ".join(truth.steps),
        evidence=evidence,
        keyframe=_keyframe(start.target_ids, evidence, shots),
        spans=tuple(spans),
    )


def _future_answer(truth: FutureTruth, names: Mapping[int, str]) -> str:
    return future_answer(truth.topic, None if truth.target_id is None else names[truth.target_id])


def _positions(stamps_ns: Sequence[int], shots: Sequence[Shot]) -> tuple[int, ...]:
    """Positions of the first frames at or after the stamps."""
    own = [shot.stamp_ns for shot in shots]
    last = len(shots) - 1
    return tuple(sorted({min(bisect.bisect_left(own, stamp), last) for stamp in stamps_ns}))


def _keyframe(targets: Sequence[int], evidence: Sequence[int], shots: Sequence[Shot]) -> int:
    """The newest evidence that shows the targets; else the frame that shows most of them."""

    def shown(position: int) -> int:
        return sum(target in shots[position].objects for target in targets)

    for position in reversed(evidence):
        if shown(position) == len(targets):
            return position
    return max(range(evidence[-1] + 1), key=lambda position: (shown(position), position))
