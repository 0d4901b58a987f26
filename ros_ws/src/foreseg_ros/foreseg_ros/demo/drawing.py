# SPDX-License-Identifier: Apache-2.0
"""Pictures of a part from what the client received: a video in real time, and a few moments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from foreseg.commands.storyboard import Scene, Storyboard
from foreseg.frames import U8Array
from foreseg.overlay import Banner, OverlayLabel, draw_overlay
from foreseg.sinks import OverlayVideoWriter
from foreseg.tracks import TrackState
from foreseg_ros.demo.parts import PartResult
from foreseg_ros.demo.recording import SeenAnswer, SeenTrack

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
        drawn = draw_overlay(image, recording.label_map(stamp_ns), labels, banner)
        yield Moment(
            stamp_ns=stamp_ns, image=drawn, tracks=tracks, answer=answer, question=question
        )


def write_part(result: PartResult, video: OverlayVideoWriter, board: Storyboard) -> None:
    """Add a part to the video, each frame for as long as it was the newest, and to the board."""
    origin_ns = min(result.sent, default=0)
    ticks = 0
    before: Moment | None = None
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
                is_event=_is_event(before, moment),
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


def _is_event(before: Moment | None, moment: Moment) -> bool:
    """A new question, a new object, or one whose state has changed."""
    if before is None:
        return False
    if before.question != moment.question:
        return True
    old = {(track.object_id, track.state) for track in before.tracks}
    return any((track.object_id, track.state) not in old for track in moment.tracks)


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
