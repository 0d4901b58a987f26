# SPDX-License-Identifier: Apache-2.0
"""The simulation's drawings: raw frames and label maps that are mapped into memory, not decoded.

An episode is a question over one cut of a drawing: an even row of its frames. Does not know: how
drawings come about, scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg_evaluation.episode import Episode, Evidence, Question, QuestionKind
from foreseg_evaluation.problems import refuse

from .entries import Entry, checked_name, read_json, wrong
from .media import EpisodeMedia
from .reading import Reading, make_episode, whole

FORMAT = "foreseg-drawings"
VERSION = 1
_MAX_OPEN = 64  # arrays: a sample touches two


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Drawing:
    """Some frames of a drawing's arrays."""

    frames: Path
    labels: Path
    rows: Sequence[int]  # of the arrays, for each position
    names: tuple[str, ...]
    size_wh: tuple[int, int]

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""
        return np.array(_mapped(self.frames)[self.rows[position]])

    def label_map(self, position: int) -> U8Array:
        """Read a label map (H, W)."""
        return np.array(_mapped(self.labels)[self.rows[position]])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Labelled:
    """The masks of one object."""

    drawing: _Drawing
    label: int

    def mask(self, position: int) -> Mask:
        """Read the mask (H, W)."""
        mask: Mask = self.drawing.label_map(position) == self.label
        return mask


def read_drawings(reading: Reading) -> list[Episode]:
    """Read a folder of drawings; its split is that of its command."""
    index = read_json(reading.root / "drawings.json", reading.log)
    if index["format"].text() != FORMAT or index["version"].integer() != VERSION:
        raise wrong(index["format"], f"expected {FORMAT} of version {VERSION}")
    split = index["command"]["split"]
    if split.text() != reading.split:
        raise wrong(split, f"these drawings are of the split {split.text()}, not {reading.split}")
    episodes: list[Episode] = []
    names = [entry for _, entry in index["drawings"].entries()]
    for entry in reading.progress(names):
        with reading.skipping():
            episodes += _read_drawing(checked_name(entry.text(), entry), reading)
    return episodes


def _read_drawing(name: str, reading: Reading) -> list[Episode]:
    record = read_json(reading.root / f"{name}.json", reading.log)
    frames, labels = (reading.root / f"{name}.{kind}.npy" for kind in ("frames", "labels"))
    shape = _mapped(frames).shape
    if _mapped(labels).shape != shape[:3] or len(shape) != 4 or shape[3] != 3:
        raise refuse(labels, "", f"frames are {shape}, label maps {_mapped(labels).shape}")
    drawn = [entry.integer() for _, entry in record["frames"].entries()]
    if len(drawn) != shape[0]:
        raise wrong(record["frames"], f"names {len(drawn)} frames, {frames.name} has {shape[0]}")
    names = {key: entry.text() for key, entry in record["names"].entries() if key.isdecimal()}
    episodes = []
    for cut_name, cut in record["cuts"].entries():
        rows = [entry.integer() for _, entry in cut["rows"].entries()]
        if not rows or not all(0 <= row < shape[0] for row in rows):
            raise wrong(cut["rows"], f"expected rows of {shape[0]} frames")
        drawing = _Drawing(
            frames=frames,
            labels=labels,
            rows=rows,
            names=tuple(f"{drawn[row]:05d}" for row in rows),
            size_wh=(shape[2], shape[1]),
        )
        media = EpisodeMedia(
            frames=drawing,
            masklets={key: _Labelled(drawing=drawing, label=int(key)) for key in names},
        )
        for number, question in record["questions"].entries():
            shown = question["cuts"].find(cut_name)
            if shown is None:
                continue
            with reading.skipping():
                rate_hz = reading.rate(cut["rate_hz"])
                expression_id = f"{number}-{cut_name}"
                episode = _episode(name, expression_id, media, question, shown, rate_hz)
                episodes.append(replace(episode, object_names=names))
    return episodes


def _episode(
    video: str,
    expression_id: str,
    media: EpisodeMedia,
    question: Entry,
    shown: Entry,
    rate_hz: float,
) -> Episode:
    """A question over one cut, `shown`: what its answer rests on there."""
    count = len(media.frames.names)
    ids = question["obj_id"].idents()
    unknown = [i for i in ids if i not in media.masklets]
    if unknown:
        raise wrong(question["obj_id"], f"names the unknown object {unknown[0]}")
    try:
        kind = QuestionKind(question["type"].text())
    except ValueError as error:
        raise wrong(question["type"], f"got {question['type'].value!r}") from error
    answer = question["ans"].text()
    evidence = Evidence(
        keyframe=shown["keyframe"].integer(),
        frames=tuple(entry.integer() for _, entry in shown["evidence"].entries()),
    )
    if not all(0 <= p < count for p in (evidence.keyframe, *evidence.frames)):
        raise wrong(shown, f"expected positions of {count} frames")
    return make_episode(
        video,
        expression_id,
        media=media,
        question=Question(
            text=question["exp"].text(),
            kind=kind,
            answer=answer,
            skill=question["skill"].text(),
            difficulty=question["difficulty"].text(),
            rationale=question["reasoning"].text(),
            evidence=evidence,
        ),
        spans=whole(count, ids, answer),
        annotated=tuple(range(count)),
        scored=tuple(range(count)),
        rate_hz=rate_hz,
    )


def _mapped(path: Path) -> Any:  # noqa: ANN401 (numpy's map has no narrower public type here)
    """An array on disk, of which a few stay open."""
    try:
        return _opened(path, path.stat().st_mtime_ns)
    except (OSError, ValueError) as error:
        raise refuse(path, "", f"cannot be read as an array ({error})") from error


@lru_cache(maxsize=_MAX_OPEN)
def _opened(path: Path, _changed_ns: int) -> Any:  # noqa: ANN401 (see above)
    return np.load(path, mmap_mode="r", allow_pickle=False)
