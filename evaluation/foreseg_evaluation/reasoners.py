# SPDX-License-Identifier: Apache-2.0
"""Reasoners that know the truth, or know nothing: oracles and baselines for one episode.

They keep to the reasoner's contract, and count on frame indices being positions: the episode's
frames are fed in order and none is refused. Does not know: trackers, protocols.
"""

from __future__ import annotations

import enum
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from foreseg.dialogue import AnswerDone, FramesWanted, NoTarget, Query, TargetsFound
from foreseg.frames import FrameIndex, FrameWindow
from foreseg.geometry import BoxXyxy, box_from_mask
from foreseg.history.windows import RecentWindow, UniformWindow, WindowPolicy
from foreseg.masks import Mask, rle_from_mask
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream

from .episode import Dataset, Episode
from .prompt_forms import PromptForm, prompt_of

_BOX_SHARE = (0.1, 0.4)  # of the frame's sides: a random box's smallest and largest side


class Keyframe(enum.Enum):
    """Where an oracle points."""

    FIRST = "first"  # the first frame that shows a target
    BEST = "best"  # the frame that shows most of it, or the newest if time runs
    RANDOM_SPAN = "random_span"  # the best of a random span, as long as the one with the targets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OracleReasoner:
    """Answers with the truth at the newest frame it was shown: as boxes, points or masks.

    Attributes:
        episode: whose truth it tells.
        keyframe: where it points.
        form: of its prompts.
        is_live: only frames up to the newest that it was shown may be pointed at, and the truth
            is the one that holds there.
    """

    episode: Episode
    keyframe: Keyframe
    form: PromptForm
    is_live: bool

    @property
    def window_policy(self) -> WindowPolicy:
        """The newest frame alone."""
        return RecentWindow(num_frames=1)

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Point at the true targets; none in view is "no target"."""
        del query
        newest = int(window.newest.index)
        position = self._position(newest)
        if position is None:
            yield NoTarget(reason="no true target is in view")
            yield AnswerDone()
            return
        if window.get(FrameIndex(position)) is None:
            shown = yield FramesWanted(indices=(FrameIndex(position),))
            if shown is None or not shown.frames:  # it has left the history
                position = self._position(newest, only=newest)
        masks = [] if position is None else _visible(self.episode, position)
        if position is None or not masks:
            yield NoTarget(reason="no true target is in view")
        else:
            prompts = tuple(prompt_of(self.form, mask) for mask in masks)
            text = _answer_at(self.episode, position)
            yield TargetsFound(keyframe_index=FrameIndex(position), prompts=prompts, text=text)
        yield AnswerDone()

    def _position(self, newest: int, only: int | None = None) -> int | None:
        episode = self.episode
        if only is not None:
            wanted: Sequence[int] = [only] if only in episode.annotated else []
        elif self.is_live:
            wanted = [i for i in episode.annotated if i <= newest]
            wanted = wanted if self.keyframe is Keyframe.FIRST else wanted[-1:]
        else:
            wanted = episode.annotated
        areas = {i: int(np.count_nonzero(episode.truth(i))) for i in wanted}
        seen = {i: area for i, area in areas.items() if area}
        if seen and self.keyframe is Keyframe.RANDOM_SPAN:
            span = random_span(episode.id, episode.num_frames, max(seen) - min(seen) + 1)
            seen = {i: area for i, area in seen.items() if i in span}
        if not seen:
            return None
        return min(seen) if self.keyframe is Keyframe.FIRST else max(seen, key=lambda i: seen[i])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RandomBoxReasoner:
    """Points at a random box on the newest frame: the same one whenever an episode is asked."""

    episode: Episode

    @property
    def window_policy(self) -> WindowPolicy:
        """The newest frame alone."""
        return RecentWindow(num_frames=1)

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Point somewhere."""
        del query
        box = random_box(self.episode.id, window.newest.ref.size_wh)
        yield TargetsFound(
            keyframe_index=window.newest.index, prompts=(SpatialPrompt(box=box),), text="a box"
        )
        yield AnswerDone()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MajorityReasoner:
    """Gives the dataset's most frequent answer, whatever is asked, and finds it perfectly.

    Where the video has no object of that name, it says that nothing fits.
    """

    episode: Episode
    answer: str
    object_ids: tuple[str, ...]  # what the answer names in this video

    @property
    def window_policy(self) -> WindowPolicy:
        """The newest frame alone."""
        return UniformWindow(num_frames=1)

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        """Say it."""
        del query
        newest = int(window.newest.index)
        masks = [self.episode.media.mask(object_id, newest) for object_id in self.object_ids]
        found = [mask for mask in masks if mask is not None and mask.any()]
        if found:
            prompts = tuple(prompt_from_mask(mask, as_mask=True) for mask in found)
            yield TargetsFound(
                keyframe_index=window.newest.index, prompts=prompts, text=self.answer
            )
        else:
            yield NoTarget(reason="not in this video", text=self.answer)
        yield AnswerDone()


def random_box(key: str, size_wh: tuple[int, int]) -> BoxXyxy:
    """A box somewhere in a frame of (W, H) pixels: the same one whenever the key is the same."""
    rng = np.random.default_rng([0, zlib.crc32(key.encode())])
    size = np.array(size_wh, dtype=np.float64)
    sides = rng.uniform(*_BOX_SHARE, 2) * size
    corner = rng.uniform(0, size - sides)
    return BoxXyxy(*map(float, (*corner, *(corner + sides))))


def random_span(key: str, num_frames: int, length: int) -> range:
    """Positions somewhere in a video: the same ones whenever the key is the same."""
    rng = np.random.default_rng([1, zlib.crc32(key.encode())])
    first = int(rng.integers(num_frames - length + 1))
    return range(first, first + length)


def majority_answer(dataset: Dataset) -> str:
    """Find the most frequent answer text of a dataset; the first in the alphabet among equals.

    Raises:
        ValueError: if no question has an answer in words.
    """
    counts = Counter(
        answer for e in dataset.episodes for answer in _answers_of(e) if e.question is not None
    )
    if not counts:
        msg = f"the majority answer wants answers in words; {dataset.root} has none"
        raise ValueError(msg)
    most = max(counts.values())
    return min(answer for answer, count in counts.items() if count == most)


def objects_by_answer(dataset: Dataset) -> Mapping[tuple[str, str], tuple[str, ...]]:
    """Map (video, answer text) to the objects that this answer names there."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for episode in dataset.episodes:
        for span in episode.spans:
            text = span.answer or ("" if episode.question is None else episode.question.answer)
            if span.object_ids:
                found.setdefault((episode.video, text), span.object_ids)
    return found


def _answers_of(episode: Episode) -> list[str]:
    spans = [span.answer for span in episode.spans if span.answer]
    own = "" if episode.question is None else episode.question.answer
    return spans or ([own] if own else [])


def _answer_at(episode: Episode, position: int) -> str:
    span = episode.span_at(position)
    own = "" if episode.question is None else episode.question.answer
    return own if span is None else span.answer or own


def _visible(episode: Episode, position: int) -> list[Mask]:
    return [mask for mask in episode.target_masks(position).values() if mask.any()]


def prompt_from_mask(mask: Mask, *, as_mask: bool) -> SpatialPrompt:
    """A true mask (H, W) with a pixel, as it is or as its box."""
    if as_mask:
        return SpatialPrompt(mask=rle_from_mask(mask))
    return SpatialPrompt(box=box_from_mask(mask))
