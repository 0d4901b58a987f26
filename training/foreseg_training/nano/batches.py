# SPDX-License-Identifier: Apache-2.0
"""Batches of windows: beginnings of one length, and after each the questions about it.

Does not know: models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .features import FrameStore
from .numbers import number_ids
from .tokenizer import BOXES_BEGIN, BOXES_END
from .windows import Window


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Windows and questions as tensors.

    Attributes:
        beginning: (B, P) int64, without padding.
        tokens: (frames x tokens, width) float32 of the frames, in order.
        num_frames: of all windows together.
        owner: (S,) int64: to which window each question belongs.
        asked: (S, L) int64, padded on the right.
        is_there: (S, L) bool, no padding.
        labels: (S, L) int64: the token that should be said next; -100 where nothing is learnt.
        side: (S, L) int64: that token as a number of pixels of a box; -1 where it is none.
    """

    beginning: torch.Tensor
    tokens: torch.Tensor
    num_frames: int
    owner: torch.Tensor
    asked: torch.Tensor
    is_there: torch.Tensor
    labels: torch.Tensor
    side: torch.Tensor


class Batcher:
    """Draws batches of windows whose beginnings have one length."""

    def __init__(
        self,
        windows: Sequence[Window],
        store: FrameStore,
        tokenizer: Any,  # noqa: ANN401 (of transformers)
        *,
        num_windows: int,
        num_asked: int,
    ) -> None:
        """Keep what to draw from.

        Args:
            windows: of any lengths.
            store: of their frames.
            tokenizer: of their ids.
            num_windows: a batch.
            num_asked: about a window, at most; of more, some are drawn.
        """
        by_length: dict[int, list[Window]] = defaultdict(list)
        for window in windows:
            by_length[len(window.beginning)].append(window)
        self._groups = list(by_length.values())
        sizes = np.array([len(group) for group in self._groups], float)
        self._shares = sizes / sizes.sum()
        self._store, self._num_windows, self._num_asked = store, num_windows, num_asked
        self._pad = int(tokenizer.pad_token_id)
        self._numbers = torch.full((len(tokenizer),), -1)
        ids = number_ids(tokenizer)
        self._numbers[ids] = torch.arange(len(ids))
        self._begin, self._end = tokenizer.convert_tokens_to_ids([BOXES_BEGIN, BOXES_END])

    def draw(self, rng: np.random.Generator) -> Batch:
        """A batch at random."""
        group = self._groups[rng.choice(len(self._groups), p=self._shares)]
        chosen = [group[i] for i in rng.integers(len(group), size=self._num_windows)]
        asked: list[tuple[int, ...]] = []
        num_prompt, owner = [], []
        for n, window in enumerate(chosen):
            count = min(self._num_asked, len(window.asked))
            for i in rng.choice(len(window.asked), size=count, replace=False):
                asked.append(window.asked[i])
                num_prompt.append(window.num_prompt[i])
                owner.append(n)
        ids = torch.full((len(asked), max(map(len, asked))), self._pad)
        labels = torch.full_like(ids, -100)
        is_there = torch.zeros_like(ids, dtype=torch.bool)
        for row, (own, first) in enumerate(zip(asked, num_prompt, strict=True)):
            ids[row, : len(own)] = torch.tensor(own)
            is_there[row, : len(own)] = True
            labels[row, first - 1 : len(own) - 1] = ids[row, first : len(own)]
        inside = (ids == self._begin).cumsum(dim=1) > (ids == self._end).cumsum(dim=1)
        is_said = labels >= 0
        side = torch.where(is_said & inside, self._numbers[labels.clamp(min=0)], -1)
        return Batch(
            beginning=torch.tensor([window.beginning for window in chosen]),
            tokens=self._store.tokens([f for window in chosen for f in window.frames]),
            num_frames=sum(len(window.frames) for window in chosen),
            owner=torch.tensor(owner),
            asked=ids,
            is_there=is_there,
            labels=labels,
            side=side,
        )
