# SPDX-License-Identifier: Apache-2.0
"""What both stages tell TRL's trainers.

Does not know: models, samples, rewards.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreseg.errors import ConfigError
from foreseg_training.runs.checkpoints import FOLDER
from foreseg_training.runs.faults import on_cpu
from foreseg_training.vlm.recipe import Recipe


def common_arguments(recipe: Recipe, out: Path, device: str = "auto") -> dict[str, Any]:
    """What both stages tell the trainer.

    Args:
        recipe: its numbers.
        out: the run's folder.
        device: "auto" takes the GPU where torch sees one; "cuda"; "cpu".

    Raises:
        ConfigError: a GPU is wanted and absent.
    """
    is_cpu = on_cpu(device)
    return {
        "output_dir": str(out / FOLDER),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_ratio,  # below 1: a share of all steps
        "weight_decay": recipe.weight_decay,
        "adam_beta2": recipe.adam_beta2,
        "max_grad_norm": recipe.max_grad_norm,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "bf16": recipe.precision == "bf16",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": 1,
        "save_steps": recipe.save_steps,
        "save_total_limit": 2,
        "activation_checkpointing": not is_cpu,
        "use_cpu": is_cpu,
        "report_to": [],
        "logging_nan_inf_filter": False,  # else a loss that is no number is shown as the one before
    }


def grpo_arguments(
    recipe: Recipe, out: Path, device: str, weights: Sequence[float]
) -> dict[str, Any]:
    """What GRPO's trainers are told, for `GRPOConfig`.

    TRL counts completions where the papers count prompts: `batch_size` x `num_generations` of them
    make a step. Completions are sampled without a grammar, by `transformers` as by vLLM.

    Args:
        recipe: of the stage "grpo".
        out: the run's folder.
        device: as `common_arguments`.
        weights: of the rewards, in their order.

    Raises:
        ConfigError: a GPU or vLLM is wanted and absent, or completions cannot be divided.
    """
    return {
        **common_arguments(recipe, out, device),
        "per_device_train_batch_size": recipe.per_device,
        "gradient_accumulation_steps": accumulation(
            recipe.batch_size * recipe.num_generations, recipe.per_device
        ),
        "num_generations": recipe.num_generations,
        "max_completion_length": recipe.max_completion_tokens,
        "temperature": recipe.temperature,
        "beta": recipe.kl_beta,
        "epsilon": recipe.epsilon,
        "loss_type": "grpo",
        "scale_rewards": "group",
        "reward_weights": list(weights),
        **_rollouts(recipe),
    }


def _rollouts(recipe: Recipe) -> dict[str, Any]:
    """Who writes completions: the model as it is trained, or vLLM with its weights."""
    if recipe.rollouts == "transformers":
        return {}
    if importlib.util.find_spec("vllm") is None:
        msg = (
            f"rollouts {recipe.rollouts} want the package vllm: pip install vllm, or take"
            " rollouts transformers"
        )
        raise ConfigError(msg)
    return {"use_vllm": True, "vllm_mode": recipe.rollouts.removeprefix("vllm-")}


def accumulation(wanted: int, per_device: int) -> int:
    """Steps of accumulation for so many rows a step.

    Raises:
        ConfigError: the processes that `accelerate launch` started do not divide them.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    at_once = per_device * processes
    if wanted % at_once:
        fits = [n for n in range(1, per_device) if wanted % (n * processes) == 0]
        way = f"per_device={fits[-1]} fits" if fits else "change batch_size"
        msg = (
            f"{wanted} rows a step cannot be divided by {at_once} at once (per_device {per_device},"
            f" processes {processes}): {way}"
        )
        raise ConfigError(msg)
    return wanted // at_once
