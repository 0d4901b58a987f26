# SPDX-License-Identifier: Apache-2.0
"""Questions of recordings as the robot would ask them, with true completions.

The frames are those that the method's own window takes of a clip, and the words are the method's.
Does not know: models, tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from foreseg.dialogue import Query, QueryId
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.history.windows import HistoryView
from foreseg.language.base import Message
from foreseg.methods.base import AnswerStep
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod
from foreseg_simulation.clip import Clip, Expression, naming_clip
from foreseg_simulation.foresight import Skill
from foreseg_simulation.questions import PastEvent
from foreseg_simulation.recording import Shot, image_of
from foreseg_training.vlm.rewards_veason import Truth

from .recordings import Recording
from .tracks import ahead_of, at_words, events_of, here_of, told_shots, tracks_of

MAX_LABEL_OFFSET = 200
MAX_LABEL_STRIDE = 4  # on a robot more frames lie between those that are shown
_COUNTED_ON = 0.5  # of the windows, whose labels do not begin at 0
_KEEP_ABSENT = 0.25  # of the lessons that ask for what is not there
_ALSO = 0.4  # of the questions, which are asked without a thought, or with it last, too
_NAMES_ASKED = 3  # of the frames of a lesson, at most
UNMOVED = (
    Skill.HABIT,
    Skill.GOAL,
    Skill.AFFORDANCE,
    Skill.BALANCE,
)  # told by what is, not by motion
_WELL_SEEN = 0.7  # of a target's largest area among the frames shown: enough for a keyframe


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asked:
    """One question in one form, as texts, and the frames that it shows.

    Attributes:
        messages: of the prompt; images are black, `shots` says which ones they are.
        form: that is asked for.
        completion: the true one.
        shots: numbers of the recording's shots, in the order in which they are shown.
        boxes: by label of each shown frame: of the targets, pixels of the recording.
        areas: likewise: of the targets together, pixels.
        question: what the query asks.
        seen: how the completion begins, as far as nothing but the frames can tell it; "" where an answer comes first.
    """

    messages: tuple[Message, ...]
    form: Form
    completion: str
    shots: tuple[int, ...]
    boxes: dict[int, list[BoxXyxy]]
    areas: dict[int, float]
    question: str
    seen: str


def asked_about(
    recording: Recording,
    methods: Mapping[Form, VeasonMethod],
    rng: np.random.Generator,
) -> Iterator[list[Asked]]:
    """Every question of a recording, those about one clip together: they show the same frames.

    Each whose future was recorded is asked with the thought first, some without one or with it last, too; and each clip is asked for
    something by its name, as a lesson.

    Args:
        recording: with clips.
        methods: by the form that they ask for.
        rng: of forms, labels and names.
    """
    for clip in recording.clips:
        named = naming_clip(rng, clip.shots, recording.names, clip.size_wh)
        extra = () if named is None else _kept(rng, named.expressions)
        asked = _all_asked(recording, clip, [*clip.expressions, *extra], methods, rng)
        if asked:
            yield asked


def lessons_about(
    recording: Recording,
    methods: Mapping[Form, VeasonMethod],
    rng: np.random.Generator,
    shots: Sequence[int],
    count: int,
) -> Iterator[list[Asked]]:
    """First lessons: where something is, on one frame or a few; short, so that many fit in a minute.

    Args:
        recording: any.
        methods: as of `asked_about`.
        rng: of frames, objects, forms and labels.
        shots: of these the frames are taken.
        count: of clips, each with a few questions, or none where nothing can be seen.
    """
    for _ in range(count):
        num_frames = min(len(shots), int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])))
        chosen = sorted(rng.choice(len(shots), size=num_frames, replace=False))
        taken = [recording.shots[shots[i]] for i in chosen]
        size_wh = recording.clips[0].size_wh
        clips = [naming_clip(rng, taken, recording.names, size_wh) for _ in range(_NAMES_ASKED)]
        expressions = [e for clip in clips if clip for e in _kept(rng, clip.expressions)]
        if clips[0] is not None and expressions:
            yield _all_asked(recording, clips[0], expressions, methods, rng)


def sightings_about(
    recording: Recording,
    method: VeasonMethod,
    rng: np.random.Generator,
    shots: Sequence[int],
    texts: Sequence[str],
    count: int,
) -> Iterator[Asked]:
    """Thoughts that begin, and end there: what is to be seen on one frame or a few, whatever is asked.

    Args:
        recording: any.
        method: of the form with the thought first.
        rng: of frames, texts and labels.
        shots: of these the frames are taken.
        texts: of questions that are not answered by a name alone.
        count: of sightings, or none where nothing can be seen.
    """
    if not shots:
        return
    places = {id(shot): number for number, shot in enumerate(recording.shots)}
    height, width = image_of(recording.shots[shots[0]]).shape[:2]
    for _ in range(count):
        num_frames = min(len(shots), int(rng.choice([1, 2, 3], p=[0.6, 0.25, 0.15])))
        chosen = sorted(rng.choice(len(shots), size=num_frames, replace=False))
        taken = [recording.shots[shots[i]] for i in chosen]
        clip = naming_clip(rng, taken, recording.names, (width, height))
        if clip is None:
            continue
        expression = replace(clip.expressions[0], text=texts[int(rng.integers(len(texts)))])
        stride = int(rng.integers(1, MAX_LABEL_STRIDE + 1))
        asked = _asked(clip, expression, method, places, recording, _offset(rng), stride)
        newest = Frame(ref=_ref(clip, len(taken) - 1, stride), image=_black(clip.size_wh))
        scale_xy = method.scale_xy(newest)
        seen = f"<think>{_seen(clip, taken, scale_xy, list(asked.boxes))}"
        yield replace(asked, completion=seen, seen=seen)


def _offset(rng: np.random.Generator) -> int:
    """Of labels: a file's frames are counted from 0, a robot's from where it is."""
    return int(rng.integers(MAX_LABEL_OFFSET + 1)) if rng.random() < _COUNTED_ON else 0


def _kept(rng: np.random.Generator, named: Sequence[Expression]) -> list[Expression]:
    return [e for e in named if e.target_ids or rng.random() < _KEEP_ABSENT]


def _all_asked(
    recording: Recording,
    clip: Clip,
    expressions: Sequence[Expression],
    methods: Mapping[Form, VeasonMethod],
    rng: np.random.Generator,
) -> list[Asked]:
    places = {id(shot): number for number, shot in enumerate(recording.shots)}
    expressions = [e for e in expressions if _is_recorded(clip, e, recording)]
    offset = _offset(rng)
    stride = int(rng.integers(1, MAX_LABEL_STRIDE + 1))
    other = (Form.ANSWER_FIRST, Form.ANSWER_ONLY)
    forms = [
        [Form.THINK_FIRST, *([other[int(rng.integers(len(other)))]] * (rng.random() < _ALSO))]
        for _ in expressions
    ]
    return [
        _asked(clip, expression, methods[form], places, recording, offset, stride)
        for expression, its in zip(expressions, forms, strict=True)
        for form in its
    ]


def _is_recorded(clip: Clip, expression: Expression, recording: Recording) -> bool:
    """Whether all that a thought says of what comes is in the recording, of which some clips end near the end."""
    is_whole = len(clip.shots) == len(recording.shots)  # a story: its thoughts say nothing of it
    if is_whole or expression.lead_s is None or expression.skill in UNMOVED:
        return True
    until_ns = clip.shots[-1].stamp_ns + expression.lead_s * 1e9
    return recording.shots[-1].stamp_ns >= until_ns


def _asked(
    clip: Clip,
    expression: Expression,
    method: VeasonMethod,
    places: dict[int, int],
    recording: Recording,
    offset: int,
    stride: int,
) -> Asked:
    refs = tuple(_ref(clip, position, stride) for position in range(len(clip.shots)))
    indices = method.window_policy.select(HistoryView(dense=refs, sparse=()))
    taken = [int(i) // stride for i in indices]
    frames = tuple(Frame(ref=refs[i], image=_black(clip.size_wh)) for i in taken)
    window = FrameWindow(frames=frames, origin_index=FrameIndex(-offset))
    query = Query(id=QueryId("asked"), text=expression.text)
    step = next(method.plan(query, window))
    if not isinstance(step, AnswerStep):
        msg = f"{method.name} asks more than once"
        raise TypeError(msg)
    boxes, areas = {}, {}
    for i in taken:
        seen = [s for t in expression.target_ids if (s := clip.shots[i].objects.get(t))]
        label = window.label_of(refs[i].index)
        boxes[label] = [BoxXyxy(*map(float, one.box_xyxy)) for one in seen]
        areas[label] = float(sum(one.area_px for one in seen))
    most = max(areas.values())
    least = _WELL_SEEN * most
    best = [f for f in frames if most and areas[window.label_of(f.index)] >= least]
    keyframe = (best or frames)[-1]
    shown = method.shown(window)
    told = boxes[window.label_of(keyframe.index)] if best else []
    in_view = shown.get(keyframe.index)
    if in_view is None:
        msg = f"frame {keyframe.index} is not shown"
        raise ValueError(msg)
    answer = f"<answer>{method.worded(shown, in_view, told)}</answer>"
    is_naming = expression.skill is Skill.NAMING
    shots, scale = [clip.shots[i] for i in taken], method.scale_xy(keyframe)
    numbers = [places[id(shot)] for shot in shots]
    begin = "" if is_naming else _seen(clip, shots, scale, list(boxes), numbers, recording.events)
    first = "" if is_naming else begin + _told(clip, expression, shots, places, recording, scale)
    middles = [box.scaled(scale).centre_xy for box in told]
    last = at_words([(round(x), round(y)) for x, y in middles])
    thought = f"<think>{first}{expression.reasoning}{last}</think>"
    is_first = step.form is Form.THINK_FIRST
    return Asked(
        messages=step.request.messages,
        form=step.form,
        completion=step.form.put(thought, answer),
        shots=tuple(places[id(clip.shots[i])] for i in taken),
        boxes=boxes,
        areas=areas,
        question=expression.text,
        seen=f"<think>{begin}" if is_first and not is_naming else "",
    )


def _seen(
    clip: Clip,
    shots: Sequence[Shot],
    scale_xy: tuple[float, float],
    labels: Sequence[int],
    numbers: Sequence[int] = (),
    events: Sequence[PastEvent] = (),
) -> str:
    """What a thought says first: what is there, and tracks."""
    return here_of(shots, clip.names, scale_xy) + tracks_of(
        shots, clip.names, clip.size_wh, scale_xy, labels, numbers, events
    )


def _told(
    clip: Clip,
    expression: Expression,
    shots: Sequence[Shot],
    places: Mapping[int, int],
    recording: Recording,
    scale_xy: tuple[float, float],
) -> str:
    """What a thought says next: what happened, and ways ahead where motion tells something."""
    names, size_wh = clip.names, clip.size_wh
    numbers = [places[id(shot)] for shot in shots]
    told = events_of(shots, numbers, recording.events, names, scale_xy)
    if expression.lead_s is None or expression.skill in UNMOVED:
        return told
    later = recording.shots[numbers[-1] + 1 :]
    if not later:
        return told
    until_ns = shots[-1].stamp_ns + expression.lead_s * 1e9
    slack_ns = (later[0].stamp_ns - shots[-1].stamp_ns) / 2
    later = [shot for shot in later if shot.stamp_ns <= until_ns + slack_ns]
    return told + ahead_of(told_shots(shots, names, size_wh), later, names, size_wh, scale_xy)


def truth_of(asked: Asked, scale_xy: tuple[float, float]) -> Truth:
    """What is true of a question, for rewards.

    Args:
        asked: the question.
        scale_xy: from the recording's pixels to those of a frame as shown.
    """
    boxes = {
        label: [[round(side, 2) for side in box.scaled(scale_xy)] for box in its]
        for label, its in asked.boxes.items()
    }
    return Truth(areas=asked.areas, boxes=boxes)


def phrases_prompts(
    methods: Sequence[VeasonMethod], num_frames: int, size_wh: tuple[int, int]
) -> list[str]:
    """Prompts of which each sentence is the methods' own, for `phrases_of`."""
    black = _black(size_wh)
    refs = [
        FrameRef(
            camera=DEFAULT_CAMERA, index=FrameIndex(i), epoch=0, stamp_ns=i, received_ns=i,
            size_wh=size_wh,
        )
        for i in range(num_frames)
    ]  # fmt: skip
    window = FrameWindow(
        frames=tuple(Frame(ref=ref, image=black) for ref in refs), origin_index=FrameIndex(0)
    )
    found = []
    for method in methods:
        step = next(method.plan(Query(id=QueryId("asked"), text="?"), window))
        if isinstance(step, AnswerStep):
            parts = [p for m in step.request.messages for p in m.content if isinstance(p, str)]
            found += [p.removeprefix("Query: ?") for p in parts if not re.fullmatch(r"<\d+>", p)]
    return found


@lru_cache
def _black(size_wh: tuple[int, int]) -> U8Array:
    return np.zeros((*size_wh[::-1], 3), np.uint8)


def _ref(clip: Clip, position: int, stride: int) -> FrameRef:
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(position * stride),
        epoch=0,
        stamp_ns=clip.shots[position].stamp_ns,
        received_ns=clip.shots[position].stamp_ns,
        size_wh=clip.size_wh,
    )
