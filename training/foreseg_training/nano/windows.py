# SPDX-License-Identifier: Apache-2.0
"""Windows of frames with the questions about them, as token ids: one line of a file each.

Questions about one window begin alike: all frames with their labels. That beginning is kept, and
run, once. Does not know: recordings, models.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .tokenizer import VISION_END


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Frames, and what is asked and answered about them.

    Attributes:
        frames: numbers in the store.
        beginning: token ids up to the last frame's end, images at full length.
        asked: token ids of what comes after it: the question, then the completion and its end.
        num_prompt: of each of `asked`, the tokens before the completion.
        truths: what is true of each, as rewards want it (`Truth.to_json`); empty: it was not kept.
        given: of each, numbers of the completion's tokens that are not to be learnt; empty: all are.
    """

    frames: Sequence[int]
    beginning: Sequence[int]
    asked: Sequence[Sequence[int]]
    num_prompt: Sequence[int]
    truths: Sequence[str] = ()
    given: Sequence[Sequence[int]] = ()


def window_of(
    frames: Sequence[int],
    prompts: Sequence[Sequence[int]],
    said: Sequence[Sequence[int]],
    tokenizer: Any,  # noqa: ANN401
    truths: Sequence[str] = (),
) -> Window:
    """Of whole prompts about the same frames and their completions.

    Raises:
        ValueError: the prompts do not begin alike.
    """
    end = tokenizer.convert_tokens_to_ids(VISION_END)
    first = list(prompts[0])
    length = len(first) - first[::-1].index(end)
    if any(list(prompt[:length]) != first[:length] for prompt in prompts):
        msg = "the questions of a window show other frames, or other labels"
        raise ValueError(msg)
    return Window(
        frames=tuple(frames),
        beginning=tuple(first[:length]),
        asked=tuple(
            (*prompt[length:], *words) for prompt, words in zip(prompts, said, strict=True)
        ),
        num_prompt=tuple(len(prompt) - length for prompt in prompts),
        truths=tuple(truths),
    )


def write_windows(path: Path, windows: Iterator[Window]) -> None:
    """One a line, in place of what is there."""
    with path.open("w", encoding="utf-8") as lines:
        for window in windows:
            lines.write(json.dumps(asdict(window)) + "\n")


def read_windows(path: Path) -> list[Window]:
    """All of a file."""
    with path.open(encoding="utf-8") as lines:
        return [_read(json.loads(line)) for line in lines]


def _read(fields: dict[str, Any]) -> Window:
    """As arrays of four bytes a number, a tenth of what tuples take: there are a hundred million."""
    return Window(
        frames=array("i", fields["frames"]),
        beginning=array("i", fields["beginning"]),
        asked=tuple(array("i", ids) for ids in fields["asked"]),
        num_prompt=array("i", fields["num_prompt"]),
        truths=tuple(fields.get("truths", ())),
        given=tuple(array("i", numbers) for numbers in fields.get("given", ())),
    )


def rows_of(windows: Sequence[Window]) -> list[dict[str, Any]]:
    """Each question by itself: `input_ids`, `num_prompt`, `frames`."""
    return [
        {
            "input_ids": [*window.beginning, *ids],
            "num_prompt": len(window.beginning) + num_prompt,
            "frames": list(window.frames),
        }
        for window in windows
        for ids, num_prompt in zip(window.asked, window.num_prompt, strict=True)
    ]
