# SPDX-License-Identifier: Apache-2.0
"""Group relative policy optimisation by TRL's `GRPOTrainer`, with Veason-R1's rewards.

Deviation from Veason-R1: questions without a target stay in, with a reward of their own. Its reward of
temporal consistency (R_u) is tracked in a pool of worker processes. Knows no loop: TRL draws, compares and
steps.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from foreseg.config import TrackerConfig
from foreseg.errors import ConfigError
from foreseg_evaluation.episode import Episode
from foreseg_training.runs.run_card import DataSource
from foreseg_training.samples import Filtered
from foreseg_training.tracking import (
    AnyPool,
    Tracking,
    ray_tracking_pool,
    tracking_pool,
    write_videos,
)
from foreseg_training.vlm.arguments import grpo_arguments
from foreseg_training.vlm.model import (
    Setup,
    adapters,
    model_to_train,
    save_trained,
    set_up,
    special_tokens,
)
from foreseg_training.vlm.recipe import Recipe
from foreseg_training.vlm.rows import Row, dataset_of, lesson_row
from foreseg_training.vlm.run import Run
from foreseg_training.vlm.thoughts import ThoughtCounter

_LOG = logging.getLogger(__name__)


def train_grpo(
    recipe: Recipe,
    folder: Path,
    episodes: Sequence[Episode],
    out: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    source: DataSource | None = None,
) -> Path:
    """Train on one prompt of each episode; returns the folder of the trained model.

    Args and Raises as `train_sft`; ConfigError also for rewards that are unknown, InputError for a
    reward that is no number or a tracker that cannot start.
    """
    from trl import GRPOTrainer

    if recipe.stage != "grpo":
        msg = f"policy optimisation wants a recipe of the stage grpo, got {recipe.stage}"
        raise ConfigError(msg)
    setup = set_up(recipe, folder)
    config = adapters(recipe)
    run = Run(recipe, folder, out, resume=resume, source=source)
    filtered = Filtered()
    with tracking_of(recipe, episodes, out) as tracking, run.guarded():
        counter = ThoughtCounter(partial(setup.processor.decode, skip_special_tokens=True))
        functions, weights = setup.lessons.functions(tracking, counter)
        arguments = _arguments(recipe, out, device, weights)
        rows = grpo_rows(setup, episodes, run.rows_folder, filtered, at_least=recipe.batch_size)
        trainer = GRPOTrainer(
            # it knows its folder: the reference comes from there
            model=model_to_train(recipe, folder),
            reward_funcs=run.watched(functions),
            args=arguments,
            train_dataset=rows,
            processing_class=setup.processor,
            peft_config=config,
        )
        run.train(trainer, rows, filtered)
        return run.finish(save_trained(trainer, setup, recipe, folder, out))


def _arguments(recipe: Recipe, out: Path, device: str, weights: list[float]) -> Any:  # noqa: ANN401 (a GRPOConfig)
    from trl import GRPOConfig

    return GRPOConfig(**grpo_arguments(recipe, out, device, weights))


@contextlib.contextmanager
def tracking_of(
    recipe: Recipe, episodes: Sequence[Episode], out: Path
) -> Iterator[Tracking | None]:
    """The workers that track for rewards, started; None where no such reward has a weight.

    Raises:
        InputError: they cannot start; says why.
    """
    if not recipe.is_tracked:
        yield None
        return
    rank = os.environ.get("RANK", "0")  # each process has workers of its own
    videos = write_videos(out / f"videos-{rank}.pickle", episodes)
    config = TrackerConfig(bundle=recipe.tracker, backend=recipe.tracker_backend)
    timeout_s = recipe.tracker_timeout_s
    pool: AnyPool
    if recipe.tracker_ray:
        pool = ray_tracking_pool(
            videos, config, address=recipe.tracker_ray, task_timeout_s=timeout_s
        )
    else:
        pool = tracking_pool(
            videos, config, num_workers=recipe.tracker_workers, task_timeout_s=timeout_s
        )
    try:
        with pool:
            yield pool
    finally:
        if pool.failures:
            _LOG.warning("tracking: %s", dict(pool.failures))
        videos.path.unlink(missing_ok=True)


def grpo_rows(
    setup: Setup,
    episodes: Sequence[Episode],
    folder: Path,
    filtered: Filtered,
    *,
    at_least: int = 1,
) -> Any:  # noqa: ANN401 (a Dataset)
    """Prompts with their truth; counts what gives none.

    Raises:
        InputError: fewer episodes than `at_least` give a sample; says why.
    """
    tokens = special_tokens(setup.parts)

    def rows() -> Iterator[Row]:
        for lesson in setup.lessons.draw(episodes, filtered, has_completions=False):
            yield lesson_row(lesson, tokens)

    return dataset_of(rows(), filtered, folder, at_least=at_least)
