# SPDX-License-Identifier: Apache-2.0
"""Numbers as tokens that know their neighbours: what a number of pixels may also be taken for.

To say 41 where 42 is true is nearly right, and the loss should know it: from nothing, a table of
embeddings knows no order. Does not know: models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from .tokenizer import MAX_NUMBER

SPREAD_PX = 1.0  # one standard deviation


def number_ids(tokenizer: Any) -> torch.Tensor:  # noqa: ANN401 (of transformers)
    """Token ids (MAX_NUMBER,) int64 of the numbers from 0 on.

    Raises:
        ValueError: a number is not one token.
    """
    read = [tokenizer(str(n), add_special_tokens=False).input_ids for n in range(MAX_NUMBER)]
    if any(len(ids) != 1 for ids in read):
        msg = "the tokenizer has no token of its own for every number"
        raise ValueError(msg)
    return torch.tensor(read)[:, 0]


def numbers_by_id(tokenizer: Any) -> torch.Tensor:  # noqa: ANN401
    """(len(tokenizer),) int64: the number that each token is, -1 of those that are none."""
    ids, numbers = number_ids(tokenizer), torch.full((len(tokenizer),), -1)
    numbers[ids] = torch.arange(len(ids))
    return numbers


def ids_of_words(tokenizer: Any, words: Sequence[str]) -> list[int]:  # noqa: ANN401
    """The last token of each word within a sentence: of a word that is one token, that token."""
    return [tokenizer(f" {word}", add_special_tokens=False).input_ids[-1] for word in words]


def near_numbers(px: torch.Tensor) -> torch.Tensor:
    """Probabilities (..., MAX_NUMBER) around numbers of pixels (...): a normal distribution's."""
    apart = torch.arange(MAX_NUMBER) - px[..., None]
    return torch.softmax(-0.5 * (apart / SPREAD_PX) ** 2, dim=-1)
