# SPDX-License-Identifier: Apache-2.0
"""R_u over a real tracker and real workers: true boxes near 1, wrong ones low, the rest by rule."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytest.importorskip("cv2", reason="the tracker reads frames with OpenCV")
pytest.importorskip("onnxruntime", reason="the nano tracker runs on ONNX Runtime")
pytest.importorskip("scipy", reason="boxes are matched by scipy")

from tests.support.episodes import Squares, make_episode

from foreseg.config import TrackerConfig
from foreseg.errors import ConfigError, InputError
from foreseg.geometry import BoxXyxy
from foreseg.masks import MaskRle, mask_from_rle, mask_iou
from foreseg.methods.grammar import Form
from foreseg.methods.grounding import View
from foreseg.methods.veason import VeasonMethod, VeasonSettings
from foreseg_evaluation.episode import Episode, QuestionKind, TruthSpan
from foreseg_training.samples import Filtered, Sample, SampleDrawer
from foreseg_training.tracking import (
    Tracked,
    TrackingHere,
    TrackTask,
    tracking_pool,
    write_videos,
)
from foreseg_training.vlm.rewards_tracked import Shown, shown_of
from foreseg_training.vlm.rewards_veason import VeasonRewards, truth_of
from foreseg_training.worker_pool import WorkerPool

METHOD = VeasonMethod(VeasonSettings(num_frames=4, view=View(image_side_px=80)))  # half the size
MOVING = make_episode(name="moving/0", media=Squares(step=3))
BOTH = make_episode(name="both/0", spans=(TruthSpan(first=0, end=20, object_ids=("red", "blue")),))
NOTHING = make_episode(name="nothing/0", kind=QuestionKind.NO_TARGET)
EPISODES = (MOVING, BOTH, NOTHING)


def drawn(episode: Episode) -> Sample:
    drawer = SampleDrawer(num_frames=4, label_offset=50)
    return next(drawer.draw([episode], 0, Filtered()))


def said(label: int, boxes: Sequence[Sequence[float]]) -> str:
    answer = f'{{"keyframe_timestamp": {label}, "bbox_2d_list": {[list(b) for b in boxes]}}}'
    return f"<think>It moves.</think><answer>{answer}</answer>"


class Prompt:
    """An episode's prompt, as the columns of a row."""

    def __init__(self, episode: Episode) -> None:
        sample = drawn(episode)
        self.truth = truth_of(METHOD, sample)
        self.shown = shown_of(METHOD, sample, episode)
        self.labels = list(self.shown.positions)

    def boxes(self, label: int) -> list[list[float]]:
        return [list(box) for box in self.truth.boxes[label]]

    def scores(self, rewards: VeasonRewards, *texts: str) -> list[float | None]:
        (function,), _ = rewards.functions({"consistency": 1.0})
        count = len(texts)
        return function(
            list(texts), truth=[self.truth.to_json()] * count, shown=[self.shown.to_json()] * count
        )


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerPool[TrackTask, Tracked]]:
    videos = write_videos(tmp_path_factory.mktemp("run") / "videos.pickle", EPISODES)
    with tracking_pool(videos, TrackerConfig(), num_workers=1, task_timeout_s=60) as started:
        yield started


@pytest.fixture(scope="module")
def rewards(pool: WorkerPool[TrackTask, Tracked]) -> VeasonRewards:
    return VeasonRewards(METHOD, Form.THINK_FIRST, pool)


def known(scores: list[float | None]) -> list[float]:
    return [score for score in scores if score is not None]


def test_true_boxes_track_well_and_wrong_ones_do_not(rewards: VeasonRewards) -> None:
    prompt = Prompt(MOVING)
    label = prompt.labels[1]
    (true,) = prompt.boxes(label)
    aside = [true[0] + 8, true[1] + 7, true[2] + 30, true[3] + 20]  # a corner of red, and ground
    far = [45.0, 30.0, 57.0, 42.0]  # on blue
    right, off, wrong = known(
        prompt.scores(rewards, *(said(label, [b]) for b in (true, aside, far)))
    )
    assert right > 0.85
    assert off < right - 0.2
    assert wrong == 0.0


def test_only_matched_boxes_are_tracked(rewards: VeasonRewards) -> None:
    prompt = Prompt(BOTH)
    label = prompt.labels[0]
    red, blue = prompt.boxes(label)
    whole, more, half = known(
        prompt.scores(
            rewards,
            said(label, [blue, red]),
            said(label, [red, blue, red, [1, 60, 9, 47]]),  # repeated, broken: R_s pays, not R_u
            said(label, [red]),
        )
    )
    assert whole == more > 0.85
    assert half == pytest.approx(whole / 2, abs=0.1)


def test_a_keyframe_that_was_not_shown_or_read_has_nothing(rewards: VeasonRewards) -> None:
    prompt = Prompt(MOVING)
    true = prompt.boxes(prompt.labels[0])
    texts = (
        said(prompt.labels[0] + 1, true),  # between two shown frames
        said(prompt.labels[0], []),
        "<think>I do not know.</think>",
        '<think>No.</think><answer>{"no_target": "nothing"}</answer>',
    )
    assert prompt.scores(rewards, *texts) == [0.0] * 4


def test_without_a_target_it_does_not_apply_to_whatever_is_said(rewards: VeasonRewards) -> None:
    prompt = Prompt(NOTHING)
    label = prompt.labels[0]
    texts = (said(label, [[1, 1, 20, 20]]), '<answer>{"no_target": "none"}</answer>')
    assert prompt.scores(rewards, *texts) == [None, None]


def test_the_order_of_completions_changes_nothing_nor_does_the_process(
    rewards: VeasonRewards, tmp_path: Path
) -> None:
    prompt = Prompt(BOTH)
    texts = [said(label, prompt.boxes(label)[:1]) for label in prompt.labels[:2]]
    texts.append(said(prompt.labels[0], prompt.boxes(prompt.labels[0])))
    scores = known(prompt.scores(rewards, *texts))
    assert known(prompt.scores(rewards, *texts[::-1])) == scores[::-1]
    here = TrackingHere(write_videos(tmp_path / "videos.pickle", EPISODES), TrackerConfig())
    again = VeasonRewards(METHOD, Form.THINK_FIRST, here)
    assert known(prompt.scores(again, *texts)) == scores


def test_a_killed_worker_costs_no_reward(
    rewards: VeasonRewards, pool: WorkerPool[TrackTask, Tracked]
) -> None:
    prompt = Prompt(MOVING)
    text = said(prompt.labels[0], prompt.boxes(prompt.labels[0]))
    before = prompt.scores(rewards, text)
    (pid,) = pool.pids
    os.kill(pid, signal.SIGKILL)
    assert prompt.scores(rewards, text) == before
    assert pool.failures["worker replaced"] == 1


class Failing:
    """Gives up what starts on an early frame."""

    def __init__(self) -> None:
        self.asked: list[TrackTask] = []

    def run(self, tasks: Sequence[TrackTask]) -> Sequence[Tracked | None]:
        self.asked += tasks
        full = MaskRle(height=96, width=160, counts="")
        return [None if task.keyframe == 0 else (full,) * len(task.positions) for task in tasks]


def test_what_failed_takes_the_reward_from_its_whole_prompt_and_is_counted() -> None:
    failing = Failing()
    rewards = VeasonRewards(METHOD, Form.THINK_FIRST, failing)
    first, other = Prompt(MOVING), Prompt(BOTH)
    early, late = (said(label, first.boxes(label)) for label in first.labels[:2])
    fine = said(other.labels[1], other.boxes(other.labels[1]))
    (function,), _ = rewards.functions({"consistency": 1.0})
    metrics: dict[str, float] = {}
    scores = function(
        [early, late, late, fine],
        truth=[p.truth.to_json() for p in (first, first, first, other)],
        shown=[p.shown.to_json() for p in (first, first, first, other)],
        log_metric=metrics.__setitem__,
    )
    assert scores == [None, None, None, 0.0]
    assert len(failing.asked) == 3  # the same boxes are tracked once
    assert metrics == {"consistency/failed": pytest.approx(1 / 3)}


def test_boxes_come_back_to_source_pixels_inside_the_frame() -> None:
    failing = Failing()
    prompt = Prompt(MOVING)
    label = prompt.labels[1]
    (true,) = prompt.boxes(label)
    prompt.scores(VeasonRewards(METHOD, Form.THINK_FIRST, failing), said(label, [[-9, *true[1:]]]))
    (task,) = failing.asked
    x, y = Squares(step=3).corner("red", prompt.shown.positions[label])
    (box,) = task.boxes
    assert box == pytest.approx((0, y, x + 24, y + 24))
    assert task.positions[task.keyframe] == prompt.shown.positions[label]


def test_references_are_small_and_survive_their_text() -> None:
    shown = Prompt(MOVING).shown
    assert Shown.from_json(shown.to_json()) == shown
    assert len(shown.to_json()) < 1000
    assert Prompt(NOTHING).shown.truth == {}


def test_a_tracker_reads_each_video_by_its_own_name(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos.pickle", EPISODES)
    assert set(videos.places) == {"moving", "both", "nothing"}
    here = TrackingHere(videos, TrackerConfig())
    box = BoxXyxy(5, 8, 29, 32)  # red at position 0 of each
    tasks = [
        TrackTask(video=name, positions=(0, 4), size_wh=(160, 96), keyframe=0, boxes=(box,))
        for name in ("moving", "both", "moving")
    ]
    first, second, third = here.run(tasks)
    assert first == third
    assert first != second
    for masks, episode in ((first, MOVING), (second, BOTH)):
        assert masks is not None
        truth = episode.media.mask("red", 4)
        assert truth is not None
        assert mask_iou(mask_from_rle(masks[1]), truth) > 0.7
    with pytest.raises(InputError, match="no video 'else'"):
        videos.read("else")
    videos.path.unlink()
    with pytest.raises(InputError, match="cannot be read for the video 'both'"):
        videos.read("both")


def test_a_bundle_that_is_none_is_told_before_training(tmp_path: Path) -> None:
    videos = write_videos(tmp_path / "videos.pickle", EPISODES)
    pool = tracking_pool(videos, TrackerConfig(bundle="nosuch"), num_workers=1, task_timeout_s=1)
    with pytest.raises(InputError, match=r"cannot start: .*nosuch"):
        pool.start()


def test_a_weight_without_a_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"consistency \(weight 2.0\) wants a tracker"):
        VeasonRewards(METHOD, Form.THINK_FIRST).functions({"consistency": 2.0})


def test_nan_is_no_number_of_a_box(rewards: VeasonRewards) -> None:
    prompt = Prompt(MOVING)
    texts = [said(prompt.labels[0], [[math.nan, 1, 2, 3]]), said(prompt.labels[0], [["1"] * 4])]
    assert prompt.scores(rewards, *texts) == [0.0, 0.0]
