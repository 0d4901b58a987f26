# SPDX-License-Identifier: Apache-2.0
"""Episodes in memory: two squares that move over grey, with exact truths."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg_evaluation.episode import Dataset, Episode, Question, QuestionKind, TruthSpan

SIZE_WH = (160, 96)
SIDE = 24
COLOURS = {"red": (220, 40, 40), "blue": (40, 60, 220)}


@dataclass(frozen=True)
class Squares:
    """`red` moves right by `step` pixels a frame, `blue` stands below it."""

    step: int = 1
    hidden: tuple[int, ...] = ()  # positions at which red does not show

    def corner(self, name: str, position: int) -> tuple[int, int]:
        return (5 + self.step * position, 8) if name == "red" else (90, 60)

    def image(self, position: int) -> U8Array:
        rng = np.random.default_rng(3)  # texture, for what follows it by flow
        image = rng.integers(70, 110, (SIZE_WH[1], SIZE_WH[0], 3), dtype=np.uint8)
        for name, colour in COLOURS.items():
            grain = rng.integers(0, 35, (SIDE, SIDE, 3), dtype=np.uint8)
            mask = self.mask(name, position)
            if mask.any():
                image[mask] = (np.array(colour, dtype=np.uint8) + grain).reshape(-1, 3)
        return image

    def mask(self, object_id: str, position: int) -> Mask:
        mask = np.zeros(SIZE_WH[::-1], dtype=bool)
        if object_id == "red" and position in self.hidden:
            return mask
        x, y = self.corner(object_id, position)
        mask[y : y + SIDE, x : x + SIDE] = True
        return mask

    def void(self, position: int) -> Mask | None:
        del position
        return None

    def foreground(self, position: int) -> Mask | None:
        return np.logical_or(self.mask("red", position), self.mask("blue", position))


def make_episode(
    *,
    name: str = "clip/0",
    num_frames: int = 20,
    rate_hz: float = 10.0,
    spans: tuple[TruthSpan, ...] | None = None,
    media: object = None,
    kind: QuestionKind = QuestionKind.FORESIGHT,
) -> Episode:
    if spans is None:
        ids = () if kind is QuestionKind.NO_TARGET else ("red",)
        spans = (TruthSpan(first=0, end=num_frames, object_ids=ids, answer="The red one."),)
    video, _, expression = name.rpartition("/")
    return Episode(
        id=name,
        video=video,
        expression_id=expression,
        frame_names=tuple(f"{i:05d}" for i in range(num_frames)),
        rate_hz=rate_hz,
        question=Question(text="What will move on?", kind=kind, answer="The red one."),
        object_ids=("red", "blue"),
        spans=spans,
        annotated=tuple(range(num_frames)),
        scored=tuple(range(num_frames)),
        size_wh=SIZE_WH,
        media=media or Squares(),  # type: ignore[arg-type]
    )


def make_objects_episode(num_frames: int = 12) -> Episode:
    """Both squares, given by their first masks; red appears at position 2."""
    ids = ("red", "blue")
    return Episode(
        id="objects",
        video="objects",
        frame_names=tuple(f"{i:05d}" for i in range(num_frames)),
        rate_hz=10.0,
        question=None,
        object_ids=ids,
        spans=(TruthSpan(first=0, end=num_frames, object_ids=ids),),
        annotated=tuple(range(num_frames)),
        scored=tuple(range(1, num_frames - 1)),
        size_wh=SIZE_WH,
        media=Squares(hidden=(0, 1)),
    )


def make_dataset(*episodes: Episode) -> Dataset:
    return Dataset(form="memory", root="memory", split="", episodes=episodes)
