# SPDX-License-Identifier: Apache-2.0
"""The method of VISA: choose a target frame by text, add reference frames, then say [SEG].

The sampler asks K times which percentage of the span to look at, and averages. The last request
shows the target frame first and then its reference frames, half of them evenly over the span and
half around the target (the settings have the paper's other arms); its answer is one token for all
that the query means, decoded on the target frame. K, the number of references, both templates and
the answer's words are the paper's; ours are the numbers of the sampler's frames and tokens, the
sentence about a horizon, "no target", and all forms but `bare`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial

from foreseg.dialogue import FramesWanted, Query, RationalePart
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameIndex, FrameRef, FrameWindow, U8Array
from foreseg.history.windows import (
    GlobalLocalWindow,
    HistoryView,
    LocalWindow,
    UniformWindow,
    WindowPolicy,
)
from foreseg.language.base import LanguageRequest, Message, Role, SegmentRequest
from foreseg.methods.answers import form_of, reasoning_tokens_of
from foreseg.methods.base import Plan, SampleStep, SegmentStep
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.percentages import label_at_mean
from foreseg.methods.seg_answers import (
    TOKEN,
    check_decode_side,
    forced_ending,
    read_targets,
    reply_words,
    sentence,
)
from foreseg.methods.sharper import sharper

MAX_FRAMES = 32
MAX_SAMPLES = 16
_SAMPLER = (  # this and the next two: the paper's
    "To find {description}, which percentage mark of the video should I check? Please respond with"
    " a number between 0% and 100%."
)
_QUESTION = "Can you segment the {description}?"
_ANSWER = f"Yes, it is {TOKEN}."


class References(Enum):
    """Where the frames come from that stand beside the target frame."""

    GLOBAL_LOCAL = "global-local"  # half and half
    GLOBAL = "global"  # evenly over the span
    LOCAL = "local"  # around the target frame


class TargetFrame(Enum):
    """How the target frame is chosen."""

    SAMPLER = "sampler"
    FIRST = "first"  # the oldest frame, unasked: an arm of the paper's tables


@dataclass(frozen=True, slots=True, kw_only=True)
class VisaSettings:
    """Numbers of the method; the first two as in its paper."""

    num_answers: int = 10  # K, of the sampler
    num_reference_frames: int = 12  # T_r, beside the target frame; 0: it stands alone
    references: References = References.GLOBAL_LOCAL
    target: TargetFrame = TargetFrame.SAMPLER
    num_sampler_frames: int = 12
    temperature: float = 0.7  # of the sampler; equal answers need no averaging
    span_s: float | None = None  # None: all that the history has
    view: View = field(default_factory=View)
    form: Form | None = Form.BARE  # as its paper
    forces_token: bool = True  # False: a completion without [SEG] means no target
    decode_side_px: int = 1024  # of the target frame when the token is decoded, at most
    sampler_tokens: int = 32
    reasoning_tokens: int = 256
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        check_decode_side(self.decode_side_px)
        bounds = {
            "num_answers": (1, MAX_SAMPLES),
            "num_reference_frames": (0, MAX_FRAMES),
            "num_sampler_frames": (1, MAX_FRAMES),
        }
        for name, (least, most) in bounds.items():
            if not least <= getattr(self, name) <= most:
                msg = f"{name} wants {least} to {most}, got {getattr(self, name)}"
                raise ConfigError(msg)

    @classmethod
    def fast(cls, span_s: float | None = None, view: View | None = None) -> VisaSettings:
        """One cold answer of the sampler: 2 completions instead of 11, and nothing averaged."""
        return cls(num_answers=1, temperature=0.0, span_s=span_s, view=view or View())


class VisaMethod:
    """Target frame, references, then one token for all that the query means."""

    name = "visa"

    def __init__(self, settings: VisaSettings | None = None) -> None:
        self._settings = settings or VisaSettings()
        self._policy = UniformWindow(
            num_frames=self._settings.num_sampler_frames, span_s=self._settings.span_s
        )

    @property
    def window_policy(self) -> WindowPolicy:
        """Evenly over the span, for the sampler."""
        return self._policy

    def sentence(self, num_targets: int = 1) -> str:
        """An answer's words."""
        return _ANSWER if num_targets == 1 else sentence(num_targets)

    def plan(self, query: Query, window: FrameWindow) -> Plan:
        """The sampler, the frames around its choice, then the answer."""
        first, newest = window.frames[0].index, window.newest.index
        frames = {frame.index: frame for frame in window.frames}
        centre = newest
        if self._settings.target is TargetFrame.FIRST:
            centre = first
        elif len(frames) > 1:
            texts = yield self.sample_step(query, window)
            assert isinstance(texts, list)  # noqa: S101 (what a `SampleStep` is sent)
            label, note = label_at_mean(window.label_of(first), window.label_of(newest), texts)
            yield RationalePart(text=note)
            centre = window.index_of(label)
        if wanted := self._around(centre, first, newest) - set(frames):
            more = yield FramesWanted(indices=tuple(sorted(wanted)))
            if isinstance(more, FrameWindow):
                frames.update({frame.index: frame for frame in more.frames})
        chosen, references = self._chosen(frames, centre)
        (target,) = yield from sharper((chosen,), self._settings.decode_side_px)
        yield self.answer_step(query, target, references)

    def sample_step(self, query: Query, window: FrameWindow) -> SampleStep:
        """Ask which percentage of a window to look at."""
        content: tuple[str | U8Array, ...] = (
            *self._images(window.frames),
            _filled(_SAMPLER, query),
        )
        request = LanguageRequest(
            messages=(Message(role=Role.USER, content=content),),
            max_tokens=self._settings.sampler_tokens,
            num_samples=self._settings.num_answers,
            temperature=self._settings.temperature,
        )
        return SampleStep(request=request)

    def _around(
        self, centre: FrameIndex, first: FrameIndex, newest: FrameIndex
    ) -> set[FrameIndex]:
        """The target frame and those of its neighbours that are references."""
        shares = {References.GLOBAL: 0.0, References.GLOBAL_LOCAL: 0.5, References.LOCAL: 1.0}
        share = shares[self._settings.references]
        count = 1 + int(share * self._settings.num_reference_frames)
        start = max(int(first), min(int(centre) - count // 2, int(newest) - count + 1))
        return {FrameIndex(i) for i in range(start, min(start + count, int(newest) + 1))}

    def _images(self, frames: tuple[Frame, ...]) -> tuple[U8Array, ...]:
        """Frames as the model sees them: without labels, as in the paper."""
        if not frames:
            return ()
        shown = self._settings.view.shown(FrameWindow(frames=frames, origin_index=frames[0].index))
        return tuple(frame.image for frame in shown.frames)

    def answer_step(self, query: Query, target: Frame, references: Iterable[Frame]) -> SegmentStep:
        """Ask for the token, about a target frame with its references.

        Args:
            query: its words.
            target: on which the token is decoded.
            references: oldest first, without the target; may be none.
        """
        settings = self._settings
        form = form_of(query, settings.form)
        budget = reasoning_tokens_of(query, form, settings.reasoning_tokens)
        more = "" if form is Form.BARE else f"\n{reply_words(form, budget)}"
        images = (*self._images((target,)), *self._images(tuple(references)))
        ending = partial(forced_ending, form=form, said=self.sentence())
        content: tuple[str | U8Array, ...] = (*images, _filled(_QUESTION, query) + more)
        completion = LanguageRequest(
            messages=(Message(role=Role.USER, content=content),),
            max_tokens=budget + settings.answer_tokens,
        )
        return SegmentStep(
            request=SegmentRequest(
                completion=completion,
                frames=(target,),
                ending=ending if settings.forces_token else None,
            ),
            form=form,
            read=partial(read_targets, frames=(target,), forces_token=settings.forces_token),
            reasoning_tokens=budget,
        )

    def _chosen(
        self, frames: Mapping[FrameIndex, Frame], centre: FrameIndex
    ) -> tuple[Frame, list[Frame]]:
        """The target frame, or what is left nearest to it, and the references without it."""
        nearest = min(frames, key=lambda index: (abs(int(index) - int(centre)), -int(index)))
        count = self._settings.num_reference_frames
        others = tuple(frames[index].ref for index in sorted(frames) if index != nearest)
        if not count or not others:
            return frames[nearest], []
        indices = self.references_among(others, nearest, count)
        return frames[nearest], [frames[index] for index in indices]

    def references_among(
        self, others: tuple[FrameRef, ...], target: FrameIndex, count: int
    ) -> tuple[FrameIndex, ...]:
        """Which of the other frames, oldest first, stand beside a target frame."""
        policy = _policy(self._settings.references, count, target)
        return tuple(policy.select(HistoryView(dense=(), sparse=others)))


def _filled(template: str, query: Query) -> str:
    """A template with the query's words, without the article and the mark that it brings itself."""
    words = query.text.strip()
    if len(words) > 1 and words[-1] in ".?!":
        words = words[:-1]
    if template is _QUESTION and words[:4].lower() == "the " and words[4:].strip():
        words = words[4:]
    horizon = f" It is about the next {query.horizon_s:g} seconds." if query.horizon_s else ""
    return template.format(description=words) + horizon


def _policy(references: References, count: int, centre: FrameIndex) -> WindowPolicy:
    if references is References.LOCAL:
        return LocalWindow(num_frames=count, centre=centre)
    if references is References.GLOBAL:
        return UniformWindow(num_frames=count)
    return GlobalLocalWindow(num_frames=count, centre=centre)
