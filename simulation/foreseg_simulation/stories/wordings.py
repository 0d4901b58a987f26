# SPDX-License-Identifier: Apache-2.0
"""The words of questions about stories, by topic: those that train, and those that are held out.

{x} is the thing that is spoken of, {a} and {b} are edges of the view. Answers are closed: the
names of all targets in the order of the alphabet, or "nothing". Does not know: stories.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from foreseg_simulation.telling import listed

from .asking import StoryTopic

NOTHING = "nothing"

_TRAIN: Mapping[StoryTopic, tuple[str, ...]] = MappingProxyType(
    {
        StoryTopic.CAME_AND_WENT: (
            "What came in over the {a} edge and went out over the {b} edge?",
            "What entered the view from the {a} and left it by the {b} edge?",
            "Which object came from the {a} edge and later went out over the {b} edge?",
            "What went out over the {b} edge after it had come in over the {a} edge?",
        ),
        StoryTopic.WENT_OUT: (
            "What has gone out over the {b} edge so far?",
            "Which objects went out over the {b} edge?",
            "What left the view by the {b} edge?",
            "Find everything that has left over the {b} edge.",
        ),
        StoryTopic.CAME_AFTER: (
            "What came into the view right after the {x}?",
            "Which object entered next after the {x}?",
            "After the {x} had come in, what was the next to come?",
            "What followed the {x} into the view?",
        ),
        StoryTopic.CAME_WITH: (
            "What came in together with the {x}?",
            "Which object entered the view along with the {x}?",
            "What moved together with the {x}?",
            "Which object was beside the {x} all the way?",
        ),
        StoryTopic.REVEAL: (
            "What will be seen when the shrinking screen is gone?",
            "Which objects will the shrinking screen show?",
            "What will come to light once the screen that begins to shrink is gone?",
            "What does the screen that gets smaller still hide?",
        ),
        StoryTopic.BEHIND: (
            "What is behind the {x} at the end?",
            "Which objects are hidden behind the {x} now?",
            "What does the {x} hide?",
            "What went behind the {x} and is still there?",
        ),
        StoryTopic.CAME_OUT: (
            "What was behind the {x} and came out again?",
            "Which objects went behind the {x} but did not stay?",
            "What has come out from behind the {x}?",
            "What did the {x} hide only for a time?",
        ),
        StoryTopic.FALL_ALL: (
            "What will fall?",
            "Which objects will fall next?",
            "What is about to fall down?",
            "Find all objects that will fall.",
        ),
        StoryTopic.FALL_FIRST: (
            "What will fall first?",
            "Which object will be the first to fall?",
            "What falls before anything else does?",
            "Which object will slide off first?",
        ),
        StoryTopic.LEAVE_ALL: (
            "What will leave over the {b} edge?",
            "Which objects will go out over the {b} edge?",
            "What is going to leave the view by the {b} edge?",
            "Find all that will get to the {b} edge and leave.",
        ),
        StoryTopic.TURN_BACK: (
            "What will turn back at the {x}?",
            "Which objects will turn around at the {x}?",
            "What is not going to pass the {x}?",
            "Find all that will go back when they reach the {x}.",
        ),
    }
)
_HELD_OUT: Mapping[StoryTopic, tuple[str, ...]] = MappingProxyType(
    {
        StoryTopic.CAME_AND_WENT: (
            "Which object took the way from the {a} edge to the {b} edge?",
            "Something entered at the {a} and was last seen at the {b} edge; what was it?",
        ),
        StoryTopic.WENT_OUT: (
            "Whatever crossed the {b} edge on its way out: what was that?",
            "Over the {b} edge, which objects did the view lose?",
        ),
        StoryTopic.CAME_AFTER: (
            "Who was the next newcomer once the {x} had entered?",
            "The {x} came; then what?",
        ),
        StoryTopic.CAME_WITH: (
            "Who was the companion of the {x}?",
            "The {x} did not come alone: what was with it?",
        ),
        StoryTopic.REVEAL: (
            "One screen starts to vanish; what stood behind it?",
            "Name what the vanishing screen is about to uncover.",
        ),
        StoryTopic.BEHIND: (
            "Take the {x} away: what would one find there?",
            "Who is still out of sight because of the {x}?",
        ),
        StoryTopic.CAME_OUT: (
            "Who left its hiding place at the {x}?",
            "The {x} no longer covers something that it covered before; what?",
        ),
        StoryTopic.FALL_ALL: (
            "Which ones are going to lose their hold?",
            "Name whatever will end up lower than it is now.",
        ),
        StoryTopic.FALL_FIRST: (
            "Who loses its hold before the others?",
            "Which one drops earliest?",
        ),
        StoryTopic.LEAVE_ALL: (
            "Who makes it to the {b} edge and beyond?",
            "Name those that the view will lose at the {b} edge.",
        ),
        StoryTopic.TURN_BACK: (
            "For whom is the {x} the end of the way?",
            "Name those that reverse at the {x}.",
        ),
    }
)
_TWO: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("Which two will fall?", "Which two objects are about to fall?"),
        "val": ("Two of them will lose their hold: which ones?",),
    }
)


def wordings(topic: StoryTopic, split: str, num_targets: int = 0) -> tuple[str, ...]:
    """The words of a split; those of "val" never train, those of "dev" do.

    Args:
        topic: what is asked about.
        split: "train", "dev" or "val".
        num_targets: of the answer; two that fall may be asked for as two.
    """
    is_held_out = split == "val"
    own = (_HELD_OUT if is_held_out else _TRAIN)[topic]
    if topic is StoryTopic.FALL_ALL and num_targets == 2:
        own += _TWO["val" if is_held_out else "train"]
    return own


def closed_answer(names: Iterable[str]) -> str:
    """The one text for a set of names: "the blue ring and the red star", or "nothing"."""
    ordered = sorted(names)
    return listed(ordered) if ordered else NOTHING
