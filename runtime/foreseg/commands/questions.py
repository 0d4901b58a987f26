# SPDX-License-Identifier: Apache-2.0
"""The questions under way, seen from the pipeline's steps; copies of the frames they are about.

Called where the pipeline runs: there a question's frames are held until its answer is published.
Knows nothing of drawing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from foreseg.config import Config
from foreseg.dialogue import Answer, AnswerDone, AnswerFailed, RationalePart
from foreseg.driving.executor import Executor
from foreseg.driving.trace import DEFAULT_MAX_BYTES, TraceWriter
from foreseg.frames import CameraId, Frame, FrameIndex, FrameRef, FrameWindow, U8Array
from foreseg.history.reduction import reduce_image
from foreseg.media.filmstrip import chosen_indices
from foreseg.pipeline.asking import MAX_RATIONALE_CHARS
from foreseg.pipeline.events import (
    AnswerPartArrived,
    AskId,
    AskReasoner,
    CancelAsk,
    Command,
    Event,
    ReleaseWindow,
    WindowTaken,
)
from foreseg.pipeline.state import Asking

FRAME_SIDE_PX = 480
KEYFRAME_SIDE_PX = 960


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class QuestionFrames:
    """Some of the frames that a question was about, as reduced copies."""

    window: FrameWindow
    num_frames: int  # how many it was about

    def keyframe_of(self, answer: Answer) -> Frame | None:
        """The answer's keyframe, if it is among them."""
        index = answer.keyframe_index
        return None if index is None else self.window.get(index)


class Questions:
    """Follows what is asked; bounded by the windows that are held.

    Args:
        executor: has the frames.
        reduce: makes an image's longer side at most so many pixels; itself if it fits.
    """

    def __init__(
        self, executor: Executor, reduce: Callable[[U8Array, int], U8Array] = reduce_image
    ) -> None:
        self._executor = executor
        self._reduce = reduce
        self._held: dict[AskId, Asking] = {}
        self._origins: dict[AskId, FrameIndex] = {}
        self._released: set[AskId] = set()
        self.current: Asking | None = None  # what the reasoner has now; readable by any thread

    def take_step(self, event: Event, commands: tuple[Command, ...]) -> None:
        """An event with its commands, before these are carried out."""
        for ask_id in self._released:  # by the step before: its commands are carried out
            self._held.pop(ask_id, None)
            self._origins.pop(ask_id, None)
        self._released = {c.ask_id for c in commands if isinstance(c, ReleaseWindow)}
        if isinstance(event, WindowTaken):
            self._take_window(event)
        elif isinstance(event, AnswerPartArrived):
            self._take_part(event)
        ended = {c.ask_id for c in commands if isinstance(c, CancelAsk)}
        if self.current is not None and self.current.ask_id in ended:
            self.current = None
        for command in commands:
            if isinstance(command, AskReasoner):
                self.current = Asking(
                    ask_id=command.ask_id,
                    query=command.query,
                    asked_ns=event.at_ns,
                    asked_stamp_ns=0,
                )
                self._held[command.ask_id] = self.current

    def frames_of(self, answer: Answer, *, keyframe_only: bool) -> QuestionFrames | None:
        """Copies of an answer's frames, called while it is published; None if none are held."""
        mine = [asking for asking in self._held.values() if asking.query.id == answer.query_id]
        if answer.keyframe_index is not None:
            wanted = answer.keyframe_index
            mine = [a for a in mine if any(ref.index == wanted for ref in a.frames)]
        if not mine or not mine[-1].frames:
            return None
        asking = mine[-1]
        refs = {ref.index: ref for ref in asking.frames}
        shown = chosen_indices(tuple(refs), answer.keyframe_index)
        if keyframe_only:
            shown = tuple(index for index in shown if index == answer.keyframe_index)
        copies = (self._copy(refs[i], is_large=i == answer.keyframe_index) for i in shown)
        window = FrameWindow(
            frames=tuple(copy for copy in copies if copy is not None),
            origin_index=self._origins[asking.ask_id],
        )
        return QuestionFrames(window=window, num_frames=len(refs))

    def _take_window(self, event: WindowTaken) -> None:
        asking = self._held.get(event.ask_id)
        if asking is None or not event.frames:
            return
        self._origins[event.ask_id] = self._executor.label_origin(event.ask_id)
        known = {ref.index: ref for ref in (*asking.frames, *event.frames)}
        self._set(replace(asking, frames=tuple(known[index] for index in sorted(known))))

    def _take_part(self, event: AnswerPartArrived) -> None:
        asking = self._held.get(event.ask_id)
        if asking is None or self.current is None or self.current.ask_id != event.ask_id:
            return
        if isinstance(event.part, RationalePart):
            text = (asking.rationale + event.part.text)[:MAX_RATIONALE_CHARS]
            self._set(replace(asking, rationale=text))
        elif isinstance(event.part, (AnswerDone, AnswerFailed)):
            self.current = None

    def _set(self, asking: Asking) -> None:
        self._held[asking.ask_id] = asking
        if self.current is not None and self.current.ask_id == asking.ask_id:
            self.current = asking

    def _copy(self, ref: FrameRef, *, is_large: bool) -> Frame | None:
        frame = self._executor.histories[ref.camera].get(ref.index)
        if frame is None:
            return None
        image = self._reduce(frame.image, KEYFRAME_SIDE_PX if is_large else FRAME_SIDE_PX)
        return replace(frame, image=image.copy() if image is frame.image else image)


class RunTrace(TraceWriter):
    """A trace whose steps also tell which questions are under way."""

    def __init__(
        self,
        questions: Questions,
        path: Path,
        config: Config,
        camera: CameraId,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> None:
        super().__init__(path, config, (camera,), max_bytes=max_bytes)
        self._questions = questions

    def write_step(self, event: Event, commands: tuple[Command, ...]) -> None:
        """Write it, and let the questions follow."""
        super().write_step(event, commands)
        self._questions.take_step(event, commands)
