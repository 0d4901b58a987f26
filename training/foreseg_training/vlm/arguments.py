# SPDX-License-Identifier: Apache-2.0
"""What both stages tell TRL's trainers, and where a run goes on from.

Does not know: models, samples, rewards.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from foreseg.errors import ConfigError
from foreseg_training.vlm.recipe import Recipe


def common_arguments(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What both stages tell the trainer."""
    return {
        "output_dir": str(out / "checkpoints"),
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.schedule,
        "warmup_steps": recipe.warmup_ratio,  # below 1: a share of all steps
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "num_train_epochs": recipe.epochs,
        "max_steps": recipe.max_steps or -1,
        "bf16": recipe.precision == "bf16",
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "logging_steps": 1,
        "save_steps": recipe.save_steps,
        "save_total_limit": 2,
        "activation_checkpointing": torch.cuda.is_available(),
        "use_cpu": not torch.cuda.is_available(),
        "report_to": [],
    }


def accumulation(wanted: int, per_device: int) -> int:
    """Steps of accumulation for so many rows a step.

    Raises:
        ConfigError: the processes that `accelerate launch` started do not divide them.
    """
    at_once = per_device * int(os.environ.get("WORLD_SIZE", "1"))
    if wanted % at_once:
        msg = f"{wanted} rows a step cannot be divided by {at_once} at once: change per_device"
        raise ConfigError(msg)
    return wanted // at_once


def newest_checkpoint(out: Path) -> str:
    """The checkpoint to go on from.

    Raises:
        ConfigError: there is none.
    """
    folders = (out / "checkpoints").glob("checkpoint-*")
    found = sorted((p for p in folders if p.name[11:].isdecimal()), key=lambda p: int(p.name[11:]))
    if not found:
        msg = f"nothing to resume from in {out}: it has no checkpoints/checkpoint-N"
        raise ConfigError(msg)
    return str(found[-1])
