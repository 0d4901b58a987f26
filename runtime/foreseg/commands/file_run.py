# SPDX-License-Identifier: Apache-2.0
"""Drives a video or images through the pipeline for `foreseg run`, on a simulated clock."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

from foreseg.clock import SystemClock
from foreseg.commands.options import RunOptions
from foreseg.commands.progress import ProgressBar
from foreseg.commands.run_files import RunFiles
from foreseg.commands.run_report import (
    Gaps,
    RunReport,
    checked_prompt,
    end_of,
    load_tracker,
    note_from_state,
    unanswered_queries,
)
from foreseg.config import Config
from foreseg.driving.executor import Executor
from foreseg.driving.player import Latencies, Player
from foreseg.errors import InputError, StreamError
from foreseg.frames import DEFAULT_CAMERA, FrameIndex
from foreseg.media.sources import DEFAULT_RATE_HZ, Source, SourceFrame, SourceGap
from foreseg.pipeline.events import Reply, RequestId
from foreseg.pipeline.state import State
from foreseg.prompts import ObjectId
from foreseg.reasoner.base import ReasonerSpec

NS = 1_000_000_000
KEPT_UP_NS = NS // 1000  # the tracker's time on the simulated clock where it shall keep up
SHORT_CLIP_SHARE = 0.5  # a clip shorter than twice the warm-up is asked after this much of it


def play_file(options: RunOptions, source: Source, files: RunFiles) -> RunReport:
    """Play all frames; Ctrl-C ends early with what there is.

    Raises:
        InputError: a box outside its image or beyond the end.
        StreamError: no frame at all.
    """
    from foreseg.reasoner.load import build_reasoner

    step_ns = round(NS / (source.rate_hz or DEFAULT_RATE_HZ))
    config = _fitted_to_clip(options, source.num_frames, step_ns)
    reasoner = build_reasoner(
        ReasonerSpec(kind=config.reasoner.kind, calibration=config.reasoner.calibration)
    )
    executor = Executor(config, (DEFAULT_CAMERA,), load_tracker(config))
    trace = files.open_trace(config, executor)
    tracker_ns = None if options.is_live else min(KEPT_UP_NS, step_ns // 10)
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        executor,
        files,
        reasoner=reasoner if options.queries else None,
        latencies=options.latencies or Latencies(tracker_ns=tracker_ns),
        trace=trace,
    )
    clock = SystemClock()
    began_ns = clock.monotonic_ns()
    run = _FileRun(options, player)
    try:
        is_interrupted = run.play(source)
    finally:
        trace.close()
    elapsed_s = (clock.monotonic_ns() - began_ns) / 1e9
    end = end_of(options, run.num_frames)
    return RunReport(
        num_frames=run.num_frames,
        elapsed_s=elapsed_s,
        counters=player.state.counters,
        objects=run.objects(),
        unanswered=unanswered_queries(options, files, player.state, end),
        end=end,
        is_interrupted=is_interrupted,
        gaps=run.gaps,
    )


class _FileRun:
    """The loop over a file's frames."""

    def __init__(self, options: RunOptions, player: Player) -> None:
        self.num_frames = 0
        self.gaps = Gaps()
        self._options = options
        self._player = player
        self._requests: dict[ObjectId, RequestId] = {}
        self._replies: dict[ObjectId, Reply] = {}
        queries = sorted(options.queries, key=lambda query: options.asked_ns.get(query.id, 0))
        self._to_ask = deque(queries)

    def play(self, source: Source) -> bool:
        """True if the user broke it off."""
        limit = self._options.max_frames
        total = source.num_frames if limit is None else min(limit, source.num_frames or limit)
        bar = ProgressBar(total)
        is_interrupted = False
        self._ask_until(0)
        try:
            for item in source:
                if isinstance(item, SourceFrame):
                    self._feed(item)
                    bar.update(self.num_frames, note_from_state(self._player.state))
                elif isinstance(item, SourceGap) and self.gaps.add(item):
                    bar.say(f"foreseg: {source.name}: {item.reason}")
                if self.num_frames == limit:
                    break
            self._player.settle()  # what work still finds is published on the last frame
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            if self.num_frames:
                bar.close(self.num_frames)
        if not is_interrupted:
            self._check_end(source.name)
        return is_interrupted

    def objects(self) -> dict[ObjectId, Reply | None]:
        """What was replied to every object pointed at."""
        self._collect()
        return {object_id: self._replies.get(object_id) for object_id in self._requests}

    def _feed(self, frame: SourceFrame) -> None:
        size_wh = (frame.image.shape[1], frame.image.shape[0])
        if self.num_frames == 0:  # those on later frames, too, fail now rather than then
            for one in self._options.prompts:
                checked_prompt(one, size_wh)
        for one in self._options.prompts_at(self.num_frames):
            self._requests[one.object_id] = self._player.add_object(
                DEFAULT_CAMERA,
                checked_prompt(one, size_wh),
                one.object_id,
                frame_index=FrameIndex(self.num_frames),
                frame_stamp_ns=frame.stamp_ns,
            )
        self._ask_until(frame.stamp_ns)
        if self._player.feed(DEFAULT_CAMERA, frame.image, frame.stamp_ns) is None:
            return
        self.num_frames += 1
        self._collect()

    def _ask_until(self, stamp_ns: int) -> None:
        """Ask what is to be asked by then."""
        due = self._options.asked_ns
        while self._to_ask and due.get(self._to_ask[0].id, 0) <= stamp_ns:
            self._player.ask(self._to_ask.popleft())

    def _collect(self) -> None:
        for object_id, request_id in self._requests.items():
            reply = self._player.reply(request_id)
            if reply is not None:
                self._replies[object_id] = reply

    def _check_end(self, name: str) -> None:
        if self.num_frames == 0:
            msg = f"{name} gave no frame"
            raise StreamError(msg)
        for one in self._options.prompts:
            if one.frame >= self.num_frames:
                msg = (
                    f"{one.words} is on frame {one.frame}, but {name} ended after frame"
                    f" {self.num_frames - 1}"
                )
                raise InputError(msg)


def _fitted_to_clip(options: RunOptions, num_frames: int | None, step_ns: int) -> Config:
    """The config with a warm-up that a short clip or a single image can reach."""
    config, limit = options.config, options.max_frames
    total = min((n for n in (num_frames, limit) if n is not None), default=None)
    if total is None:
        return config
    reachable_s = SHORT_CLIP_SHARE * max(0, total - 1) * step_ns / NS
    warm_up_s = min(config.scheduler.warm_up_s, reachable_s)
    return replace(config, scheduler=replace(config.scheduler, warm_up_s=warm_up_s))
