# SPDX-License-Identifier: Apache-2.0
"""Veason-R1's lessons: keyframe and boxes in one completion, over frames of the whole video.

Does not know: trainers, models, tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from foreseg.methods.grammar import Form
from foreseg.methods.veason import VeasonMethod
from foreseg_evaluation.episode import Episode
from foreseg_training.runs.watched_rewards import RewardFunction
from foreseg_training.samples import Filtered
from foreseg_training.tracking import Tracking
from foreseg_training.vlm.lesson import Lesson
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rewards_tracked import shown_of
from foreseg_training.vlm.rewards_veason import VeasonRewards, truth_of
from foreseg_training.vlm.rows import completion_of, drawer_of, step_of
from foreseg_training.vlm.thoughts import ThoughtCounter

NAMES = ("format", "keyframe", "spatial", "consistency", "no_target")


class VeasonLessons:
    """Keeps to `Lessons`."""

    def __init__(self, recipe: Recipe, method: VeasonMethod) -> None:
        self._recipe = recipe
        self._method = method
        self._form = Form(recipe.form)

    @property
    def method(self) -> VeasonMethod:
        """As it will run on the robot."""
        return self._method

    def draw(
        self, episodes: Sequence[Episode], filtered: Filtered, *, has_completions: bool
    ) -> Iterator[Lesson]:
        """One lesson of each episode; see `Lessons`."""
        needs_rationale = has_completions and self._form.has_rationale
        drawer = drawer_of(self._recipe, needs_rationale=needs_rationale)
        sources = {episode.id: episode for episode in episodes}
        for sample in drawer.draw(episodes, self._recipe.seed, filtered):
            columns = {"truth": truth_of(self._method, sample).to_json()}
            if not has_completions:
                shown = shown_of(self._method, sample, sources[sample.source])
                columns["shown"] = shown.to_json()
            yield Lesson(
                id=sample.id,
                words=sample.query.text,
                messages=step_of(self._method, sample).request.messages,
                completion=partial(completion_of, self._method, sample),
                columns=columns,
            )

    def functions(
        self, tracking: Tracking | None, counter: ThoughtCounter
    ) -> tuple[list[RewardFunction], list[float]]:
        """R_f, R_k, R_s, R_u and ours, each of its own; see `Lessons`."""
        del counter
        rewards = VeasonRewards(self._method, self._form, tracking)
        return rewards.functions(self._recipe.reward_weights)

    def scores(
        self, text: str, columns: Mapping[str, str], tracking: Tracking | None
    ) -> Mapping[str, float | None]:
        """All of them, with a weight or without; R_u where there is a tracker."""
        names = [name for name in NAMES if tracking is not None or name != "consistency"]
        rewards = VeasonRewards(self._method, self._form, tracking)
        functions, _ = rewards.functions(dict.fromkeys(names, 1.0))
        given = {name: [value] for name, value in columns.items()}
        return {
            name: function([text], **given)[0]
            for name, function in zip(names, functions, strict=True)
        }
