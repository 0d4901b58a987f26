# SPDX-License-Identifier: Apache-2.0
"""The words in which a published model was asked, in place of a method's own.

Does not know which model, nor how its answers are read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from string import Template

from foreseg.dialogue import Query
from foreseg.errors import ConfigError
from foreseg.frames import FrameWindow, U8Array
from foreseg.language.base import LanguageRequest, Message, Role
from foreseg.methods.answers import form_of, reasoning_tokens_of
from foreseg.methods.base import AnswerStep, Verdict
from foreseg.methods.grammar import Form

FRAMES = "$frames"  # the part of `content` in whose place the frames stand
MAX_TOKENS = 8_192
_KNOWN = {"query": "", "num_frames": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What the last request says.

    Attributes:
        content: its parts in order, as `string.Template` with `$query` and `$num_frames`; the part
            `$frames` stands for the frames.
        label: likewise, before each frame, with `$label`; empty: frames have none.
        between: after each frame but the last.
        lowers_query: the query is written in lower case.
        strips: characters that are taken off the query's ends.
        form: of the completion, the only one that the model knows.
        reasoning_tokens: of thoughts at most.
        answer_tokens: of the answer at most.
    """

    content: tuple[str, ...]
    label: str = ""
    between: str = ""
    lowers_query: bool = False
    strips: str = ""
    form: Form = Form.THINK_FIRST
    reasoning_tokens: int = 768
    answer_tokens: int = 256

    def __post_init__(self) -> None:
        if self.content.count(FRAMES) != 1:
            msg = f"the words want {FRAMES!r} as one of their parts once, got {self.content}"
            raise ConfigError(msg)
        try:
            Template(self.label).substitute(label="")
            words = [Template(part).substitute(_KNOWN) for part in self.content if part != FRAMES]
        except (KeyError, ValueError) as error:
            msg = (
                "the words know $query and $num_frames, a label knows $label, and $$ is a dollar,"
                f" got another: {error}"
            )
            raise ConfigError(msg) from error
        if not any("$query" in part or "${query}" in part for part in self.content):
            msg = f"the words want $query in one of their parts, got {words}"
            raise ConfigError(msg)
        for name in ("reasoning_tokens", "answer_tokens"):
            if not 1 <= getattr(self, name) <= MAX_TOKENS:
                msg = f"{name} wants 1 to {MAX_TOKENS}, got {getattr(self, name)}"
                raise ConfigError(msg)

    def message(self, query: Query, shown: FrameWindow) -> Message:
        """The request's only message, about frames as they are shown."""
        text = query.text.lower() if self.lowers_query else query.text
        said = " ".join(text.split()).strip(self.strips + " ")
        known = {"query": said, "num_frames": str(len(shown.frames))}
        content: list[str | U8Array] = []
        for part in self.content:
            if part == FRAMES:
                content += self._frames(shown)
            else:
                content.append(Template(part).substitute(known))
        return Message(role=Role.USER, content=tuple(content))

    def _frames(self, shown: FrameWindow) -> list[str | U8Array]:
        content: list[str | U8Array] = []
        for frame in shown.frames:
            label = Template(self.label).substitute(label=shown.label_of(frame.index))
            before = f"{self.between if content else ''}{label}"
            content += [before, frame.image] if before else [frame.image]
        return content


def worded_step(
    wording: Wording, query: Query, shown: FrameWindow, read: Callable[[str], Verdict]
) -> AnswerStep:
    """The request in these words.

    Args:
        wording: of it.
        query: its words.
        shown: the frames as the model sees them.
        read: from the answer's text.

    Raises:
        UnusableAnswer: the query wants its answer first, and the model thinks first.
    """
    form = form_of(query, wording.form)
    budget = reasoning_tokens_of(query, form, wording.reasoning_tokens)
    request = LanguageRequest(
        messages=(wording.message(query, shown),), max_tokens=budget + wording.answer_tokens
    )
    return AnswerStep(request=request, form=form, read=read, reasoning_tokens=budget)
