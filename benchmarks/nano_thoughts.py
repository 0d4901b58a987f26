# SPDX-License-Identifier: Apache-2.0
"""Where the nano reasoner's thoughts go wrong: its answers when a thought is begun with the truth, up to some point.

    .venv/bin/python benchmarks/nano_thoughts.py --data RUN --model RUN/model

RUN is what `foreseg-train nano` left; its held-out questions about what was seen, or what comes, are asked. A row gives the truth
up to one point more than the row before; what it gains over that row is what the part between them costs. Tracks say what was touched, too.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import torch

from foreseg_training.nano.architecture import read_nano_reasoner
from foreseg_training.nano.features import SeenFrames
from foreseg_training.nano.held_out import (
    HeldOutExam,
    batched,
    overlap,
    parsed,
    true_completion,
)
from foreseg_training.nano.rollouts import SHARED_ATTENTION
from foreseg_training.nano.training import collator_of
from foreseg_training.nano.windows import Window
from foreseg_training.precision import add_precision_argument, is_bf16

POINTS = ("nothing", "what is there", "tracks", "what befell", "ways ahead", "the whole thought")
"""Up to which a thought is given; of those that it does not have, up to the next."""
_PARTS = (r"<think>|Here:|Gone:", r"The [a-z ]+: \d+\[|It (moves|lies still)", r"At first:|Before:", r"Ahead|Near it:")  # fmt: skip
_SENTENCES = re.compile(r"(?<=\. )")
_THING = re.compile(r"\[(\d+), (\d+)\] the ([a-z ]+?) \[")
_NEAR_PX, _LEAST_IOU = 4.0, 0.5
_AT_ONCE = 16
Asked = tuple[Window, int]


def main() -> None:
    """Print a row for each point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="what foreseg-train nano left")
    parser.add_argument("--model", type=Path, required=True, help="a nano reasoner of that tower")
    parser.add_argument("--count", type=int, default=150, help="of questions, about; evenly")
    add_precision_argument(parser)
    options = parser.parse_args()
    for name, file in (("data", "held_out.jsonl"), ("model", "method.json")):
        if not (getattr(options, name) / file).is_file():
            parser.error(f"--{name} wants a folder with {file}, got {getattr(options, name)}")
    torch.set_num_threads(1)
    asker = _Asker(options.data, options.model, bf16=is_bf16(options.precision))
    asked = asker.questions(options.count)
    if not asked:
        parser.error(f"no held-out question of {options.data} tells what is seen")
    truths = [true_completion(asker.tokenizer, *one) for one in asked]
    print(f"{len(asked)} questions, things of `Here:` within {_NEAR_PX:g} px\n")
    print("| the truth is given up to | right | on any frame | names it | nothing fits: found |")
    print("|---|---|---|---|---|")
    for point in POINTS:
        begun = [true[: points_of(true)[point]] for true in truths]
        said = asker.answers(asked, begun)
        if point == POINTS[0]:
            seen = shares_of_things(said, truths)
        print(f"| {point} | {' | '.join(f'{share:.2f}' for share in shares(said, truths))} |")
    print("\nOf the things of `Here:`, named {:.2f}, in their places {:.2f}".format(*seen))


def points_of(completion: str) -> dict[str, int]:
    """How many letters of a completion that thinks first are given up to each of `POINTS`."""
    thought = completion.partition("</think>")[0]
    begins, at = [], 0
    for sentence in _SENTENCES.split(thought):
        matches = [i for i, part in enumerate(_PARTS) if re.match(part, sentence)]
        begins.append((matches[0] if matches else len(_PARTS), at))
        at += len(sentence)
    found = {POINTS[0]: 0}
    for number, point in enumerate(POINTS[1:-1], start=1):
        found[point] = min((at for part, at in begins if part >= number), default=len(thought))
    found[POINTS[-1]] = len(thought) + len("</think>")
    return found


def shares(said: Sequence[str], truths: Sequence[str]) -> tuple[float, float, float, float]:
    """Of completions: right on the true keyframe, right on any, with the true last sentence; nothing found where nothing fits."""
    right, on_any, named, none = list[bool](), list[bool](), list[bool](), list[bool]()
    for text, true in zip(said, truths, strict=True):
        answer, truth = parsed(text), parsed(true)
        if truth is None:
            continue
        if truth.says_none:
            none.append(answer is not None and answer.says_none)
            continue
        on_any.append(overlap(answer, truth) >= _LEAST_IOU)
        right.append(on_any[-1] and answer is not None and answer.keyframe == truth.keyframe)
        named.append(_last(text) == _last(true))
    return _share(right), _share(on_any), _share(named), _share(none)


def shares_of_things(said: Sequence[str], truths: Sequence[str]) -> tuple[float, float]:
    """Of the things that true thoughts list: those that are named, and those that are where they are."""
    named, placed = list[bool](), list[bool]()
    for text, true in zip(said, truths, strict=True):
        listed = dict(_things(text))
        for name, place in _things(true):
            named.append(name in listed)
            placed.append(named[-1] and math.dist(listed[name], place) <= _NEAR_PX)
    return _share(named), _share(placed)


def _things(completion: str) -> Iterator[tuple[str, tuple[int, int]]]:
    listing = completion.partition("Here: ")[2].partition(". ")[0]
    for x, y, name in _THING.findall(listing):
        yield name, (int(x), int(y))


def _last(completion: str) -> str:
    """The last sentence of a thought but the one of places."""
    thought = completion.partition("</think>")[0].partition(" At [")[0]
    return _SENTENCES.split(thought)[-1]


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else math.nan


class _Asker:
    """Lets a model go on with thoughts."""

    def __init__(self, data: Path, folder: Path, *, bf16: bool) -> None:
        self.tokenizer, self._model = read_nano_reasoner(folder)
        self._model.set_attn_implementation(SHARED_ATTENTION)
        self._model.model.visual = SeenFrames(self._model.model.visual)
        self._model.eval()
        grid_thw = collator_of(data).grid_thw
        self._exam = HeldOutExam(data, self.tokenizer, grid_thw, count=sys.maxsize, bf16=bf16)

    def questions(self, count: int) -> list[Asked]:
        """So many, evenly, whose thoughts begin with what is there, those of one length together."""
        every = [
            one
            for one in self._exam.asked
            if true_completion(self.tokenizer, *one).startswith("<think>Here: ")
        ]
        return sorted(every[:: max(1, len(every) // max(1, count))], key=_length)

    def answers(self, asked: Sequence[Asked], begun: Sequence[str]) -> list[str]:
        """Whole completions, of which the beginnings are given."""
        said = list[str]()
        pairs = zip(asked, begun, strict=True)
        for _, same in groupby(pairs, key=lambda pair: _length(pair[0])):
            for some in batched(list(same), _AT_ONCE):
                said += self._exam.said(self._model, *zip(*some, strict=True))
        return said


def _length(asked: Asked) -> int:
    return len(asked[0].beginning)


if __name__ == "__main__":
    main()
