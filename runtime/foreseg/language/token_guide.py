# SPDX-License-Identifier: Apache-2.0
"""Keeps one completion to a grammar, token by token. Knows no model: it is asked about tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from foreseg.language.text_grammar import TextGrammar

MAX_TRIED = 4096  # tokens, of the most probable ones; then the model says what it likes


class TokenGuide:
    """The completion so far, and which tokens may come next.

    Args:
        grammar: of the whole text.
        decode: makes text of tokens, without the special ones.
        end_ids: tokens that end a completion.
        special_ids: tokens without text; none of them but `end_ids` may come.
    """

    def __init__(
        self,
        grammar: TextGrammar,
        decode: Callable[[list[int]], str],
        *,
        end_ids: Collection[int],
        special_ids: Collection[int],
    ) -> None:
        self._grammar = grammar
        self._decode = decode
        self._end_ids = frozenset(end_ids)
        self._special_ids = frozenset(special_ids)
        self._tokens: list[int] = []

    def allows(self, token: int) -> bool:
        """True if the completion may go on with this token, or end by it."""
        if token in self._end_ids:
            return self._grammar.may_end(self._decode(self._tokens))
        if token in self._special_ids:
            return False
        tokens = [*self._tokens, token]
        return self._grammar.allows(self._decode(tokens), len(tokens))

    def first(self, tokens: Iterable[int]) -> int | None:
        """The first token that may come; None: not one of `MAX_TRIED`."""
        for _, token in zip(range(MAX_TRIED), tokens, strict=False):
            if self.allows(token):
                return token
        return None

    def feed(self, token: int) -> None:
        """The completion goes on with this token."""
        self._tokens.append(token)
