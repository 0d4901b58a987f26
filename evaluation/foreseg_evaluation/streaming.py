# SPDX-License-Identifier: Apache-2.0
"""Our protocol: frames come at camera rate on a simulated clock, and answers are late.

An episode is played through the very pipeline of the robot. Its work takes as long on the simulated
clock as it really took, or as a device's latencies say. What was published, and when, is read off
the pipeline's own steps, so a trace recorded on a robot gives the same record as a run here.

The mask that counts for a frame is the newest one that was published before the next frame came:
what a subscriber had while that frame was on screen, in the spirit of streaming perception (Li,
Wang, Ramanan, ECCV 2020). Does not know: scores.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from foreseg.dialogue import Answer, AnswerStatus, Query, QueryId
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.driving.player import Latencies, Player, StepLog
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, FrameIndex
from foreseg.masks import Mask, MaskRle, mask_from_rle, rle_from_mask
from foreseg.pipeline.events import (
    AskId,
    AskReasoner,
    Command,
    Event,
    FrameArrived,
    FrameDropped,
    PublishAnswer,
    PublishMasks,
    QueryAdded,
    WindowTaken,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.tracks import Track

from .episode import Episode
from .prediction import Prediction, Spoken
from .results import TARGET
from .system import System

QUERY_ID = QueryId("question")
CLAIMS = (AnswerStatus.OK, AnswerStatus.NO_TARGET)
STATUS = {
    AnswerStatus.OK: "ok",
    AnswerStatus.NO_TARGET: "no_target",
    AnswerStatus.ABSTAINED: "abstained",
}
_NS = 1_000_000_000
_TOLD = (AskReasoner, PublishMasks, PublishAnswer)  # commands that a record is made of


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedAt:
    """One published set of masks and when it was published."""

    at_ns: int
    position: int  # of the frame that the masks are of
    tracks: tuple[Track, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredAt:
    """One published answer and when; its keyframe is a position."""

    at_ns: int
    answer: Answer
    asked_position: int | None  # the newest frame when it was asked
    shown: tuple[int, ...] | None = None  # positions of the frames it was given; None = not known


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRecord:
    """What a subscriber could see, in order of time; all times on one clock.

    Attributes:
        arrivals_ns: when each frame came, by position.
        asked_ns: when the query was added; None without one.
        published: masks.
        answers: of the query.
        num_dropped: frames that were refused.
    """

    arrivals_ns: tuple[int, ...]
    asked_ns: int | None
    published: tuple[PublishedAt, ...]
    answers: tuple[AnsweredAt, ...]
    num_dropped: int

    def end_ns(self, position: int) -> int:
        """When a frame leaves the screen: as the next one comes."""
        if position + 1 < len(self.arrivals_ns):
            return self.arrivals_ns[position + 1]
        return self.arrivals_ns[position] + self._last_interval_ns

    @property
    def _last_interval_ns(self) -> int:
        times = self.arrivals_ns
        return times[-1] - times[-2] if len(times) > 1 else _NS

    def has_answered(self, at_ns: int) -> bool:
        """True if targets or "no target" were answered before a time; abstaining is no answer."""
        return any(i.at_ns < at_ns and i.answer.status in CLAIMS for i in self.answers)

    def on_screen(self, at_ns: int) -> PublishedAt | None:
        """The newest masks published before a time; None if there are none."""
        number = bisect_left([item.at_ns for item in self.published], at_ns)
        return self.published[number - 1] if number else None


class StepList:
    """Keeps the steps of one episode in memory; a `StepLog` for the player.

    Args:
        trace: gets every step, too.
    """

    def __init__(self, trace: StepLog | None = None) -> None:
        self.steps: list[tuple[Event, tuple[Command, ...]]] = []
        self._trace = trace

    def write_step(self, event: Event, commands: tuple[Command, ...]) -> None:
        """Keep what the record needs."""
        if self._trace is not None:
            self._trace.write_step(event, commands)
        kept = tuple(c for c in commands if isinstance(c, _TOLD))
        if kept or isinstance(event, (FrameArrived, FrameDropped, QueryAdded, WindowTaken)):
            self.steps.append((event, kept))


class _Nowhere:
    """An output that nobody reads: the record comes from the steps."""

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Let it pass."""

    def publish_answer(self, answer: Answer) -> None:
        """Let it pass."""


def play_episode(
    system: System,
    episode: Episode,
    latencies: Latencies | None = None,
    trace: StepLog | None = None,
) -> StreamRecord:
    """Play an episode from its first frame to its last.

    Args:
        system: what answers and tracks.
        episode: frames at their declared rate; the question is asked before the first one.
        latencies: of another device; None = the system's own.
        trace: gets every step, as a `TraceWriter` that `--traces` reads later.

    Raises:
        ConfigError: nothing is asked, and the reasoner only answers questions.
        ForesegError: an unreadable frame or mask.
    """
    config = system.config.config()
    objects = len(episode.object_ids)
    if episode.question is None and objects > config.tracker.max_tracks:
        config = replace(config, tracker=replace(config.tracker, max_tracks=objects))
    steps = StepList(trace)
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        Executor(config, (DEFAULT_CAMERA,), system.tracker),
        _Nowhere(),
        reasoner=None if episode.question is None else system.reasoner(episode, is_live=True),
        latencies=latencies or system.config.given_latencies(),
        trace=steps,
    )
    starts = system.first_prompts(episode) if episode.question is None else {}
    if episode.question is not None:
        player.ask(
            Query(
                id=QUERY_ID,
                text=episode.question.text,
                period_s=system.config.period_s,
                want_rationale=system.config.rationale,
            )
        )
    for position in range(episode.num_frames):
        for object_id, prompt in starts.get(position, ()):
            player.add_object(
                DEFAULT_CAMERA, prompt, object_id,
                frame_index=FrameIndex(position),
                frame_stamp_ns=episode.stamp_ns(position),
            )  # fmt: skip
        player.feed(DEFAULT_CAMERA, episode.image(position), episode.stamp_ns(position))
    player.advance(episode.stamp_ns(episode.num_frames))
    return record_from_steps(steps.steps, episode)


def record_from_steps(
    steps: Iterable[tuple[Event, Sequence[Command]]], episode: Episode
) -> StreamRecord:
    """Read off a pipeline's steps what was seen when.

    The steps are a run's, or what `foreseg.driving.trace.read_steps` finds.
    A frame's position follows from its stamp, counted from the first one at the episode's rate:
    frames that never arrived leave their neighbours in place.

    Raises:
        InputError: frames beyond the episode's end, or of another size: another video's steps.
    """
    clock = _Arrivals(episode)
    published: list[PublishedAt] = []
    answers: list[AnsweredAt] = []
    places: dict[tuple[object, ...], int] = {}  # of answers that may be published again, amended
    asked: QueryAdded | None = None
    dropped = 0
    for event, commands in steps:
        if isinstance(event, FrameArrived):
            clock.add(event)
        elif isinstance(event, FrameDropped):
            dropped += 1
        elif isinstance(event, WindowTaken):
            clock.show(event)
        elif isinstance(event, QueryAdded) and asked is None:
            asked = event
        for command in commands:
            if isinstance(command, PublishMasks):
                position = clock.positions.get(int(command.frame.index))
                if position is None:
                    msg = f"the steps have masks of frame {command.frame.index}, which never came"
                    raise InputError(msg)
                item = PublishedAt(at_ns=event.at_ns, position=position, tracks=command.tracks)
                published.append(item)
            elif isinstance(command, AskReasoner):
                clock.ask(command)
            elif isinstance(command, PublishAnswer):
                if asked is None or command.answer.query_id != asked.query.id:
                    continue
                said = clock.answered(event.at_ns, command.answer)
                place = places.setdefault(_identity(said.answer), len(answers))
                if place < len(answers):  # its rationale, say, is known now
                    said = replace(said, at_ns=answers[place].at_ns)
                answers[place : place + 1] = [said]
    return StreamRecord(
        arrivals_ns=clock.times_ns(),
        asked_ns=None if asked is None else asked.at_ns,
        published=tuple(published),
        answers=tuple(answers),
        num_dropped=dropped,
    )


def _identity(answer: Answer) -> tuple[object, ...]:
    """What stays as it is when an answer is published again."""
    times = answer.asked_stamp_ns, answer.answered_stamp_ns
    return (*times, answer.status, answer.keyframe_index, answer.prompts)


class _Arrivals:
    """When the frames of an episode came, by position."""

    def __init__(self, episode: Episode) -> None:
        self._episode = episode
        self._first_stamp_ns: int | None = None
        self._newest_stamp_ns = 0
        self._times_ns: dict[int, int] = {}
        self._asked: dict[tuple[str, int], AskId] = {}  # newest, by query and newest frame's stamp
        self._shown: dict[AskId, set[int]] = {}
        self.positions: dict[int, int] = {}  # by frame index

    def add(self, event: FrameArrived) -> None:
        """Note a frame."""
        frame = event.frame
        if self._first_stamp_ns is None:
            self._first_stamp_ns = frame.stamp_ns
        position = self._position(frame.stamp_ns)
        if not 0 <= position < self._episode.num_frames:
            msg = (
                f"frame {frame.index} of the steps is at position {position}; the episode"
                f" {self._episode.id!r} has {self._episode.num_frames} frames at"
                f" {self._episode.rate_hz:g} Hz"
            )
            raise InputError(msg)
        if frame.size_wh != self._episode.size_wh:
            msg = (
                f"frame {frame.index} of the steps has {frame.size_wh} pixels; the episode"
                f" {self._episode.id!r} has {self._episode.size_wh}"
            )
            raise InputError(msg)
        self.positions[int(frame.index)] = position
        self._times_ns[position] = event.at_ns
        self._newest_stamp_ns = frame.stamp_ns

    def ask(self, command: AskReasoner) -> None:
        """Note that a query is asked about what has come so far."""
        self._asked[command.query.id, self._newest_stamp_ns] = command.ask_id

    def show(self, event: WindowTaken) -> None:
        """Note frames that an asking was given."""
        known = (self.positions.get(int(frame.index)) for frame in event.frames)
        shown = self._shown.setdefault(event.ask_id, set())
        shown.update(position for position in known if position is not None)

    def answered(self, at_ns: int, answer: Answer) -> AnsweredAt:
        """An answer with positions for indices and stamps."""
        index = answer.keyframe_index
        if index is not None:
            position = self.positions.get(int(index), int(index))
            answer = replace(answer, keyframe_index=FrameIndex(position))
        asked = None
        if self._first_stamp_ns is not None and answer.asked_stamp_ns >= self._first_stamp_ns:
            asked = self._position(answer.asked_stamp_ns)
        ask_id = self._asked.get((answer.query_id, answer.asked_stamp_ns))
        shown = None if ask_id is None else self._shown.get(ask_id)
        return AnsweredAt(
            at_ns=at_ns,
            answer=answer,
            asked_position=asked,
            shown=None if shown is None else tuple(sorted(shown)),
        )

    def _position(self, stamp_ns: int) -> int:
        assert self._first_stamp_ns is not None  # noqa: S101 (the callers looked)
        return round((stamp_ns - self._first_stamp_ns) * self._episode.rate_hz / _NS)

    def times_ns(self) -> tuple[int, ...]:
        """One time a position up to the last one seen; what never came, would have come then."""
        if not self._times_ns:
            return ()
        known = sorted(self._times_ns)
        wanted = np.arange(known[-1] + 1)
        times = np.interp(wanted, known, [self._times_ns[i] for i in known])
        return tuple(int(t) for t in times)


def masks_of(item: PublishedAt | None, episode: Episode) -> dict[str, Mask]:
    """The masks (H, W) of one publication, by object id; by `TARGET`, their union, if asked."""
    empty: Mask = np.zeros(episode.size_wh[::-1], dtype=np.bool_)
    tracks = () if item is None else item.tracks
    if episode.question is None:
        found = {str(t.object_id): t.mask for t in tracks if t.mask is not None}
        return {
            object_id: mask_from_rle(found[object_id]) if object_id in found else empty
            for object_id in episode.object_ids
        }
    union = empty
    for track in tracks:
        if track.query_ids and track.mask is not None:
            union = union | mask_from_rle(track.mask)
    return {TARGET: union}


def prediction_on_screen(record: StreamRecord, episode: Episode) -> Prediction:
    """What was on screen with every annotated frame: the streaming protocol's masks.

    An empty screen says nothing until the question was first answered: until then it is left out.
    """
    shown = {}
    for position in episode.annotated:
        if position < len(record.arrivals_ns):
            end_ns = record.end_ns(position)
            masks = masks_of(record.on_screen(end_ns), episode)
            if _says_something(masks, record, end_ns):
                shown[position] = masks
    return _prediction(shown, record)


def prediction_by_frame(record: StreamRecord, episode: Episode) -> Prediction:
    """The masks that were published of each annotated frame, however late: for `offline`."""
    newest = {item.position: item for item in record.published}
    shown = {}
    for position in episode.annotated:
        item = newest.get(position)
        if item is not None:
            masks = masks_of(item, episode)
            if _says_something(masks, record, item.at_ns + 1):
                shown[position] = masks
    return _prediction(shown, record)


def _says_something(masks: dict[str, Mask], record: StreamRecord, at_ns: int) -> bool:
    is_asked = TARGET in masks
    return not is_asked or bool(masks[TARGET].any()) or record.has_answered(at_ns)


def _prediction(shown: dict[int, dict[str, Mask]], record: StreamRecord) -> Prediction:
    masks: dict[str, dict[int, MaskRle]] = {}
    for position, by_object in shown.items():
        for object_id, mask in by_object.items():
            masks.setdefault(object_id, {})[position] = rle_from_mask(mask)
    return Prediction(masks=masks, spoken=_first_spoken(record))


def _first_spoken(record: StreamRecord) -> Spoken:
    """The first answer that claims something; else the last one."""
    if not record.answers:
        return Spoken()
    said = [item for item in record.answers if item.answer.status in CLAIMS]
    return spoken_from_answer(said[0] if said else record.answers[-1])


def spoken_from_answer(answered: AnsweredAt) -> Spoken:
    """What a published answer said; its keyframe is a position already."""
    answer = answered.answer
    keyframe = answer.keyframe_index
    return Spoken(
        status=STATUS.get(answer.status, "failed"),
        text=answer.text,
        reason=answer.reason,
        rationale=answer.rationale,
        keyframe=None if keyframe is None else int(keyframe),
        shown=answered.shown,
        prompts=answer.prompts,
        confidence=answer.confidence,
        tokens=answer.tokens,
        seconds=answer.latency_s,
    )
