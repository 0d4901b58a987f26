# SPDX-License-Identifier: Apache-2.0
"""ReasonSeg: one image, one question, polygons as LabelMe writes them.

Only the first text is asked, as the official evaluation does. Polygons are painted from the
largest to the smallest, so that a small one stays visible on a large one. Does not know: scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg_evaluation.episode import Episode, Question, QuestionKind
from foreseg_evaluation.problems import ProblemLog, refuse

from .entries import Entry, read_json, wrong
from .media import EpisodeMedia, FrameFiles
from .pictures import VOID, picture_names, picture_size
from .polygons import are_corners
from .reading import Reading, make_episode, whole

TARGET = "target"
_TARGET_VALUE = 1


def read_reason_seg(reading: Reading) -> list[Episode]:
    """Read a split of ReasonSeg."""
    folder = reading.root / reading.split
    episodes: list[Episode] = []
    for stem, file in reading.progress(list(picture_names(folder).items())):
        with reading.skipping():
            episodes.append(_episode(folder, stem, file, reading))
    return episodes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Painting:
    """The pixels of one value: the target's, or those that are not judged."""

    path: Path
    value: int
    size_wh: tuple[int, int]

    def mask(self, position: int) -> Mask:
        """Paint the polygons and take the value (H, W)."""
        assert position == 0  # noqa: S101 (one frame; `EpisodeMedia` looked)
        shapes = _shapes(_open(self.path, ProblemLog(strict=True)))
        mask: Mask = _paint(shapes, self.size_wh) == self.value
        return mask


_Shape = tuple[int, NDArray[np.int32]]  # value, corners (P, 2)


def _episode(folder: Path, stem: str, file: str, reading: Reading) -> Episode:
    entry = _open(folder / f"{stem}.json", reading.log)
    shapes = _shapes(entry)
    texts = entry["text"]
    if isinstance(texts.value, list):
        if not texts.value:
            raise wrong(texts, "is empty, expected a question")
        texts = next(texts.entries())[1]
    size_wh = picture_size(folder / file)
    frames = FrameFiles(folder=folder, files=(file,), names=(stem,), size_wh=size_wh)
    target = _Painting(path=entry.file, value=_TARGET_VALUE, size_wh=size_wh)
    voids = _Painting(path=entry.file, value=VOID, size_wh=size_wh)
    has_void = any(value == VOID for value, _ in shapes)
    return make_episode(
        stem,
        "0",
        media=EpisodeMedia(
            frames=frames, masklets={TARGET: target}, voids=voids if has_void else None
        ),
        question=Question(text=texts.text(), kind=QuestionKind.REASONING),
        spans=whole(1, (TARGET,)),
        annotated=(0,),
        scored=(0,),
        rate_hz=reading.rate(),
    )


def _open(path: Path, log: ProblemLog) -> Entry:
    if not path.exists():
        raise refuse(path, "", "is missing, expected the polygons of the image beside it")
    return read_json(path, log, fallback="cp1252")


def _shapes(entry: Entry) -> list[_Shape]:
    """The polygons to paint, in the file's order."""
    found: list[_Shape] = []
    for _, shape in entry["shapes"].entries():
        label = shape["label"].text().lower()
        if label == "flag":
            continue
        points = shape["points"]
        corners = [
            [number.number() for _, number in point.entries()] for _, point in points.entries()
        ]
        if not corners or any(len(c) != 2 or not are_corners(c) for c in corners):
            raise wrong(points, "expected a list of corners [x, y]")
        value = VOID if "ignore" in label else _TARGET_VALUE
        found.append((value, np.array(corners, dtype=np.int32)))
    return found


def _paint(shapes: list[_Shape], size_wh: tuple[int, int]) -> U8Array:
    """Paint the largest polygon first, each with its outline."""
    blank: U8Array = np.zeros(size_wh[::-1], dtype=np.uint8)
    areas = [np.count_nonzero(_fill(blank.copy(), corners, 1)) for _, corners in shapes]
    labels = blank
    for index in sorted(range(len(shapes)), key=lambda i: -areas[i]):
        value, corners = shapes[index]
        labels = _fill(labels, corners, value)
    return labels


def _fill(labels: U8Array, corners: NDArray[np.int32], value: int) -> U8Array:
    cv2.polylines(labels, [corners], isClosed=True, color=(value,), thickness=1)
    cv2.fillPoly(labels, [corners], color=(value,))
    return labels
