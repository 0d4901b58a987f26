# SPDX-License-Identifier: Apache-2.0
"""Frames with pixels through history, pipeline, tracker and reasoner, on a simulated clock."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.colour_tracker import ColourTracker
from tests.support.reasoners import sharp
from tests.support.scene import SIZE_WH, Recorder, box_of, image_of, truth_of

from foreseg.config import CatchUpConfig, Config, HistoryConfig, TrackerConfig
from foreseg.dialogue import (
    Answer,
    AnswerDone,
    AnswerStatus,
    FramesWanted,
    Query,
    QueryId,
    TargetsFound,
)
from foreseg.driving.executor import Executor
from foreseg.driving.player import Latencies, Player
from foreseg.driving.trace import TraceWriter, encode, replay
from foreseg.frames import DEFAULT_CAMERA, CameraId, FrameIndex, FrameWindow
from foreseg.history.windows import RecentWindow, UniformWindow, WindowPolicy
from foreseg.kinematic.reasoner import kinematic_reasoner
from foreseg.masks import mask_from_rle, mask_iou
from foreseg.pipeline.events import AskId
from foreseg.pipeline.state import State
from foreseg.pipeline.tracks import NS, TrackState
from foreseg.prompts import SpatialPrompt
from foreseg.reasoner.base import AnswerStream, Reasoner

CAMERA_HZ = 30
INTERVAL_NS = NS // CAMERA_HZ


def test_frames_to_decode_come_larger_than_those_to_look_at() -> None:
    told: list[str] = []
    for side in (800, 400):
        player, output = _playing(sharp({}))
        player.ask(Query(id=QueryId("q"), text="which?"))
        for number in range(60):
            image = image_of(0, (side, side * 3 // 4))
            player.feed(DEFAULT_CAMERA, image, number * INTERVAL_NS)
        player.settle()
        (answer,) = output.answers
        told.append(answer.reason)
    assert told == [
        "(336, 448, 3) and (480, 640, 3) of (800, 600)",
        "(300, 400, 3) and (300, 400, 3) of (400, 300)",
    ]


def _playing(reasoner: Reasoner) -> tuple[Player, Recorder]:
    config = Config()
    executor = Executor(config, (DEFAULT_CAMERA,), ColourTracker)
    output = Recorder()
    player = Player(
        State.start(config, (DEFAULT_CAMERA,)),
        executor,
        output,
        reasoner=reasoner,
        latencies=Latencies(tracker_ns=1_000_000, reasoner_ns=1_000_000),
    )
    return player, output


class Pointer:
    """A reasoner that points at the red square on the first frame of its window."""

    def __init__(self, policy: WindowPolicy, wanted: tuple[int, ...] = ()) -> None:
        self._policy, self._wanted = policy, wanted

    @property
    def window_policy(self) -> WindowPolicy:
        return self._policy

    def ask(self, query: Query, window: FrameWindow) -> AnswerStream:
        del query
        keyframe = window.frames[0].index
        if self._wanted:
            more = yield FramesWanted(indices=tuple(FrameIndex(i) for i in self._wanted))
            assert more is not None
            keyframe = more.frames[0].index
        else:
            yield FramesWanted(indices=())
        prompt = SpatialPrompt(box=box_of("red", int(keyframe)))
        yield TargetsFound(keyframe_index=keyframe, prompts=(prompt,), text="the red one")
        yield AnswerDone(tokens=5)


class Run:
    """One player with its parts."""

    def __init__(
        self,
        *,
        config: Config | None = None,
        reasoner: Reasoner | None = None,
        reasoner_s: float = 0.1,
        tracker_ms: float = 10.0,
        trace: Path | None = None,
        cameras: tuple[CameraId, ...] = (DEFAULT_CAMERA,),
    ) -> None:
        config = config or Config()
        self.trackers: list[ColourTracker] = []
        self.output = Recorder()
        self.executor = Executor(config, cameras, self._make_tracker)
        self.writer = None if trace is None else TraceWriter(trace, config, cameras)
        self.player = Player(
            State.start(config, cameras),
            self.executor,
            self.output,
            reasoner=reasoner or Pointer(RecentWindow(num_frames=4)),
            latencies=Latencies(
                tracker_ns=round(tracker_ms * 1e6), reasoner_ns=round(reasoner_s * NS)
            ),
            trace=self.writer,
        )
        self.number = 0

    def _make_tracker(self, max_objects: int) -> ColourTracker:
        self.trackers.append(ColourTracker(max_objects))
        return self.trackers[-1]

    def feed(self, seconds: float, size_wh: tuple[int, int] = SIZE_WH, without: str = "") -> None:
        for _ in range(round(seconds * CAMERA_HZ)):
            image = image_of(self.number, size_wh, without)
            self.player.feed(DEFAULT_CAMERA, image, self.number * INTERVAL_NS)
            self.number += 1

    def count(self, name: str) -> int:
        return self.player.state.counters.get(name, 0)

    def answer(self, request: object) -> Answer:
        reply = self.player.reply(request)  # type: ignore[arg-type]
        assert reply is not None
        assert reply.answer is not None
        return reply.answer

    def j_of_red(self) -> float:
        """Mean over the frames that show a track that is trusted."""
        scores = [
            mask_iou(m.label_map == m.tracks[0].index, truth_of("red", int(m.frame.index)))
            for m in self.output.masks
            if m.tracks and m.tracks[0].state is TrackState.TRACKED
        ]
        assert scores
        return float(np.mean(scores))


QUERY = Query(id=QueryId("q"), text="which one rolls?")


@pytest.mark.parametrize("reasoner_s", [0.1, 2.0, 8.0])
def test_a_late_answer_is_tracked_whatever_its_latency(reasoner_s: float) -> None:
    run = Run(reasoner_s=reasoner_s)
    run.feed(1.5)
    request = run.player.ask(QUERY)
    run.feed(reasoner_s + 4.0)
    answer = run.answer(request)
    assert (answer.status, answer.text, answer.tokens) == (AnswerStatus.OK, "the red one", 5)
    assert answer.latency_s == pytest.approx(reasoner_s, abs=0.02)
    assert run.j_of_red() > 0.99
    assert run.count("catch_ups_agreed") == 1
    assert run.trackers[0].keys == ("object-1",)
    assert run.executor.histories[DEFAULT_CAMERA].counters.held == 0


def test_an_answer_slower_than_the_ring_still_finds_its_keyframe() -> None:
    config = Config(history=HistoryConfig(max_frames=60), catch_up=CatchUpConfig(budget_s=30.0))
    run = Run(config=config, reasoner_s=10.0)
    run.feed(1.5)
    request = run.player.ask(QUERY)
    run.feed(14.0)
    answer = run.answer(request)
    assert answer.status is AnswerStatus.OK
    assert answer.keyframe_index is not None
    assert run.count("catch_up_frames_evicted") > 200
    assert run.j_of_red() > 0.99
    assert run.executor.histories[DEFAULT_CAMERA].counters.held == 0


def test_a_keyframe_that_is_no_longer_at_hand_is_a_clean_result() -> None:
    config = Config(history=HistoryConfig(max_frames=40, sparse_frames=1))
    run = Run(config=config, reasoner=Pointer(RecentWindow(num_frames=2), wanted=(3, 70, 71)))
    run.feed(3.0)
    request = run.player.ask(QUERY)
    run.feed(1.0)
    answer = run.answer(request)
    assert (answer.status, answer.keyframe_index) == (AnswerStatus.OK, 70)
    gone = run.player.add_object(DEFAULT_CAMERA, SpatialPrompt(box=box_of("blue", 0)))
    run.feed(0.2)
    reply = run.player.reply(gone)
    assert reply is not None
    assert reply.success


@pytest.mark.parametrize(
    ("wanted", "given"),
    [((33,), [31]), ((40, 47, 80), [31, 62, 80]), ((31, 29, 30), [31]), ((10_000,), [92])],
)
def test_a_wanted_frame_that_is_gone_gives_way_to_the_nearest_under_its_own_index(
    wanted: tuple[int, ...], given: list[int]
) -> None:
    run = Run(config=Config(history=HistoryConfig(max_frames=20)))
    run.feed(3.1)  # frames 73 to 92 at full rate; 0, 31, 62 in the sparse tier
    run.executor.take_window(AskId(1), QUERY, UniformWindow(num_frames=2))
    window = run.executor.more_frames(AskId(1), [FrameIndex(i) for i in wanted])
    assert list(window.indices) == given
    for frame in window.frames:
        full = image_of(int(frame.index), SIZE_WH, "")
        assert np.array_equal(frame.image, full), "the pixels are those of the index it has"


def test_a_cut_to_another_scene_asks_a_standing_query_again() -> None:
    run = Run(reasoner_s=0.2)
    run.feed(1.5)
    run.player.ask(replace(QUERY, period_s=60.0))
    run.feed(4.0)
    assert run.count("queries_asked") == 1, "two squares that move are the same scene"
    rng = np.random.default_rng(0)
    cut = np.kron(rng.choice([0, 250], (6, 8, 1)), np.ones((20, 20, 3))).astype(np.uint8)
    for number in range(run.number, run.number + 60):
        run.player.feed(DEFAULT_CAMERA, cut, number * INTERVAL_NS)
    assert run.count("asked_early_scene_changed") == 1
    assert run.count("queries_asked") == 2, "once: it was then asked about the new scene"


def test_a_window_of_every_frame_leaves_the_tracker_its_own() -> None:
    config = Config(history=HistoryConfig(max_frames=20, max_held_frames=4))
    run = Run(config=config, reasoner=Pointer(RecentWindow(num_frames=19)), reasoner_s=1.0)
    run.feed(1.2)
    run.player.add_object(DEFAULT_CAMERA, SpatialPrompt(box=box_of("blue", run.number - 1)))
    run.player.ask(QUERY)
    before = len(run.output.masks)
    run.feed(0.9)
    assert run.count("tracker_failures") == 0
    assert len(run.output.masks) - before >= 25


def test_an_answer_about_a_running_object_leaves_no_hole_in_its_mask() -> None:
    run = Run(reasoner_s=0.5)
    run.feed(1.5)
    run.player.ask(QUERY)
    run.feed(2.0)
    before = len(run.output.masks)
    run.player.ask(QUERY)
    run.feed(2.0)
    assert run.count("answers_matched") == 1
    for masks in run.output.masks[before:]:
        assert [t.object_id for t in masks.tracks] == ["object-1"]
        truth = truth_of("red", int(masks.frame.index))
        assert mask_iou(masks.label_map == masks.tracks[0].index, truth) > 0.99


def test_objects_keep_their_labels_and_the_map_agrees_with_each_track() -> None:
    run = Run()
    run.feed(0.5)
    for name in ("red", "blue", "green"):
        run.player.add_object(
            DEFAULT_CAMERA, SpatialPrompt(box=box_of(name, run.number - 1)), name
        )
    run.feed(1.0)
    last = run.output.masks[-1]
    assert {t.object_id: t.index for t in last.tracks} == {"red": 1, "blue": 2, "green": 3}
    for track in last.tracks:
        assert track.mask is not None
        assert np.array_equal(last.label_map == track.index, mask_from_rle(track.mask))
        assert mask_iou(mask_from_rle(track.mask), truth_of(track.object_id, run.number - 1)) > 0.9


def published(run: Run) -> str:
    masks = [
        (encode(m.frame), m.label_map.tobytes().hex(), [encode(t) for t in m.tracks])
        for m in run.output.masks
    ]
    return json.dumps([masks, [encode(a) for a in run.output.answers]])


def full_run(trace: Path) -> Run:
    run = Run(reasoner=kinematic_reasoner({}), reasoner_s=1.3, tracker_ms=45.0, trace=trace)
    run.feed(1.5)
    run.player.ask(Query(id=QueryId("q"), text="what moves?", period_s=2.0))
    run.feed(1.0)
    run.player.add_object(DEFAULT_CAMERA, SpatialPrompt(box=box_of("blue", run.number - 1)), "b")
    run.feed(2.0, without="blue")
    run.player.remove_query(QueryId("q"))
    run.feed(2.0)
    run.player.settle()
    assert run.writer is not None
    run.writer.close()
    return run


def test_with_given_latencies_a_run_repeats_exactly(tmp_path: Path) -> None:
    first, second = full_run(tmp_path / "1.jsonl"), full_run(tmp_path / "2.jsonl")
    assert published(first) == published(second)
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert replay(tmp_path / "1.jsonl").first_difference == ""


def test_a_trace_replays_where_no_engine_is_installed(tmp_path: Path) -> None:
    full_run(tmp_path / "trace.jsonl")
    code = (
        "import sys\n"
        "for name in ('onnxruntime', 'cv2', 'torch', 'rclpy'): sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from foreseg.driving.trace import replay\n"
        "report = replay(Path(sys.argv[1]))\n"
        "print(report.num_events, report.num_commands, repr(report.first_difference))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "trace.jsonl")],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    num_events, num_commands, difference = done.stdout.split(maxsplit=2)
    assert int(num_events) > 300
    assert int(num_commands) > 200
    assert difference.strip() == "''"


def test_a_change_of_resolution_goes_on_with_the_same_object() -> None:
    run = Run()
    run.feed(0.5)
    run.player.add_object(DEFAULT_CAMERA, SpatialPrompt(box=box_of("blue", 0)), "b")
    run.feed(0.5)
    run.feed(0.5, size_wh=(128, 96))
    last = run.output.masks[-1]
    assert last.label_map.shape == (96, 128)
    assert [t.object_id for t in last.tracks] == ["b"]
    truth = truth_of("blue", run.number - 1, (128, 96))
    assert mask_iou(last.label_map == 1, truth) > 0.9


def test_an_answer_from_before_a_change_of_resolution_is_still_tracked() -> None:
    run = Run(reasoner_s=1.0)
    run.feed(1.5)
    request = run.player.ask(QUERY)
    run.feed(0.5)
    run.feed(3.0, size_wh=(128, 96))
    assert run.answer(request).status is AnswerStatus.OK
    last = run.output.masks[-1]
    truth = truth_of("red", int(last.frame.index), (128, 96))
    assert mask_iou(last.label_map == last.tracks[0].index, truth) > 0.9


def test_a_stream_that_starts_anew_keeps_its_tracks_and_its_pace() -> None:
    run = Run()
    run.feed(3.0)
    run.player.add_object(DEFAULT_CAMERA, SpatialPrompt(box=box_of("blue", 0)), "b")
    run.feed(0.5)
    before = len(run.output.masks)
    for number in range(60):  # the file from its start
        run.player.feed(DEFAULT_CAMERA, image_of(number), number * INTERVAL_NS)
    assert run.count("stream_restarts") == 1
    assert len(run.output.masks) - before >= 58
    assert [t.object_id for t in run.output.masks[-1].tracks] == ["b"]


def test_a_stamp_that_runs_slightly_backward_is_dropped_and_counted() -> None:
    run = Run()
    run.feed(1.0)
    assert run.player.feed(DEFAULT_CAMERA, image_of(0), (run.number - 3) * INTERVAL_NS) is None
    run.feed(0.5)
    assert run.count("dropped_stamp_backward") == 1
    assert run.count("frames_in") == run.number


@pytest.mark.parametrize(
    "image",
    [np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)],
    ids=["no pixels", "grey", "float"],
)
def test_an_unusable_image_is_dropped_and_counted(image: np.ndarray) -> None:
    run = Run()
    assert run.player.feed(DEFAULT_CAMERA, image, 0) is None
    assert run.count("dropped_bad_image") == 1
    run.feed(0.1)
    assert run.output.masks


def test_settling_asks_a_standing_query_once_more_and_ends() -> None:
    run = Run(reasoner_s=3.0)
    run.feed(1.5)
    run.player.ask(Query(id=QueryId("q"), text="and now?", period_s=1.0))
    run.feed(0.5)
    run.player.settle(limit_s=20.0)
    assert len(run.output.answers) == 2  # of the start, and of the last frame
    assert run.player.is_idle
    run.feed(1.0)
    assert run.output.masks[-1].frame.index >= run.number - 2


def test_a_question_over_the_whole_past_finds_the_sparse_frames() -> None:
    run = Run(config=Config(history=HistoryConfig(max_frames=30, sparse_max_side_px=32)),
              reasoner=Pointer(UniformWindow(num_frames=5)), reasoner_s=0.5)  # fmt: skip
    run.feed(6.0)
    request = run.player.ask(QUERY)
    run.feed(2.0)
    answer = run.answer(request)
    assert (answer.status, answer.keyframe_index) == (AnswerStatus.OK, 0)
    last = run.output.masks[-1]
    assert mask_iou(last.label_map == 1, truth_of("red", int(last.frame.index))) > 0.9


def test_memory_does_not_grow_with_the_stream() -> None:
    config = Config(
        history=HistoryConfig(max_frames=30, sparse_frames=4), tracker=TrackerConfig(max_tracks=2)
    )
    run = Run(config=config, reasoner_s=0.3)
    run.output.publish_masks = lambda _: None  # type: ignore[method-assign]
    run.output.publish_answer = lambda _: None  # type: ignore[method-assign]
    run.feed(1.5)
    run.player.ask(Query(id=QueryId("q"), text="which?", period_s=1.0))
    run.feed(10.0)
    tracemalloc.start()
    run.feed(2.0)
    start = tracemalloc.get_traced_memory()[0]
    run.feed(30.0)
    end = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert end - start < 60_000
