# SPDX-License-Identifier: Apache-2.0
"""What is trained of a method: its samples as lessons, and the rewards of what is said of them.

Stages and `show-rewards` see lessons alone; which methods there are, `lessons_of` knows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from foreseg.language.base import Message
from foreseg.methods.base import Method
from foreseg_evaluation.episode import Episode
from foreseg_training.runs.watched_rewards import RewardFunction
from foreseg_training.samples import Filtered
from foreseg_training.tracking import Tracking
from foreseg_training.vlm.thoughts import ThoughtCounter


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """One thing to ask, and what is right.

    Attributes:
        id: of its sample.
        words: the query's.
        messages: the prompt, as the robot's method makes it.
        completion: what a perfect model says; raises InputError if the robot would not read the
            truth in it.
        columns: what rewards need, by name.
    """

    id: str
    words: str
    messages: Sequence[Message]
    completion: Callable[[], str]
    columns: Mapping[str, str] = field(default_factory=dict)


class Lessons(Protocol):
    """The lessons of one recipe."""

    @property
    def method(self) -> Method:
        """As it will run on the robot."""

    def draw(
        self, episodes: Sequence[Episode], filtered: Filtered, *, has_completions: bool
    ) -> Iterator[Lesson]:
        """Draw lessons of episodes; what gives none is counted.

        Args:
            episodes: of a dataset.
            filtered: counts.
            has_completions: the true completions are wanted, too: with thoughts, where the form
                has them.
        """

    def functions(
        self, tracking: Tracking | None, counter: ThoughtCounter
    ) -> tuple[list[RewardFunction], list[float]]:
        """Reward functions as TRL calls them, and their weights.

        Raises:
            ConfigError: weights of no reward, or none at all.
        """

    def scores(
        self, text: str, columns: Mapping[str, str], tracking: Tracking | None
    ) -> Mapping[str, float | None]:
        """What each part of the rewards says of one completion; None: does not apply."""
