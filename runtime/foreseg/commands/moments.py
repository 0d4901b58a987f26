# SPDX-License-Identifier: Apache-2.0
"""Which published frames are shown of an answer: its first masks, its catch-up, spaced ages.

Bounded; knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from foreseg.driving.executor import PublishedMasks
from foreseg.frames import U8Array
from foreseg.history.reduction import reduce_image
from foreseg.media.captions import overlay_labels
from foreseg.media.filmstrip import MAX_MOMENTS, Moment
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId

NS = 1_000_000_000
AGES_S = (1.0, 2.0, 4.0, 8.0)  # after the first masks
MOMENT_SIDE_PX = 480
NEWEST_STEP_NS = NS // 4


@dataclass(slots=True, kw_only=True, eq=False)
class Moments:
    """Of one answer."""

    object_ids: tuple[ObjectId, ...]
    reduce: Callable[[U8Array, int], U8Array] = reduce_image
    _kept: list[Moment] = field(default_factory=list)
    _newest: Moment | None = None  # shown last, if the stream ends before the ages are through
    _num_ages: int = 0
    _was_catching_up: bool = False

    @property
    def is_full(self) -> bool:
        """True if no more masks are wanted."""
        return not self.object_ids or self._num_ages == len(AGES_S)

    def all(self) -> tuple[Moment, ...]:
        """What there is, in order."""
        newest = () if self._newest is None else (self._newest,)
        return (*self._kept, *newest)[-MAX_MOMENTS:]

    def add(self, masks: PublishedMasks, index: int) -> bool:
        """A frame published after the answer, shown with the number `index`; True if it was the last."""
        tracks = tuple(t for t in masks.tracks if t.object_id in self.object_ids)
        if masks.image is None or self.is_full or not (self._kept or tracks):
            return False
        stamp_ns = masks.frame.stamp_ns
        what = self._what_is_new(tracks, stamp_ns)
        self._was_catching_up = any(track.catching_up for track in tracks)
        if what:
            self._kept.append(self._moment(masks, masks.image, index, tracks, what))
            self._newest = None
            return self.is_full
        last = self._newest or self._kept[-1]
        if stamp_ns - last.stamp_ns >= NEWEST_STEP_NS:
            after_s = (stamp_ns - self._kept[0].stamp_ns) / NS
            what = f"the last one, {after_s:.1f} s later"
            self._newest = self._moment(masks, masks.image, index, tracks, what)
        return False

    def _what_is_new(self, tracks: Sequence[Track], stamp_ns: int) -> str:
        """Why a frame is shown, in words; "" = it is not."""
        if not self._kept:
            is_hop = any(t.state is TrackState.UNCERTAIN or t.catching_up for t in tracks)
            return "first masks, by a hop" if is_hop else "first masks"
        if self._was_catching_up and not any(track.catching_up for track in tracks):
            return "caught up"
        after_s = (stamp_ns - self._kept[0].stamp_ns) / NS
        num_ages = sum(age_s <= after_s for age_s in AGES_S)
        if num_ages <= self._num_ages:
            return ""
        self._num_ages = num_ages
        return f"{after_s:.1f} s later"

    def _moment(
        self,
        masks: PublishedMasks,
        pixels: U8Array,
        index: int,
        tracks: Sequence[Track],
        what: str,
    ) -> Moment:
        image = self.reduce(pixels, MOMENT_SIDE_PX)
        (height, width), (h, w) = masks.label_map.shape, image.shape[:2]
        rows, columns = np.arange(h) * height // h, np.arange(w) * width // w
        label_map = masks.label_map[rows[:, None], columns]
        label_map[~np.isin(label_map, [track.index for track in tracks])] = 0
        return Moment(
            index=index,
            stamp_ns=masks.frame.stamp_ns,
            image=image.copy() if image is pixels else image,
            label_map=label_map,
            labels=overlay_labels(tracks),
            what=what,
        )
