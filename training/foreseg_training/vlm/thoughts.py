# SPDX-License-Identifier: Apache-2.0
"""How many tokens of a completion are thought: counted in its own ids, not in words.

A text does not say how it was cut into tokens, and cutting it again may give others than a model
generated. Does not know: rewards.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

from foreseg.methods.answers import WORDS_PER_TOKEN

Encoded = Sequence[int]
Decode = Callable[[Sequence[int]], str]


class ThoughtCounter:
    """Counts; without a tokenizer, or without ids, by words.

    Args:
        decode: text of ids, with special tokens left out, as completions are handed to rewards.
    """

    def __init__(self, decode: Decode | None = None) -> None:
        self._decode = decode

    def count(self, text: str, span: tuple[int, int], ids: Encoded | None) -> int:
        """Tokens of which any character lies in a span of a completion's text.

        Args:
            text: of the completion.
            span: characters of it.
            ids: of the completion; what follows its text does not count.
        """
        start, end = span
        if start >= end or not text[start:end].strip():
            return 0
        if ids is None or self._decode is None:
            return round(len(text[start:end].split()) / WORDS_PER_TOKEN)
        before = bisect_left(range(len(ids)), start + 1, key=lambda n: self._length(ids, n + 1))
        through = bisect_left(range(len(ids)), end, key=lambda n: self._length(ids, n + 1))
        return min(len(ids), through + 1) - before

    def _length(self, ids: Encoded, count: int) -> int:
        assert self._decode is not None  # noqa: S101 (`count` looked)
        return len(self._decode(ids[:count]))
