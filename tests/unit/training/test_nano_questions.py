# SPDX-License-Identifier: Apache-2.0
"""The nano reasoner's questions: recordings, stories, what is asked of them, and the true completions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the nano reasoner's training needs torch")
pytest.importorskip("transformers", reason="the nano reasoner is built from transformers")

from tests.support.prepared_nano import PREPARATION  # noqa: E402

from foreseg.methods.veason import VeasonMethod  # noqa: E402
from foreseg_simulation.clip import CLIP_RATE_HZ  # noqa: E402
from foreseg_training.nano.preparing import FORMS  # noqa: E402
from foreseg_training.nano.questions import UNMOVED, Asked, asked_about  # noqa: E402
from foreseg_training.nano.recordings import Recorder, Recording  # noqa: E402
from foreseg_training.rewards import grammar_reward  # noqa: E402


@pytest.fixture(scope="module")
def recordings() -> Sequence[Recording]:
    torch.set_num_threads(1)
    return list(Recorder(size_wh=(160, 120), num_clips=3).record(1, range(3)))


@pytest.fixture(scope="module")
def asked(recordings: Sequence[Recording]) -> list[tuple[VeasonMethod, Asked]]:
    methods = {form: PREPARATION.method(form) for form in FORMS}
    rng = np.random.default_rng(0)
    return [
        (methods[one.form], one)
        for recording in recordings
        for window in asked_about(recording, methods, rng)
        for one in window
    ]


def test_recordings_are_the_same_again_and_differ_by_number(
    recordings: Sequence[Recording],
) -> None:
    (again,) = Recorder(size_wh=(160, 120), num_clips=3).record(1, [1])
    assert [shot.jpeg for shot in again.shots] == [shot.jpeg for shot in recordings[1].shots]
    assert again.clips == recordings[1].clips
    assert again.shots[0].jpeg != recordings[0].shots[0].jpeg


def test_of_three_recordings_at_a_third_the_last_is_a_story() -> None:
    recorder = Recorder(size_wh=(160, 120), num_clips=3, story_share=0.34)
    scenes, story = list(recorder.record(1, range(2))), recorder.recording(1, 2)
    assert not [drawn for drawn in scenes if drawn.scene == "stories"]
    assert scenes[1].scene != scenes[0].scene  # stories take no scene's turn
    assert story.scene == "stories"
    (clip,) = story.clips
    assert clip.size_wh == recorder.size_wh
    assert len(clip.shots) == len(story.shots) >= 120
    assert recorder.recording(1, 2).shots[0].jpeg == story.shots[0].jpeg
    methods = {form: PREPARATION.method(form) for form in FORMS}
    (window,) = asked_about(story, methods, np.random.default_rng(0))
    assert len(window[0].shots) == PREPARATION.num_frames  # of all frames, evenly
    assert window[0].shots[-1] - window[0].shots[0] > 100


def test_a_recording_without_pictures_asks_as_the_one_with_them(
    recordings: Sequence[Recording],
) -> None:
    recorder = Recorder(size_wh=(160, 120), num_clips=3, story_share=0.5)
    bare = recorder.unpictured(1, 1)  # no story: these are not told from places
    methods = {form: PREPARATION.method(form) for form in FORMS}
    assert not any(shot.jpeg for shot in bare.shots)
    drawn, told = (
        list(asked_about(one, methods, np.random.default_rng(0))) for one in (recordings[1], bare)
    )
    said = [[[one.completion for one in window] for window in its] for its in (drawn, told)]
    assert said[0] == said[1] != []


def test_what_frames_alone_can_tell_is_how_a_thought_begins(
    asked: list[tuple[VeasonMethod, Asked]],
) -> None:
    kinds = set()
    for _, one in asked:
        assert one.completion.startswith(one.seen)
        thinks_first = one.completion.startswith("<think>Here: ")
        assert bool(one.seen) == thinks_first
        rest = one.completion.removeprefix(one.seen)
        assert not one.seen or not re.search(r"Here: |Gone: |It moves ", rest)
        kinds.add(bool(one.seen))
    assert kinds == {True, False}


def test_true_completions_are_what_the_robot_reads_as_the_truth(
    asked: list[tuple[VeasonMethod, Asked]],
) -> None:
    assert {one.form for _, one in asked} == set(FORMS)
    for method, one in asked:
        assert grammar_reward(one.completion, one.form) == 1
        parsed = method.parse(one.completion.split("<answer>")[1].split("</answer>")[0])
        if not any(one.areas.values()):
            assert parsed.says_none
            continue
        assert parsed.keyframe in one.areas
        assert one.areas[parsed.keyframe] >= 0.7 * max(one.areas.values())
        assert len(parsed.items) == len(one.boxes[parsed.keyframe])
        assert len(one.shots) == len(one.areas)


def test_a_thought_ends_where_its_answer_s_boxes_are(
    asked: list[tuple[VeasonMethod, Asked]],
) -> None:
    num_told = 0
    for method, one in asked:
        thought = one.completion.partition("<think>")[2].partition("</think>")[0]
        last = re.search(r" At (\[.*\])[.]$", thought)
        if not thought or not any(one.areas.values()):
            assert last is None
            continue
        assert last is not None, thought
        places = np.array(json.loads(f"[{last[1]}]"), float)
        parsed = method.parse(one.completion.split("<answer>")[1].split("</answer>")[0])
        boxes = np.array(parsed.items, float)
        assert np.abs(places - (boxes[:, :2] + boxes[:, 2:]) / 2).max() <= 1
        num_told += 1
    assert num_told > 10


def test_the_way_ahead_is_said_of_events_to_come_alone(
    recordings: Sequence[Recording],
) -> None:
    methods = {form: PREPARATION.method(form) for form in FORMS}
    rng = np.random.default_rng(0)
    told = set()
    for recording in recordings:
        leads = {e.text: e.lead_s for clip in recording.clips for e in clip.expressions}
        for window in asked_about(recording, methods, rng):
            for one in window:
                text = str(one.messages[-1].content)
                lead = next((lead for said, lead in leads.items() if said in text), None)
                says = "Ahead, the " in one.completion
                assert not says or lead is not None
                told.add(says)
    assert told == {True, False}


def test_what_comes_after_the_recording_s_end_is_not_asked(
    recordings: Sequence[Recording],
) -> None:
    methods = {form: PREPARATION.method(form) for form in FORMS}
    num_cut = 0
    for recording in recordings:
        for clip in recording.clips:
            last = next(n for n, shot in enumerate(recording.shots) if shot is clip.shots[-1])
            short = replace(recording, shots=recording.shots[: last + 2], clips=[clip])
            texts = [
                str(one.messages[-1].content)
                for window in asked_about(short, methods, np.random.default_rng(0))
                for one in window
            ]
            for e in clip.expressions:
                is_told = e.lead_s is None or e.skill in UNMOVED or e.lead_s < 1 / CLIP_RATE_HZ
                num_cut += not is_told
                assert any(e.text in text for text in texts) == is_told, e.text
    assert num_cut > 3
    story = Recorder(size_wh=(160, 120), story_share=1.0).recording(2, 0)
    assert sum(len(w) for w in asked_about(story, methods, np.random.default_rng(0))) >= len(
        story.clips[0].expressions
    )  # nothing of it is known but what is observed
