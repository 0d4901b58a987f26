# SPDX-License-Identifier: Apache-2.0
"""The method of VideoSeg-R1: close in on a key segment, then on a target frame, then point there.

The sampler asks K times for an interval and averages, narrows while the segment is longer than
delta times the span, then asks M times for a percentage of the segment and averages. The last
request shows the segment, the target frame and reference frames; its answer gives a box, a point
inside and a point outside for each object. The paper leaves open K, M, delta, the templates and
the numbers of frames: those here are ours, and so are the bound on rounds and "no target".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from random import Random

from foreseg.dialogue import FramesWanted, Query, RationalePart
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameIndex, FrameWindow
from foreseg.history.windows import UniformWindow, WindowPolicy
from foreseg.language.base import LanguageRequest, Message, Role
from foreseg.methods.answers import (
    form_of,
    format_words,
    frames_words,
    query_words,
    reasoning_tokens_of,
    verdict_from,
)
from foreseg.methods.base import AnswerStep, Plan, SampleStep, Verdict
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import Shape, View, label_text, labelled
from foreseg.methods.labels import LabelForm
from foreseg.methods.pointing import (
    ANSWER,
    Part,
    Pointed,
    parse_pointed,
    targets_from,
    worded,
)
from foreseg.methods.segments import Album, Segment, evenly, window_of
from foreseg.methods.sharper import sharper
from foreseg.methods.wording import Wording, worded_step
from foreseg.prompts import SpatialPrompt

MAX_FRAMES = 32
SAMPLER_SIDE_PX = 448
MAX_SAMPLES = 16
MAX_ROUNDS = 8


class TargetFrame(Enum):
    """How the target frame is chosen: hierarchically, or as in another arm of the paper's table."""

    HIERARCHICAL = "hierarchical"  # close in on a segment, then a percentage of it
    PERCENT = "percent"  # of the whole span
    RANDOM_IN_SEGMENT = "random-in-segment"
    FIRST = "first"  # unasked


@dataclass(frozen=True, slots=True, kw_only=True)
class VideosegSettings:
    """Numbers of the method; `fast` gives those for a stream.

    With a `wording` the last request shows the target frame alone, as `view` has it, in these words.
    The sampler then sees frames in their own aspect, of at most `SAMPLER_SIDE_PX`.
    """

    num_interval_answers: int = 4  # K
    num_target_answers: int = 4  # M
    segment_share: float = 0.25  # delta: a longer segment, as a share of the span, is narrowed
    num_rounds: int = 3  # of narrowing at most
    num_sampler_frames: int = 12  # shown in each round
    num_key_frames: int = 6  # of the key segment, in the last request
    num_reference_frames: int = 4  # from elsewhere in the span, in the last request
    target: TargetFrame = TargetFrame.HIERARCHICAL
    parts: frozenset[Part] = frozenset(Part)
    temperature: float = 0.7  # of the sampler; equal answers need no averaging
    span_s: float | None = None  # None: all that the history has
    view: View = field(default_factory=View)
    form: Form | None = None  # the only one that the model knows; None: what a query wants
    tells_budget: bool = True  # the words say how long the thoughts may be
    sampler_tokens: int = 64
    reasoning_tokens: int = 768
    answer_tokens: int = 512
    wording: Wording | None = None

    def __post_init__(self) -> None:
        bounds = {
            "num_interval_answers": MAX_SAMPLES,
            "num_target_answers": MAX_SAMPLES,
            "num_rounds": MAX_ROUNDS,
            "num_sampler_frames": MAX_FRAMES,
            "num_key_frames": MAX_FRAMES,
        }
        for name, most in bounds.items():
            if not 1 <= getattr(self, name) <= most:
                msg = f"{name} wants 1 to {most}, got {getattr(self, name)}"
                raise ConfigError(msg)
        if not self.parts & {Part.BOX, Part.POINT}:
            msg = f"parts want a box or a point, got {sorted(part.value for part in self.parts)}"
            raise ConfigError(msg)
        if not 0 <= self.num_reference_frames <= MAX_FRAMES:
            msg = f"num_reference_frames wants 0 to {MAX_FRAMES}, got {self.num_reference_frames}"
            raise ConfigError(msg)
        if self.view.labels is not LabelForm.ABSOLUTE:
            msg = "labels are absolute: intervals of ranks would name other frames in each round"
            raise ConfigError(msg)
        if not 0 < self.segment_share <= 1:
            msg = f"segment_share wants more than 0 and at most 1, got {self.segment_share}"
            raise ConfigError(msg)

    @classmethod
    def fast(cls, span_s: float | None = None, view: View | None = None) -> VideosegSettings:
        """One round, one answer each: 3 completions instead of up to 17, and nothing averaged."""
        return cls(
            num_interval_answers=1,
            num_target_answers=1,
            num_rounds=1,
            num_sampler_frames=8,
            temperature=0.0,
            span_s=span_s,
            view=view or View(),
        )


_Narrowing = Generator[
    SampleStep | FramesWanted | RationalePart, list[str] | FrameWindow | None, "Segment"
]


class VideosegMethod:
    """Key segment, target frame, then box and points."""

    name = "videoseg"

    def __init__(self, settings: VideosegSettings | None = None) -> None:
        self._settings = settings or VideosegSettings()
        view = self._settings.view
        if self._settings.wording is not None:
            side = min(view.image_side_px, SAMPLER_SIDE_PX)
            view = replace(view, shape=Shape.ASPECT, image_side_px=side)
        self._sampler_view = view
        self._policy = UniformWindow(
            num_frames=self._settings.num_sampler_frames, span_s=self._settings.span_s
        )

    @property
    def window_policy(self) -> WindowPolicy:
        """Evenly over the span; the rounds ask for more."""
        return self._policy

    def plan(self, query: Query, window: FrameWindow) -> Plan:
        """The sampler's rounds, then the answer."""
        settings = self._settings
        first = self._sampler_view.shown(window)
        album = Album(first)
        segment = Segment(album.labels[0], album.labels[-1])
        label = segment.first
        if settings.target in {TargetFrame.HIERARCHICAL, TargetFrame.RANDOM_IN_SEGMENT}:
            segment = yield from self._narrowed(query, album, segment)
        if settings.target is TargetFrame.RANDOM_IN_SEGMENT:
            seed = f"{query.id} {int(window.newest.index)}"  # the same asking, the same frame
            label = Random(seed).randint(segment.first, segment.last)  # noqa: S311 (no secret)
        elif settings.target is not TargetFrame.FIRST:
            label = segment.last
            if segment.length > 1:
                shown = album.within(segment, settings.num_sampler_frames)
                texts = yield self.target_step(query, shown)
                label, note = segment.target(_texts(texts))
                yield RationalePart(text=note)
        if wanted := album.missing([label]):
            album.add((yield FramesWanted(indices=wanted)), self._sampler_view)
        if settings.wording is not None:
            yield from self._plan_worded(settings.wording, query, album.nearest(label), window)
            return
        key = album.within(segment, settings.num_key_frames)
        elsewhere = [f for f in first.frames if first.label_of(f.index) not in segment]
        frames = [*key.frames, *evenly(elsewhere, settings.num_reference_frames)]
        yield self.answer_step(query, album.nearest(label), frames, first.origin_index)

    def _plan_worded(
        self, wording: Wording, query: Query, target: Frame, window: FrameWindow
    ) -> Plan:
        """The last request in a published model's words, about the target frame alone."""
        view = self._settings.view
        frames = yield from sharper((target,), view.wanted_px(target))
        shown = view.shown(replace(window, frames=frames))
        yield worded_step(wording, query, shown, partial(self.read, frame=shown.newest))

    def _narrowed(self, query: Query, album: Album, segment: Segment) -> _Narrowing:
        """Close in on the segment that matters; the album gets the frames that it takes."""
        settings = self._settings
        longest = settings.segment_share * segment.length
        shown = settings.num_sampler_frames
        for _ in range(settings.num_rounds):
            if segment.length == 1:
                break
            texts = yield self.interval_step(query, album.within(segment, shown))
            narrowed = segment.narrowed(_texts(texts))
            yield RationalePart(text=narrowed.note)
            if narrowed.segment == segment:
                break
            segment = narrowed.segment
            wanted = album.missing(segment.even_labels(shown))
            if wanted:
                album.add((yield FramesWanted(indices=wanted)), self._sampler_view)
            if segment.length <= longest:
                break
        return segment

    def read(self, text: str, frame: Frame) -> Verdict:
        """Read an answer about the target frame as it was shown."""
        view, parts = self._settings.view, self._settings.parts
        return verdict_from(text, partial(targets_from, frame=frame, view=view, parts=parts))

    def parse(self, text: str) -> Pointed:
        """An answer's objects as they are said, before any is repaired, left out or clipped."""
        return parse_pointed(text)

    def shown(self, window: FrameWindow) -> FrameWindow:
        """The window as the model sees it."""
        return self._settings.view.shown(window)

    def scale_xy(self, frame: Frame) -> tuple[float, float]:
        """Factors from source pixels to the units in which the model counts in a shown frame."""
        return self._settings.view.scale_xy(frame)

    def size_wh(self, frame: Frame) -> tuple[float, float]:
        """A shown frame's size in the units in which the model counts."""
        return self._settings.view.size_wh(frame)

    def worded(self, frame: Frame, prompts: Sequence[SpatialPrompt]) -> str:
        """The answer that says these prompts on a shown frame, as `read` reads it."""
        return worded(prompts, self.scale_xy(frame))

    def interval_step(self, query: Query, window: FrameWindow) -> SampleStep:
        """Ask which stretch of a window matters."""
        words = (
            "Which stretch of the frames matters for this query? Give the labels of its first and"
            " last frame, without any reasoning, as <answer>[first, last]</answer>."
        )
        return self._sampling(query, window, words, self._settings.num_interval_answers)

    def target_step(self, query: Query, window: FrameWindow) -> SampleStep:
        """Ask which percentage of a window to look at."""
        words = (
            "In which of the frames can what the query asks for be seen best? Give its place"
            " between the first frame (0) and the last (100) as a percentage, without any"
            " reasoning, as <answer>percentage</answer>."
        )
        return self._sampling(query, window, words, self._settings.num_target_answers)

    def _sampling(
        self, query: Query, window: FrameWindow, words: str, num_samples: int
    ) -> SampleStep:
        after = f"{query_words(query)}\n{words}"
        content = (frames_words(window), *labelled(window), after)
        request = LanguageRequest(
            messages=(Message(role=Role.USER, content=content),),
            max_tokens=self._settings.sampler_tokens,
            num_samples=num_samples,
            temperature=self._settings.temperature,
        )
        return SampleStep(request=request)

    def answer_step(
        self, query: Query, target: Frame, others: Iterable[Frame], origin: FrameIndex
    ) -> AnswerStep:
        """Ask for boxes and points in a target frame.

        Args:
            query: its words.
            target: as it is shown.
            others: key frames and references, as they are shown, in any order.
            origin: index of the frame whose label is 0.
        """
        settings = self._settings
        window = window_of([*others, target], origin)
        form = form_of(query, settings.form)
        budget = reasoning_tokens_of(query, form, settings.reasoning_tokens)
        label = label_text(window.label_of(target.index))
        after = (
            f"{query_words(query)} The frame {label} is the target frame; the"
            " others are there to understand it. For each object in the target frame that answers"
            " the query, give a box around it, a point in its middle that lies on it, and a point"
            " close to it that lies on something else and is easily taken for it, with"
            f" {settings.view.words(target)}.\n"
            + format_words(form, budget, ANSWER, tells_budget=settings.tells_budget)
        )
        content = (frames_words(window), *labelled(window), after)
        request = LanguageRequest(
            messages=(Message(role=Role.USER, content=content),),
            max_tokens=budget + settings.answer_tokens,
        )
        read: Callable[[str], Verdict] = partial(self.read, frame=target)
        return AnswerStep(request=request, form=form, read=read, reasoning_tokens=budget)


def _texts(sent: list[str] | FrameWindow | None) -> list[str]:
    assert isinstance(sent, list)  # noqa: S101 (what a `SampleStep` is sent)
    return sent
