# SPDX-License-Identifier: Apache-2.0
"""Which questions a story is asked, in which words: of every kind, also such as belong elsewhere.

Does not know: files, or how frames were drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from foreseg_simulation.foresight import Skill

from .asking import Ask, StoryTopic
from .story import Story, make_story
from .wordings import closed_answer, wordings

WELL_SEEN = 0.0008  # share of the frame: a target that can be asked for
_MAX_SEED = 2**31
_ACT_OF: Mapping[StoryTopic, str] = MappingProxyType(
    {
        StoryTopic.REVEAL: "screens",
        StoryTopic.BEHIND: "screens",
        StoryTopic.CAME_OUT: "screens",
        StoryTopic.FALL_ALL: "shelves",
        StoryTopic.FALL_FIRST: "shelves",
        StoryTopic.LEAVE_ALL: "exits",
        StoryTopic.TURN_BACK: "exits",
    }
)
_LACKING: Mapping[str, str] = MappingProxyType(
    {
        "screens": "There is no screen that shrinks.",
        "shelves": "There is no shelf that tilts.",
        "exits": "There is no post, and nothing is on its way to it.",
    }
)
_NO_TARGET_SHARE = 0.25
_FOREIGN_SHARE = 0.5  # of the questions without a target
_FUTURE_SHARE = 0.5  # of those with one
_SEVERAL_SHARE = 0.4  # of those with one, that have several


@dataclass(frozen=True, slots=True, kw_only=True)
class Posed:
    """A question in words."""

    ask: Ask
    text: str
    answer: str


def areas_of(labels: Sequence[np.ndarray], num_things: int) -> np.ndarray:
    """Pixels (T, num_things + 1) of every thing in every label map (H, W); column 0 is the floor."""
    return np.stack([np.bincount(m.ravel(), minlength=num_things + 1) for m in labels])


def is_shown(ask: Ask, areas: np.ndarray, frame_px: int) -> bool:
    """Whether each target is well seen on one of the frames.

    Args:
        ask: the question.
        areas: (T, N) pixels of every thing on these frames.
        frame_px: pixels of a frame.
    """
    return all(areas[:, i].max() >= WELL_SEEN * frame_px for i in ask.target_ids)


def choose(
    rng: np.random.Generator, story: Story, count: int, is_fit: Callable[[Ask], bool]
) -> list[Posed]:
    """Draw questions: of the future and of the past, with one target, several and none.

    Args:
        rng: source of every choice.
        story: whose questions.
        count: how many; there may be fewer.
        is_fit: whether the frames show what the answer rests on.
    """
    left = [ask for ask in story.asks if is_fit(ask)]
    foreign = foreign_asks(rng, story)
    chosen: list[Ask] = []
    while len(chosen) < count and (left or foreign):
        pool = left
        if rng.random() < _NO_TARGET_SHARE:
            own = [ask for ask in left if not ask.target_ids]
            pool = foreign if foreign and (rng.random() < _FOREIGN_SHARE or not own) else own
        else:
            pool = _narrowed(
                [ask for ask in left if ask.target_ids],
                is_future=bool(rng.random() < _FUTURE_SHARE),
                has_several=bool(rng.random() < _SEVERAL_SHARE),
            )
        pool = pool or left or foreign
        topics = sorted({ask.topic.value for ask in pool})
        topic = topics[int(rng.integers(len(topics)))]  # a rare one comes as often as the others
        own = [ask for ask in pool if ask.topic.value == topic]
        ask = own[int(rng.integers(len(own)))]
        (foreign if any(ask is other for other in foreign) else left).remove(ask)
        chosen.append(ask)
    return [posed(rng, story, ask) for ask in chosen]


def posed(rng: np.random.Generator, story: Story, ask: Ask) -> Posed:
    """Put a question into words of the story's split."""
    texts = wordings(ask.topic, story.split, len(ask.target_ids))
    text = texts[int(rng.integers(len(texts)))].format(x=ask.subject, **ask.fill)
    answer = closed_answer(story.names[i] for i in ask.target_ids)
    return Posed(ask=ask, text=text, answer=answer)


def foreign_asks(rng: np.random.Generator, story: Story) -> list[Ask]:
    """Take another story's questions, about what this one does not have: nothing fits."""
    other = make_story(int(rng.integers(_MAX_SEED)), story.split, aspect=story.aspect)
    known = {_plain(name) for name in story.names.values()}
    found = []
    for ask in other.asks:
        act = _ACT_OF.get(ask.topic)
        if ask.subject and _plain(ask.subject) not in known:
            why = f"There is no {ask.subject} in the view."
        elif act is not None and act not in story.acts and not ask.subject:
            why = _LACKING[act]
        else:
            continue
        found.append(
            replace(
                ask,
                target_ids=(),
                steps=(why, "So nothing fits the question."),
                evidence_s=(story.cut_s,),
                skill=Skill.ABSENCE,
                event_s=None if ask.event_s is None else story.cut_s + 1.0,
                is_hard=False,
            )
        )
    return found


def _plain(name: str) -> str:
    """A name without "left" or "right"."""
    return " ".join(name.split()[-2:])


def _narrowed(pool: list[Ask], *, is_future: bool, has_several: bool) -> list[Ask]:
    """Keep what is wanted, a wish after the other, as long as something is left."""
    pool = [ask for ask in pool if (ask.event_s is not None) is is_future] or pool
    return [ask for ask in pool if (len(ask.target_ids) > 1) is has_several] or pool
