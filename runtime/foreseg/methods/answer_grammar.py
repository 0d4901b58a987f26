# SPDX-License-Identifier: Apache-2.0
"""Completions that always parse: the order of thoughts and answer, and what the answer may be.

For models that say nothing else anyway, and in decoders that can be kept to it: a frame that was not
shown cannot be named, a box has its corners in order, and thoughts end at their budget. Does not
know models.
"""

from __future__ import annotations

from dataclasses import dataclass

from foreseg.language.text_grammar import FreeText, InTurn, Literal, Part
from foreseg.methods.grammar import Form

CLOSING_TOKENS = 8  # that the tags between thoughts and answer may take


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionGrammar:
    """Keeps to `TextGrammar`.

    Attributes:
        form: of the completion, as `Form.put` writes it.
        answer: what stands between the answer's tags.
        reasoning_tokens: of thoughts, at most; they are ended there.
    """

    form: Form
    answer: Part
    reasoning_tokens: int

    def allows(self, text: str, num_tokens: int) -> bool:
        """True if some whole completion begins so."""
        is_over = num_tokens > self.reasoning_tokens - CLOSING_TOKENS
        is_over = is_over and self.form is Form.THINK_FIRST  # later thoughts cost no answer
        reach = self._part(is_over=is_over).reach(text, 0)
        return reach.is_open or len(text) in reach.ends

    def may_end(self, text: str) -> bool:
        """True if it is a whole one."""
        return len(text) in self._part(is_over=False).reach(text, 0).ends

    def _part(self, *, is_over: bool) -> Part:
        answer: list[Part] = [Literal("<answer>"), self.answer, Literal("</answer>")]
        thought = [Literal("<think>"), FreeText(is_over), Literal("</think>")]
        if self.form is Form.BARE:
            return self.answer
        if self.form is Form.ANSWER_ONLY:
            return InTurn(answer)
        first, second = (thought, answer) if self.form is Form.THINK_FIRST else (answer, thought)
        return InTurn([*first, Literal("\n"), *second])
