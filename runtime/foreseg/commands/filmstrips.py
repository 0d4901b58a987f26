# SPDX-License-Identifier: Apache-2.0
"""Collects what a filmstrip of each answer shows, in bounded memory, and writes the pictures.

Which masks is for `moments` to say. Knows nothing of how frames are read or questions asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from foreseg.commands.moments import Moments
from foreseg.commands.questions import QuestionFrames
from foreseg.dialogue import Answer, ObservedMask, QueryId
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.media.filmstrip import Filmstrip, draw_filmstrip
from foreseg.media.newest_answers import asking_key
from foreseg.media.sinks import write_image

MAX_OPEN = 16  # strips that wait for masks; the oldest is written as it is
MAX_ID_CHARS = 40
_STRIP_NAME = re.compile(r"(\d{4,})_.*\.png")


@dataclass(slots=True, kw_only=True, eq=False)
class _Open:
    """A strip in the making."""

    number: int
    answer: Answer
    frames: QuestionFrames | None
    moments: Moments
    observed: tuple[ObservedMask, ...] = ()  # of the frames that are shown
    is_written: bool = False


class Filmstrips:
    """Writes `<number>_<query>_<keyframe or status>.png` into a folder.

    Where the folder has such pictures already, the numbers go on behind theirs: none is
    overwritten, and the new ones are the last.

    Raises:
        InputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[QueryId, _Open] = {}
        self._origin_ns: int | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._newest_number = _highest_number(folder)
        except OSError as error:
            msg = f"cannot make the folder {folder}: {error.strerror}; give another --filmstrips"
            raise InputError(msg) from error

    def add_answer(self, answer: Answer, frames: QuestionFrames | None) -> None:
        """An answer as it is published; the same one may come again with its whole rationale."""
        strip = self._open.get(answer.query_id)
        if strip is not None and is_same_asking(strip.answer, answer):
            strip.is_written = False
            strip.frames = frames or strip.frames
        else:
            if strip is not None:
                self._write(self._open.pop(answer.query_id))
            while len(self._open) >= MAX_OPEN:
                self._write(self._open.pop(next(iter(self._open))))
            self._newest_number += 1
            strip = _Open(
                number=self._newest_number,
                answer=answer,
                frames=frames,
                moments=Moments(object_ids=answer.object_ids),
            )
            self._open[answer.query_id] = strip
        strip.observed = _observed_of(answer, strip.frames) or strip.observed
        strip.answer = replace(answer, observed=())
        strip.moments.object_ids = answer.object_ids
        if strip.moments.is_full:
            self._write(strip)

    def add_masks(self, masks: PublishedMasks, index: int) -> None:
        """A published frame; `index` is the number it is shown with."""
        if self._origin_ns is None:
            self._origin_ns = masks.frame.stamp_ns
        if masks.image is None:
            return
        for strip in self._open.values():
            is_after = masks.frame.stamp_ns >= strip.answer.answered_stamp_ns
            if strip.moments.is_full or not is_after or masks.frame.camera != strip.answer.camera:
                continue
            if strip.moments.add(masks, index):
                self._write(strip)

    def close(self) -> None:
        """Write what is left."""
        for strip in self._open.values():
            self._write(strip)
        self._open.clear()

    def _write(self, strip: _Open) -> None:
        if strip.is_written:
            return
        picture = draw_filmstrip(
            Filmstrip(
                answer=strip.answer,
                window=None if strip.frames is None else strip.frames.window,
                num_window_frames=0 if strip.frames is None else strip.frames.num_frames,
                moments=strip.moments.all(),
                origin_ns=self._origin_ns or 0,
                observed=strip.observed,
            )
        )
        write_image(self._folder / _name(strip), picture)
        strip.is_written = True


def is_same_asking(one: Answer, other: Answer) -> bool:
    """True for an answer that is published once more, with its whole rationale."""
    return asking_key(one) == asking_key(other)


def _observed_of(answer: Answer, frames: QuestionFrames | None) -> tuple[ObservedMask, ...]:
    """The masks of those frames of the window that are shown."""
    if frames is None:
        return ()
    shown = set(frames.window.indices)
    return tuple(observed for observed in answer.observed if observed.frame_index in shown)


def _highest_number(folder: Path) -> int:
    found = (_STRIP_NAME.fullmatch(path.name) for path in folder.iterdir())
    return max((int(match[1]) for match in found if match), default=0)


def _name(strip: _Open) -> str:
    answer = strip.answer
    query = re.sub(r"[^0-9A-Za-z_-]", "_", answer.query_id)[:MAX_ID_CHARS]
    if answer.keyframe_index is not None:
        return f"{strip.number:04d}_{query}_keyframe-{answer.keyframe_index:06d}.png"
    return f"{strip.number:04d}_{query}_{answer.status.name.lower()}.png"
