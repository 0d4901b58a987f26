# SPDX-License-Identifier: Apache-2.0
"""What every scene of every world keeps to: its truths come true, in time, and can be known."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="the worlds draw with OpenCV")

from foreseg.errors import ForesegError  # noqa: E402
from foreseg_simulation.foresight import (  # noqa: E402
    ForesightFrame,
    ForesightScene,
    FutureTruth,
    SceneConfig,
    Topic,
)
from foreseg_simulation.worlds import PACES, World, scene_maker, scenes_of  # noqa: E402

CASES = [(world, name) for world in World for name in scenes_of(world)]
IDS = [f"{world.value}-{name}" for world, name in CASES]
SEED = 5
RATE_HZ = 10.0
NUM_FRAMES = {World.SHAPES: 260, World.TABLETOP: 90}
GONE_PX = 12  # of 160 x 120: the event lies between two frames, and some return at once
SLACK_PX = 6  # what moves goes on for less than a frame's time between the event and the frame
NOT_HIT = ("screen", "lamp")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Play:
    """A scene and its first frames."""

    scene: ForesightScene
    frames: list[ForesightFrame]

    def events(self) -> list[tuple[ForesightFrame, ForesightFrame, FutureTruth]]:
        """Each truth that expired, with the last frame before it and the first one after."""
        return [
            (before, after, truth)
            for before, after in itertools.pairwise(self.frames)
            for truth in before.truths
            if truth.event_ns <= after.stamp_ns
        ]


@functools.lru_cache(maxsize=1)  # the tests of one scene run one after the other
def played(world: World, name: str) -> Play:
    config = SceneConfig(
        size_wh=(160, 120), rate_hz=RATE_HZ, num_targets=3, leg_s=PACES[world].clip_leg_s
    )
    try:
        scene = scene_maker(world, name)(SEED, config)
        frames = list(itertools.islice(scene.frames(), NUM_FRAMES[world]))
    except ForesegError as error:
        pytest.skip(f"{world.value} cannot be drawn here: {error}")
    return Play(scene=scene, frames=frames)


SLOW = {World.TABLETOP: [pytest.mark.slow], World.SHAPES: []}  # physics, and software pictures


@pytest.fixture(
    params=[pytest.param(case, marks=SLOW[case[0]]) for case in CASES], ids=IDS, scope="module"
)
def play(request: pytest.FixtureRequest) -> Play:
    return played(*request.param)


def touches(a: np.ndarray, b: np.ndarray, within_px: int) -> bool:
    size = 2 * within_px + 1
    grown = cv2.dilate(a.astype(np.uint8), np.ones((size, size), np.uint8))
    return bool((grown.astype(bool) & b).any())


def test_frames_carry_the_scenes_questions_and_truths_lie_ahead(play: Play) -> None:
    newest: dict[str, int] = {}
    for frame in play.frames:
        for truth in frame.truths:
            assert truth.question in play.scene.questions
            assert truth.event_ns > frame.stamp_ns
            assert truth.target_id is None or truth.target_id in play.scene.names
            assert truth.event_ns >= newest.get(truth.question, 0)
            newest[truth.question] = truth.event_ns
    assert set(newest) == set(play.scene.questions)
    assert play.events(), "no truth ever expired"


def test_reasons_rest_on_frames_that_were_seen(play: Play) -> None:
    stamps: set[int] = set()
    reasoned = 0
    for frame in play.frames:
        stamps.add(frame.stamp_ns)
        for truth in frame.truths:
            assert bool(truth.steps) == bool(truth.evidence_ns)
            assert list(truth.evidence_ns) == sorted(set(truth.evidence_ns))
            assert set(truth.evidence_ns) <= stamps
            if truth.steps:
                reasoned += 1
                assert 3 <= len(truth.steps) <= 6, truth.steps
                assert all(s[0].isupper() and s.endswith(".") for s in truth.steps), truth.steps
                name = play.scene.names.get(truth.target_id or 0, "nothing")
                assert name in truth.steps[-1], truth.steps
    assert reasoned > len(play.frames) / 4


def test_a_ball_touches_what_it_hits_at_the_event_and_nothing_before(play: Play) -> None:
    names = play.scene.names
    ball = next((i for i, name in names.items() if name.endswith("ball")), None)
    if ball is None or all(t.topic is not Topic.HIT for t in play.frames[0].truths):
        pytest.skip("nothing is hit by a ball here")
    previous: int | None = None
    for _, after, truth in play.events():
        if truth.topic is Topic.HIT and truth.target_id is not None:
            one, other = after.instance_ids == ball, after.instance_ids == truth.target_id
            assert touches(one, other, SLACK_PX), (after.index, names[truth.target_id])
    for frame in play.frames:
        truth = next(t for t in frame.truths if t.topic is Topic.HIT)
        seen = frame.instance_ids == ball
        for other, name in names.items():
            if other not in (ball, truth.target_id, previous) and name not in NOT_HIT:
                assert not touches(seen, frame.instance_ids == other, 0), (frame.index, name)
        previous = _last_hit(play, frame)


def _last_hit(play: Play, frame: ForesightFrame) -> int | None:
    hits = [
        truth.target_id
        for _, after, truth in play.events()
        if truth.topic is Topic.HIT and after.stamp_ns <= frame.stamp_ns
    ]
    return hits[-1] if hits else None


def test_what_leaves_is_gone_at_the_event_and_nothing_else_is(play: Play) -> None:
    for before, after, truth in play.events():
        if truth.topic is not Topic.LEAVE:
            continue
        if truth.target_id is not None:
            second_before = play.frames[max(before.index - round(RATE_HZ), 0)]
            assert np.count_nonzero(second_before.instance_ids == truth.target_id) > GONE_PX
            areas = [
                np.count_nonzero(frame.instance_ids == truth.target_id)
                for frame in (before, after)
            ]
            assert min(areas) <= GONE_PX


def test_a_guess_names_what_is_there_and_a_target_was_seen_before(play: Play) -> None:
    seen: set[int] = set()
    for frame in play.frames:
        seen |= set(np.unique(frame.instance_ids).tolist())
        for truth in frame.truths:
            assert truth.extrapolated_id is None or truth.extrapolated_id in play.scene.names
            if truth.steps and truth.target_id is not None:
                assert truth.target_id in seen, "nobody can point at what was never seen"


def test_the_same_seed_makes_the_same_scene_and_another_one_does_not(
    request: pytest.FixtureRequest, play: Play
) -> None:
    world, name = request.node.callspec.params["play"]
    config = SceneConfig(
        size_wh=(160, 120), rate_hz=RATE_HZ, num_targets=3, leg_s=PACES[world].clip_leg_s
    )
    again, other = (scene_maker(world, name)(seed, config) for seed in (SEED, SEED + 1))
    assert again.names == play.scene.names
    for frame, twin in itertools.islice(zip(play.frames, again.frames(), strict=False), 10):
        assert frame.image.tobytes() == twin.image.tobytes()
        assert frame.instance_ids.tobytes() == twin.instance_ids.tobytes()
        assert frame.truths == twin.truths
    assert next(other.frames()).image.tobytes() != play.frames[0].image.tobytes()
