# SPDX-License-Identifier: Apache-2.0
"""Where the nano reasoner's thoughts go wrong: its answers when a thought is begun with the truth, up to some point.

    .venv/bin/python benchmarks/nano_thoughts.py --data RUN --model RUN/model

RUN is what `foreseg-train nano` left; its held-out questions about what was seen, or what comes, are asked. A row gives the truth
up to one point more than the row before; what it gains over that row is what the part between them costs.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from foreseg.geometry import BoxXyxy, box_iou
from foreseg.methods.base import Parsed
from foreseg.methods.grammar import answer_of
from foreseg.methods.veason import VeasonMethod
from foreseg_training.nano.architecture import read_nano_reasoner
from foreseg_training.nano.batches import Batcher, Row
from foreseg_training.nano.features import FrameStore, SeenFrames
from foreseg_training.nano.held_out import batched, true_completion
from foreseg_training.nano.rollouts import SHARED_ATTENTION, say, texts_of
from foreseg_training.nano.tokenizer import END
from foreseg_training.nano.training import collator_of
from foreseg_training.nano.windows import Window, read_windows
from foreseg_training.precision import add_precision_argument, is_bf16

POINTS = ("nothing", "what is there", "tracks", "what befell", "ways ahead", "the whole thought")
"""Up to which a thought is given; of those that it does not have, up to the next."""
_PARTS = (r"<think>|Here:|Gone:", r"The [a-z ]+: \[|It (moves|lies still)", r"Before:", r"Ahead|Near it:")  # fmt: skip
_SENTENCES = re.compile(r"(?<=\. )")
_THING = re.compile(r"\[(\d+), (\d+)\] the ([a-z ]+?) \[")
_NEAR_PX, _LEAST_IOU = 4.0, 0.5
_AT_ONCE, _MAX_TOKENS = 16, 420
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
        answer, truth = _parsed(text), _parsed(true)
        if truth is None:
            continue
        if truth.says_none:
            none.append(answer is not None and answer.says_none)
            continue
        overlap = _overlap(answer, truth)
        on_any.append(overlap >= _LEAST_IOU)
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


def _parsed(completion: str) -> Parsed | None:
    answer = answer_of(completion)
    return None if answer is None else VeasonMethod().parse(answer)


def _overlap(answer: Parsed | None, truth: Parsed) -> float:
    """IoU of the first boxes, on whatever frames; 0 where there is none."""
    if answer is None or answer.says_none or not answer.items:
        return 0.0
    try:
        return box_iou(*(BoxXyxy(*map(float, its.items[0])) for its in (answer, truth)))
    except (TypeError, ValueError):  # what was said is no box
        return 0.0


def _share(found: Sequence[bool]) -> float:
    return sum(found) / len(found) if found else math.nan


class _Asker:
    """Lets a model go on with thoughts."""

    def __init__(self, data: Path, folder: Path, *, bf16: bool) -> None:
        self.tokenizer, self._model = read_nano_reasoner(folder)
        self._model.set_attn_implementation(SHARED_ATTENTION)
        self._model.model.visual = SeenFrames(self._model.model.visual)
        self._model.eval()
        self._windows = read_windows(data / "held_out.jsonl")
        self._grid = collator_of(data).grid_thw
        self._batcher = Batcher(
            self._windows, FrameStore(data / "frames.npy"), self.tokenizer,
            num_windows=1, num_asked=1,
        )  # fmt: skip
        self._bf16 = bf16

    def questions(self, count: int) -> list[Asked]:
        """So many, evenly, whose thoughts begin with what is there, those of one length together."""
        every = [
            (window, i)
            for window in self._windows
            for i in range(len(window.asked))
            if true_completion(self.tokenizer, window, i).startswith("<think>Here: ")
        ]
        return sorted(every[:: max(1, len(every) // max(1, count))], key=_length)

    def answers(self, asked: Sequence[Asked], begun: Sequence[str]) -> list[str]:
        """Whole completions, of which the beginnings are given."""
        said = list[str]()
        pairs = zip(asked, begun, strict=True)
        for _, same in groupby(pairs, key=lambda pair: _length(pair[0])):
            for some in batched(list(same), _AT_ONCE):
                said += self._said(some)
        return said

    def _said(self, some: Sequence[tuple[Asked, str]]) -> Iterator[str]:
        rows = []
        for n, ((window, i), begin) in enumerate(some):
            asked = list(window.asked[i][: window.num_prompt[i]])
            given: Any = self.tokenizer(begin, add_special_tokens=False).input_ids if begin else []
            rows.append(Row(n, [*asked, *given], len(asked) + len(given)))
        batch = self._batcher.batch([window for (window, _), _ in some], rows)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=self._bf16):
            groups = say(
                self._model, batch, self._grid,
                num_each=1, max_tokens=_MAX_TOKENS,
                end_id=int(self.tokenizer.convert_tokens_to_ids(END)), generator=None,
            )  # fmt: skip
        texts = texts_of(self.tokenizer, [one for group in groups for one in group])
        return (begin + text for (_, begin), text in zip(some, texts, strict=True))


def _length(asked: Asked) -> int:
    return len(asked[0].beginning)


if __name__ == "__main__":
    main()
