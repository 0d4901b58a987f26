# SPDX-License-Identifier: Apache-2.0
"""What there is to see: the newest masks, the last answers, the names that viewers gave.

The pipeline's thread writes (it is an `Output`), any thread reads. Of pictures only the newest is
kept. Everything is bounded; nothing here draws or waits.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from foreseg.clock import Clock, SystemClock
from foreseg.commands.moments import Moments
from foreseg.commands.questions import QuestionFrames
from foreseg.dialogue import Answer, AnswerStatus
from foreseg.driving.executor import PublishedMasks
from foreseg.errors import InputError
from foreseg.frames import Frame, FrameRef, U8Array
from foreseg.media.newest_answers import asking_key
from foreseg.pipeline.tracks import Track, TrackState
from foreseg.prompts import ObjectId
from foreseg.texts import is_utf8
from foreseg.tracker.base import LabelMap
from foreseg_view.host import Stage
from foreseg_view.pixels import reduced

MAX_ANSWERS = 50
MAX_WITH_FRAMES = 8  # answers whose frames are kept: the newest
MAX_PAST = 1800  # frames whose tracks are remembered, for frozen pictures: a minute at 30 Hz
MAX_NAMES = 256
MAX_LATENCIES = 256  # between two looks
MAX_NAME_CHARS = 40
NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shown:
    """A published frame."""

    frame: FrameRef
    image: U8Array  # (H, W, 3) RGB, a copy
    label_map: LabelMap  # (H, W)
    tracks: tuple[Track, ...]


@dataclass(slots=True, kw_only=True, eq=False)
class AnswerShown:
    """An answer with what came of it."""

    number: int  # from 1
    answer: Answer
    version: int  # of the board when it changed last
    run: int  # how often the stream had begun anew
    frames: QuestionFrames | None = None  # of its question, reduced; the keyframe among them
    moments: Moments
    stage: Stage = Stage.ENDED
    hop_stamp_ns: int | None = None  # of the first frame with its masks
    caught_up_stamp_ns: int | None = None
    was_catching_up: bool = False
    indices: dict[str, int] = field(default_factory=dict)  # object id -> label, once seen

    @property
    def keyframe(self) -> Frame | None:
        """Reduced, if it is kept."""
        return None if self.frames is None else self.frames.keyframe_of(self.answer)


class Board:
    """Written by one thread, read by many.

    Args:
        on_change: called after each change, from the writing thread; must not wait.
        clock: for what masks take.
    """

    def __init__(
        self, on_change: Callable[[], None] = lambda: None, *, clock: Clock | None = None
    ) -> None:
        self.on_change = on_change
        self._clock = clock or SystemClock()
        self._took_ns: deque[int] = deque(maxlen=MAX_LATENCIES)
        self._lock = threading.Lock()
        self._newest: Shown | None = None
        self._frame: FrameRef | None = None
        self._tracks: tuple[Track, ...] = ()
        self._past: deque[tuple[FrameRef, tuple[Track, ...]]] = deque(maxlen=MAX_PAST)
        self._answers: deque[AnswerShown] = deque(maxlen=MAX_ANSWERS)
        self._names: dict[ObjectId, str] = {}
        self._num_answers = 0
        self._version = 0
        self._run = 0
        self._origin_ns: int | None = None

    # ---- the pipeline's thread ----

    def publish_masks(self, masks: PublishedMasks) -> None:
        """A frame with its masks."""
        with self._lock:
            before = self._frame
            if before is not None and masks.frame.stamp_ns < before.stamp_ns:
                self._run += 1
            if self._origin_ns is None:
                self._origin_ns = masks.frame.stamp_ns
            self._frame, self._tracks = masks.frame, masks.tracks
            if self._past and self._past[-1][0].index == masks.frame.index:
                self._past.pop()
            else:
                self._took_ns.append(self._clock.monotonic_ns() - masks.frame.received_ns)
            self._past.append((masks.frame, masks.tracks))
            for shown in self._answers:
                self._follow(shown, masks)
            if masks.image is not None:
                self._newest = Shown(
                    frame=masks.frame,
                    image=masks.image.copy(),
                    label_map=masks.label_map,
                    tracks=masks.tracks,
                )
        self.on_change()

    def publish_answer(self, answer: Answer, frames: QuestionFrames | None = None) -> None:
        """An answer, perhaps once more with more of it, and what its question was about."""
        answer = replace(answer, observed=())
        with self._lock:
            self._version += 1
            key = asking_key(answer)
            shown = next((a for a in reversed(self._answers) if asking_key(a.answer) == key), None)
            if shown is None:
                self._num_answers += 1
                has_targets = answer.status is AnswerStatus.OK and bool(answer.object_ids)
                shown = AnswerShown(
                    number=self._num_answers,
                    answer=answer,
                    version=self._version,
                    run=self._run,
                    stage=Stage.KEYFRAME if has_targets else Stage.ENDED,
                    moments=Moments(object_ids=answer.object_ids, reduce=reduced),
                )
                self._answers.append(shown)
            shown.answer, shown.version = answer, self._version
            shown.frames = frames or shown.frames
            for old in [other for other in self._answers if other.frames][:-MAX_WITH_FRAMES]:
                old.frames, old.moments = None, Moments(object_ids=())
        self.on_change()

    def _follow(self, shown: AnswerShown, masks: PublishedMasks) -> None:
        """Where an answer's masks are by this frame."""
        answer = shown.answer
        if shown.run == self._run and masks.frame.stamp_ns >= answer.answered_stamp_ns:
            shown.moments.add(masks, int(masks.frame.index))
        if shown.stage not in (Stage.KEYFRAME, Stage.HOP) or shown.run != self._run:
            return
        mine = [t for t in masks.tracks if t.object_id in answer.object_ids]
        stamp_ns = masks.frame.stamp_ns
        stage: Stage = shown.stage
        shown.indices.update((track.object_id, track.index) for track in mine)
        if stage is Stage.KEYFRAME:
            if not mine or stamp_ns < answer.answered_stamp_ns:
                return
            shown.hop_stamp_ns, stage = stamp_ns, Stage.HOP
        is_catching_up = any(track.catching_up for track in mine)
        is_sure = all(track.state is not TrackState.UNCERTAIN for track in mine)
        if not mine:
            stage = Stage.ENDED
        elif not is_catching_up and (shown.was_catching_up or is_sure):
            shown.caught_up_stamp_ns, stage = stamp_ns, Stage.CAUGHT_UP
        shown.was_catching_up = is_catching_up
        if stage is not shown.stage:
            self._version += 1
            shown.stage, shown.version = stage, self._version

    # ---- any thread ----

    @property
    def newest(self) -> Shown | None:
        """The newest frame with pixels."""
        return self._newest

    @property
    def frame(self) -> FrameRef | None:
        """The newest frame that was published."""
        return self._frame

    @property
    def tracks(self) -> tuple[Track, ...]:
        """Its tracks."""
        return self._tracks

    @property
    def run(self) -> int:
        """How often the stream has begun anew."""
        return self._run

    @property
    def version(self) -> int:
        """Counts changes of answers."""
        return self._version

    @property
    def origin_ns(self) -> int:
        """The stamp from which seconds are counted."""
        return self._origin_ns or 0

    def answers(self, after_version: int = 0) -> list[AnswerShown]:
        """Copies of those that changed after a version, the oldest first."""
        with self._lock:
            return [
                replace(shown, indices=dict(shown.indices))
                for shown in self._answers
                if shown.version > after_version
            ]

    def answer(self, number: int) -> AnswerShown | None:
        """One of the last answers."""
        return next((shown for shown in self.answers() if shown.number == number), None)

    def past_tracks(self, index: int) -> tuple[Track, ...]:
        """The tracks of a past frame, or of the last published one before it."""
        with self._lock:
            return next((tracks for ref, tracks in reversed(self._past) if ref.index <= index), ())

    def first_index_of(self, seconds: float) -> int | None:
        """The first published frame of the last seconds, by its stamp and of this run of the stream."""
        with self._lock:
            first: int | None = None
            for ref, _ in reversed(self._past):
                newest = self._past[-1][0]
                if not 0 <= newest.stamp_ns - ref.stamp_ns <= seconds * NS:
                    break
                first = int(ref.index)
        return first

    def take_latencies_ns(self) -> list[int]:
        """From frames received to their masks, since the last call."""
        with self._lock:
            taken = list(self._took_ns)
            self._took_ns.clear()
        return taken

    def name_of(self, object_id: ObjectId) -> str:
        """What viewers call an object."""
        return self._names.get(object_id, object_id)

    def rename(self, object_id: ObjectId, name: str) -> None:
        """Give a tracked object a name for all viewers; the pipeline keeps its id.

        Raises:
            InputError: no such object, a name that another one has, none, or too long a one.
        """
        name = name.strip()
        if not 0 < len(name) <= MAX_NAME_CHARS or not is_utf8(name):
            msg = f"a name wants 1 to {MAX_NAME_CHARS} characters, got {len(name)}"
            raise InputError(msg)
        with self._lock:
            tracked = {track.object_id for track in self._tracks}
            if object_id not in tracked:
                msg = f"no object {object_id!r} is tracked now"
                raise InputError(msg)
            others = {self._names.get(other, other) for other in tracked if other != object_id}
            if name in others:
                msg = f"another object is called {name!r}"
                raise InputError(msg)
            self._names.pop(object_id, None)
            if len(self._names) >= MAX_NAMES:
                del self._names[next(iter(self._names))]
            self._names[object_id] = name
        self.on_change()
