# SPDX-License-Identifier: Apache-2.0
"""Collects what a filmstrip of each answer shows, in bounded memory, and writes the pictures.

The masks are the first ones that were published after the answer, the first after its catch-up,
and later ones at spaced ages. Knows nothing of how frames are read or questions asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from foreseg.commands.questions import QuestionFrames
from foreseg.dialogue import Answer, ObservedMask, QueryId
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.history.reduction import reduce_image
from foreseg.media.captions import overlay_labels
from foreseg.media.filmstrip import MAX_MOMENTS, Filmstrip, Moment, draw_filmstrip
from foreseg.media.newest_answers import asking_key
from foreseg.media.sinks import write_image
from foreseg.pipeline.tracks import Track, TrackState

NS = 1_000_000_000
AGES_S = (1.0, 2.0, 4.0, 8.0)  # after the first masks
MOMENT_SIDE_PX = 480
NEWEST_STEP_NS = NS // 4
MAX_OPEN = 16  # strips that wait for masks; the oldest is written as it is
MAX_ID_CHARS = 40
_STRIP_NAME = re.compile(r"(\d{4,})_.*\.png")


@dataclass(slots=True, kw_only=True, eq=False)
class _Open:
    """A strip in the making."""

    number: int
    answer: Answer
    frames: QuestionFrames | None
    observed: tuple[ObservedMask, ...] = ()  # of the frames that are shown
    moments: list[Moment] = field(default_factory=list)
    newest: Moment | None = None  # shown last, if the stream ends before the ages are through
    num_ages: int = 0
    was_catching_up: bool = False
    is_written: bool = False

    @property
    def is_full(self) -> bool:
        """True if no more masks are wanted."""
        return not self.answer.object_ids or self.num_ages == len(AGES_S)


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
            strip = _Open(number=self._newest_number, answer=answer, frames=frames)
            self._open[answer.query_id] = strip
        strip.observed = _observed_of(answer, strip.frames) or strip.observed
        strip.answer = replace(answer, observed=())
        if strip.is_full:
            self._write(strip)

    def add_masks(self, masks: PublishedMasks, index: int) -> None:
        """A published frame; `index` is the number it is shown with."""
        if self._origin_ns is None:
            self._origin_ns = masks.frame.stamp_ns
        if masks.image is None:
            return
        for strip in self._open.values():
            is_after = masks.frame.stamp_ns >= strip.answer.answered_stamp_ns
            if strip.is_full or not is_after or masks.frame.camera != strip.answer.camera:
                continue
            self._add_moment(strip, masks, index)

    def close(self) -> None:
        """Write what is left."""
        for strip in self._open.values():
            self._write(strip)
        self._open.clear()

    def _add_moment(self, strip: _Open, masks: PublishedMasks, index: int) -> None:
        tracks = tuple(t for t in masks.tracks if t.object_id in strip.answer.object_ids)
        if not strip.moments and not tracks:
            return
        stamp_ns = masks.frame.stamp_ns
        what = _what_is_new(strip, tracks, stamp_ns)
        strip.was_catching_up = any(track.catching_up for track in tracks)
        if what:
            strip.moments.append(_moment(masks, index, tracks, what))
            strip.newest = None
            if strip.is_full:
                self._write(strip)
            return
        last = strip.newest or strip.moments[-1]
        if stamp_ns - last.stamp_ns >= NEWEST_STEP_NS:
            after_s = (stamp_ns - strip.moments[0].stamp_ns) / NS
            strip.newest = _moment(masks, index, tracks, f"the last one, {after_s:.1f} s later")

    def _write(self, strip: _Open) -> None:
        if strip.is_written:
            return
        moments = [*strip.moments, *([strip.newest] if strip.newest is not None else [])]
        picture = draw_filmstrip(
            Filmstrip(
                answer=strip.answer,
                window=None if strip.frames is None else strip.frames.window,
                num_window_frames=0 if strip.frames is None else strip.frames.num_frames,
                moments=tuple(moments[-MAX_MOMENTS:]),
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


def _what_is_new(strip: _Open, tracks: Sequence[Track], stamp_ns: int) -> str:
    """Why a frame is shown, in words; "" = it is not."""
    if not strip.moments:
        is_hop = any(track.state is TrackState.UNCERTAIN or track.catching_up for track in tracks)
        return "first masks, by a hop" if is_hop else "first masks"
    if strip.was_catching_up and not any(track.catching_up for track in tracks):
        return "caught up"
    after_s = (stamp_ns - strip.moments[0].stamp_ns) / NS
    num_ages = sum(age_s <= after_s for age_s in AGES_S)
    if num_ages <= strip.num_ages:
        return ""
    strip.num_ages = num_ages
    return f"{after_s:.1f} s later"


def _moment(masks: PublishedMasks, index: int, tracks: Sequence[Track], what: str) -> Moment:
    assert masks.image is not None  # noqa: S101 (`add_masks` checks it)
    image = reduce_image(masks.image, MOMENT_SIDE_PX)
    (height, width), (h, w) = masks.label_map.shape, image.shape[:2]
    rows, columns = np.arange(h) * height // h, np.arange(w) * width // w
    label_map = masks.label_map[rows[:, None], columns]
    label_map[~np.isin(label_map, [track.index for track in tracks])] = 0
    return Moment(
        index=index,
        stamp_ns=masks.frame.stamp_ns,
        image=image.copy() if image is masks.image else image,
        label_map=label_map,
        labels=overlay_labels(tracks),
        what=what,
    )


def _name(strip: _Open) -> str:
    answer = strip.answer
    query = re.sub(r"[^0-9A-Za-z_-]", "_", answer.query_id)[:MAX_ID_CHARS]
    if answer.keyframe_index is not None:
        return f"{strip.number:04d}_{query}_keyframe-{answer.keyframe_index:06d}.png"
    return f"{strip.number:04d}_{query}_{answer.status.name.lower()}.png"
