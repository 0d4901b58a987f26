# SPDX-License-Identifier: Apache-2.0
"""Stories: what their truths say is seen in the drawn masks, before the cut and after it."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pytest

pytest.importorskip("cv2", reason="the worlds draw with OpenCV")

from foreseg.errors import InputError
from foreseg_simulation.stories.asking import Ask, StoryTopic
from foreseg_simulation.stories.choosing import choose, foreign_asks, posed
from foreseg_simulation.stories.figures import KINDS
from foreseg_simulation.stories.story import RATE_HZ, Story, make_story
from foreseg_simulation.stories.wordings import closed_answer, wordings

SIZE_WH = (160, 120)
SEEDS = range(9)
AFTER_S = 7.0
EDGE_PX = 4  # of 160 x 120: what comes over an edge is that near to it when first or last seen


@dataclass(frozen=True, eq=False)
class Drawn:
    """A story, and every label map of it; those from `cut` on lie after the clip."""

    story: Story
    labels: np.ndarray  # (T, H, W)
    cut: int

    def areas(self, thing_id: int) -> np.ndarray:
        """Pixels (T,) of a thing."""
        return np.count_nonzero(self.labels == thing_id, axis=(1, 2))

    def of(self, *topics: StoryTopic) -> list[Ask]:
        """Its questions of some topics."""
        return [ask for ask in self.story.asks if ask.topic in topics]

    def edges(self, thing_id: int, position: int) -> set[str]:
        """The edges of the view that a thing is at."""
        ys, xs = np.nonzero(self.labels[position] == thing_id)
        width, height = SIZE_WH
        near = {
            "left": xs.min() < EDGE_PX,
            "right": xs.max() >= width - EDGE_PX,
            "top": ys.min() < EDGE_PX,
            "bottom": ys.max() >= height - EDGE_PX,
        }
        return {edge for edge, is_near in near.items() if is_near}


@functools.cache
def drawn(seed: int) -> Drawn:
    story = make_story(seed, "val", num_frames=120 + 5 * seed)
    count = story.num_frames + round(AFTER_S * RATE_HZ)
    labels = np.stack([ids for _, ids in story.draw(np.arange(count) / RATE_HZ, SIZE_WH)])
    return Drawn(story=story, labels=labels, cut=story.num_frames)


def every(*topics: StoryTopic) -> list[tuple[Drawn, Ask]]:
    found = [(d, ask) for d in map(drawn, SEEDS) for ask in d.of(*topics)]
    assert found, "no seed has such a question"
    return found


def test_what_a_shrinking_screen_hides_comes_to_light_and_nothing_else_does() -> None:
    hidden_before = 0
    for d, ask in every(StoryTopic.REVEAL):
        screened = {i for i, name in d.story.names.items() if not name.endswith("screen")}
        late = d.labels[d.cut + round((ask.event_s - d.story.cut_s) * RATE_HZ) + 1 :]
        for target in ask.target_ids:
            areas = d.areas(target)
            assert areas[d.cut - 1] == 0, "it is hidden when the clip ends"
            assert areas[: d.cut].any(), "it was seen before"
            assert areas[-1] > 0, "it is seen when the screen is gone"
            hidden_before += 1
        shown = set(np.unique(late).tolist()) & screened
        new = {i for i in shown if not d.areas(i)[d.cut - 1]}
        assert new <= set(ask.target_ids) | coming_later(d), d.story.seed
    assert hidden_before


def coming_later(d: Drawn) -> set[int]:
    """Things that come over an edge in or after the finale."""
    return {c.thing_id for c in d.story.crossings if c.is_in and c.time_s >= 0.8 * d.story.cut_s}


def test_what_is_behind_a_screen_is_hidden_and_what_came_out_is_gone() -> None:
    for d, ask in every(StoryTopic.BEHIND, StoryTopic.CAME_OUT):
        for target in ask.target_ids:
            assert d.areas(target)[: d.cut].any()
            assert not d.areas(target)[d.cut - 1]
            has_left = ask.topic is StoryTopic.CAME_OUT
            stays = not any(c.thing_id == target and not c.is_in for c in d.story.crossings)
            assert stays is not has_left


def test_what_falls_ends_lower_and_what_does_not_stays() -> None:
    fallers = 0
    for d, ask in every(StoryTopic.FALL_ALL):
        before = d.labels[d.cut - 8]
        after = d.labels[-1]
        shelf_y = np.nonzero(np.isin(before, shelves(d)))[0].mean()
        for i in np.unique(before[before > 0]).tolist():
            ys = np.nonzero(before == i)[0]
            stands = i not in shelves(d) and abs(ys.mean() - shelf_y) < 14
            is_target = i in ask.target_ids
            now = np.nonzero(after == i)[0]
            fell = not now.size or now.mean() > ys.mean() + 12
            if is_target:
                assert fell, d.story.names[i]
                fallers += 1
            elif stands and no_mover(d, i):
                assert not fell, d.story.names[i]
    assert fallers > 3


def shelves(d: Drawn) -> list[int]:
    return [i for i, name in d.story.names.items() if name.endswith("shelf")]


def no_mover(d: Drawn, thing_id: int) -> bool:
    ways = d.story.things[thing_id - 1].way
    return ways.knots[-1][0] <= d.story.cut_s


def test_the_first_to_fall_is_the_first_to_leave_its_shelf() -> None:
    firsts = 0
    for d, ask in every(StoryTopic.FALL_FIRST):
        (everything,) = d.of(StoryTopic.FALL_ALL)
        drops = {i: drop_time(d, i) for i in everything.target_ids}
        if drops:
            assert ask.target_ids == (min(drops, key=lambda i: drops[i]),)
            firsts += 1
        else:
            assert ask.target_ids == ()
    assert firsts


def drop_time(d: Drawn, thing_id: int) -> float:
    """When a thing's way ends its slide, by its own knots."""
    return d.story.things[thing_id - 1].way.knots[-2][0]


def test_who_leaves_is_gone_over_that_edge_and_who_turns_goes_back() -> None:
    seen = {StoryTopic.LEAVE_ALL: 0, StoryTopic.TURN_BACK: 0}
    for d, ask in every(*seen):
        far = ask.fill["b"]
        wanted = (
            far if ask.topic is StoryTopic.LEAVE_ALL else {"left": "right", "right": "left"}[far]
        )
        for target in ask.target_ids:
            areas = d.areas(target)
            assert areas[d.cut - 1] > 0, "it is on its way when the clip ends"
            last = int(np.flatnonzero(areas)[-1])
            if last < len(areas) - 1:
                assert wanted in d.edges(target, last)
            seen[ask.topic] += 1
    assert min(seen.values()) > 2


def test_all_that_is_on_the_way_to_a_post_either_leaves_or_turns() -> None:
    for d, leave in every(StoryTopic.LEAVE_ALL):
        (turn,) = d.of(StoryTopic.TURN_BACK)
        assert not set(leave.target_ids) & set(turn.target_ids)
        assert 2 <= len(leave.target_ids) + len(turn.target_ids) <= 4
        assert leave.is_hard == bool(turn.target_ids)
        colours = {d.story.names[i].split()[0] for i in turn.target_ids}
        assert len(colours) <= 1
        assert not colours & {d.story.names[i].split()[0] for i in leave.target_ids}


def test_who_came_and_went_was_seen_at_those_edges() -> None:
    checked = 0
    for d, ask in every(StoryTopic.CAME_AND_WENT, StoryTopic.WENT_OUT):
        for target in ask.target_ids:
            shown = np.flatnonzero(d.areas(target)[: d.cut])
            if not shown.size:  # hidden by others all the way, and then never asked for
                continue
            assert ask.fill["b"] in near_edges(d, target, int(shown[-1]))
            if "a" in ask.fill:
                assert ask.fill["a"] in near_edges(d, target, int(shown[0]))
            checked += 1
    assert checked > 20


def near_edges(d: Drawn, target: int, position: int) -> set[str]:
    """Edges within a frame's way of a thing."""
    ys, xs = np.nonzero(d.labels[position] == target)
    x, y, (width, height) = xs.mean(), ys.mean(), SIZE_WH
    gaps = {"left": x, "right": width - x, "top": y, "bottom": height - y}
    return {edge for edge, gap in gaps.items() if gap < 40}


def test_company_touches_and_makes_boxes_ambiguous() -> None:
    touching = 0
    for d, ask in every(StoryTopic.CAME_WITH):
        (target,) = ask.target_ids
        best = int(d.areas(target)[: d.cut].argmax())
        ys, xs = np.nonzero(d.labels[best] == target)
        box = d.labels[best][ys.min() - 1 : ys.max() + 2, xs.min() - 1 : xs.max() + 2]
        touching += bool(set(np.unique(box).tolist()) - {0, target})
    assert touching > len(every(StoryTopic.CAME_WITH)) / 2


def test_answers_are_closed_and_reasons_end_with_them() -> None:
    rng = np.random.default_rng(0)
    for d, ask in every(*StoryTopic):
        told = posed(rng, d.story, ask)
        names = {d.story.names[i] for i in ask.target_ids}
        said = told.answer.replace(" and ", ", ").split(", ")
        assert {word.removeprefix("the ") for word in said} == (names or {"nothing"})
        assert all(name in ask.steps[-1] for name in names or {"nothing"})
        assert list(ask.target_ids) == sorted(set(ask.target_ids))
        assert list(ask.evidence_s) == sorted(ask.evidence_s)
        assert 0 <= ask.evidence_s[0] <= ask.evidence_s[-1] <= d.story.cut_s
        assert ask.event_s is None or ask.event_s > d.story.cut_s
        assert "{" not in told.text
    assert closed_answer([]) == "nothing"
    assert closed_answer(["red star", "blue ring"]) == "the blue ring and the red star"


def test_evidence_is_both_far_away_and_beside_the_moment() -> None:
    both = [
        ask
        for d, ask in every(StoryTopic.REVEAL, StoryTopic.LEAVE_ALL)
        if ask.evidence_s[0] < 0.7 * d.story.cut_s and ask.evidence_s[-1] == d.story.cut_s
    ]
    assert len(both) > 5


def test_another_storys_questions_find_nothing_here() -> None:
    rng = np.random.default_rng(1)
    found = 0
    for seed in SEEDS:
        story = make_story(seed, "train")
        for ask in foreign_asks(rng, story):
            assert ask.target_ids == ()
            assert not ask.subject or ask.subject not in story.names.values()
            found += 1
    assert found > 10


def test_wordings_and_kinds_of_validation_never_train() -> None:
    for topic in StoryTopic:
        for count in (0, 2):
            train, held_out = (set(wordings(topic, split, count)) for split in ("train", "val"))
            assert len(train) >= 4
            assert len(held_out) >= 2
            assert not train & held_out
            assert set(wordings(topic, "dev", count)) == train
    assert not KINDS["train"].keys() & KINDS["val"].keys()
    nouns = {name.split()[-1] for d in map(drawn, SEEDS) for name in d.story.names.values()}
    assert not nouns & KINDS["train"].keys()


def test_questions_of_every_sort_are_chosen() -> None:
    chosen = [
        posed.ask
        for seed in range(30)
        for posed in choose(
            np.random.default_rng(seed), make_story(seed, "train"), 4, lambda _ask: True
        )
    ]
    count = len(chosen)
    assert 0.1 < sum(not ask.target_ids for ask in chosen) / count < 0.45
    assert sum(len(ask.target_ids) > 1 for ask in chosen) / count > 0.15
    assert sum(ask.event_s is not None for ask in chosen) / count > 0.25
    assert {ask.topic for ask in chosen} == set(StoryTopic)


def test_a_frame_needs_none_before_it_and_equal_seeds_are_equal() -> None:
    d = drawn(2)
    times = np.array([3.0, 11.5])
    for time_s, (_, ids) in zip(
        times, make_story(2, "val", num_frames=130).draw(times, SIZE_WH), strict=True
    ):
        assert (ids == d.labels[round(time_s * RATE_HZ)]).all()
    assert make_story(3, "val").names != make_story(2, "val").names


@pytest.mark.parametrize(("aspect", "num_frames"), [(1.0, 120), (3.0, 120), (1.4, 90), (1.4, 500)])
def test_a_story_of_another_form_is_refused_with_what_is_wanted(
    aspect: float, num_frames: int
) -> None:
    with pytest.raises(InputError, match=r"1\.2 to 2|120 to 450"):
        make_story(1, "train", aspect=aspect, num_frames=num_frames)
