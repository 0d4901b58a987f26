# SPDX-License-Identifier: Apache-2.0
"""The command that goes on from a trained nano reasoner with rewards: its words, and what they start.

Imports torch only when it trains. Does not know: models, rewards.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from foreseg.errors import InputError, MissingExtraError

from .precision import add_precision_argument, is_bf16

ABOUT = "group relative policy optimisation of a trained nano reasoner, on frames already seen"


def add_nano_grpo_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's words to a parser."""
    parser.add_argument(
        "--start", type=Path, required=True, help="a trained nano reasoner, as OUT/model of nano"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="what nano drew and saw: its OUT, same tower"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for what comes of it")
    parser.add_argument("--minutes", type=float, default=20.0, help="of one core")
    parser.add_argument("--questions", type=int, default=8, help="of a step")
    parser.add_argument("--completions", type=int, default=8, help="of a question")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate")
    parser.add_argument("--kl", type=float, default=0.005, help="weight of the KL; 0: none")
    parser.add_argument("--held-out", type=int, default=100, help="questions asked at each save")
    parser.add_argument("--threads", type=int, default=1)
    add_precision_argument(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", action="store_true", help="from the last save, also with more minutes"
    )


def train_nano_grpo(options: argparse.Namespace) -> None:
    """Go on from it.

    Raises:
        InputError: a number that cannot be, or a folder that holds something, or lacks it.
        MissingExtraError: a package is absent.
    """
    for name, least in (
        ("questions", 1), ("completions", 2), ("held_out", 0), ("threads", 1), ("seed", 0),
    ):  # fmt: skip
        if getattr(options, name) < least:
            msg = (
                f"--{name.replace('_', '-')} wants at least {least}, got {getattr(options, name)}"
            )
            raise InputError(msg)
    for name, most in (("minutes", 1e5), ("rate", 1.0)):
        if not 0 < getattr(options, name) <= most:
            msg = f"--{name} wants a number above 0 and at most {most:g}, got {getattr(options, name)}"
            raise InputError(msg)
    if not 0 <= options.kl <= 1:
        msg = f"--kl wants a number from 0 to 1, got {options.kl}"
        raise InputError(msg)
    if not (options.start / "method.json").is_file():
        msg = f"--start wants the folder of a nano reasoner, as OUT/model is; {options.start} is none"
        raise InputError(msg)
    if not (options.data / "held_out.jsonl").is_file():
        msg = f"--data wants a folder that foreseg-train nano has drawn into, got {options.data}"
        raise InputError(msg)
    if (options.out / "metrics.csv").is_file() and not options.resume:
        msg = f"{options.out} holds a run: --resume goes on with it, another --out begins anew"
        raise InputError(msg)
    try:
        import torch

        from .nano.grpo import NanoGrpo, train_grpo
    except ImportError as error:
        package, extra = str(error.name), "train"
        raise MissingExtraError(package, extra, "training the nano reasoner") from error
    torch.set_num_threads(options.threads)
    numbers = NanoGrpo(
        minutes=options.minutes,
        num_questions=options.questions,
        num_generations=options.completions,
        learning_rate=options.rate,
        kl_beta=options.kl,
        num_held_out=options.held_out,
        bf16=is_bf16(options.precision),
        seed=options.seed,
    )
    train_grpo(numbers, options.start, options.data, options.out, resume=options.resume)
