# SPDX-License-Identifier: Apache-2.0
"""What a server understands of the chat-completions protocol, learnt from what it refuses.

Pure. Asks for all that is of use, and leaves out what a refusal names; what names nothing is
answered with fewer optional members. Does not know how requests travel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from foreseg.language.base import LanguageRequest
from foreseg.language.server_events import detail_of, object_from

MAX_TOKENS, MAX_COMPLETION_TOKENS = "max_tokens", "max_completion_tokens"
# Left out when a refusal names nothing: first these together, then the stream.
_LADDER = (("logprobs", "seed", "stream_options", "n"), ("stream",))
_OPTIONAL = {"temperature", *(name for step in _LADDER for name in step)}
_IN_PROSE = {"n", "stream"}  # words of their own: named only if quoted
_QUOTED = re.compile(r"['\"`]([a-z_]+)['\"`]")
_WORD = re.compile(r"[a-z_]+")
_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|unexpected|extra|not permitted"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What a request holds beside the model and the messages."""

    left_out: frozenset[str] = frozenset()
    tokens_name: str = MAX_TOKENS

    def __str__(self) -> str:
        """For a log."""
        without = f"without {', '.join(sorted(self.left_out))}" if self.left_out else "as it is"
        return f"{without}, with {self.tokens_name}"

    def members(self, request: LanguageRequest) -> dict[str, object]:
        """The members of a request's body."""
        members: dict[str, object] = {
            self.tokens_name: request.max_tokens,
            "temperature": request.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
            "logprobs": True,
            "seed": request.seed,
        }
        if request.num_samples > 1:
            members["n"] = request.num_samples
        if "stream" in self.left_out:
            del members["stream_options"]
        return {name: value for name, value in members.items() if name not in self.left_out}

    def plainer(self, refusal: bytes) -> Dialect | None:
        """How to ask after a request was refused with this body; None if there is no other way."""
        words = detail_of(refusal)
        named = _named_in(refusal, words)
        if MAX_TOKENS in named and self.tokens_name == MAX_TOKENS:
            is_renamed = MAX_COMPLETION_TOKENS in words or _UNKNOWN.search(words.lower())
            if is_renamed:
                return replace(self, tokens_name=MAX_COMPLETION_TOKENS)
        steps = (named & _OPTIONAL, *map(frozenset, _LADDER))
        rest = next((step - self.left_out for step in steps if step - self.left_out), None)
        return None if rest is None else replace(self, left_out=self.left_out | rest)


def _named_in(refusal: bytes, words: str) -> frozenset[str]:
    """The members that a refusal is about."""
    value = object_from(refusal) or {}
    error = value.get("error")
    known = _OPTIONAL | {MAX_TOKENS}
    param = error.get("param") if isinstance(error, dict) else None
    if isinstance(param, str) and param in known:
        return frozenset({param})
    quoted = frozenset(_QUOTED.findall(words)) & known
    return quoted or frozenset(_WORD.findall(words)) & (known - _IN_PROSE)
