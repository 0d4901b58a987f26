# SPDX-License-Identifier: Apache-2.0
"""The method of Veason-R1: look at frames of the whole span, choose a keyframe, box the targets.

One request a query. After its paper (keyframe first, then boxes in it) and its public code (six
frames, labels that keep the gaps, the names in the answer); the words are ours, and so is the
answer "no target".
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from foreseg.dialogue import NoTarget, Query, TargetsFound
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameWindow, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.history.windows import PinnedWindow, UniformWindow, WindowPolicy
from foreseg.language.base import LanguageRequest, Message, Role
from foreseg.language.text_grammar import BoxPart, Either, InTurn, Listed, Literal, OneOf
from foreseg.methods.absence import is_no_place
from foreseg.methods.answer_grammar import CompletionGrammar
from foreseg.methods.answers import (
    form_of,
    format_words,
    frames_words,
    has_member,
    member,
    nothing_from,
    query_words,
    reasoning_tokens_of,
    says_none_in_words,
    text_from,
    verdict_from,
)
from foreseg.methods.base import AnswerStep, Parsed, Plan, Verdict
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import (
    Repairs,
    UnusableAnswer,
    View,
    box_from,
    distinct_prompts,
    keyframe_from,
    label_from,
    labelled,
)
from foreseg.methods.near_json import Json, values_from_text
from foreseg.methods.sharper import sharper
from foreseg.methods.wording import Wording, worded_step
from foreseg.prompts import SpatialPrompt

MAX_FRAMES = 64

_KEYFRAME_NAMES = (
    "keyframe_timestamp", "keyframe", "keyframe_label", "keyframe_index", "frame", "timestamp",
)  # fmt: skip
_BOXES_NAMES = ("bbox_2d_list", "bbox_2d", "boxes", "bboxes", "bbox", "box")
_BOX_TOKENS = 32  # at most, so that an answer ends within its budget
NOTHING = '{"no_target": "nothing in the frames fits"}'
_ANSWER = '{"keyframe_timestamp": LABEL, "bbox_2d_list": [[x0, y0, x1, y1], ...]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class VeasonSettings:
    """Numbers of the method; the first and the token counts as in its public configuration.

    With a `wording` these words take the place of the method's own, with their form and budgets.
    """

    num_frames: int = 6
    span_s: float | None = None  # None: all that the history has
    pins_frames: bool = False  # what is shown is shown again when it is next asked
    view: View = field(default_factory=View)
    form: Form | None = None  # the only one that the model knows; None: what a query wants
    tells_budget: bool = True  # the words say how long the thoughts may be
    reasoning_tokens: int = 768
    answer_tokens: int = 256
    wording: Wording | None = None
    keeps_to_grammar: bool = False  # what is said is one of the answers that `worded` writes

    def __post_init__(self) -> None:
        if not 1 <= self.num_frames <= MAX_FRAMES:
            msg = f"num_frames wants 1 to {MAX_FRAMES}, got {self.num_frames}"
            raise ConfigError(msg)


class VeasonMethod:
    """Keyframe, then boxes, in one completion."""

    name = "veason"

    def __init__(self, settings: VeasonSettings | None = None) -> None:
        self._settings = settings or VeasonSettings()
        choose = PinnedWindow if self._settings.pins_frames else UniformWindow
        self._policy: WindowPolicy = choose(
            num_frames=self._settings.num_frames, span_s=self._settings.span_s
        )

    @property
    def window_policy(self) -> WindowPolicy:
        """Evenly over the span, or at places that stay."""
        return self._policy

    def plan(self, query: Query, window: FrameWindow) -> Plan:
        """One request."""
        settings = self._settings
        if settings.wording is not None:
            yield from self._plan_worded(settings.wording, query, window)
            return
        shown = settings.view.shown(window)
        form = form_of(query, settings.form)
        budget = reasoning_tokens_of(query, form, settings.reasoning_tokens)
        message = Message(role=Role.USER, content=self._content(query, shown, form, budget))
        request = LanguageRequest(
            messages=(message,),
            max_tokens=budget + settings.answer_tokens,
            grammar=self._grammar(shown, form, budget) if settings.keeps_to_grammar else None,
        )
        yield AnswerStep(
            request=request,
            form=form,
            read=partial(self.read, window=shown),
            reasoning_tokens=budget,
        )

    def _plan_worded(self, wording: Wording, query: Query, window: FrameWindow) -> Plan:
        """One request in a published model's words, with the frames as large as it knows them."""
        view = self._settings.view
        frames = yield from sharper(window.frames, max(map(view.wanted_px, window.frames)))
        shown = view.shown(replace(window, frames=frames))
        yield worded_step(wording, query, shown, partial(self.read, window=shown))

    def read(self, text: str, window: FrameWindow) -> Verdict:
        """Read an answer about the frames as they were shown."""
        return verdict_from(text, partial(self._targets_from, window=window))

    def parse(self, text: str) -> Parsed:
        """An answer's items as they are said, before any is repaired, left out or clipped."""
        for reading in values_from_text(text):
            if nothing_from(reading.value, Repairs()) is not None:
                return Parsed(says_none=True)
            try:
                value, boxes = _members(reading.value, Repairs())
            except UnusableAnswer:
                continue
            if boxes is not None:
                label = label_from(member(value, _KEYFRAME_NAMES), Repairs())
                items = tuple(_place(box, Repairs()) for box in boxes)
                return Parsed(keyframe=label, items=items, says_none=not items)
        return Parsed(says_none=says_none_in_words(text))

    def shown(self, window: FrameWindow) -> FrameWindow:
        """The window as the model sees it."""
        return self._settings.view.shown(window)

    def scale_xy(self, frame: Frame) -> tuple[float, float]:
        """Factors from source pixels to the units in which the model counts in a shown frame."""
        return self._settings.view.scale_xy(frame)

    def worded(self, window: FrameWindow, keyframe: Frame, boxes: Sequence[BoxXyxy]) -> str:
        """The answer that says these boxes, as `read` reads it.

        Args:
            window: as it was shown.
            keyframe: one of its frames.
            boxes: of the targets in it, source pixels; none: nothing fits.
        """
        if not boxes:
            return NOTHING
        scale = self.scale_xy(keyframe)
        places = [[round(number) for number in box.scaled(scale)] for box in boxes]
        label = window.label_of(keyframe.index)
        return json.dumps({"keyframe_timestamp": label, "bbox_2d_list": places})

    def _content(
        self, query: Query, shown: FrameWindow, form: Form, budget: int
    ) -> tuple[str | U8Array, ...]:
        view = self._settings.view
        after = (
            f"{query_words(query)} First choose the keyframe: the frame shown in"
            " which what the query asks for can be seen best. Then draw a box around each object"
            f" in it that answers the query, with {view.words(shown.newest)}.\n"
            + format_words(form, budget, _ANSWER, tells_budget=self._settings.tells_budget)
        )
        return (frames_words(shown), *labelled(shown), after)

    def _grammar(self, shown: FrameWindow, form: Form, budget: int) -> CompletionGrammar:
        """Of the completions that `worded` and `form` can write about these frames."""
        settings = self._settings
        width, height = map(int, settings.view.size_wh(shown.newest))
        scale = settings.view.scale_xy(shown.newest)
        least = (max(1, math.ceil(scale[0])), max(1, math.ceil(scale[1])))  # a source pixel a side
        box = BoxPart((width, height), (min(width, least[0]), min(height, least[1])))
        found = InTurn(
            [
                Literal('{"keyframe_timestamp": '),
                OneOf(frozenset(shown.label_of(frame.index) for frame in shown.frames)),
                Literal(', "bbox_2d_list": ['),
                Listed(box, max(1, settings.answer_tokens // _BOX_TOKENS)),
                Literal("]}"),
            ]
        )
        return CompletionGrammar(
            form=form, answer=Either([Literal(NOTHING), found]), reasoning_tokens=budget
        )

    def _targets_from(
        self, value: Json, repairs: Repairs, window: FrameWindow
    ) -> TargetsFound | NoTarget:
        value, boxes = _members(value, repairs)
        if boxes is None:
            msg = f"the answer wants bbox_2d_list, got {list(value)[:8]}"
            raise UnusableAnswer(msg)
        places = [_place(box, repairs) for box in boxes]
        if all(map(is_no_place, places)):
            how = "boxes are" if boxes else "list of boxes is"
            return NoTarget(reason=f"the model found no object: its {how} empty")
        frame = keyframe_from(member(value, _KEYFRAME_NAMES), window, repairs)
        view = self._settings.view
        found = (box_from(place, frame, view, repairs) for place in places)
        prompts = [SpatialPrompt(box=box) for box in found if box is not None]
        distinct = distinct_prompts(prompts, frame, repairs)
        return TargetsFound(
            keyframe_index=frame.index,
            prompts=distinct,
            text=text_from(value, boxes, len(distinct)),
        )


def _members(value: Json, repairs: Repairs) -> tuple[dict[str, Json], list[Json] | None]:
    """The answer's object and its list of boxes, None without one."""
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        repairs.add("answer in a list")
        value = value[0] if len(value) == 1 else _joined(value, repairs)
    if isinstance(value, list) and all(isinstance(item, list) for item in value):
        repairs.add("boxes without a keyframe")  # enough where only one frame was shown
        return {}, value
    if not isinstance(value, dict):
        msg = f"the answer wants an object, got {str(value)[:60]!r}"
        raise UnusableAnswer(msg)
    boxes = member(value, _BOXES_NAMES)
    if isinstance(boxes, list) and boxes and not any(isinstance(b, (list, dict)) for b in boxes):
        repairs.add("one box instead of a list")
        boxes = [boxes]
    if has_member(value, _BOXES_NAMES) and not isinstance(boxes, list) and is_no_place(boxes):
        return value, [None]
    return value, boxes if isinstance(boxes, list) else None


def _joined(items: list[Json], repairs: Repairs) -> dict[str, Json]:
    """Several objects, each with its own box, as one answer about the first one's keyframe."""
    objects = [item for item in items if isinstance(item, dict)]
    keyframe = member(objects[0], _KEYFRAME_NAMES)
    here = [item for item in objects if member(item, _KEYFRAME_NAMES) in (None, keyframe)]
    if len(here) < len(objects):
        repairs.add("left out objects on other frames")
    return {_KEYFRAME_NAMES[0]: keyframe, _BOXES_NAMES[0]: list(here)}


def _place(item: Json, repairs: Repairs) -> Json:
    """A box, also where it stands in an object, as in a model's own way to name places."""
    if not isinstance(item, dict):
        return item
    repairs.add("boxes in objects")
    return member(item, _BOXES_NAMES) if has_member(item, _BOXES_NAMES) else item
