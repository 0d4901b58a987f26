# SPDX-License-Identifier: Apache-2.0
"""The two parts of the demo, as a user's program would run them: stream, point, ask, wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from foreseg.errors import StreamError
from foreseg.geometry import BoxXyxy
from foreseg_ros.demo.client import DemoClient
from foreseg_ros.demo.clips import Clip
from foreseg_ros.demo.processes import Child, Children
from foreseg_ros.demo.recording import Recorder, Recording, SeenAnswer
from foreseg_ros.demo.scene import DemoScene

NS = 1_000_000_000
FIRST_ASK_S = 1.6  # into the stream: what the kinematic reasoner looks back on
ASK_AGAIN_S = 9.0
LAST_ASK_BEFORE_END_S = 5.0  # so that masks of its answer are still seen
ASK_TIMEOUT_S = 20.0
START_TIMEOUT_S = 30.0
DRAWING_TIMEOUT_S = (
    180.0  # of a scene that is drawn before it is played, by software on a slow machine
)
POLL_S = 0.05
PROGRESS_S = 5.0
SETTLE_S = 4.0  # for the last masks and two rounds of diagnostics
BOX_AFTER_S = 1.0

Step = Callable[[], bool]  # of a plan: True when it is done, False to be tried again
MIDDLE = BoxXyxy(0.33, 0.25, 0.67, 0.75)  # of an unknown video, where no box is given


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """A part as it ran."""

    name: str
    recording: Recording
    sent: Mapping[int, int]  # stamp -> frame of the scene or file
    counters: Mapping[str, int]  # what the node counted during the part
    seconds: float  # from the first frame sent to the last
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Company:
    """Who takes part."""

    client: DemoClient
    node: Child
    children: Children
    folder: Path  # of logs


class Part:
    """Streams one source and does at given times what its plan says."""

    def __init__(
        self, name: str, company: Company, *, start_timeout_s: float = START_TIMEOUT_S
    ) -> None:
        self._start_timeout_s = start_timeout_s
        self.notes: list[str] = []
        self.recording = Recording()
        self._name = name
        self._client = company.client
        self._children = company.children
        self._node = company.node
        self._sent_path = company.folder / f"{name}-sent.jsonl"
        self._pending: list[tuple[str, Callable[[], SeenAnswer | None]]] = []
        self._began = 0.0

    def run(
        self, arguments: list[str], seconds: float, plan: list[tuple[float, Step]]
    ) -> PartResult:
        """Run to the end of the stream.

        Args:
            arguments: of the camera process.
            seconds: length of the stream.
            plan: what to do how many seconds after the first frame.

        Raises:
            StreamError: a process died, or no masks came.
        """
        before = self._counters_now()
        recorder = Recorder(self.recording)
        self._client.record(recorder)
        self._sent_path.unlink(missing_ok=True)
        camera = self._children.start(
            f"camera-{self._name}",
            "foreseg_ros.demo.camera",
            [*arguments, "--seconds", str(seconds), "--sent", str(self._sent_path)],
        )
        try:
            self._wait(lambda: bool(self.recording.latencies_ns), camera, "masks")
            self._stream(camera, seconds, plan)
            self._settle()
        finally:
            self._client.record(None)
            recorder.close()
            self._children.stop(camera)
        sent = self.sent()
        stamps = sorted(sent)
        after = self._client.counters()
        return PartResult(
            name=self._name,
            recording=self.recording,
            sent=sent,
            counters={key: value - before.get(key, 0) for key, value in after.items()},
            seconds=(stamps[-1] - stamps[0]) / NS if stamps else 0.0,
            notes=tuple(self.notes),
        )

    def ask(self, text: str) -> bool:
        """Ask; the answer is noted when it comes."""
        self.say(f"asks: {text}")
        self._pending.append((text, self._client.ask(text, ASK_TIMEOUT_S)))
        return True

    def say(self, text: str) -> None:
        """A line of progress."""
        print(f"  {self.elapsed_s:5.1f} s  {text}", flush=True)

    @property
    def elapsed_s(self) -> float:
        """Since the first masks."""
        return time.monotonic() - self._began if self._began else 0.0

    def sent(self) -> dict[int, int]:
        """Stamp to frame number, of what the camera has sent up to now."""
        if not self._sent_path.exists():
            return {}
        lines = self._sent_path.read_text(encoding="utf-8").split("\n")[:-1]  # whole lines only
        records = map(json.loads, lines)
        return {int(record["stamp_ns"]): int(record["index"]) for record in records}

    def newest_image_size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        stamp = max(list(self.recording.frames))
        image = self.recording.image(stamp)
        if image is None:
            msg = "no frame was received"
            raise StreamError(msg)
        return image.shape[1], image.shape[0]

    def _stream(self, camera: Child, seconds: float, plan: list[tuple[float, Step]]) -> None:
        todo = list(plan)
        self._began = time.monotonic()
        next_report_s = PROGRESS_S
        while camera.is_running:
            camera.check(may_end=True)
            self._node.check()
            elapsed_s = time.monotonic() - self._began
            if elapsed_s > seconds + START_TIMEOUT_S:
                msg = f"the camera process did not end {START_TIMEOUT_S:g} s after its time"
                raise StreamError(msg)
            if todo and todo[0][0] <= elapsed_s and todo[0][1]():
                todo.pop(0)
            self._collect()
            if elapsed_s >= next_report_s:
                next_report_s += PROGRESS_S
                self._report()
            time.sleep(POLL_S)
        camera.check(may_end=True)

    def _settle(self) -> None:
        """The last masks, the last answers, and diagnostics that know of both."""
        target = self._client.num_diagnostics + 2
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end and self._client.num_diagnostics < target:
            self._collect()
            time.sleep(POLL_S)
        end = time.monotonic() + ASK_TIMEOUT_S
        while self._pending and time.monotonic() < end:
            self._collect()
            time.sleep(POLL_S)

    def _collect(self) -> None:
        for item in list(self._pending):
            answer = item[1]()
            if answer is not None:
                self._pending.remove(item)
                self.recording.answers.append(answer)
                self.say(f"answer after {answer.latency_s:.2f} s: {answer.words}")
                if answer.rationale.strip():
                    self.say(f"  thought: {' '.join(answer.rationale.split())}")

    def _report(self) -> None:
        latencies = self.recording.latencies_ns
        p50_ms = float(np.median(list(latencies.values()))) / 1e6 if latencies else float("nan")
        newest = max(list(self.recording.tracks), default=0)
        tracks = self.recording.tracks.get(newest, ())
        states = ", ".join(f"{t.object_id} {t.state.name}" for t in tracks) or "no object"
        self.say(f"{len(latencies)} masks, {p50_ms:.0f} ms old; {states}")

    def _wait(self, condition: Callable[[], bool], camera: Child, what: str) -> None:
        end = time.monotonic() + self._start_timeout_s
        while not condition():
            camera.check()
            self._node.check()
            if time.monotonic() > end:
                msg = f"no {what} within {self._start_timeout_s:g} s after the camera started"
                raise StreamError(msg)
            time.sleep(POLL_S)

    def _counters_now(self) -> Mapping[str, int]:
        """Counters that know of everything before now."""
        target = self._client.num_diagnostics + 2
        end = time.monotonic() + SETTLE_S
        while time.monotonic() < end and self._client.num_diagnostics < target:
            time.sleep(POLL_S)
        return self._client.counters()


def run_scene(company: Company, *, scene: DemoScene, question: str, seconds: float) -> PartResult:
    """Part one: the simulated scene; the same question again and again, as its truth expires."""
    part = Part(scene.world.value, company, start_timeout_s=DRAWING_TIMEOUT_S)
    last_s = max(FIRST_ASK_S, seconds - LAST_ASK_BEFORE_END_S)
    times = np.arange(FIRST_ASK_S, last_s + 0.01, ASK_AGAIN_S)
    plan = [(float(at_s), lambda: part.ask(question)) for at_s in times]
    return part.run(["--scene", scene.name, "--seed", str(scene.seed)], seconds, plan)


def run_clip(company: Company, *, clip: Clip, seconds: float) -> PartResult:
    """Part two: a real video; an object by a box, then a question."""
    part = Part("video", company)

    boxed_s: list[float] = []

    def add_box() -> bool:
        sent = part.sent()
        later = [stamp for stamp, index in sent.items() if index >= clip.box_frame]
        if not later:
            return False
        width, height = part.newest_image_size()
        box = (clip.box or MIDDLE).scaled((width, height))
        problem = company.client.add_box(clip.object_id, box, min(later))
        where = ", ".join(f"{v:.0f}" for v in box)
        part.say(f"boxes {clip.object_id!r} at ({where}): {problem or 'tracked'}")
        if problem:
            part.notes.append(f"the box was refused: {problem}")
        boxed_s.append(part.elapsed_s)
        return True

    def ask() -> bool:
        return part.elapsed_s >= boxed_s[0] + FIRST_ASK_S and part.ask(clip.query)

    return part.run(
        ["--video", clip.source], seconds, [(BOX_AFTER_S, add_box), (BOX_AFTER_S, ask)]
    )
