# SPDX-License-Identifier: Apache-2.0
"""What a small model will say next, guessed from what it has said: its thoughts are sentences that come again.

A decoder reads five tokens in 1.0 to 1.5 times the time of one (docs/log.md): fetching its weights is what takes it. So a few tokens are
guessed, run together, and kept as far as they are what the model itself chooses: speculative decoding (Leviathan et al.,
2023), with n-grams in place of a draft model (Saxena's prompt lookup decoding, 2023). What is said does not change.
Does not know: models, words.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST = 4  # tokens guessed at a time: of six or eight few more are right
_EXACT = (6, 4, 3)  # tokens before, the longest first
_ALIKE = (4, 3, 2)  # likewise, where any number stands for any other
_NUMBER = -1
MAX_ENTRIES = 20_000  # 4.4 MB


class Drafts:
    """Remembers which token followed which ones; the oldest is forgotten beyond `max_entries`."""

    def __init__(self, is_number: NDArray[np.bool_], *, max_entries: int = MAX_ENTRIES) -> None:
        """Begin with nothing.

        Args:
            is_number: (vocabulary,): tokens that stand for one another.
            max_entries: contexts that are kept, at most.
        """
        self._classes: list[int] = np.where(is_number, _NUMBER, np.arange(len(is_number))).tolist()
        self._max_entries = max_entries
        self._next: OrderedDict[tuple[int, ...], int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._next)

    def learn(self, before: Sequence[int], token: int) -> None:
        """Remember that a token followed others, of which the last ones count."""
        for key in self._keys(before):
            self._next[key] = token
            self._next.move_to_end(key)
        while len(self._next) > self._max_entries:
            self._next.popitem(last=False)

    def guess(self, before: Sequence[int], most: int = MOST) -> list[int]:
        """Guess what follows, as far as anything is known, `most` tokens at most."""
        context, found = list(before[-_EXACT[0] :]), list[int]()
        while len(found) < most:
            token = self._after(context)
            if token is None:
                break
            found.append(token)
            context = [*context, token][-_EXACT[0] :]
        return found

    def _after(self, context: Sequence[int]) -> int | None:
        for key in self._keys(context):
            token = self._next.get(key)
            if token is not None:
                is_sure = (
                    key[0] == 0 or self._classes[token] != _NUMBER
                )  # which number is not told
                return token if is_sure else None
        return None

    def _keys(self, before: Sequence[int]) -> list[tuple[int, ...]]:
        """Of the last tokens, from the most exact on: 0 or 1 for the kind, then tokens or their classes."""
        last = tuple(before[-_EXACT[0] :])
        alike = tuple(self._classes[token] for token in last[-_ALIKE[0] :])
        keys = [(0, *last[-count:]) for count in _EXACT if len(last) >= count]
        keys += [(1, *alike[-count:]) for count in _ALIKE if len(alike) >= count]
        return keys
