# SPDX-License-Identifier: Apache-2.0
"""The worker with its real threads and the real reasoner process; events, never sleeps."""

from __future__ import annotations

import math
import os
import re
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.colour_tracker import ColourTracker
from tests.support.scene import WAIT_S, Recorder, box_of, image_of

from foreseg.clock import SystemClock
from foreseg.config import Config, HistoryConfig, ReasonerConfig, SchedulerConfig
from foreseg.dialogue import AnswerStatus, Query, QueryId
from foreseg.driving import reasoner_link, worker
from foreseg.driving.executor import Executor
from foreseg.driving.machine import Machine
from foreseg.driving.trace import TraceWriter, replay
from foreseg.driving.worker import Worker
from foreseg.errors import InputError
from foreseg.frames import DEFAULT_CAMERA, CameraId, Frame
from foreseg.geometry import BoxXyxy
from foreseg.pipeline.degradation import MachineReadings
from foreseg.pipeline.events import (
    Command,
    Event,
    FrameArrived,
    QueryAdded,
    Reply,
    TrackerFinished,
)
from foreseg.pipeline.state import State
from foreseg.pipeline.step import step
from foreseg.pipeline.tracks import NS
from foreseg.prompts import ObjectId, SpatialPrompt
from foreseg.tracker.base import FrameMasks, TrackKey

LEFT, RIGHT = CameraId("left"), CameraId("right")
CONFIG = Config(
    history=HistoryConfig(max_frames=60),
    scheduler=SchedulerConfig(warm_up_s=0.3),
    reasoner=ReasonerConfig(
        kind="tests.support.pointing_reasoner:make", nice=0, max_memory_mb=300, timeout_s=5.0
    ),
)
INTERVAL_NS = NS // 30


class GatedTracker(ColourTracker):
    """A tracker that can be made to wait, and to fail."""

    def __init__(self, max_objects: int) -> None:
        super().__init__(max_objects)
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()
        self.failures: list[Exception] = []

    def track(self, frame: Frame, keys: tuple[TrackKey, ...]) -> FrameMasks:  # type: ignore[override]
        self.reached.set()
        assert self.gate.wait(WAIT_S)
        if self.failures:
            raise self.failures.pop()
        return super().track(frame, keys)


class Rig:
    """A started worker, a camera under the test's control, and what came back."""

    def __init__(
        self,
        cameras: tuple[CameraId, ...] = (DEFAULT_CAMERA,),
        *,
        trace: TraceWriter | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.trackers: list[GatedTracker] = []
        self.output = Recorder()
        self.executor = Executor(CONFIG, cameras, self._make_tracker)
        self.worker = Worker(
            CONFIG, cameras, self.executor, self.output, trace=trace, machine=machine
        )
        self.cameras = cameras
        self.number = 0
        self.replies: list[Reply] = []
        self.worker.start()

    def _make_tracker(self, max_objects: int) -> GatedTracker:
        self.trackers.append(GatedTracker(max_objects))
        return self.trackers[-1]

    def frame(self, size_wh: tuple[int, int] = (64, 48), stamp_ns: int | None = None) -> None:
        """One frame of every camera, and wait until the loop has taken it."""
        for camera in self.cameras:
            stamp = self.number * INTERVAL_NS if stamp_ns is None else stamp_ns
            self.worker.submit_frame(camera, image_of(self.number, size_wh), stamp)
        self.number += 1
        wanted = self.number
        self.wait(lambda: self.num_taken() >= wanted * len(self.cameras), "the frame is taken")

    def frames_until(self, is_met: Callable[[], object], what: str) -> None:
        for _ in range(2000):
            if is_met():
                return
            self.frame()
        pytest.fail(f"not within 2000 frames: {what}")

    def num_taken(self) -> int:
        counters = self.counters()
        dropped = sum(
            counters.get(f"dropped_{cause}", 0)
            for cause in ("stamp_backward", "inbox_full", "bad_image", "disabled", "failed")
        )
        return counters.get("frames_in", 0) + dropped

    def counters(self) -> dict[str, int]:
        return dict(self.worker.snapshot().state.counters)

    def wait(self, is_met: Callable[[], object], what: str) -> None:
        """Wait for what only the state shows; the loop ticks, so look again at every tick."""
        end_ns = SystemClock().monotonic_ns() + round(WAIT_S * NS)
        tick = threading.Event()
        while not is_met():
            assert SystemClock().monotonic_ns() < end_ns, f"not within {WAIT_S} s: {what}"
            tick.wait(0.002)

    def take(self, reply: Reply) -> None:
        self.replies.append(reply)
        self.output.notify()

    def call(self, request: Callable[[Callable[[Reply], None]], None]) -> Reply:
        """Make a request and wait for its reply."""
        before = len(self.replies)
        request(self.take)
        self.output.wait_for(lambda: len(self.replies) > before, "a reply")
        return self.replies[-1]

    def add(self, name: str, *, camera: CameraId | None = None, stamp_ns: int = 0) -> Reply:
        prompt = SpatialPrompt(box=box_of(name, self.number - 1))
        where = camera or self.cameras[0]
        return self.call(
            lambda done: self.worker.requests.add_objects(
                where, [(ObjectId(name), prompt)], done, stamp_ns=stamp_ns
            )
        )

    def add_box(self, *corners: float) -> Reply:
        objects = [(ObjectId(""), SpatialPrompt(box=BoxXyxy(*corners)))]
        return self.call(
            lambda done: self.worker.requests.add_objects(DEFAULT_CAMERA, objects, done)
        )

    def ask(self, text: str = "which one?", query_id: str = "q") -> list[Reply]:
        """Ask; the list gets the reply."""
        got: list[Reply] = []
        query = Query(id=QueryId(query_id), text=text, camera=self.cameras[0])

        def take(reply: Reply) -> None:
            got.append(reply)
            self.output.notify()

        self.worker.requests.ask(query, take, wants_answer=True, timeout_s=WAIT_S)
        return got

    def wait_for_reasoner(self) -> None:
        self.wait(lambda: self.worker.snapshot().state.reasoner_up, "the reasoner is up")


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.worker.stop()
    assert made.worker.snapshot().failure == ""


@pytest.fixture
def stereo() -> Iterator[Rig]:
    made = Rig(cameras=(LEFT, RIGHT))
    yield made
    made.worker.stop()
    assert made.worker.snapshot().failure == ""


def test_frames_go_in_and_masks_come_out(rig: Rig) -> None:
    for _ in range(5):
        rig.frame()
    assert [m.frame.index for m in rig.output.masks] == list(range(5))
    assert rig.add("blue").label_indices == (1,)
    rig.frames_until(lambda: rig.output.masks[-1].tracks, "a track")
    last = rig.output.masks[-1]
    assert [t.object_id for t in last.tracks] == ["blue"]
    assert (last.label_map == 1).sum() == 100
    assert rig.worker.snapshot().received_to_published.count >= 6


def test_a_question_is_answered_and_its_object_tracked(rig: Rig) -> None:
    rig.wait_for_reasoner()
    got = rig.ask()
    rig.frames_until(lambda: got, "an answer")
    assert got[0].answer is not None
    assert (got[0].answer.status, got[0].answer.text) == (AnswerStatus.OK, "the red one")
    rig.frames_until(lambda: rig.output.masks[-1].tracks, "a track")
    assert rig.output.masks[-1].tracks[0].object_id == got[0].answer.object_ids[0]
    rig.wait(lambda: not rig.worker.snapshot().state.held, "the window is released")


@pytest.mark.fault
def test_a_killed_reasoner_fails_its_question_comes_back_and_masks_go_on(rig: Rig) -> None:
    rig.wait_for_reasoner()
    got = rig.ask("hang, please")
    rig.frames_until(lambda: rig.worker.snapshot().state.asking, "the question is put")
    pid = rig.worker.snapshot().reasoner_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    rig.output.wait_for(lambda: got, "the failure")
    assert got[0].answer is not None
    assert got[0].answer.status is AnswerStatus.FAILED
    assert "SIGKILL" in got[0].answer.reason
    before = len(rig.output.masks)
    rig.frame()
    rig.output.wait_for(lambda: len(rig.output.masks) > before, "masks go on")
    rig.wait_for_reasoner()
    assert rig.worker.snapshot().reasoner_pid != pid
    again = rig.ask()
    rig.frames_until(lambda: again, "an answer")
    assert again[0].success
    assert rig.counters()["reasoner_starts"] == 2


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("exit", "left with exit code 3"),
        ("hoard", "its ceiling is 300 MB; killed"),
        ("raise", "RuntimeError: no such weight"),
        ("garbage", "forty-two|str"),
    ],
)
def test_whatever_the_reasoner_does_masks_go_on_and_the_next_answer_comes(
    rig: Rig, fault: str, reason: str
) -> None:
    rig.wait_for_reasoner()
    failed = rig.ask(f"{fault}, please")
    rig.frames_until(lambda: failed, "the failure")
    answer = failed[0].answer
    assert answer is not None
    assert answer.status is AnswerStatus.FAILED
    assert re.search(reason, answer.reason), answer.reason
    before = len(rig.output.masks)
    rig.frame()
    rig.output.wait_for(lambda: len(rig.output.masks) > before, "masks go on")
    rig.wait_for_reasoner()
    again = rig.ask()
    rig.frames_until(lambda: again, "an answer")
    assert again[0].answer is not None
    assert again[0].answer.status is AnswerStatus.OK


@pytest.mark.fault
def test_frames_that_flood_the_inbox_are_dropped_and_counted(rig: Rig) -> None:
    rig.frame()
    is_held = threading.Event()
    go_on = threading.Event()

    def slow(_: object) -> None:
        is_held.set()
        assert go_on.wait(WAIT_S)

    rig.output.on_masks = slow
    image = image_of(0)
    rig.worker.submit_frame(DEFAULT_CAMERA, image, INTERVAL_NS)
    assert is_held.wait(WAIT_S)
    for number in range(2, 102):
        rig.worker.submit_frame(DEFAULT_CAMERA, image, number * INTERVAL_NS)
    rig.output.on_masks = lambda _: None
    go_on.set()
    rig.wait(lambda: rig.num_taken() == 102, "every frame is accounted for")
    counters = rig.counters()
    assert counters["dropped_inbox_full"] == 96
    assert counters["frames_in"] == 6
    rig.output.wait_for(
        lambda: rig.output.masks[-1].frame.stamp_ns == 101 * INTERVAL_NS, "the newest is shown"
    )


def test_a_slow_tracker_gets_the_newest_frame(rig: Rig) -> None:
    rig.frame()
    rig.add("blue")
    (tracker,) = rig.trackers
    tracker.gate.clear()
    tracker.reached.clear()
    rig.frame()
    assert tracker.reached.wait(WAIT_S)
    for _ in range(20):
        rig.frame()
    newest = rig.number - 1
    tracker.gate.set()
    rig.output.wait_for(lambda: rig.output.masks[-1].frame.index == newest, "the newest is shown")
    assert rig.counters()["dropped_tracker_busy"] == 19


def test_a_tracker_that_fails_once_is_asked_again(rig: Rig) -> None:
    rig.frame()
    rig.add("blue")
    rig.trackers[0].failures.append(RuntimeError("a kernel failed"))
    rig.frame()
    rig.wait(lambda: rig.counters().get("tracker_failures"), "the failure is counted")
    before = len(rig.output.masks)
    rig.frame()
    rig.output.wait_for(lambda: len(rig.output.masks) > before, "masks go on")
    assert [t.object_id for t in rig.output.masks[-1].tracks] == ["blue"]


def test_an_output_that_fails_does_not_stop_the_loop() -> None:
    rig = Rig()
    failures = [OSError("the disk is full")]

    def fail(_: object) -> None:
        if failures:
            raise failures.pop()

    rig.frame()
    rig.add("blue")
    rig.output.on_masks = fail
    rig.frames_until(lambda: not failures, "a failure")
    before = len(rig.output.masks)
    rig.frames_until(lambda: len(rig.output.masks) > before, "masks go on")
    assert rig.worker.snapshot().failure == "OSError: the disk is full"
    rig.worker.stop()


def test_objects_are_refused_with_the_reason(rig: Rig) -> None:
    assert "no frame of camera 'camera' has come yet" in rig.add_box(0, 0, 5, 5).message
    rig.frame()
    assert "no camera 'attic'" in rig.add("blue", camera=CameraId("attic")).message
    assert "with the stamp 77 ns" in rig.add("blue", stamp_ns=77).message
    assert "outside the image" in rig.add_box(500, 500, 600, 600).message
    assert "finite x0 < x1" in rig.add_box(5, 5, 5, 9).message
    assert (
        rig.call(lambda done: rig.worker.requests.remove_object(ObjectId("no"), done)).success
        is False
    )
    assert (
        rig.call(lambda done: rig.worker.requests.remove_query(QueryId("no"), done)).success
        is False
    )
    assert rig.add("blue").success
    assert rig.output.masks


def test_an_object_on_a_past_frame_is_found_by_its_stamp(rig: Rig) -> None:
    for _ in range(5):
        rig.frame()
    stamp_ns = rig.output.masks[2].frame.stamp_ns
    reply = rig.add("blue", stamp_ns=stamp_ns)
    assert (reply.success, reply.object_ids) == (True, ("blue",))


def test_a_frame_of_an_unknown_camera_is_the_callers_mistake(rig: Rig) -> None:
    with pytest.raises(InputError, match="no camera 'attic'; cameras are camera"):
        rig.worker.submit_frame(CameraId("attic"), image_of(0), 0)


def test_stamps_that_run_backward_are_dropped_and_a_restart_goes_on(rig: Rig) -> None:
    for _ in range(40):
        rig.frame()
    rig.add("blue")
    rig.frame(stamp_ns=38 * INTERVAL_NS)
    assert rig.counters()["dropped_stamp_backward"] == 1
    rig.frame(stamp_ns=0)
    rig.output.wait_for(lambda: rig.output.masks[-1].frame.stamp_ns == 0, "the restart is shown")
    assert rig.counters()["stream_restarts"] == 1
    assert [t.object_id for t in rig.output.masks[-1].tracks] == ["blue"]


def test_a_change_of_resolution_keeps_the_object(rig: Rig) -> None:
    rig.frame()
    rig.add("blue")
    rig.frame(size_wh=(128, 96))
    rig.output.wait_for(
        lambda: rig.output.masks[-1].label_map.shape == (96, 128), "the new size is shown"
    )
    assert [t.object_id for t in rig.output.masks[-1].tracks] == ["blue"]


def test_a_paused_worker_drops_frames_and_goes_on_when_enabled(rig: Rig) -> None:
    rig.frame()
    assert rig.call(lambda done: rig.worker.requests.enable(False, done)).success  # noqa: FBT003
    before = len(rig.output.masks)
    rig.frame()
    rig.frame()
    assert rig.counters()["dropped_disabled"] == 2
    assert len(rig.output.masks) == before
    assert rig.call(lambda done: rig.worker.requests.enable(True, done)).success  # noqa: FBT003
    rig.frame()
    rig.output.wait_for(lambda: len(rig.output.masks) > before, "masks go on")


@pytest.mark.fault
def test_two_cameras_are_served_apart_and_one_may_fall_silent(stereo: Rig) -> None:
    stereo.frame()
    stereo.add("blue", camera=LEFT)
    stereo.add("green", camera=RIGHT)
    seen = dict.fromkeys((LEFT, RIGHT), "")

    def look() -> bool:
        for masks in stereo.output.masks:
            for track in masks.tracks:
                seen[masks.frame.camera] = track.object_id
        return seen == {LEFT: "blue", RIGHT: "green"}

    stereo.frames_until(look, "both are tracked")
    stereo.cameras = (RIGHT,)
    before = len(stereo.output.masks)
    for number in range(stereo.number, stereo.number + 3):
        stereo.worker.submit_frame(RIGHT, image_of(number), number * INTERVAL_NS)
    stereo.output.wait_for(lambda: len(stereo.output.masks) > before, "the other camera goes on")


@pytest.mark.fault
def test_a_trace_that_cannot_be_written_costs_nothing_but_itself(tmp_path: Path) -> None:
    path = tmp_path / "trace.jsonl"
    rig = Rig(trace=TraceWriter(path, CONFIG, (DEFAULT_CAMERA,)))
    rig.frame()
    rig.add("blue")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:  # the disk is full
        rig.frames_until(lambda: rig.worker.snapshot().trace_gap, "the trace ends")
        num_masks = len(rig.output.masks)
        rig.frames_until(lambda: len(rig.output.masks) > num_masks + 5, "masks go on")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    num_masks = len(rig.output.masks)
    rig.frames_until(lambda: len(rig.output.masks) > num_masks + 5, "masks go on")
    assert [t.object_id for t in rig.output.masks[-1].tracks] == ["blue"]
    assert rig.worker.snapshot().failure == ""
    assert rig.worker.snapshot().trace_skipped > 10
    rig.worker.stop()
    assert "File too large" in replay(path).gap


class FailingMachine(Machine):
    """Raises at every other look."""

    def __init__(self) -> None:
        super().__init__(memory_file=Path("/nonexistent"), thermal_folder=Path("/nonexistent"))
        self.num_looks = 0

    def read(self) -> MachineReadings:
        self.num_looks += 1
        if self.num_looks % 2:
            raise EOFError
        return super().read()


def test_the_reasoners_thread_goes_on_and_is_told_after_whatever_it_meets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reasoner_link, "MACHINE_PERIOD_NS", NS // 50)
    machine = FailingMachine()
    rig = Rig(machine=machine)
    rig.wait_for_reasoner()
    pid = rig.worker.snapshot().reasoner_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    rig.wait(lambda: rig.counters().get("reasoner_starts") == 2, "it is started again")
    looks = machine.num_looks
    rig.wait(lambda: machine.num_looks > looks + 4, "the machine is looked at")
    (health,) = (t for t in rig.worker.snapshot().threads if t.name == "reasoner")
    assert health.is_alive
    assert health.num_failures >= 3
    assert health.last == "EOFError"
    got = rig.ask()
    rig.frames_until(lambda: got, "an answer")
    assert got[0].success
    rig.worker.stop()
    assert not any(t.is_alive for t in rig.worker.snapshot().threads)


def test_a_question_that_cannot_be_sent_fails_with_the_reason(rig: Rig) -> None:
    class Unpicklable(str):
        __slots__ = ()

    rig.wait_for_reasoner()
    got = rig.ask(Unpicklable("which one?"))
    rig.frames_until(lambda: got, "the failure")
    assert got[0].answer is not None
    assert "it could not be asked" in got[0].answer.reason
    again = rig.ask()
    rig.frames_until(lambda: again, "an answer")
    assert again[0].success


def test_a_request_that_fails_in_the_loop_is_replied_to() -> None:
    rig = Rig()
    rig.frame()
    odd = [(ObjectId("x"), "no prompt")]
    reply = rig.call(
        lambda done: rig.worker.requests.add_objects(DEFAULT_CAMERA, odd, done)  # type: ignore[arg-type]
    )
    assert not reply.success
    assert reply.message.startswith("AttributeError: ")
    assert rig.add("blue").success
    assert rig.worker.snapshot().num_failures == 1
    rig.worker.stop()


@pytest.mark.parametrize("event", [TrackerFinished, QueryAdded, FrameArrived])
def test_an_event_that_the_step_raises_for_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, event: type
) -> None:
    failures = [ZeroDivisionError("a bug")]

    def faulty(state: State, taken: Event) -> tuple[State, tuple[Command, ...]]:
        if isinstance(taken, event) and failures:
            raise failures.pop()
        return step(state, taken)

    rig = Rig()
    rig.frame()
    rig.add("blue")
    rig.wait_for_reasoner()
    monkeypatch.setattr(worker, "step", faulty)
    first = rig.ask(query_id="first")
    rig.frames_until(lambda: not failures, "the failure")
    if event is QueryAdded:
        rig.output.wait_for(lambda: first, "the failed reply")
        assert (first[0].success, first[0].message) == (False, "ZeroDivisionError: a bug")
    else:
        rig.frames_until(lambda: first, "an answer")
    before = len(rig.output.masks)
    rig.frames_until(lambda: len(rig.output.masks) > before + 3, "masks go on")
    second = rig.ask(query_id="second")
    rig.frames_until(lambda: second, "an answer")
    assert second[0].success
    rig.worker.stop()


def test_a_wait_that_never_ends_is_refused(rig: Rig) -> None:
    query = Query(id=QueryId("q"), text="which one?", camera=DEFAULT_CAMERA)
    for timeout_s in (math.inf, math.nan, -1.0):
        with pytest.raises(InputError, match="timeout_s wants a finite number"):
            rig.worker.requests.ask(query, rig.take, wants_answer=True, timeout_s=timeout_s)


def test_stopping_joins_every_thread_leaves_no_process_and_refuses_what_is_open() -> None:
    rig = Rig()
    rig.wait_for_reasoner()
    pid = rig.worker.snapshot().reasoner_pid
    assert pid is not None
    got = rig.ask()
    rig.frame()
    rig.worker.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("foreseg-")]
    assert rig.worker.snapshot().reasoner_pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert got
    assert rig.call(rig.worker.requests.reset).message == "foreseg is stopping"
    rig.worker.stop()


def test_stopping_at_once_after_the_start_is_clean() -> None:
    rig = Rig()
    rig.worker.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("foreseg-")]


def test_a_reasoner_that_cannot_be_built_is_reported_and_masks_go_on() -> None:
    config = replace(CONFIG, reasoner=ReasonerConfig(kind="no_such_kind"))
    output = Recorder()
    executor = Executor(config, (DEFAULT_CAMERA,), ColourTracker)
    worker = Worker(config, (DEFAULT_CAMERA,), executor, output)
    worker.start()
    try:
        tick = threading.Event()
        for _ in range(10_000):
            if worker.snapshot().state.counters.get("reasoner_stops"):
                break
            tick.wait(0.002)
        assert "no_such_kind" in worker.snapshot().state.reasoner_reason
        worker.submit_frame(DEFAULT_CAMERA, image_of(0), 0)
        output.wait_for(lambda: output.masks, "masks")
    finally:
        worker.stop()
