# SPDX-License-Identifier: Apache-2.0
"""The method of FeVOS-R1, in the form of Sa2VA: think over frames of the whole span, then [SEG].

One request a query. What its one token means is decoded on every frame that was shown (five, as in
Sa2VA); all these masks are handed on, and a tracker goes on from the frame on which they are
judged best. The words are ours, and so are the answer before the reasoning and "no target".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from foreseg.dialogue import Query
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow
from foreseg.history.windows import UniformWindow, WindowPolicy
from foreseg.language.base import LanguageRequest, Message, Role, SegmentRequest
from foreseg.methods.answers import (
    form_of,
    frames_words,
    query_words,
    reasoning_tokens_of,
)
from foreseg.methods.base import Plan, SegmentStep
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View, labelled
from foreseg.methods.seg_answers import (
    check_decode_side,
    forced_ending,
    read_targets,
    reply_words,
    sentence,
)
from foreseg.methods.sharper import sharper

MAX_FRAMES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FevosSettings:
    """Numbers of the method; the first as in Sa2VA."""

    num_frames: int = 5
    span_s: float | None = None  # None: all that the history has
    view: View = field(default_factory=View)
    form: Form | None = None  # the only one that the model knows; None: what a query wants
    tells_budget: bool = True  # the words say how long the thoughts may be
    forces_token: bool = True  # False: a completion without [SEG] means no target
    decode_side_px: int = 1024  # of the frames on which the token is decoded, at most
    reasoning_tokens: int = 768
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        check_decode_side(self.decode_side_px)
        if not 1 <= self.num_frames <= MAX_FRAMES:
            msg = f"num_frames wants 1 to {MAX_FRAMES}, got {self.num_frames}"
            raise ConfigError(msg)


class FevosMethod:
    """Reasoning, then one token for all that answers the query, in one completion."""

    name = "fevos"

    def __init__(self, settings: FevosSettings | None = None) -> None:
        self._settings = settings or FevosSettings()
        self._policy = UniformWindow(
            num_frames=self._settings.num_frames, span_s=self._settings.span_s
        )

    @property
    def window_policy(self) -> WindowPolicy:
        """Evenly over the span."""
        return self._policy

    def sentence(self, num_targets: int = 1) -> str:
        """An answer's words."""
        return sentence(num_targets)

    def plan(self, query: Query, window: FrameWindow) -> Plan:
        """One request."""
        shown = self._settings.view.shown(window)
        form = form_of(query, self._settings.form)
        budget = reasoning_tokens_of(query, form, self._settings.reasoning_tokens)
        reply = reply_words(form, budget, tells_budget=self._settings.tells_budget)
        after = f"{query_words(query)} Segment what answers the query.\n{reply}"
        content = (frames_words(shown), *labelled(shown), after)
        completion = LanguageRequest(
            messages=(Message(role=Role.USER, content=content),),
            max_tokens=budget + self._settings.answer_tokens,
        )
        frames = yield from sharper(window.frames, self._settings.decode_side_px)
        forces = self._settings.forces_token
        yield SegmentStep(
            request=SegmentRequest(
                completion=completion,
                frames=frames,
                ending=partial(forced_ending, form=form) if forces else None,
            ),
            form=form,
            read=partial(read_targets, frames=frames, forces_token=forces),
            reasoning_tokens=budget,
        )
