# SPDX-License-Identifier: Apache-2.0
"""Batches of windows: beginnings of one length, and after each the questions about it.

Does not know: models.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from .features import FrameStore
from .numbers import numbers_by_id
from .tokenizer import KEYFRAME_BEGIN
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
        side: (S, L) int64: that token as a number of pixels; -1 where it is none.
    """

    beginning: torch.Tensor
    tokens: torch.Tensor
    num_frames: int
    owner: torch.Tensor
    asked: torch.Tensor
    is_there: torch.Tensor
    labels: torch.Tensor
    side: torch.Tensor


class Row(NamedTuple):
    """A question, with what is said to it or without."""

    owner: int  # its window's number in the batch
    ids: Sequence[int]
    num_prompt: int  # of them, before what is said
    given: Sequence[int] = ()  # of what is said, numbers of tokens that are not learnt


class Batcher:
    """Draws batches of windows whose beginnings have one length.

    Questions of a batch are all longer than the mean, completions included, or all not: what is asked without a thought is a
    third as long as the longest thought, and would be padded to it.
    """

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
        lengths = [len(ids) for window in windows for ids in window.asked]
        self._mean_length = float(np.mean(lengths))
        groups: dict[tuple[int, bool], list[Window]] = defaultdict(list)
        asked: dict[tuple[int, bool], int] = defaultdict(int)
        for window in windows:
            for are_long in (False, True):
                fitting = self._of_length(window, are_long=are_long)
                if fitting:
                    groups[len(window.beginning), are_long].append(window)
                    asked[len(window.beginning), are_long] += len(fitting)
        self._groups = list(groups.items())
        sizes = np.array([asked[key] for key, _ in self._groups], float)
        self._shares = sizes / sizes.sum()
        self._store, self._num_windows, self._num_asked = store, num_windows, num_asked
        self._pad = int(tokenizer.pad_token_id)
        self._numbers = numbers_by_id(tokenizer)
        self._keyframe = int(tokenizer.convert_tokens_to_ids(KEYFRAME_BEGIN))
        self._bracket = int(tokenizer.convert_tokens_to_ids("["))

    def draw(self, rng: np.random.Generator) -> Batch:
        """A batch at random."""
        windows, numbers = self.drawn(rng)
        rows = [
            Row(
                owner,
                windows[owner].asked[i],
                windows[owner].num_prompt[i],
                windows[owner].given[i] if windows[owner].given else (),
            )
            for owner, i in numbers
        ]
        return self.batch(windows, rows)

    def drawn(self, rng: np.random.Generator) -> tuple[list[Window], list[tuple[int, int]]]:
        """Windows at random, and of each some questions: the window's number, the question's in it."""
        (_, are_long), group = self._groups[rng.choice(len(self._groups), p=self._shares)]
        chosen = [group[i] for i in rng.integers(len(group), size=self._num_windows)]
        numbers = []
        for owner, window in enumerate(chosen):
            fitting = self._of_length(window, are_long=are_long)
            numbers += [(owner, int(i)) for i in rng.permutation(fitting)[: self._num_asked]]
        return chosen, numbers

    def _of_length(self, window: Window, *, are_long: bool) -> list[int]:
        return [
            i for i, ids in enumerate(window.asked) if are_long == (len(ids) > self._mean_length)
        ]

    def batch(self, windows: Sequence[Window], rows: Sequence[Row]) -> Batch:
        """Of windows whose beginnings have one length."""
        ids = torch.full((len(rows), max(len(row.ids) for row in rows)), self._pad)
        labels = torch.full_like(ids, -100)
        is_there = torch.zeros_like(ids, dtype=torch.bool)
        for n, row in enumerate(rows):
            count, first = len(row.ids), row.num_prompt
            ids[n, :count] = torch.tensor(row.ids)
            is_there[n, :count] = True
            labels[n, first - 1 : count - 1] = ids[n, first:count]
            labels[n, [first - 1 + number for number in row.given]] = -100
        is_place = (labels >= 0) & ~self._is_label(ids)  # of numbers
        side = torch.where(is_place, self._numbers[labels.clamp(min=0)], -1)
        return Batch(
            beginning=torch.tensor([window.beginning for window in windows]),
            tokens=self._store.tokens([f for window in windows for f in window.frames]),
            num_frames=sum(len(window.frames) for window in windows),
            owner=torch.tensor([row.owner for row in rows]),
            asked=ids,
            is_there=is_there,
            labels=labels,
            side=side,
        )

    def _is_label(self, ids: torch.Tensor) -> torch.Tensor:
        """(S, L) bool: whether a number that is said next is a frame's label: 31 is no more nearly 30 than 7 is.

        In an answer, or before a place in a track; a label above the largest number of one token (`tokenizer.MAX_NUMBER`)
        is said in parts, one number right after another.
        """
        after = functional.pad(ids[:, 2:], (0, 2), value=self._pad)
        is_part = (self._numbers[ids] >= 0) | (self._numbers[after] >= 0)
        return (ids == self._keyframe) | (after == self._bracket) | is_part
