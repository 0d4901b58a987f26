# SPDX-License-Identifier: Apache-2.0
"""Reckoning with places, drilled without pictures: from a few places of a thing to its last step and its way ahead.

Thoughts say places as numbers that are tokens, and a model that has only copied them cannot add: five
minutes of these lines teach it to, at a hundredth of what windows of frames cost (docs/log.md). The
words are those of `tracks`. Does not know: recordings, methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from foreseg_simulation.telling import heading_words

from .drill_scene import (
    BALL,
    TOUCH_PX,
    Drill,
    Standing,
    draw_labels,
    draw_names,
    draw_standing,
    is_seen,
    marks_of,
    nearly,
    places_of,
    rounded,
    twins,
)
from .hit_drills import draw_hits
from .numbers import numbers_by_id
from .tracks import MAX_AHEAD, here_words, near_words, place_words, step_words, way_words

_SPEEDS_PX = (2.0, 26.0)  # a step
_RADII_PX = (6.0, 9.0)
_LAYOUTS = (
    (1, 2),
    (1, 3),
    (1, 6),
    (1, 12),
    (1, 12),
    (2, 6),
    (3, 6),
)  # of batches: things, places of each
_SHORT = 8  # places of all things: of lines with more, a batch has two thirds as many
_AHEAD = (1, 7)  # places, the last number excluded
_STANDING = (0, 3, 4, 5)  # things that stand: of a batch
_HITS = 0.4  # of the batches: of what was hit
_LEAST_STANDING = 3  # of these
_TURNS, _ALONG_AXES = (
    0.06,
    0.15,
)  # probabilities: of a turn between two places, of a way along an edge
_LEAST_HEADING_PX = 3.0
_MAX_POSITION = 300  # of a line's first token: behind so many of frames and questions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DrillBatch:
    """Lines as tensors; see `batches.Batch` for `labels` and `side`.

    Attributes:
        ids: (S, L) int64, padded on the right.
        is_there: (S, L) bool, no padding.
        position: (S, L) int64 of each token.
        labels: (S, L) int64.
        side: (S, L) int64.
    """

    ids: torch.Tensor
    is_there: torch.Tensor
    position: torch.Tensor
    labels: torch.Tensor
    side: torch.Tensor


def draw_drill(
    rng: np.random.Generator,
    size_wh: tuple[int, int],
    *,
    num_things: int = 1,
    num_places: int = 2,
    num_standing: int = 0,
) -> Drill:
    """Draw a line such as `Here: [20, 38] the ball [9, 40], [44, 36] the cup [44, 36]. The ball: 6[9, 40], 12[20, 38]. It moves right 11 up 2. Ahead, the ball: [31, 36]. `.

    To be said are what moved, with its first place and its last one, its step, and the way ahead.

    Args:
        rng: of everything.
        size_wh: of the frames in whose pixels places are said.
        num_things: that move, of which places are said.
        num_places: of each of them, 2 at least.
        num_standing: things that stand in the way, or beside it.
    """
    names = draw_names(rng, num_things + num_standing)
    labels = draw_labels(rng, num_places)
    things = [_Thing(rng, size_wh, name, labels) for name in names[:num_things]]
    standing = draw_standing(rng, size_wh, names[num_things:], [thing.last for thing in things])
    standing = twins(rng, standing)
    stood = [(place, name, nearly(rng, place)) for place, name in standing]
    moving = [(rounded(thing.last), thing.name, thing.first) for thing in things]
    text, said = here_words(sorted([*stood, *moving], key=lambda thing: thing[:2])), []
    for thing in sorted(things, key=lambda thing: rounded(thing.last)):
        began, first = len(text), thing.track.index("[")
        text += thing.track
        said.append((began, began + len(f"The {thing.name}: ")))  # no label: no frame shows it
        said.append((began + first, began + thing.track.index("]")))
        said += [(began + mark, began + end) for mark, end in marks_of(thing.track)]
        said.append((began + thing.track.rindex("["), len(text + thing.step)))
        text += thing.step
    num_ahead = int(rng.integers(*_AHEAD))
    here = [*standing, *((rounded(thing.last), thing.name) for thing in things)]
    ahead = "".join(thing.ahead(num_ahead, standing, here) for thing in things)
    said.append((len(text), len(text + ahead)))
    return Drill(text=text + ahead, said=tuple(said))


class _Thing:
    """What moves, its places as they are seen, and its last step."""

    def __init__(
        self, rng: np.random.Generator, size_wh: tuple[int, int], name: str, labels: Sequence[int]
    ) -> None:
        num_places = len(labels)
        self._rng, self._size_wh, self.name = rng, size_wh, name
        self._is_ball = name == BALL
        self._seen = self._way(num_places)
        while not is_seen(self._seen[-1], size_wh):
            self._seen = self._way(num_places)
        before, last = (rounded(p) if is_seen(p, size_wh) else None for p in self._seen[-2:])
        self.last = self._seen[-1]
        self.first = rounded(self._seen[0]) if is_seen(self._seen[0], size_wh) else None
        self.track = f"The {self.name}: {way_words(places_of(self._seen, size_wh), labels)}. "
        self.step = step_words(before, last)
        self._went = None if before is None or last is None else np.subtract(last, before)

    def ahead(self, count: int, standing: Sequence[Standing], here: Sequence[Standing]) -> str:
        """So many places ahead, in words, fewer if the ball meets a thing, and what of `here` is near the last one; nothing of what lies still, or was not seen before."""
        if self._went is None or not self._went.any():
            return ""
        last, before = self._seen[-1], self._seen[-2]
        exact = (self._went + last - before) / 2  # not all of it can be seen in whole pixels
        walk = _Walk(self._rng, self._size_wh, turns_back=self._is_ball, place=last, step=exact)
        walk.go(turns=False)
        places, met = [], ""
        for _ in range(MAX_AHEAD if self._is_ball and standing else count):
            places.append(walk.go(turns=False))
            met = _met(places[-1], standing) if self._is_ball else ""
            if met:
                break
        listed = ", ".join(map(place_words, places_of(places, self._size_wh)))
        words = f"Ahead, the {self.name}: {listed}. "
        is_there = is_seen(places[-1], self._size_wh)
        others = [one for one in here if one[1] != self.name]
        words += near_words(rounded(places[-1]) if is_there else None, others)
        if self._is_ball and math.hypot(*self._went) > _LEAST_HEADING_PX:
            words += f"The {self.name} is rolling {heading_words(self._went)}. "
        return words + (f"So the ball will hit the {met} next. " if met else "")

    def _way(self, num_places: int) -> list[np.ndarray]:
        walk = _Walk(self._rng, self._size_wh, turns_back=self._is_ball)
        return [walk.go(turns=True) for _ in range(num_places)]


def _met(place: np.ndarray, standing: Sequence[Standing]) -> str:
    """The name of the thing that a ball at a place touches; "" of none."""
    near = [(math.dist(place, where), name) for where, name in standing]
    return min((one for one in near if one[0] <= TOUCH_PX), default=(0.0, ""))[1]


class Drills:
    """Draws batches of lines."""

    def __init__(self, tokenizer: Any, *, size_wh: tuple[int, int], count: int) -> None:  # noqa: ANN401
        """Keep what to draw with.

        Args:
            tokenizer: of the model.
            size_wh: of the frames in whose pixels places are said.
            count: of lines a batch, of short ones.
        """
        self._tokenizer, self._size_wh, self._count = tokenizer, size_wh, count
        self._numbers = numbers_by_id(tokenizer)

    def draw(self, rng: np.random.Generator) -> DrillBatch:
        """A batch at random, of as many things and places in each line."""
        drills = self._hits(rng) if rng.random() < _HITS else self._ways(rng)
        read = self._tokenizer(
            [drill.text for drill in drills], add_special_tokens=False, return_offsets_mapping=True
        )
        shape = (len(drills), max(map(len, read.input_ids)))
        ids = torch.full(shape, int(self._tokenizer.pad_token_id))
        labels, is_there = torch.full(shape, -100), torch.zeros(shape, dtype=torch.bool)
        for n, (drill, its, letters) in enumerate(
            zip(drills, read.input_ids, read.offset_mapping, strict=True)
        ):
            ids[n, : len(its)] = torch.tensor(its)
            is_there[n, : len(its)] = True
            for at, (begin, end) in enumerate(letters[1:]):
                if any(first <= begin and end <= last for first, last in drill.said):
                    labels[n, at] = its[at + 1]
        first = torch.from_numpy(rng.integers(0, _MAX_POSITION, (len(drills), 1)))
        return DrillBatch(
            ids=ids,
            is_there=is_there,
            position=first + torch.arange(shape[1]),
            labels=labels,
            side=torch.where(labels >= 0, self._numbers[labels.clamp(min=0)], -1),
        )

    def _hits(self, rng: np.random.Generator) -> list[Drill]:
        num_standing = max(_LEAST_STANDING, int(rng.choice(_STANDING)))
        return [
            draw_hits(rng, self._size_wh, num_standing=num_standing)
            for _ in range(max(1, self._count * 2 // 3))
        ]

    def _ways(self, rng: np.random.Generator) -> list[Drill]:
        num_things, num_places = _LAYOUTS[rng.integers(len(_LAYOUTS))]
        num_standing = int(rng.choice(_STANDING))
        is_short = num_things * num_places + num_standing <= _SHORT
        return [
            draw_drill(
                rng,
                self._size_wh,
                num_things=num_things,
                num_places=num_places,
                num_standing=num_standing,
            )
            for _ in range(self._count if is_short else max(1, self._count * 2 // 3))
        ]


def run_drills(model: Any, batch: DrillBatch) -> torch.Tensor:  # noqa: ANN401 (of transformers)
    """Last states (S, L, width) of the language model."""
    hidden: torch.Tensor = model.model.language_model(
        inputs_embeds=model.get_input_embeddings()(batch.ids),
        attention_mask=batch.is_there.to(torch.int64),
        position_ids=batch.position[None].expand(3, -1, -1),
        use_cache=False,
    ).last_hidden_state
    return hidden


class _Walk:
    """A straight way at a steady speed; some turn back at the edges."""

    def __init__(
        self,
        rng: np.random.Generator,
        size_wh: tuple[int, int],
        *,
        turns_back: bool,
        place: np.ndarray | None = None,
        step: np.ndarray | None = None,
    ) -> None:
        self._rng, self._turns_back = rng, turns_back
        self._low = np.full(2, rng.uniform(*_RADII_PX))
        self._high = np.array(size_wh) - self._low
        self._speed = float(np.exp(rng.uniform(*np.log(_SPEEDS_PX))))
        self._place = rng.uniform(self._low, self._high) if place is None else np.array(place)
        self._step = self._heading() if step is None else np.array(step, float)

    def go(self, *, turns: bool) -> np.ndarray:
        """The place (2,) where it is now; the next one is a step on."""
        here = self._place
        if turns and self._rng.random() < _TURNS:
            self._step = self._heading()
        self._place = here + self._step
        if self._turns_back:
            under = (self._place < self._low) & (self._step < 0)
            over = (self._place > self._high) & (self._step > 0)
            edge = np.where(under, self._low, self._high)
            is_off = under | over
            self._place = np.where(is_off, 2 * edge - self._place, self._place)
            self._step = np.where(is_off, -self._step, self._step)
        return here

    def _heading(self) -> np.ndarray:
        angle = self._rng.uniform(0, 2 * np.pi)
        if self._rng.random() < _ALONG_AXES:
            angle = round(angle / (np.pi / 2)) * np.pi / 2
        return self._speed * np.array([np.cos(angle), np.sin(angle)])
