# SPDX-License-Identifier: Apache-2.0
"""Runs a camera through the pipeline in real time for `foreseg run`, until Ctrl-C."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from foreseg.clock import SystemClock
from foreseg.commands.options import RunOptions
from foreseg.commands.progress import ProgressBar
from foreseg.commands.questions import QuestionFrames
from foreseg.commands.run_files import RunFiles
from foreseg.commands.run_report import (
    RunReport,
    checked_prompt,
    end_of,
    load_tracker,
    note_from_state,
    unanswered_queries,
)
from foreseg.dialogue import Answer, Query
from foreseg.driving.executor import Executor, PublishedMasks
from foreseg.driving.worker import Worker
from foreseg.frames import DEFAULT_CAMERA
from foreseg.media.sources import Source, SourceFrame, SourceLost
from foreseg.pipeline.events import Reply
from foreseg.prompts import ObjectId, SpatialPrompt

MAX_WAITING = 8  # published frames that wait to be drawn
DRAWS_PER_FRAME = 2


def play_camera(options: RunOptions, source: Source, files: RunFiles) -> RunReport:
    """Run until Ctrl-C or `--max-frames`.

    Raises:
        InputError: a prompt outside the image.
    """
    executor = Executor(options.config, (DEFAULT_CAMERA,), load_tracker(options.config))
    trace = files.open_trace(options.config, executor)
    later = LaterFiles(files)
    worker = Worker(options.config, (DEFAULT_CAMERA,), executor, later, trace=trace)
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    run = _CameraRun(options, worker, later, ProgressBar(options.max_frames))
    worker.start()
    is_interrupted = False
    try:
        run.play(source)
    except KeyboardInterrupt:
        is_interrupted = True
    finally:
        worker.stop()
        later.draw()
    state = worker.snapshot().state
    end = end_of(options, run.num_frames)
    return RunReport(
        num_frames=run.num_frames,
        elapsed_s=(clock.monotonic_ns() - began_ns) / 1e9,
        counters={**state.counters, "masks_undrawn": later.num_undrawn},
        objects={one.object_id: run.replies.get(one.object_id) for one in options.prompts},
        unanswered=unanswered_queries(options, files, state, end),
        end=end,
        is_interrupted=is_interrupted,
    )


class LaterFiles:
    """Takes what the worker's thread publishes; the thread that reads the camera writes it.

    Drawing in the loop would delay masks. Where drawing cannot keep up, the oldest undrawn frames
    are left out and counted.
    """

    def __init__(self, files: RunFiles) -> None:
        self.num_undrawn = 0
        self._files = files
        self._answers: deque[tuple[Answer, QuestionFrames | None]] = deque()
        self._masks: deque[PublishedMasks] = deque()

    def publish_masks(self, masks: PublishedMasks) -> None:
        """Keep a copy, in the worker's thread."""
        image = None if masks.image is None else masks.image.copy()
        self._masks.append(replace(masks, image=image))
        if len(self._masks) > MAX_WAITING:
            self._masks.popleft()
            self.num_undrawn += 1

    def publish_answer(self, answer: Answer) -> None:
        """Keep it with the frames that it is about, in the worker's thread."""
        self._answers.append((answer, self._files.frames_of(answer)))

    def draw(self, at_most: int = MAX_WAITING) -> None:
        """Write the answers that wait, and `at_most` so many frames."""
        for _ in range(len(self._answers)):
            self._files.write_answer(*self._answers.popleft())
        for _ in range(at_most):
            try:
                masks = self._masks.popleft()
            except IndexError:
                return
            self._files.publish_masks(masks)


class _CameraRun:
    """The loop over a camera's frames."""

    def __init__(
        self, options: RunOptions, worker: Worker, later: LaterFiles, bar: ProgressBar
    ) -> None:
        self.num_frames = 0
        self.replies: dict[ObjectId, Reply] = {}
        self._options = options
        self._worker = worker
        self._later = later
        self._bar = bar
        self._waiting: list[tuple[ObjectId, SpatialPrompt, int]] = []  # with the frame's stamp

    def play(self, source: Source) -> None:
        """Until the source or the wish for frames ends."""
        try:
            for query in self._options.queries:
                self._worker.requests.ask(query, self._warn_of_refusal(query), wants_answer=False)
            for item in source:
                if isinstance(item, SourceLost):
                    self._bar.say(f"{item.reason}; again in {item.retry_in_s:.1f} s")
                elif isinstance(item, SourceFrame):
                    self._take(item)
                if self.num_frames == self._options.max_frames:
                    return
        finally:
            self._bar.close(self.num_frames)

    def _take(self, frame: SourceFrame) -> None:
        size_wh = (frame.image.shape[1], frame.image.shape[0])
        prompts = self._options.prompts if self.num_frames == 0 else ()
        for one in prompts:  # those on later frames, too, fail now rather than then
            checked_prompt(one, size_wh)
        for one in self._options.prompts_at(self.num_frames):
            prompt = checked_prompt(one, size_wh)
            self._waiting.append((one.object_id, prompt, frame.stamp_ns))
        self._worker.submit_frame(DEFAULT_CAMERA, frame.image, frame.stamp_ns)
        self.num_frames += 1
        state = self._worker.snapshot().state
        newest = state.cameras[DEFAULT_CAMERA].newest
        for item in list(self._waiting):  # a request would overtake its frame on the way in
            if newest is not None and newest.stamp_ns >= item[2]:
                self._waiting.remove(item)
                self._point_at(*item)
        self._later.draw(DRAWS_PER_FRAME)
        self._bar.update(self.num_frames, note_from_state(state))

    def _point_at(self, object_id: ObjectId, prompt: SpatialPrompt, stamp_ns: int) -> None:
        def keep(reply: Reply) -> None:
            self.replies[object_id] = reply

        self._worker.requests.add_objects(
            DEFAULT_CAMERA, [(object_id, prompt)], keep, stamp_ns=stamp_ns
        )

    def _warn_of_refusal(self, query: Query) -> Callable[[Reply], None]:
        def warn(reply: Reply) -> None:
            if not reply.success:
                self._bar.say(f"query {query.text!r} is refused: {reply.message}")

        return warn
