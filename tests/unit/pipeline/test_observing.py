# SPDX-License-Identifier: Apache-2.0
"""The window of an answer, segmented beside the live tracks."""

from __future__ import annotations

import pytest
from tests.support.bench import NS, Bench, still

from foreseg.config import CatchUpConfig, Config
from foreseg.dialogue import Answer, AnswerDone, AnswerPart, AnswerStatus, TargetsFound
from foreseg.frames import FrameRef
from foreseg.geometry import BoxXyxy
from foreseg.masks import mask_from_box, rle_from_mask
from foreseg.pipeline.events import AskReasoner, PromptStep, RunTracker, TrackerFailed, TrackStep
from foreseg.pipeline.state import JobKind
from foreseg.pipeline.tracks import TrackState
from foreseg.prompts import SpatialPrompt

NUM_FRAMES = 6  # of a window


def rolling(index: int) -> BoxXyxy:
    x = 5 + index % 60
    return BoxXyxy(x, 20, x + 12, 32)


class Middle(Bench):
    """Answers about the third of its frames, with these targets."""

    def __init__(self, *targets: str, **fields: object) -> None:
        world = {"ball": rolling, "cup": still(10, 45), "can": still(60, 45)}
        super().__init__(world, num_held=NUM_FRAMES, **fields)  # type: ignore[arg-type]
        self.targets = targets or ("ball",)
        self.parts = self._middle
        self.windows: list[tuple[FrameRef, ...]] = []

    def _middle(self, command: AskReasoner, frames: tuple[FrameRef, ...]) -> list[AnswerPart]:
        del command
        self.windows.append(frames)
        keyframe = frames[2].index
        boxes = (self.world[name](int(keyframe)) for name in self.targets)
        prompts = tuple(SpatialPrompt(box=box) for box in boxes if box is not None)
        return [TargetsFound(keyframe_index=keyframe, prompts=prompts), AnswerDone(tokens=3)]

    def truth(self, index: int) -> object:
        mask = sum(
            mask_from_box(box, (96, 64))
            for name in self.targets
            if (box := self.world[name](index)) is not None
        )
        return rle_from_mask(mask > 0)  # type: ignore[operator]

    def observed(self) -> Answer:
        (answer,) = (answer for answer in self.answers if answer.observed)
        return answer

    @property
    def observing_jobs(self) -> list[RunTracker]:
        return [
            command
            for _, commands in self.log
            for command in commands
            if isinstance(command, RunTracker)
            and any(
                "observed" in str(step)
                for step in command.job.steps
                if isinstance(step, (PromptStep, TrackStep))
            )
        ]


@pytest.mark.parametrize("targets", [("ball",), ("ball", "cup", "can")])
def test_the_window_is_segmented_backward_and_forward_from_the_keyframe(
    targets: tuple[str, ...],
) -> None:
    bench = Middle(*targets, reasoner_s=0.5)
    bench.run(1.1)
    request = bench.ask(want_observed_masks=True)
    bench.run(4.0)
    answer = bench.observed()
    window = bench.windows[0]
    assert [o.frame_index for o in answer.observed] == [frame.index for frame in window]
    for observed in answer.observed:
        assert observed.mask == bench.truth(int(observed.frame_index))
    reply = bench.replies[request].answer
    assert reply is not None
    assert reply.observed == answer.observed
    assert answer.keyframe_index == window[2].index
    assert bench.state.followed == ()
    assert bench.state.queries == ()
    assert bench.held == set(), "the window is released"
    rows = {track.key for track in bench.state.cameras[answer.camera].tracks}
    bench.run(0.2)
    assert set(bench.tracker[answer.camera].rows) == rows


def test_it_walks_away_from_the_keyframe_one_frame_a_job() -> None:
    bench = Middle(reasoner_s=0.5)
    bench.run(1.1)
    bench.ask(want_observed_masks=True)
    bench.run(4.0)
    seen = [
        [int(s.frame_index) for s in command.job.steps if isinstance(s, TrackStep)]
        for command in bench.observing_jobs
    ]
    first = int(bench.windows[0][0].index)
    assert [[i - first for i in job] for job in seen] == [[2], [3], [4], [5], [], [1], [0]]


def test_an_answer_is_published_before_its_window_is_segmented() -> None:
    bench = Middle(reasoner_s=0.5, tracker_s=0.03)
    bench.run(1.1)
    request = bench.ask(want_observed_masks=True)
    bench.run(0.8)
    (answer,) = bench.answers
    assert (answer.status, answer.observed) == (AnswerStatus.OK, ())
    assert request not in bench.replies
    assert bench.masks[-1].tracks, "and tracked"
    bench.run(5.0)
    assert bench.replies[request].success


@pytest.mark.parametrize("tracker_s", [0.01, 0.02, 0.03, 0.05])
def test_live_tracks_keep_their_rate_while_a_window_is_segmented(tracker_s: float) -> None:
    config = Config(catch_up=CatchUpConfig(budget_s=0.0))  # no catch-up takes a share
    bench = Middle(reasoner_s=0.2, tracker_s=tracker_s, config=config)
    bench.num_held = 30
    bench.run(1.1)
    bench.point("cup")
    bench.run(2.0)
    before = len(bench.masks)
    bench.run(2.0)
    idle = (len(bench.masks) - before) / 2.0
    bench.ask(want_observed_masks=True)
    began, before = bench.now_ns, len(bench.masks)
    while not any(answer.observed for answer in bench.answers):
        bench.run(0.1)
    rate = (len(bench.masks) - before) / ((bench.now_ns - began) / NS)
    assert rate >= 0.75 * idle, (rate, idle)  # 80 %, less the hop itself


def test_catch_ups_come_first() -> None:
    bench = Middle(reasoner_s=1.0, tracker_s=0.008)
    bench.run(1.5)
    bench.ask(want_observed_masks=True)
    bench.run(1.1)
    while bench.state.cameras[bench.asks[0].query.camera].catch_ups:
        running = bench.state.running
        assert running is None or running.kind is not JobKind.OBSERVE
        bench.run(0.005)
    assert not any(answer.observed for answer in bench.answers)
    bench.run(3.0)
    assert bench.observed()
    assert bench.masks[-1].tracks[0].state is TrackState.TRACKED


def test_a_newer_answer_of_the_query_supersedes_the_window_of_the_older() -> None:
    bench = Middle(reasoner_s=0.1, tracker_s=0.031)
    bench.num_held = 30
    bench.run(1.1)
    bench.ask(period_s=1.0, want_observed_masks=True)
    bench.run(6.0)
    assert bench.count("observations_superseded") >= 3
    assert len([f for f in bench.state.followed if f.observation]) <= 1
    assert len(bench.held) <= 2
    bench.forget()
    bench.run(1.0)
    assert bench.held == set()
    assert not any("observed" in key for key in bench.tracker[bench.asks[0].query.camera].rows)


def test_a_removed_query_stops_the_work_on_its_window() -> None:
    bench = Middle(reasoner_s=0.5, tracker_s=0.03)
    bench.num_held = 30
    bench.run(1.1)
    request = bench.ask(want_observed_masks=True)
    bench.run(1.0)
    assert bench.state.followed
    bench.forget()
    assert bench.replies[request].answer is not None
    assert bench.replies[request].answer.status is AnswerStatus.STALE
    num_jobs = len(bench.observing_jobs)
    bench.run(2.0)
    assert len(bench.observing_jobs) <= num_jobs + 1
    assert bench.held == set()


def test_who_waited_long_enough_gets_the_answer_without_the_masks() -> None:
    bench = Middle(reasoner_s=0.5, tracker_s=0.03)
    bench.num_held = 30
    bench.run(1.1)
    request = bench.ask(want_observed_masks=True, timeout_s=1.0)
    bench.run(1.1)
    reply = bench.replies[request]
    assert reply.success
    assert reply.answer is not None
    assert reply.answer.observed == ()
    assert "no time left" in reply.answer.reason
    assert bench.held == set()


def test_a_step_that_breaks_off_costs_the_masks_and_not_the_answer() -> None:
    bench = Middle(reasoner_s=0.5, tracker_s=0.02)
    bench.run(1.1)
    request = bench.ask(want_observed_masks=True)
    while bench.state.running is None or bench.state.running.kind is not JobKind.OBSERVE:
        bench.run(0.005)
    job_id = bench.state.running.job.id
    bench.send(TrackerFailed(job_id=job_id, reason="broke", is_evicted=False, at_ns=bench.now_ns))
    bench.run(1.0)
    reply = bench.replies[request]
    assert reply.success
    assert "broke" in reply.message
    assert bench.count("observations_failed") == 1
    assert bench.masks[-1].tracks


def test_a_window_is_segmented_to_its_end_when_the_camera_stops() -> None:
    bench = Middle(reasoner_s=0.5, tracker_s=0.03)
    bench.num_held = 30
    bench.run(1.1)
    bench.ask(want_observed_masks=True)
    bench.run(0.7)
    for _ in range(200):
        bench.tick()
        bench.work(0.05)
    assert len(bench.observed().observed) == 30
