# SPDX-License-Identifier: Apache-2.0
"""The method of VideoSeg-R1: how it closes in on a frame, and what its answers become."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.support.language_models import labels_in, words_of
from tests.support.reasoners import query, window_of

from foreseg.dialogue import AnswerFailed, FramesWanted, NoTarget, RationalePart, TargetsFound
from foreseg.errors import ConfigError
from foreseg.frames import Frame, FrameIndex, FrameWindow
from foreseg.methods.base import AnswerStep, SampleStep, Step, Verdict
from foreseg.methods.grounding import View
from foreseg.methods.pointing import Part
from foreseg.methods.videoseg import TargetFrame, VideosegMethod, VideosegSettings
from foreseg.prompts import Point, PointLabel

NUM_FRAMES = 101
FILM = window_of([np.full((28, 56, 3), 2 * i, np.uint8) for i in range(NUM_FRAMES)])
VIEW = View(image_side_px=56)


def frames_at(*labels: int) -> FrameWindow:
    """A window of the film, whose frames are numbered without gaps here."""
    frames = []
    for label in labels:
        ref = FILM.frames[label].ref
        ref = type(ref)(
            camera=ref.camera,
            index=FrameIndex(500 + label),
            epoch=0,
            stamp_ns=ref.stamp_ns,
            received_ns=0,
            size_wh=ref.size_wh,
        )
        frames.append(Frame(ref=ref, image=FILM.frames[label].image))
    return FrameWindow(frames=tuple(frames), origin_index=FrameIndex(500))


FIRST = frames_at(*range(0, NUM_FRAMES, 10))


def played(
    settings: VideosegSettings, answers: list[list[str]], gone: frozenset[int] = frozenset()
) -> list[Step]:
    """The steps of a plan whose sampler gets these answers."""
    plan = VideosegMethod(settings).plan(query("what falls?"), FIRST)
    left, steps, sent = iter(answers), [], None
    while True:
        step = plan.send(sent)  # type: ignore[arg-type]
        steps.append(step)
        sent = None
        if isinstance(step, SampleStep):
            sent = next(left)
        elif isinstance(step, FramesWanted):
            labels = [int(index) - 500 for index in step.indices]
            sent = frames_at(*(label for label in labels if label not in gone))
        elif isinstance(step, AnswerStep):
            assert next(left, None) is None
            return steps


def answer_of(steps: list[Step]) -> AnswerStep:
    (step,) = (step for step in steps if isinstance(step, AnswerStep))
    return step


def interval(first: float, last: float) -> str:
    return f"<answer>[{first}, {last}]</answer>"


def percent(value: str) -> str:
    return f"<answer>{value}</answer>"


def test_intervals_and_percentages_are_averaged() -> None:
    settings = VideosegSettings(view=VIEW, segment_share=0.5)
    intervals = [interval(40, 60), interval(60, 80), "no idea", interval(50, 85)]
    steps = played(settings, [intervals, [percent("20"), percent("40%"), percent("x"), "60"]])
    notes = "".join(step.text for step in steps if isinstance(step, RationalePart))
    assert "<50> to <75>, from 3 of 4" in notes
    label = 50 + int(26 * 0.4)
    assert f"<{label}> is the target frame" in words_of(answer_of(steps).request)
    assert label in labels_in(answer_of(steps).request)


def test_a_long_segment_is_narrowed_again_with_its_own_frames() -> None:
    settings = VideosegSettings(view=VIEW, segment_share=0.1, num_interval_answers=1)
    steps = played(
        settings, [[interval(20, 80)], [interval(40, 60)], [interval(48, 52)], [percent("50")]]
    )
    rounds = [step.request for step in steps if isinstance(step, SampleStep)]
    assert labels_in(rounds[0]) == list(range(0, 101, 10))
    assert 20 <= min(labels_in(rounds[1])) <= max(labels_in(rounds[1])) <= 80
    assert len(labels_in(rounds[2])) > 5  # more of the segment than the first window had
    assert set(labels_in(rounds[3])) == {48, 49, 50, 51, 52}


def test_no_request_shows_more_frames_than_a_round_has() -> None:
    """Servers are started with a limit, and each frame's share of the pixels counts on it."""
    settings = VideosegSettings(view=VIEW, segment_share=0.1, num_interval_answers=1)
    steps = played(settings, [[interval(5, 95)], [interval(6, 90)], [interval(7, 80)], ["50%"]])
    shown = [labels_in(s.request) for s in steps if isinstance(s, (SampleStep, AnswerStep))]
    assert [len(labels) for labels in shown[1:-1]] == [12, 12, 12]
    assert len(shown[-1]) <= 12
    gaps = [b - a for a, b in pairwise(shown[1])]
    assert max(gaps) - min(gaps) <= 1
    assert (shown[1][0], shown[1][-1]) == (5, 95)


@pytest.mark.parametrize("text", ["40-60", "<40>-<60>", "from 40 to 60", "[60, 40]", "40.0–60.0"])  # noqa: RUF001
def test_an_interval_may_be_written_in_several_ways(text: str) -> None:
    steps = played(VideosegSettings.fast(view=VIEW), [[percent(text)], [percent("0")]])
    assert "key segment <40> to <60>" in repr(steps)


def test_a_sampler_that_says_nothing_useful_costs_no_answer() -> None:
    steps = played(
        VideosegSettings.fast(view=VIEW), [["I would rather not"], ["about a third or 50"]]
    )
    assert "the whole span is kept" in repr(steps)
    assert "<50> is the target frame" in words_of(answer_of(steps).request)
    steps = played(VideosegSettings.fast(view=VIEW), [["<answer>[900, 950]</answer>"], ["?"]])
    assert "<100> is the target frame" in words_of(answer_of(steps).request)


def test_the_last_request_has_key_frames_target_and_references() -> None:
    settings = VideosegSettings.fast(view=VIEW)
    steps = played(settings, [[interval(40, 50)], [percent("50%")]])
    labels = labels_in(answer_of(steps).request)
    assert labels == sorted(labels)
    assert 45 in labels
    key = [label for label in labels if 40 <= label <= 50]
    assert len(key) >= settings.num_key_frames
    assert len(labels) - len(key) == settings.num_reference_frames


def test_a_target_frame_that_is_gone_gives_way_to_its_neighbour() -> None:
    steps = played(
        VideosegSettings.fast(view=VIEW),
        [[interval(40, 60)], [percent("26")]],
        gone=frozenset(range(41, 60)),
    )
    assert "<50> is the target frame" in words_of(answer_of(steps).request)  # 45 is gone


def test_fast_needs_three_completions_and_asks_them_cold() -> None:
    steps = played(VideosegSettings.fast(view=VIEW), [[interval(0, 100)], [percent("100")]])
    requests = [step.request for step in steps if isinstance(step, (SampleStep, AnswerStep))]
    assert [request.num_samples for request in requests] == [1, 1, 1]
    assert {request.temperature for request in requests} == {0.0}


def test_one_frame_needs_no_sampler() -> None:
    plan = VideosegMethod().plan(query("what falls?"), frames_at(7))
    step = next(plan)
    assert isinstance(step, AnswerStep)
    assert labels_in(step.request) == [7]


def target_label(steps: list[Step]) -> int:
    found = re.search(r"<(\d+)> is the target frame", words_of(answer_of(steps).request))
    assert found
    return int(found[1])


def test_the_arms_of_the_papers_table_choose_their_target_frame() -> None:
    fast = VideosegSettings.fast(view=VIEW)
    first = played(replace(fast, target=TargetFrame.FIRST), [])
    assert target_label(first) == 0
    spanning = played(replace(fast, target=TargetFrame.PERCENT), [[percent("30%")]])
    assert target_label(spanning) == 30
    settings = replace(fast, target=TargetFrame.RANDOM_IN_SEGMENT)
    once, again = (played(settings, [[interval(40, 60)]]) for _ in range(2))
    assert 40 <= target_label(once) <= 60
    assert target_label(once) == target_label(again)


@pytest.mark.parametrize("part", Part)
def test_only_the_parts_of_an_arm_become_prompts(part: Part) -> None:
    text = '[{"bbox_2d": [4, 4, 20, 24], "point_2d": [10, 10], "negative_point_2d": [30, 10]}]'
    if part is Part.NEGATIVE:
        with pytest.raises(ConfigError, match="want a box or a point"):
            VideosegSettings(view=VIEW, parts=frozenset({part}))
        return
    method = VideosegMethod(VideosegSettings(view=VIEW, parts=frozenset({part})))
    verdict = method.read(text, FIRST.frames[0])
    assert isinstance(verdict.part, TargetsFound)
    (prompt,) = verdict.part.prompts
    assert (prompt.box is not None) is (part is Part.BOX)
    assert len(prompt.points) == (part is Part.POINT)


def read(text: str) -> Verdict:
    return VideosegMethod(VideosegSettings(view=VIEW)).read(text, FIRST.frames[0])


def test_box_point_and_negative_point_become_one_prompt() -> None:
    text = (
        '[{"bbox_2d": [4, 4, 20, 24], "point_2d": [10, 10], "negative_point_2d": [30, 10]},'
        ' {"bbox_2d": [30, 4, 50, 24], "point_2d": [5, 5]}]'
    )
    verdict = read(text)
    assert isinstance(verdict.part, TargetsFound)
    first, second = verdict.part.prompts
    assert first.points == (
        Point(10, 10, PointLabel.FOREGROUND),
        Point(30, 10, PointLabel.BACKGROUND),
    )
    assert second.points == ()  # its point lies outside its own box
    assert verdict.repairs == ("left out a point outside its own box",)


def test_the_names_of_objects_are_the_answers_words_each_once() -> None:
    part = read(
        '[{"bbox_2d": [4, 4, 20, 24], "label": "cup"}, {"bbox_2d": [30, 4, 50, 24], "label": "can"},'
        ' {"bbox_2d": [2, 2, 9, 9], "label": "cup"}]'
    ).part
    assert isinstance(part, TargetsFound)
    assert part.text == "cup, can"


def test_points_on_the_edge_stay_inside_and_others_are_left_out() -> None:
    verdict = read('{"point_2d": [56, 28], "negative_points": [[0, 0], [80, 3]]}')
    assert isinstance(verdict.part, TargetsFound)
    (prompt,) = verdict.part.prompts
    assert [tuple(point[:2]) for point in prompt.points] == [(55.5, 27.5), (0, 0)]
    assert "left out a point outside the frame" in verdict.repairs


@pytest.mark.parametrize(
    "text",
    [
        *("[]", '{"objects": []}', '{"objects": null}', "[null]", '{"no_target": "it is over"}'),
        '[{"bbox_2d": [0, 0, 0, 0], "point_2d": [0, 0]}]',
        '[{"bbox_2d": null, "point_2d": null, "negative_point_2d": [3, 3]}]',
        *("There are none.", "No object in these frames fits the query."),
    ],
)
def test_an_empty_list_is_no_target(text: str) -> None:
    assert isinstance(read(text).part, NoTarget)


@pytest.mark.parametrize("text", ['[{"negative_point_2d": [3, 3]}]', "[4, 5]", "[{}]", "why"])
def test_objects_without_a_place_are_refused(text: str) -> None:
    part = read(text).part
    assert isinstance(part, AnswerFailed)
    assert part.reason


def test_settings_out_of_range_are_refused_with_the_value() -> None:
    with pytest.raises(ConfigError, match="num_rounds wants 1 to 8, got 0"):
        VideosegSettings(num_rounds=0)
    with pytest.raises(ConfigError, match=r"got 1\.5"):
        VideosegSettings(segment_share=1.5)
