# SPDX-License-Identifier: Apache-2.0
"""Questions in words alone: a thought that begins with all that is there, whose tracks' places are given.

Frames are what costs, to draw, to see and to read, and a model that learns from few scenes knows them by heart
sooner than it learns what follows from places; of places there can be any number (docs/log.md). Does not know: models.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from foreseg.errors import InputError
from foreseg.language.images import ImageGeometry
from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod
from foreseg_torch.vlm.loading import vlm_parts
from foreseg_torch.vlm.vision_inputs import prompt_from_messages

from .questions import Asked, asked_about
from .recordings import Recording
from .tokenizer import END
from .tracks import given_of, here_and_tracks
from .windows import Window, window_of, write_windows


def write_told(
    recordings: Iterable[Recording],
    methods: Mapping[Form, VeasonMethod],
    start: Path,
    out: Path,
    *,
    seed: int,
) -> None:
    """Write the questions of recordings that tell what is seen as `told.jsonl`.

    Args:
        recordings: with or without pictures.
        methods: by the form that they ask for.
        start: a model's folder, of which the tokenizer is used.
        out: where the file goes.
        seed: of forms, labels and names.

    Raises:
        InputError: there is no such question.
    """
    parts = vlm_parts(start)
    rng = np.random.default_rng([seed, 11])

    def windows() -> Iterator[Window]:
        for recording in recordings:
            for group in asked_about(recording, methods, rng):
                following = [one for one in group if one.seen]
                if following:
                    yield _told(following, parts.tokenizer, parts.geometry)

    path = out / "told.jsonl"
    write_windows(path, windows())
    if not path.stat().st_size:
        msg = (
            "no question of the scenes that are told goes on from places: let more of them be told"
        )
        raise InputError(msg)


def _told(group: Sequence[Asked], tokenizer: Any, geometry: ImageGeometry) -> Window:  # noqa: ANN401
    """Of a clip's questions: their labels without frames, what is there as if it were asked, and tracks as if they were said."""
    prompts, said, given = [], [], []
    for one in group:
        here, tracks = here_and_tracks(one.seen)
        text = prompt_from_messages(one.messages, tokenizer, geometry)
        asked = text.replace(geometry.image_token, "") + here
        prompts.append(tokenizer(asked, add_special_tokens=False).input_ids)
        words = tokenizer(
            (one.completion + END).removeprefix(here),
            add_special_tokens=False,
            return_offsets_mapping=True,
        )
        said.append(words.input_ids)
        given.append(_inside(words.offset_mapping, given_of(tracks)))
    return replace(window_of([], prompts, said, tokenizer), given=tuple(given))


def _inside(
    letters: Sequence[tuple[int, int]], spans: Sequence[tuple[int, int]]
) -> tuple[int, ...]:
    """Numbers of the tokens whose letters lie in one of some ascending spans."""
    begins = [first for first, _ in spans]
    found = []
    for number, (first, end) in enumerate(letters):
        at = bisect.bisect_right(begins, first) - 1
        if at >= 0 and end <= spans[at][1]:
            found.append(number)
    return tuple(found)
