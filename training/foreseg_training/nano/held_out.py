# SPDX-License-Identifier: Apache-2.0
"""How the nano reasoner answers held-out questions: read by the robot's reader, held against the truth.

A quick look on stored tokens; `foreseg-eval` gives the published figures. Does not know: recordings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import torch

from foreseg.geometry import BoxXyxy, box_iou
from foreseg.methods.base import Parsed
from foreseg.methods.grammar import answer_of
from foreseg.methods.veason import VeasonMethod

from .batches import Batcher, Row
from .features import FrameStore
from .rollouts import say, texts_of
from .tokenizer import END
from .windows import Window, read_windows

MAX_TOKENS = 512  # of a completion; the longest true ones of both worlds have 470
_LEAST_IOU = 0.5
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Shares of questions, 0..1; NaN where there are none of the kind.

    Attributes:
        count: of questions.
        read: whose answer can be read.
        right: with a target, whose first box overlaps the true one by half or more on the true keyframe.
        mean_iou: of those boxes; 0 where there is none, or on another frame.
        none_found: without a target, that are said to have none.
        none_false: with a target, that are said to have none.
    """

    count: int
    read: float
    right: float
    mean_iou: float
    none_found: float
    none_false: float

    def __str__(self) -> str:
        return (
            f"{self.count} held-out questions: read {self.read:.2f}, right {self.right:.2f},"
            f" mean IoU {self.mean_iou:.2f}; nothing fits: found {self.none_found:.2f}, false"
            f" {self.none_false:.2f}"
        )


class HeldOutExam:
    """Some of the questions that `prepare` held out, answered by the likeliest tokens."""

    def __init__(
        self,
        data: Path,
        tokenizer: Any,  # noqa: ANN401 (of transformers)
        grid_thw: tuple[int, int, int],
        *,
        count: int,
        bf16: bool,
        num_at_once: int = 12,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        """Choose the questions.

        Args:
            data: what `prepare` left.
            tokenizer: of its ids.
            grid_thw: of a frame.
            count: of questions, about; evenly.
            bf16: matrix products in bfloat16.
            num_at_once: questions that are answered together, of beginnings of one length.
            max_tokens: of an answer, its thought among them.
        """
        windows = read_windows(data / "held_out.jsonl")
        every = [(window, i) for window in windows for i in range(len(window.asked))]
        self.asked: Sequence[tuple[Window, int]] = every[:: max(1, len(every) // max(1, count))]
        self._batcher = Batcher(
            windows, FrameStore(data / "frames.npy"), tokenizer, num_windows=1, num_asked=1
        )
        self._tokenizer, self._grid, self._bf16 = tokenizer, grid_thw, bf16
        self._at_once, self._max_tokens = num_at_once, max_tokens

    def score(self, model: Any) -> HeldOut:  # noqa: ANN401 (of transformers)
        """Let a model, whose tower is `SeenFrames` and whose attention is SHARED_ATTENTION, answer them."""
        was_training = model.training
        model.eval()
        said, truths = list[str](), list[str]()
        for _, same in groupby(sorted(self.asked, key=_length), key=_length):
            for some in batched(list(same), self._at_once):
                said += self.said(model, some, [""] * len(some))
                truths += [true_completion(self._tokenizer, *one) for one in some]
        model.train(was_training)
        return compared(said, truths)

    @torch.no_grad()
    def said(
        self,
        model: Any,  # noqa: ANN401
        some: Sequence[tuple[Window, int]],
        begun: Sequence[str],
    ) -> list[str]:
        """Whole completions of questions whose beginnings have one length; of each, how it begins is given."""
        rows = []
        for n, ((window, i), begin) in enumerate(zip(some, begun, strict=True)):
            asked = prompt_of(window, n, i)
            given = self._tokenizer(begin, add_special_tokens=False).input_ids if begin else []
            rows.append(Row(n, [*asked.ids, *given], asked.num_prompt + len(given)))
        batch = self._batcher.batch([window for window, _ in some], rows)
        with torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            groups = say(
                model, batch, self._grid,
                num_each=1, max_tokens=self._max_tokens,
                end_id=int(self._tokenizer.convert_tokens_to_ids(END)), generator=None,
            )  # fmt: skip
        texts = texts_of(self._tokenizer, [one for group in groups for one in group])
        return [begin + text for begin, text in zip(begun, texts, strict=True)]


def batched(every: Sequence[_T], count: int) -> Iterator[Sequence[_T]]:
    """So many at a time, of the last ones what is left."""
    for first in range(0, len(every), count):
        yield every[first : first + count]


def prompt_of(window: Window, owner: int, number: int) -> Row:
    """One of a window's questions, as it is asked."""
    first = window.num_prompt[number]
    return Row(owner, window.asked[number][:first], first)


def true_completion(tokenizer: Any, window: Window, number: int) -> str:  # noqa: ANN401
    """The true completion of one of a window's questions, as text."""
    ids = window.asked[number][window.num_prompt[number] : -1]
    return str(tokenizer.decode(list(ids)))


def compared(completions: Sequence[str], truths: Sequence[str]) -> HeldOut:
    """What completions are worth, against the true ones of their questions."""
    said, true = map(parsed, completions), map(parsed, truths)
    pairs = list(zip(said, true, strict=True))
    with_target = [(a, t) for a, t in pairs if t is not None and not t.says_none]
    without = [a for a, t in pairs if t is not None and t.says_none]
    ious = [_iou(a, t) for a, t in with_target]
    return HeldOut(
        count=len(pairs),
        read=_share([a is not None for a, _ in pairs]),
        right=_share([iou >= _LEAST_IOU for iou in ious]),
        mean_iou=sum(ious) / len(ious) if ious else float("nan"),
        none_found=_share([a is not None and a.says_none for a in without]),
        none_false=_share([a is not None and a.says_none for a, _ in with_target]),
    )


def _length(asked: tuple[Window, int]) -> int:
    return len(asked[0].beginning)


def parsed(text: str) -> Parsed | None:
    """What a completion answers; None: it cannot be read."""
    answer = answer_of(text)
    return None if answer is None else VeasonMethod().parse(answer)


def _iou(said: Parsed | None, truth: Parsed) -> float:
    is_there = said is not None and said.keyframe == truth.keyframe
    return overlap(said, truth) if is_there else 0.0


def overlap(said: Parsed | None, truth: Parsed) -> float:
    """IoU of the first boxes, on whatever frames; 0 where nothing was said, or one is no box."""
    if said is None or said.says_none or not said.items:
        return 0.0
    box, true = _box(said.items[0]), _box(truth.items[0])
    return 0.0 if box is None or true is None else box_iou(box, true)


def _box(item: object) -> BoxXyxy | None:
    if not isinstance(item, list) or len(item) != len(BoxXyxy._fields):
        return None
    try:
        return BoxXyxy(*(float(number) for number in item))
    except (TypeError, ValueError):
        return None


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else float("nan")
