# SPDX-License-Identifier: Apache-2.0
"""Text from tokens as they come; a character may be several. Does not know any tokenizer."""

from __future__ import annotations

from collections.abc import Callable

MAX_HELD_BACK = 8  # tokens without a whole character


class CompletionText:
    """The text of one completion, token by token; half a character waits for its other half.

    Args:
        decode: makes text of tokens, without the special ones.
    """

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._told: list[int] = []  # the tokens told last: some tokenizers need a left neighbour
        self._waiting: list[int] = []

    def feed(self, token: int) -> str:
        """What one more token adds."""
        self._waiting.append(token)
        text = self._new_text()
        if text.endswith("\N{REPLACEMENT CHARACTER}") and len(self._waiting) < MAX_HELD_BACK:
            return ""
        self._told, self._waiting = self._waiting, []
        return text

    def finish(self) -> str:
        """What was held back."""
        text = self._new_text() if self._waiting else ""
        self._told, self._waiting = [], []
        return text

    def _new_text(self) -> str:
        return self._decode([*self._told, *self._waiting])[len(self._decode(self._told)) :]
