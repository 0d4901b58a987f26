# SPDX-License-Identifier: Apache-2.0
"""VideoSeg-R1's lessons: box and points in a target frame; and, apart from them, its sampler's.

Does not know: trainers, models, tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from foreseg.dialogue import NoTarget, TargetsFound
from foreseg.errors import ConfigError, InputError
from foreseg.methods.base import AnswerStep, SampleStep
from foreseg.methods.grammar import Form
from foreseg.methods.reading import read_completion
from foreseg.methods.videoseg import VideosegMethod
from foreseg_evaluation.episode import Episode
from foreseg_training.runs.watched_rewards import RewardFunction
from foreseg_training.sampler_samples import SamplerDrawer, SamplerSample
from foreseg_training.samples import Filtered
from foreseg_training.target_samples import TargetDrawer, TargetSample
from foreseg_training.tracking import Tracking
from foreseg_training.vlm.lesson import Lesson
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rewards_videoseg import VideosegRewards, pointed_truth_of
from foreseg_training.vlm.thoughts import ThoughtCounter

LOST = "whose truth is lost in the model's own pixels"


class VideosegLessons:
    """Keeps to `Lessons`."""

    def __init__(self, recipe: Recipe, method: VideosegMethod) -> None:
        self._recipe = recipe
        self._method = method
        self._form = Form(recipe.form)

    @property
    def method(self) -> VideosegMethod:
        """As it will run on the robot."""
        return self._method

    def draw(
        self, episodes: Sequence[Episode], filtered: Filtered, *, has_completions: bool
    ) -> Iterator[Lesson]:
        """One lesson of each episode, and two more for a sampler; see `Lessons`."""
        if self._recipe.trains != "sampler":
            yield from self._answers(episodes, filtered, has_completions=has_completions)
        if self._recipe.trains != "answer":
            yield from self._samplers(episodes, filtered)

    def functions(
        self, tracking: Tracking | None, counter: ThoughtCounter
    ) -> tuple[list[RewardFunction], list[float]]:
        """The one product; see `Lessons`."""
        return self._rewards(self._recipe.reward_weights, counter, tracking).functions()

    def scores(
        self, text: str, columns: Mapping[str, str], tracking: Tracking | None
    ) -> Mapping[str, float | None]:
        """The parts, the factor of length (thoughts counted in words), and the product."""
        weights = self._recipe.reward_weights or {"format": 1.0}
        rewards = self._rewards(weights, ThoughtCounter(), tracking)
        scored = rewards.scored(text, columns["truth"])
        return {**scored.parts, "length": scored.length, "videoseg": scored.total}

    def _rewards(
        self, weights: Mapping[str, float], counter: ThoughtCounter, tracking: Tracking | None
    ) -> VideosegRewards:
        return VideosegRewards(
            self._method,
            self._form,
            weights=weights,
            length_beta=self._recipe.length_beta,
            counter=counter,
            tracking=tracking,
        )

    def _answers(
        self, episodes: Sequence[Episode], filtered: Filtered, *, has_completions: bool
    ) -> Iterator[Lesson]:
        recipe = self._recipe
        drawer = TargetDrawer(
            num_key_frames=recipe.num_key_frames,
            num_reference_frames=recipe.num_reference_frames,
            segment_share=recipe.segment_share,
            any_share=recipe.any_target_share,
            label_offset=recipe.label_offset,
            label_stride=recipe.label_stride,
            needs_rationale=has_completions and self._form.has_rationale,
            negative_share=recipe.negative_share,
        )
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            step = target_step_of(self._method, sample)
            text = target_completion(self._method, sample)
            if not is_told(step, text, sample):
                filtered.drawn["with a target" if sample.masks else "without a target"] -= 1
                filtered.reasons[LOST] += 1
                continue
            yield Lesson(
                id=sample.id,
                words=sample.query.text,
                messages=step.request.messages,
                completion=lambda text=text: text,  # type: ignore[misc]
                columns={"truth": pointed_truth_of(self._method, sample).to_json()},
            )

    def _samplers(self, episodes: Sequence[Episode], filtered: Filtered) -> Iterator[Lesson]:
        recipe = self._recipe
        drawer = SamplerDrawer(
            num_frames=recipe.num_frames,
            label_offset=recipe.label_offset,
            label_stride=recipe.label_stride,
        )
        for sample in drawer.draw(episodes, recipe.seed, filtered):
            for step, said in sampler_steps_of(self._method, sample):
                yield Lesson(
                    id=sample.id,
                    words=sample.query.text,
                    messages=step.request.messages,
                    completion=lambda said=said: f"<answer>{said}</answer>",  # type: ignore[misc]
                )


def target_step_of(method: VideosegMethod, sample: TargetSample) -> AnswerStep:
    """The last request of the method's plan over a sample."""
    shown = method.shown(sample.window)
    target = shown.get(sample.target)
    if target is None:
        msg = f"sample {sample.id}: its target frame {sample.target} is not shown"
        raise InputError(msg)
    return method.answer_step(sample.query, target, shown.frames, shown.origin_index)


def target_completion(method: VideosegMethod, sample: TargetSample) -> str:
    """What a perfect model says: the thoughts of the sample, and its prompts."""
    target = method.shown(sample.window).get(sample.target)
    assert target is not None  # noqa: S101 (`target_step_of` looks)
    answer = f"<answer>{method.worded(target, sample.prompts)}</answer>"
    step = target_step_of(method, sample)
    return step.form.put(f"<think>{sample.rationale}</think>", answer)


def is_told(step: AnswerStep, text: str, sample: TargetSample) -> bool:
    """Whether the robot reads a sample's truth in a completion.

    Objects of a few pixels of the source may have none of the model's, or the same as another.

    Raises:
        InputError: the thoughts break the form; says which sample.
    """
    read = read_completion(step, text)
    if not read.form_kept:
        msg = f"sample {sample.id}: the true completion does not keep its form: {text[:200]!r}"
        raise InputError(msg)
    part = read.verdict.part
    if not sample.prompts:
        return isinstance(part, NoTarget)
    return isinstance(part, TargetsFound) and len(part.prompts) == len(sample.prompts)


def sampler_steps_of(
    method: VideosegMethod, sample: SamplerSample
) -> Iterator[tuple[SampleStep, str]]:
    """Both requests of the sampler over a sample, each with what is right."""
    shown = method.shown(sample.window)
    first, last = sample.interval
    yield method.interval_step(sample.query, shown), f"[{first}, {last}]"
    yield method.target_step(sample.query, shown), f"{sample.percent}%"


def check_videoseg(recipe: Recipe) -> None:
    """Refuse what cannot be trained of it.

    Raises:
        ConfigError: with the way out.
    """
    if recipe.stage == "grpo" and recipe.trains != "answer":
        msg = (
            f"a sampler has no rewards: trains wants answer in the stage grpo, got {recipe.trains}"
        )
        raise ConfigError(msg)
