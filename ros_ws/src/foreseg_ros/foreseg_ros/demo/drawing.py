# SPDX-License-Identifier: Apache-2.0
"""Pictures of a part from what the client received: a video in real time, and a few moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foreseg.commands.storyboard import Scene, Storyboard
from foreseg.dialogue import Answer, AnswerStatus, QueryId
from foreseg.frames import DEFAULT_CAMERA, Frame, FrameIndex, FrameRef, U8Array
from foreseg.geometry import BoxXyxy
from foreseg.media.captions import Banner, OverlayLabel
from foreseg.media.newest_answers import NewestAnswers
from foreseg.media.overlay import draw_overlay
from foreseg.media.sinks import OverlayVideoWriter
from foreseg.pipeline.tracks import TrackState
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg_ros.demo.parts import PartResult
from foreseg_ros.demo.recording import Recording, SeenAnswer, SeenTrack

NS = 1_000_000_000
VIDEO_HZ = 15.0
STATE_WORDS = {
    TrackState.TRACKED: "tracked",
    TrackState.UNCERTAIN: "uncertain",
    TrackState.OCCLUDED: "out of view",
    TrackState.LOST: "lost",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Moment:
    """A drawn frame and what it shows."""

    stamp_ns: int
    image: U8Array
    tracks: tuple[SeenTrack, ...]
    answer: SeenAnswer | None  # the newest that was known then
    question: str  # the newest that was asked by then


def moments(result: PartResult) -> Iterator[Moment]:
    """Every frame that has its image, masks and tracks, drawn."""
    recording = result.recording
    newest = NewestAnswers()
    for stamp_ns in sorted(recording.masks.keys() & recording.tracks.keys()):
        image = recording.image(stamp_ns)
        if image is None:
            continue
        tracks = recording.tracks[stamp_ns]
        known = [a for a in recording.answers if a.answered_stamp_ns <= stamp_ns]
        asked = [text for asked_ns, text in recording.asked if asked_ns <= stamp_ns]
        answer = known[-1] if known else None
        question = asked[-1] if asked else ""
        labels = [_label(track) for track in tracks]
        banner = _banner(stamp_ns, answer, question)
        if answer is not None and newest.of(DEFAULT_CAMERA) != (known_as := _answer(answer)):
            newest.take(known_as, _keyframe(recording, answer))
        inset = newest.inset(_ref(stamp_ns, image), labels)
        drawn = draw_overlay(image, recording.label_map(stamp_ns), labels, banner, inset)
        yield Moment(
            stamp_ns=stamp_ns, image=drawn, tracks=tracks, answer=answer, question=question
        )


def write_part(result: PartResult, video: OverlayVideoWriter, board: Storyboard) -> None:
    """Add a part to the video, each frame for as long as it was the newest, and to the board."""
    origin_ns = min(result.sent, default=0)
    ticks = 0
    before: Moment | None = None
    events = _Events()
    for number, moment in enumerate(moments(result)):
        elapsed_s = (moment.stamp_ns - origin_ns) / NS
        while before is not None and ticks / VIDEO_HZ < elapsed_s:
            video.write(before.image)
            ticks += 1
        ticks = ticks or int(elapsed_s * VIDEO_HZ)  # nothing is shown before the first masks
        board.add(
            Scene(
                index=number,
                image=moment.image,
                caption=f"{elapsed_s:.1f} s: {caption_of(moment)}",
                is_event=events.is_new(moment),
            )
        )
        before = moment
    if before is not None:
        video.write(before.image)


def caption_of(moment: Moment) -> str:
    """What a moment shows, in words."""
    if moment.tracks:
        return ", ".join(f"{t.object_id} {STATE_WORDS[t.state]}" for t in moment.tracks[:3])
    return "asked, no answer yet" if moment.question else "nothing asked yet"


class _Events:
    """Which moments tell the story: a question, a new object, an answer's object in a new state."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, TrackState | None]] = set()
        self._question = ""

    def is_new(self, moment: Moment) -> bool:
        """True if something is seen for the first time."""
        now: set[tuple[str, TrackState | None]] = {(t.object_id, None) for t in moment.tracks}
        now |= {(t.object_id, t.state) for t in moment.tracks if t.query_ids}
        is_new = moment.question != self._question or bool(now - self._seen)
        self._seen |= now
        self._question = moment.question
        return is_new


def _answer(seen: SeenAnswer) -> Answer:
    """As much of it as is drawn."""
    return Answer(
        query_id=QueryId(seen.query),
        query_text=seen.query,
        camera=DEFAULT_CAMERA,
        status=AnswerStatus[seen.status],
        keyframe_index=FrameIndex(seen.keyframe_index) if seen.is_ok else None,
        keyframe_stamp_ns=seen.keyframe_stamp_ns,
        prompts=() if seen.box is None else (SpatialPrompt(box=BoxXyxy(*seen.box)),),
        object_ids=tuple(ObjectId(object_id) for object_id in seen.object_ids),
        asked_stamp_ns=seen.asked_stamp_ns,
        answered_stamp_ns=seen.answered_stamp_ns,
    )


def _keyframe(recording: Recording, answer: SeenAnswer) -> Frame | None:
    image = recording.image(answer.keyframe_stamp_ns)
    return None if image is None else Frame(ref=_ref(answer.keyframe_stamp_ns, image), image=image)


def _ref(stamp_ns: int, image: U8Array) -> FrameRef:
    return FrameRef(
        camera=DEFAULT_CAMERA,
        index=FrameIndex(0),  # by its stamp it is known here
        epoch=0,
        stamp_ns=stamp_ns,
        received_ns=0,
        size_wh=(image.shape[1], image.shape[0]),
    )


def _label(track: SeenTrack) -> OverlayLabel:
    detail = f"answer {track.answer_age_s:.1f} s old" if track.query_ids else "by a box"
    return OverlayLabel(index=track.index, name=track.object_id, state=track.state, detail=detail)


def _banner(stamp_ns: int, answer: SeenAnswer | None, question: str) -> Banner | None:
    if not question:
        return None
    if answer is None:
        return Banner(query=question)
    age_s = max(0.0, (stamp_ns - answer.keyframe_stamp_ns) / NS) if answer.is_ok else None
    return Banner(query=question, answer=answer.words, age_s=age_s)
