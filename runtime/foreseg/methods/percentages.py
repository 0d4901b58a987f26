# SPDX-License-Identifier: Apache-2.0
"""Which frame is meant by completions that name a percentage of a stretch of frames.

Does not know what was asked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import fmean

from foreseg.methods.grammar import CompletionReader
from foreseg.methods.grounding import label_text

_NUMBER = re.compile(r"(?<!\d)-?\d{1,9}(?:\.\d{1,9})?")  # in "10-20" is no minus


def label_at_mean(first: int, last: int, texts: Sequence[str]) -> tuple[int, str]:
    """The label at the mean percentage of first to last (both included), with a note for people.

    What names no percentage, or several, is left out; if nothing is left, it is the last label.
    """
    shares = [share for text in texts if (share := share_from(text)) is not None]
    if not shares:
        note = f"[sampler: no percentage in {len(texts)} answers, the newest frame is taken]\n"
        return last, note
    label = min(last, first + math.floor((last - first + 1) * fmean(shares)))
    note = f"[sampler: target frame {label_text(label)}, {len(shares)} of {len(texts)} answers]\n"
    return label, note


def share_from(completion: str) -> float | None:
    """The one percentage in a completion as 0 to 1; a number between 0 and 1 is a share already."""
    answer = answer_in(completion)
    numbers = numbers_in(answer)
    if len(numbers) != 1 or not 0 <= numbers[0] <= 100:  # noqa: PLR2004 (percent)
        return None
    is_share = 0 < numbers[0] < 1 and "%" not in answer
    return numbers[0] if is_share else numbers[0] / 100


def answer_in(completion: str) -> str:
    """What stands between the answer's tags; "" without any."""
    reader = CompletionReader()
    first = reader.feed(completion).answer
    return first if first is not None else reader.finish().answer or ""


def numbers_in(text: str) -> list[float]:
    """The numbers in a text, in order."""
    return [float(digits) for digits in _NUMBER.findall(text)]
