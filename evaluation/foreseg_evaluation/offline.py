# SPDX-License-Identifier: Apache-2.0
"""The papers' protocol: all frames are there first, and masks go both ways from the keyframe.

Objects that are given on the first frame with them are tracked forward only, as DAVIS and SA-V have it. Does not
know: time, scores.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import overload

from foreseg.dialogue import (
    Abstained,
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    FramesWanted,
    NoTarget,
    Query,
    QueryId,
    RationalePart,
    TargetsFound,
)
from foreseg.errors import ForesegError
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, FrameWindow
from foreseg.history.reduction import reduce_window
from foreseg.history.windows import HistoryView
from foreseg.masks import MaskRle, rle_from_mask
from foreseg.reasoner.base import Reasoner
from foreseg.reasoner.exchange import checked_ask
from foreseg.tracker.base import TrackKey
from foreseg.tracker.both_ways import track_prompts

from .episode import Episode
from .prediction import Prediction, Spoken
from .results import TARGET
from .system import System


class AnswerError(ForesegError):
    """The reasoner gave no answer; carries its reason."""


def predict_offline(system: System, episode: Episode) -> Prediction:
    """Answer an episode with every frame at hand.

    Raises:
        AnswerError: the reasoner failed.
        ConfigError: nothing is asked, and the reasoner only answers questions.
        ForesegError: an unreadable frame or mask, a refused prompt.
    """
    if episode.question is None:
        return Prediction(masks=_follow_given(system, episode))
    reasoner = system.reasoner(episode, is_live=False)
    spoken = ask_over_all(
        reasoner,
        episode,
        max_side_px=system.config.config().reasoner.max_side_px,
        want_rationale=system.config.rationale,
    )
    return follow_answer(system, episode, spoken)


def follow_answer(system: System, episode: Episode, spoken: Spoken) -> Prediction:
    """Track what was answered over the whole video.

    Raises:
        ForesegError: an unreadable frame or mask, a refused prompt.
    """
    if not spoken.is_claim:
        return Prediction(masks={TARGET: {}}, spoken=spoken)
    if spoken.keyframe is None:
        width, height = episode.size_wh
        empty = MaskRle(height=height, width=width, counts="")
        return Prediction(
            masks={TARGET: dict.fromkeys(range(episode.num_frames), empty)}, spoken=spoken
        )
    tracker = system.tracker(max(1, len(spoken.prompts)))
    frames = EpisodeFrames(episode)
    own = spoken.drawn if spoken.num_drawn == 1 else None
    tracked = track_prompts(tracker, frames, spoken.prompts, spoken.keyframe, own)
    masks = {**dict(enumerate(tracked)), **spoken.drawn}  # on frames that it drew, its own count
    return Prediction(masks={TARGET: masks}, spoken=spoken)


class EpisodeFrames(Sequence[Frame]):
    """Frames of an episode, each read from its files whenever it is asked for.

    Args:
        episode: whose frames.
        positions: which of them, in order; None = all.
    """

    def __init__(self, episode: Episode, positions: Sequence[int] | None = None) -> None:
        self._episode = episode
        self._refs = frame_refs(episode)
        self._positions = range(episode.num_frames) if positions is None else tuple(positions)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> Frame: ...
    @overload
    def __getitem__(self, place: slice) -> EpisodeFrames: ...
    def __getitem__(self, place: int | slice) -> Frame | EpisodeFrames:
        """Read a frame; its index is its position."""
        if isinstance(place, slice):
            return EpisodeFrames(self._episode, self._positions[place])
        position = self._positions[place]
        return Frame(ref=self._refs[position], image=self._episode.image(position))


def ask_over_all(
    reasoner: Reasoner, episode: Episode, *, max_side_px: int, want_rationale: bool = True
) -> Spoken:
    """Ask a question over a whole video.

    Args:
        reasoner: whom.
        episode: what about.
        max_side_px: of a frame that the reasoner gets.
        want_rationale: whether to wait for the thoughts that follow an answer.

    Raises:
        AnswerError: the reasoner failed; the message is its reason.
    """
    assert episode.question is not None  # noqa: S101 (the caller looked)
    view = HistoryView(dense=frame_refs(episode), sparse=())
    query = Query(
        id=QueryId("question"), text=episode.question.text, want_rationale=want_rationale
    )
    began = time.perf_counter()
    window = _window(episode, reasoner.window_policy.select(view))
    shown = {int(frame.index) for frame in window.frames}
    stream = checked_ask(reasoner, query, reduce_window(window, max_side_px))
    parts: list[AnswerPart] = []
    try:
        part = next(stream)
        while True:
            parts.append(part)
            if isinstance(part, FramesWanted):
                more = _window(episode, sorted(set(part.indices)))
                shown.update(int(frame.index) for frame in more.frames)
                part = stream.send(reduce_window(more, part.side_px or max_side_px))
            else:
                part = next(stream)
    except StopIteration:
        spoken = _spoken(parts, time.perf_counter() - began)
        return replace(spoken, shown=tuple(sorted(shown)))


def frame_refs(episode: Episode) -> tuple[FrameRef, ...]:
    """Every frame of an episode at its declared time; index = position."""
    return tuple(
        FrameRef(
            camera=DEFAULT_CAMERA,
            index=FrameIndex(i),
            epoch=0,
            stamp_ns=episode.stamp_ns(i),
            received_ns=episode.stamp_ns(i),
            size_wh=episode.size_wh,
        )
        for i in range(episode.num_frames)
    )


def _window(episode: Episode, indices: Iterable[FrameIndex]) -> FrameWindow:
    refs = frame_refs(episode)
    known = [int(i) for i in indices if 0 <= i < len(refs)]
    frames = tuple(Frame(ref=refs[i], image=episode.image(i)) for i in known)
    return FrameWindow(frames=frames, origin_index=FrameIndex(0))


def _spoken(parts: Sequence[AnswerPart], seconds: float) -> Spoken:
    rationale = "".join(part.text for part in parts if isinstance(part, RationalePart))
    tokens = sum(part.tokens for part in parts if isinstance(part, AnswerDone))
    for part in parts:
        if isinstance(part, AnswerFailed):
            raise AnswerError(part.reason)
        if isinstance(part, Abstained):
            return Spoken(
                status="abstained",
                reason=part.reason,
                rationale=rationale,
                tokens=tokens,
                seconds=seconds,
            )
        if isinstance(part, NoTarget):
            return Spoken(
                status="no_target",
                text=part.text,
                reason=part.reason,
                rationale=rationale,
                confidence=part.confidence,
                tokens=tokens,
                seconds=seconds,
            )
        if isinstance(part, TargetsFound):
            return Spoken(
                status="ok",
                text=part.text,
                rationale=rationale,
                keyframe=int(part.keyframe_index),
                prompts=part.prompts,
                drawn={int(each.frame_index): each.mask for each in part.masks_by_frame},
                num_drawn=part.num_drawn,
                confidence=part.confidence,
                tokens=tokens,
                seconds=seconds,
            )
    msg = "the reasoner ended without an answer"
    raise AnswerError(msg)


def _follow_given(system: System, episode: Episode) -> dict[str, dict[int, MaskRle]]:
    tracker = system.tracker(max(1, len(episode.object_ids)))
    refs = frame_refs(episode)
    starts = system.first_prompts(episode)
    masks: dict[str, dict[int, MaskRle]] = {object_id: {} for object_id in episode.object_ids}
    keys: list[TrackKey] = []
    for position in range(min(starts, default=0), episode.num_frames):
        frame = Frame(ref=refs[position], image=episode.image(position))
        for object_id, prompt in starts.get(position, ()):
            tracker.prompt(frame, TrackKey(object_id), prompt)
            keys.append(TrackKey(object_id))
        labels = tracker.track(frame, keys).label_map  # where two overlap, the surer one wins
        for label, key in enumerate(keys, start=1):
            masks[key][position] = rle_from_mask(labels == label)
    return masks
