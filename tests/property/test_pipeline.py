# SPDX-License-Identifier: Apache-2.0
"""Whatever happens in whatever order, the pipeline keeps its promises."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.bench import NS, Bench, still

from foreseg.config import CatchUpConfig, Config, ReasonerConfig, SchedulerConfig, TrackerConfig
from foreseg.dialogue import (
    AnswerDone,
    AnswerFailed,
    AnswerPart,
    NoTarget,
    RationalePart,
    TargetsFound,
)
from foreseg.driving.trace import TraceWriter, replay
from foreseg.frames import DEFAULT_CAMERA, CameraId, FrameIndex, FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.events import (
    AskReasoner,
    Command,
    EnableSet,
    Event,
    FrameDropped,
    ObjectRemoved,
    PromptStep,
    PublishAnswer,
    PublishMasks,
    ReasonerChanged,
    RequestId,
    ResetRequested,
    RunTracker,
    TrackerFailed,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.telemetry import DropCause

CAMERAS = (CameraId("left"), CameraId("right"))
IDS = ("", "mug", "object-1", "object-2")
QUERIES = ("q", "r")
CONFIG = Config(
    tracker=TrackerConfig(max_tracks=3, lost_after_s=0.3, forget_after_s=2.0, index_reuse_s=0.5),
    catch_up=CatchUpConfig(budget_s=2.0),
    reasoner=ReasonerConfig(timeout_s=4.0),
    scheduler=SchedulerConfig(max_queries=2, warm_up_s=0.1),
)


def ball(index: int) -> BoxXyxy | None:
    return None if index % 90 > 60 else BoxXyxy(5 + index % 60, 20, 17 + index % 60, 32)


WORLD = {"cup": still(10, 10), "can": still(70, 40), "ball": ball, "twin": still(11, 10)}
BAD_BOX = SpatialPrompt(box=BoxXyxy(500, 500, 600, 600))


class Fuzz(Bench):
    """A bench on which tracker jobs fail half-way, and which checks promises at every event."""

    def __init__(self, **fields: Any) -> None:
        self.num_to_fail = 0
        self.open: set[RequestId] = set()
        self.last_shown = dict.fromkeys(CAMERAS, -1)
        self.origin_ns = dict.fromkeys(CAMERAS, 0)  # where the camera's clock began
        super().__init__(WORLD, config=CONFIG, cameras=CAMERAS, ring=90, **fields)

    def send(self, event: Event) -> None:
        running = self.state.running
        request = getattr(event, "request_id", None)
        if request is not None:
            self.open.add(request)
        super().send(event)
        started = [c for c in self.log[-1][1] if isinstance(c, RunTracker)]
        assert len(started) <= 1
        if running is not None and self.state.running is running:
            assert not started, "one job at a time"
        for camera in self.state.cameras.values():
            labels = [t.index for t in camera.tracks]
            assert len(set(labels)) == len(labels)
            assert all(1 <= label <= CONFIG.tracker.max_tracks for label in labels)
            assert camera.labels.used == set(labels)
            ids = [t.object_id for t in camera.tracks]
            assert len(set(ids)) == len(ids)
            assert {c.object_id for c in camera.catch_ups} <= set(ids)
            assert {t.object_id for t in camera.tracks if t.catching_up} == {
                c.object_id for c in camera.catch_ups
            }
        assert set(self.state.held) == self.held

    def frame(self, camera: CameraId = DEFAULT_CAMERA, stamp_ns: int | None = None) -> FrameRef:
        stamp = self.now_ns - self.origin_ns[camera] if stamp_ns is None else stamp_ns
        return super().frame(camera, stamp)

    def restart(self, camera: CameraId) -> None:
        """The camera's clock begins anew, as a bag does that loops."""
        self.origin_ns[camera] = self.now_ns
        self.frame(camera)

    def _execute(self, command: Command) -> None:
        if isinstance(command, PublishAnswer):
            answer, newest = command.answer, self.state.cameras[command.answer.camera].newest
            assert answer.answered_stamp_ns >= answer.asked_stamp_ns
            if newest is not None and answer.reason != "the stream began anew":
                assert answer.asked_stamp_ns <= newest.stamp_ns, "no answer crosses a restart"
        if isinstance(command, RunTracker) and self.num_to_fail:
            self.num_to_fail -= 1
            half = command.job.steps[: len(command.job.steps) // 2]
            self.tracker[command.job.camera].run(half)
            is_evicted = any(isinstance(item, PromptStep) for item in half)
            failed = TrackerFailed(
                job_id=command.job.id,
                reason="broke off",
                is_evicted=is_evicted,
                at_ns=self.now_ns + round(self.tracker_s * NS),
            )
            self.post(self.tracker_s, failed)
            return
        if isinstance(command, PublishMasks):
            camera = command.frame.camera
            newest = self.state.cameras[camera].newest
            is_again = command.job_id is not None and command.frame == newest
            assert command.frame.index >= self.last_shown[camera] + (not is_again)
            self.last_shown[camera] = command.frame.index
            shown = [t.index for t in command.tracks]
            assert shown == sorted(set(shown))
        super()._execute(command)
        for tracker in self.tracker.values():
            assert len(tracker.rows) <= CONFIG.tracker.max_rows
        self.open -= set(self.replies)


def targets(frames: tuple[FrameRef, ...], names: tuple[str, ...]) -> TargetsFound:
    keyframe = frames[0].index if frames else FrameIndex(0)
    boxes = [WORLD[name](int(keyframe)) for name in names]
    prompts = tuple(SpatialPrompt(box=box) for box in boxes if box is not None)
    return TargetsFound(keyframe_index=keyframe, prompts=prompts)


def parts_of(kind: str, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
    found, done = targets(frames, ("ball",)), AnswerDone(tokens=3)
    far = TargetsFound(keyframe_index=FrameIndex(10**6), prompts=found.prompts)
    outside = TargetsFound(keyframe_index=found.keyframe_index, prompts=(BAD_BOX,))
    kinds: dict[str, list[AnswerPart]] = {
        "ball": [RationalePart(text="a"), found, RationalePart(text="b"), done],
        "cup": [targets(frames, ("cup",)), done],
        "many": [targets(frames, ("cup", "twin", "can", "ball")), done],
        "two verdicts": [found, targets(frames, ("can",)), NoTarget(reason="or not"), done],
        "no target first": [NoTarget(reason="none"), found, done],
        "none": [NoTarget(reason="none"), done],
        "nothing": [done],
        "no prompts": [targets(frames, ()), done],
        "outside": [outside, done],
        "evicted": [far, done],
        "failed": [AnswerFailed(reason="unparsable")],
        "found, then failed": [found, AnswerFailed(reason="out of memory"), done],
        "endless": [RationalePart(text="hm")],
        "found, endless": [found, RationalePart(text="hm")],
        "silent": [],
    }
    return kinds[kind]


KINDS = (
    "ball", "cup", "many", "two verdicts", "no target first", "none", "nothing", "no prompts",
    "outside", "evicted", "failed", "found, then failed", "endless", "found, endless", "silent",
)  # fmt: skip
camera = st.sampled_from(CAMERAS)
PAUSES = st.sampled_from([0.0, 0.0, 0.01, 0.01, 0.1, 0.6])
ASK = st.tuples(
    st.just("ask"),
    st.sampled_from(QUERIES),
    st.sampled_from(["what?", "what leaves the view?", "what starts to move?"]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 0.5]),
    camera,
    st.sampled_from([0.0, 0.7, 30.0]),
    st.booleans(),
)
POINT = st.tuples(
    st.just("point"),
    st.sampled_from(["cup", "can", "twin"]),
    st.sampled_from(IDS),
    st.sampled_from([None, None, 0, 3]),
    camera,
)
REMOVE = st.tuples(st.just("remove"), st.sampled_from(["mug", "object-1", "object-2"]))
ANSWER = st.tuples(st.just("answer"), st.sampled_from(KINDS))
FAIL = st.tuples(st.just("fail"), st.integers(1, 3))
COMMON = (ASK, POINT, REMOVE, ANSWER, FAIL)
ACTIONS = st.one_of(
    *COMMON,
    *COMMON,
    *COMMON,
    st.tuples(st.just("run"), st.sampled_from([0.03, 1.1, 3.0])),
    st.tuples(st.just("forget"), st.sampled_from(QUERIES)),
    st.tuples(st.just("reset")),
    st.tuples(st.just("enable"), st.booleans()),
    st.tuples(st.just("reasoner"), st.booleans()),
    st.tuples(st.just("speed"), st.sampled_from([0.002, 0.02, 0.3])),
    st.tuples(st.just("stray"), st.sampled_from([1, 2, 5])),
    st.tuples(st.just("restart"), camera),
    st.tuples(st.just("drop"), camera),
)


def act(bench: Fuzz, action: tuple[Any, ...]) -> None:  # noqa: C901, PLR0912 (one branch each)
    kind, *args = action
    request = RequestId(10_000 + len(bench.log))
    now = bench.now_ns
    if kind == "run":
        bench.run(args[0])
    elif kind == "ask":
        name, text, period, timeout, where, horizon, wants_masks = args
        bench.ask(
            text,
            name,
            period_s=period,
            timeout_s=timeout,
            camera=where,
            horizon_s=horizon,
            want_observed_masks=wants_masks,
        )
    elif kind == "forget":
        bench.forget(args[0])
    elif kind == "point":
        name, object_id, index, where = args
        if bench.num_frames[where] > (index or 0):
            bench.point(name, object_id, frame_index=index, camera=where)
    elif kind == "remove":
        removed = ObjectRemoved(object_id=ObjectId(args[0]), request_id=request, at_ns=now)
        bench.send(removed)
    elif kind == "reset":
        bench.send(ResetRequested(request_id=request, at_ns=now))
    elif kind == "enable":
        bench.send(EnableSet(enabled=args[0], request_id=request, at_ns=now))
    elif kind == "reasoner":
        bench.send(ReasonerChanged(is_up=args[0], reason="fuzz", at_ns=now))
    elif kind == "fail":
        bench.num_to_fail = args[0]
    elif kind == "answer":
        bench.parts = lambda _, frames: parts_of(args[0], frames)
    elif kind == "speed":
        bench.tracker_s = args[0]
    elif kind == "stray":
        for tracker in bench.tracker.values():
            tracker.loses_after, tracker.astray = args[0], "can"
    elif kind == "restart":
        bench.restart(args[0])
    elif kind == "drop":
        bench.send(FrameDropped(camera=args[0], cause=DropCause.BAD_IMAGE, at_ns=now))


def quieten(bench: Fuzz) -> None:
    """Everything works again, nobody asks any more, and time passes."""
    bench.num_to_fail = 0
    bench.tracker_s = 0.005
    bench.parts = lambda _, frames: parts_of("none", frames)
    act(bench, ("enable", True))
    act(bench, ("reasoner", True))
    bench.run(4.5)
    for query in bench.state.queries:
        bench.forget(query.query.id)
    bench.run(6.5)  # three budgets: a stuck branch is given up


@pytest.mark.slow
@settings(
    deadline=None, derandomize=True, max_examples=40, suppress_health_check=list(HealthCheck)
)
@given(
    st.lists(st.tuples(ACTIONS, PAUSES), min_size=10, max_size=40),
    st.sampled_from([0.05, 0.05, 0.5, 6.0]),
    st.sampled_from([0.005, 0.05]),
)
def test_promises_hold_in_every_interleaving(
    actions: list[tuple[tuple[Any, ...], float]], reasoner_s: float, tracker_s: float
) -> None:
    bench = Fuzz(reasoner_s=reasoner_s, tracker_s=tracker_s, camera_hz=15.0)
    bench.run(0.4)
    for action, pause_s in actions:
        act(bench, action)
        bench.run(pause_s)
    quieten(bench)
    assert bench.open == set(), "every request is completed"
    assert bench.held == set(), "every window is released"
    assert bench.state.asking is None
    assert bench.state.arrivals == ()
    assert all(f.observation is None for f in bench.state.followed), "every window ends"
    for name, state in bench.state.cameras.items():
        branches = {c.branch for c in state.catch_ups}
        rows = {t.key for t in state.tracks} | branches
        assert set(bench.tracker[name].rows) == rows, "no row is leaked or lost"
        assert branches == set(), "every branch arrives or is given up"
    replays_alike(bench)


def replays_alike(bench: Bench) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        writer = TraceWriter(path, CONFIG, CAMERAS)
        for event, commands in bench.log:
            writer.write_step(event, commands)
        writer.close()
        report = replay(path)
        assert report.first_difference == ""
        assert report.num_events == len(bench.log)
        again = Path(folder) / "again.jsonl"
        writer = TraceWriter(again, CONFIG, CAMERAS)
        state = State.start(CONFIG, CAMERAS)
        for event, commands in bench.log:
            state, repeated = step(state, event)
            assert repeated == commands
            writer.write_step(event, repeated)
        writer.close()
        assert again.read_bytes() == path.read_bytes()
        assert json.loads(path.read_text().splitlines()[0])["cameras"] == list(CAMERAS)


def test_the_bench_asks_what_it_says() -> None:
    bench = Fuzz(reasoner_s=0.2)
    bench.run(0.5)
    bench.ask("what?", camera=CAMERAS[0])
    assert [c.query.text for _, cs in bench.log for c in cs if isinstance(c, AskReasoner)]
