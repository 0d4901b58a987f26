# SPDX-License-Identifier: Apache-2.0
"""Cutting clips and streams, and asking about them."""

from __future__ import annotations

import functools
import hashlib
import re

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the worlds draw with OpenCV")

from foreseg.masks import mask_from_rle
from foreseg_simulation.cli import PRESETS
from foreseg_simulation.clip import Clip, ClipKind, ExpressionKind
from foreseg_simulation.foresight import Skill, Topic
from foreseg_simulation.generation import Command, Job, make_clip, make_clip_of
from foreseg_simulation.questions import (
    WORDINGS,
    PastEvent,
    future_question,
    naming_questions,
    past_questions,
)
from foreseg_simulation.recording import events_of, image_of, record
from foreseg_simulation.scenes import foresight_scenes, make_scene
from foreseg_simulation.worlds import WORLD_VERSIONS, World

pytestmark = pytest.mark.slow  # draws two dozen clips

NAMES = {1: "ball", 2: "red star", 3: "blue star", 4: "green cross"}
SIZE_WH = (160, 120)


def job(kind: ClipKind, number: int, seed: int = 3) -> Job:
    command = Command(
        worlds=(World.SHAPES,), clips=1, streams=1, seed=seed, split="val", size_wh=SIZE_WH
    )
    return Job(command=command, world=World.SHAPES, kind=kind, number=number)


@functools.cache
def clips() -> tuple[Clip, ...]:
    return tuple(make_clip(job(ClipKind.CLIP, number))[0] for number in range(24))


@functools.cache
def streams() -> tuple[Clip, ...]:
    names = ("hit_cushion", "hit_lamp", "leave_shy")
    return tuple(make_clip_of(job(ClipKind.STREAM, i), n)[0] for i, n in enumerate(names))


def hits(*target_ids: int) -> list[PastEvent]:
    return [
        PastEvent(topic=Topic.HIT, target_id=target_id, position=3 * i)
        for i, target_id in enumerate(target_ids)
    ]


def asked(*target_ids: int) -> dict[str, tuple[int, ...]]:
    """Targets by the last word of the question."""
    found = past_questions(np.random.default_rng(0), hits(*target_ids), NAMES)
    return {question.text.rstrip("?").split()[-1]: question.target_ids for question in found}


def test_past_hits_are_asked_for_in_every_way_that_has_one_answer() -> None:
    assert asked(2, 3, 2, 4) == {"first": (2,), "last": (4,), "twice": (2,), "far": (2, 3, 4)}
    assert asked(2, 3)["twice"] == ()
    assert "twice" not in asked(2, 3, 2, 3), "two objects were hit twice"
    (only,) = past_questions(np.random.default_rng(0), hits(4), NAMES)
    assert only.target_ids == (4,)
    assert not re.search("first|last", only.text)


def test_a_name_that_is_not_there_differs_from_all_that_are() -> None:
    for seed in range(40):
        found, absent = naming_questions(np.random.default_rng(seed), NAMES, {2: 5, 4: 1})
        assert found.target_ids in ((2,), (4,))
        assert NAMES[found.target_ids[0]] in found.text
        assert absent.target_ids == ()
        assert not any(name in absent.text for name in NAMES.values())


@pytest.mark.parametrize("topic", list(Topic))
def test_a_topic_has_many_wordings_and_the_seed_draws_one(topic: Topic) -> None:
    drawn = {future_question(np.random.default_rng(s), topic, "Plain?") for s in range(120)}
    assert len(WORDINGS[topic].future) >= 8
    assert len(drawn) >= 8
    assert drawn <= {"Plain?", *WORDINGS[topic].future}
    assert all(re.match(r"[A-Z].*[?]$", text) for text in WORDINGS[topic].future)


def test_a_clip_ends_before_its_event_and_holds_its_evidence() -> None:
    for clip in clips():
        assert 12 <= len(clip.shots) <= 24
        steps = {b.stamp_ns - a.stamp_ns for a, b in zip(clip.shots, clip.shots[1:], strict=False)}
        assert max(steps) - min(steps) <= 1
        assert min(steps) == pytest.approx(1e9 / clip.rate_hz, abs=1)
        assert 1 <= len(clip.expressions) <= 4
        assert any(expression.is_future for expression in clip.expressions)
        for expression in clip.expressions:
            assert expression.is_future == (expression.lead_s is not None)
            assert expression.lead_s is None or 0.3 < expression.lead_s <= 4
            assert list(expression.evidence) == sorted(set(expression.evidence))
            assert 0 <= expression.evidence[0] <= expression.evidence[-1] < len(clip.shots)
            shown = clip.shots[expression.keyframe].objects
            assert set(expression.target_ids) <= shown.keys() or len(expression.target_ids) > 1


def test_what_a_clip_asks_of_the_future_is_its_last_frames_truth() -> None:
    for clip in clips():
        truths = {(t.target_id, t.skill) for t in clip.shots[-1].truths if t.steps}
        for expression in clip.expressions:
            if expression.is_future:
                target = expression.target_ids[0] if expression.target_ids else None
                assert (target, expression.skill) in truths
                assert (expression.kind is ExpressionKind.NO_TARGET) == (target is None)
            if expression.target_ids:
                said = [clip.names[target] for target in expression.target_ids]
                assert all(name in expression.answer for name in said)


def test_at_least_half_of_the_foresight_questions_defeat_extrapolation() -> None:
    asked_for = [e for c in clips() for e in c.expressions if e.kind is ExpressionKind.FORESIGHT]
    assert len(asked_for) >= 15
    assert sum(e.is_hard for e in asked_for) >= len(asked_for) / 2
    assert len({e.skill for e in asked_for} - {Skill.MOTION}) >= 3


def test_targets_do_not_favour_one_id() -> None:
    targets = [e.target_ids[0] for c in clips() for e in c.expressions if e.target_ids]
    assert max(targets.count(i) for i in set(targets)) < 0.6 * len(targets)


def test_a_streams_truths_follow_each_other_to_their_events() -> None:
    for clip in streams():
        assert len(clip.shots) / clip.rate_hz >= 20
        for expression in clip.expressions:
            ends = [span.end for span in expression.spans]
            assert all(span.first < span.end for span in expression.spans)
            pairs = zip(expression.spans, expression.spans[1:], strict=False)
            assert all(a.end <= b.first for a, b in pairs)
            assert expression.target_ids == expression.spans[0].target_ids
            for end in ends[:-1]:  # the truth of the frame before is over
                before, after = clip.shots[end - 1], clip.shots[end]
                assert any(t.event_ns <= after.stamp_ns for t in before.truths)


def test_shots_keep_masks_exactly_and_frames_nearly() -> None:
    scene = make_scene("leave", 2)
    shots = record(scene, 3)
    for shot, frame in zip(shots, scene.frames(), strict=False):
        for i, seen in shot.objects.items():
            mask = mask_from_rle(seen.mask)
            assert (mask == (frame.instance_ids == i)).all()
            x0, y0, x1, y1 = seen.box_xyxy
            assert mask[y0:y1, x0:x1].sum() == mask.sum() == seen.area_px
        difference = np.abs(image_of(shot).astype(int) - frame.image)
        assert difference.mean() < 3


def test_events_are_the_truths_that_expired() -> None:
    shots = record(make_scene("hit", 2), 500)
    events = events_of(shots)
    assert 1 <= len(events) <= 4
    for event in events:
        assert shots[event.position - 1].truths[0].target_id == event.target_id
        assert shots[event.position].stamp_ns >= shots[event.position - 1].truths[0].event_ns


@pytest.mark.parametrize("name", foresight_scenes())
def test_every_scene_offers_clips(name: str) -> None:
    clip, source = make_clip_of(job(ClipKind.CLIP, 0), name)
    assert source["scene"] == name
    assert clip.expressions


GOLDEN = (1, "da20547e5677d802")  # version of the world, and what the first clips of val-v1 ask


def test_the_validation_set_stays_as_it_is_until_its_version_counts_up() -> None:
    digest = hashlib.sha256()
    command = PRESETS["val-v1"]
    for number in range(5):
        asked = Job(command=command, world=World.SHAPES, kind=ClipKind.CLIP, number=number)
        clip, source = make_clip(asked)
        stamps = [shot.stamp_ns for shot in clip.shots]
        digest.update(repr((source, clip.rate_hz, dict(clip.names), stamps)).encode())
        for e in clip.expressions:
            told = (e.text, e.answer, e.target_ids, e.is_hard, e.reasoning, e.evidence, e.keyframe)
            digest.update(repr(told).encode())
    assert (WORLD_VERSIONS[World.SHAPES], digest.hexdigest()[:16]) == GOLDEN
