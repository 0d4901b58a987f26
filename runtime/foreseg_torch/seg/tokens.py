# SPDX-License-Identifier: Apache-2.0
"""Completions as token ids: which of them are [SEG], and which are thoughts.

A decoded text cannot tell: a model can spell "[SEG]" with other tokens, and a decoder that hides
special tokens hides this one. Does not know models, masks or trainers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreseg.methods.reading import reasoning_span
from foreseg.methods.seg_answers import mark_of, without_marks


def marked_text(ids: Sequence[int], tokenizer: Any, token_id: int) -> str:  # noqa: ANN401 (of transformers)
    """A completion's text as `reading.read_completion` takes it: a mark for each [SEG].

    Args:
        ids: of the completion alone; special tokens other than [SEG] are left out.
        tokenizer: of transformers.
        token_id: of [SEG]; the n-th of them becomes the mark of the n-th masks.
    """
    pieces: list[str] = []
    said: list[int] = []
    found = 0
    for token in ids:
        if token != token_id:
            said.append(token)
            continue
        pieces += [_text(said, tokenizer), mark_of(found)]
        said, found = [], found + 1
    return "".join((*pieces, _text(said, tokenizer)))


def reasoning_tokens(ids: Sequence[int], tokenizer: Any) -> int:  # noqa: ANN401 (likewise)
    """How many of a completion's tokens are thoughts: those that end within `reasoning_span`."""
    special = set(tokenizer.all_special_ids)
    kept = [token for token in ids if token not in special]
    start, end = reasoning_span(tokenizer.decode(kept))
    if start == end:
        return 0
    return _tokens_up_to(kept, end, tokenizer) - _tokens_up_to(kept, start, tokenizer)


def _tokens_up_to(ids: Sequence[int], num_chars: int, tokenizer: Any) -> int:  # noqa: ANN401 (likewise)
    """The most tokens whose text has at most so many characters."""
    low, high = 0, len(ids)
    while low < high:
        middle = (low + high + 1) // 2
        if len(tokenizer.decode(ids[:middle])) <= num_chars:
            low = middle
        else:
            high = middle - 1
    return low


def _text(ids: Sequence[int], tokenizer: Any) -> str:  # noqa: ANN401 (likewise)
    return without_marks(tokenizer.decode(list(ids), skip_special_tokens=True))
