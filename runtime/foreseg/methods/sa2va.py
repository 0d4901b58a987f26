# SPDX-License-Identifier: Apache-2.0
"""The method of Sa2VA, in its publisher's own words: frames, then one sentence, then [SEG].

One request a query: the frames stand first, without labels, then a line that asks for a mask. The
token is decoded on each frame shown; without it there is no target. Frames lie evenly over the
span, as Sa2VA-i has it (Sa2VA's own code takes the first five). Ours is the sentence about a
horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from foreseg.dialogue import Query
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow, U8Array
from foreseg.history.windows import UniformWindow, WindowPolicy
from foreseg.language.base import LanguageRequest, Message, Role, SegmentRequest
from foreseg.methods.answers import MAX_REASONING_TOKENS
from foreseg.methods.base import Plan, SegmentStep
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.seg_answers import check_decode_side, read_targets, sentence
from foreseg.methods.sharper import sharper

MAX_FRAMES = 32
_ASK = "\nPlease segment {}."  # these two: of its public evaluation
_ASK_QUESTION = "\n {} Please respond with a segmentation mask."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sa2vaSettings:
    """Numbers of the method; the first as in its public code."""

    num_frames: int = 5
    span_s: float | None = None  # None: all that the history has
    view: View = field(default_factory=View)
    decode_side_px: int = 1024  # of the frames that are shown and decoded, at most
    reasoning_tokens: int = 448  # its public code allows 2048 tokens together; a line is usual
    answer_tokens: int = 64

    def __post_init__(self) -> None:
        check_decode_side(self.decode_side_px)
        if not 1 <= self.num_frames <= MAX_FRAMES:
            msg = f"num_frames wants 1 to {MAX_FRAMES}, got {self.num_frames}"
            raise ConfigError(msg)


class Sa2vaMethod:
    """Frames and a question; the answer is one token for all that the query means."""

    name = "sa2va"

    def __init__(self, settings: Sa2vaSettings | None = None) -> None:
        self._settings = settings or Sa2vaSettings()
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
        frames = yield from sharper(window.frames, self._settings.decode_side_px)
        shown = self._settings.view.shown(
            FrameWindow(frames=frames, origin_index=window.origin_index)
        )
        images: tuple[U8Array, ...] = tuple(frame.image for frame in shown.frames)
        budget = query.max_reasoning_tokens or self._settings.reasoning_tokens
        completion = LanguageRequest(
            messages=(Message(role=Role.USER, content=(*images, _words(query))),),
            max_tokens=min(budget, MAX_REASONING_TOKENS) + self._settings.answer_tokens,
        )
        yield SegmentStep(
            request=SegmentRequest(completion=completion, frames=frames, ending=None),
            form=Form.BARE,
            read=partial(read_targets, frames=frames, forces_token=False),
            reasoning_tokens=budget,
        )


def _words(query: Query) -> str:
    """The query in the template for a question, or in that for a description."""
    words = query.text.strip()
    horizon = f" It is about the next {query.horizon_s:g} seconds." if query.horizon_s else ""
    if "?" in words:
        return _ASK_QUESTION.format(words) + horizon
    return _ASK.format(words.rstrip(".")) + horizon
