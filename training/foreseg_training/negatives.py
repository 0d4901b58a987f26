# SPDX-License-Identifier: Apache-2.0
"""Another clip's question over this clip: nothing fits, and that is the right answer.

As VISA's public code trains absence. Where a dataset names its objects (the simulation does), a
question is taken only if it names one that this clip does not have. Where it does not, that nothing
fits is assumed, as VISA assumes it. Does not know: frames, models.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np

from foreseg_evaluation.episode import Episode, Question

TRIES = 64  # questions that are looked at, before a clip counts as one that none is foreign to
THOUGHT = "None of these frames shows what is asked for. So nothing fits."
_PLACES = {"left", "right", "upper", "lower", "middle", "front", "back"}  # tell twins apart


def foreign_question(
    episode: Episode, others: Sequence[Episode], rng: np.random.Generator
) -> tuple[Episode, Question] | None:
    """Draw a question of another video that has no target in this one.

    Args:
        episode: whose frames are shown.
        others: whose questions may be taken; this video's are not.
        rng: source of every choice.

    Returns:
        The episode that it comes from, and its words; None if none was found.
    """
    for _ in range(min(TRIES, 4 * len(others))):
        other = others[int(rng.integers(len(others)))]
        if other.video != episode.video and is_foreign(episode, other):
            assert other.question is not None  # noqa: S101 (`is_foreign` looked)
            return other, other.question
    return None


def is_foreign(episode: Episode, other: Episode) -> bool:
    """Whether the question of `other` has no target in `episode`, as far as can be known."""
    question = other.question
    if question is None or not any(span.object_ids for span in other.spans):
        return False  # what is absent there may be present here
    if not episode.object_names:
        is_asked_here = episode.question is not None and episode.question.text == question.text
        return not is_asked_here  # the rest is assumed
    named = names_in(question.text, other.object_names.values())
    return any(is_absent(name, episode.object_names.values()) for name in named)


def names_in(text: str, names: Collection[str]) -> list[str]:
    """The names that a text says, as whole words; a name within a longer one that is said is not."""
    rest, found = text.lower(), []
    for name in sorted(set(names), key=lambda name: (-len(name), name)):
        shorter = re.sub(rf"\b{re.escape(name.lower())}\b", " ", rest)
        if shorter != rest:
            rest = shorter
            found.append(name)
    return found


def is_absent(name: str, present: Collection[str]) -> bool:
    """Whether nothing that is present may be called by a name.

    "The red star" may be a "left red star", and a "star" a red one: words that one has and the
    other lacks leave a doubt, and a doubt is no absence.
    """
    words = words_of(name)
    return bool(words) and not any(
        words <= own or own <= words for own in map(words_of, present) if own
    )


def says(text: str, name: str) -> bool:
    """Whether a text has every word of a name, places aside."""
    return words_of(name) <= set(re.findall(r"\w+", text.lower()))


def words_of(name: str) -> set[str]:
    """The words of a name, those of places aside."""
    return set(re.findall(r"\w+", name.lower())) - _PLACES
