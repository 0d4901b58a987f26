# SPDX-License-Identifier: Apache-2.0
"""How the nano reasoner answers held-out questions: read by the robot's reader, held against the truth.

A quick look on stored tokens; `foreseg-eval` gives the published figures. Does not know: recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from foreseg.geometry import BoxXyxy, box_iou
from foreseg.methods.base import Parsed
from foreseg.methods.grammar import answer_of
from foreseg.methods.veason import VeasonMethod

from .features import SeenCollator

_LEAST_IOU = 0.5


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


@torch.no_grad()
def score_held_out(
    model: Any,  # noqa: ANN401 (of transformers)
    tokenizer: Any,  # noqa: ANN401
    collator: SeenCollator,
    rows: Sequence[dict[str, Any]],
    *,
    max_tokens: int = 420,
) -> HeldOut:
    """Let a model, whose tower is `SeenFrames`, answer rows as `prepare` wrote them; greedily."""
    was_training = model.training
    model.eval()
    said = [_answered(model, tokenizer, collator, row, max_tokens) for row in rows]
    model.train(was_training)
    truths = [tokenizer.decode(row["input_ids"][row["num_prompt"] : -1]) for row in rows]
    return compared(said, truths)


def compared(completions: Sequence[str], truths: Sequence[str]) -> HeldOut:
    """What completions are worth, against the true ones of their questions."""
    said, true = map(_parsed, completions), map(_parsed, truths)
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


def _answered(
    model: Any,  # noqa: ANN401
    tokenizer: Any,  # noqa: ANN401
    collator: SeenCollator,
    row: dict[str, Any],
    max_tokens: int,
) -> str:
    prompt = {**row, "input_ids": row["input_ids"][: row["num_prompt"]]}
    batch = collator([prompt])
    del batch["labels"]
    out = model.generate(**batch, max_new_tokens=max_tokens, do_sample=False)
    return str(tokenizer.decode(out[0, row["num_prompt"] :], skip_special_tokens=True))


def _parsed(text: str) -> Parsed | None:
    answer = answer_of(text)
    return None if answer is None else VeasonMethod().parse(answer)


def _iou(said: Parsed | None, truth: Parsed) -> float:
    if said is None or said.says_none or not said.items or said.keyframe != truth.keyframe:
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
