# SPDX-License-Identifier: Apache-2.0
"""`foreseg-train`: trains reasoning models by recipe, and the tracker; shows what rewards say of completions."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from foreseg.cli import BAD_INPUT, DONE, INTERRUPTED, Parser
from foreseg.errors import ConfigError, ForesegError, InputError, MissingExtraError
from foreseg_training.nano_command import ABOUT as NANO_ABOUT
from foreseg_training.nano_command import add_nano_arguments, train_nano
from foreseg_training.nano_grpo_command import ABOUT as NANO_GRPO_ABOUT
from foreseg_training.nano_grpo_command import add_nano_grpo_arguments, train_nano_grpo
from foreseg_training.teacher_command import (
    CHAINS_ABOUT,
    RATINGS_ABOUT,
    add_chain_arguments,
    add_rating_arguments,
)
from foreseg_training.tracker_command import ABOUT as TRACKER_ABOUT
from foreseg_training.tracker_command import add_tracker_arguments, train_tracker

if TYPE_CHECKING:
    from foreseg_evaluation.episode import Dataset
    from foreseg_training.vlm.recipe import Recipe

SEG_METHODS = ("visa", "fevos")  # whose answers are [SEG] tokens
MAX_PROBLEMS = 20  # of a dataset, told one by one

_EXAMPLES = """examples:
  foreseg-sim generate --world shapes --clips 200 --split train --out worlds
  foreseg-train sft --recipe veason-sft --model Qwen2.5-VL-3B-Instruct --dataset worlds --form fevos --out run
  foreseg-train grpo --recipe veason-grpo --model run/model --dataset worlds --form fevos --out run2
  foreseg-train sft --recipe veason-sft-tiny --set max_steps=20 ... --resume
  foreseg-train show-rewards --dataset worlds --form fevos --completions said.txt
  foreseg-train make-cot --teacher server.json --dataset ReVOS --form revos --out cot
  foreseg-train sft --recipe veason-sft --chains cot/reasoning_data.json --dataset ReVOS --form revos ...
  foreseg-train make-difficulty --from-scene --dataset worlds --out rated
  foreseg-train tracker --out tracker --minutes 108
  foreseg-train nano --out nano
  foreseg-train nano-grpo --start nano/model --data nano --out nano_grpo
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and train; exit 2 for wrong input."""
    parser = _parser()
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    # Advice that nobody can take: a package for 4 bits, which are not trained; an old name in TRL.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*checkpointing.* is deprecated", FutureWarning)
    try:
        options.run(options)
    except (ForesegError, OSError) as error:
        told = str(error)
        if isinstance(error, OSError) and error.filename and error.strerror:
            told = f"{error.filename} cannot be used: {error.strerror}"
        sys.stderr.write(f"foreseg-train: {told}\n")
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nforeseg-train: stopped; --resume goes on from the last checkpoint, make-cot without it\n"
        )
        sys.exit(INTERRUPTED)
    sys.exit(DONE)


def _parser() -> Parser:
    parser = Parser(
        prog="foreseg-train",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for stage, about in (
        ("sft", "supervised fine-tuning on true completions"),
        ("grpo", "group relative policy optimisation with rewards"),
    ):
        command = commands.add_parser(stage, help=about, description=about)
        command.add_argument("--recipe", required=True, help="a shipped one, or a YAML file")
        command.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="change a number of it",
        )
        command.add_argument("--model", type=Path, required=True, help="folder to start from")
        command.add_argument("--out", type=Path, required=True, help="folder for what comes of it")
        command.add_argument("--resume", action="store_true", help="from the last checkpoint")
        if stage == "grpo":
            command.add_argument(
                "--ray", default="", metavar="ADDRESS", help="track for rewards on a Ray cluster"
            )
        command.add_argument(
            "--device", default="auto", choices=("auto", "cuda", "cpu"), help="default: auto"
        )
        _add_dataset(command)
        _add_sidecars(command)
        command.set_defaults(run=_train)
    show = commands.add_parser("show-rewards", help="what rewards say of completions")
    show.add_argument("--recipe", default="veason-grpo", help="whose frames and form are used")
    show.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    show.add_argument("--completions", type=Path, help="one a line; left out: the true ones")
    show.add_argument("--count", type=int, default=5, help="samples; default: 5")
    _add_dataset(show)
    _add_sidecars(show)
    show.set_defaults(run=_show)
    chains = commands.add_parser("make-cot", help=CHAINS_ABOUT, description=CHAINS_ABOUT)
    _add_dataset(chains)
    add_chain_arguments(chains)
    ratings = commands.add_parser("make-difficulty", help=RATINGS_ABOUT, description=RATINGS_ABOUT)
    _add_dataset(ratings)
    add_rating_arguments(ratings)
    nano = commands.add_parser("nano", help=NANO_ABOUT, description=NANO_ABOUT)
    add_nano_arguments(nano)
    nano.set_defaults(run=train_nano)
    grpo = commands.add_parser("nano-grpo", help=NANO_GRPO_ABOUT, description=NANO_GRPO_ABOUT)
    add_nano_grpo_arguments(grpo)
    grpo.set_defaults(run=train_nano_grpo)
    tracker = commands.add_parser("tracker", help=TRACKER_ABOUT, description=TRACKER_ABOUT)
    add_tracker_arguments(tracker)
    tracker.set_defaults(run=train_tracker)
    return parser


def _add_dataset(command: argparse.ArgumentParser) -> None:
    command.add_argument("--dataset", type=Path, required=True, help="its root folder")
    command.add_argument("--form", default="fevos", help="as foreseg-eval names it")
    command.add_argument("--split", default="train")


def _add_sidecars(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--chains", type=Path, metavar="FILE", help="chains of thought, as make-cot writes them"
    )
    command.add_argument(
        "--difficulties", type=Path, metavar="FILE", help="as make-difficulty writes them"
    )


def _read(options: argparse.Namespace) -> Dataset:
    """The dataset with what stands beside it; what is wrong is told."""
    from foreseg_evaluation.datasets import read_dataset
    from foreseg_evaluation.datasets.sidecars import with_difficulties, with_rationales

    dataset = read_dataset(options.dataset, options.form, split=options.split)
    if options.chains is not None:
        dataset = with_rationales(dataset, options.chains)
    if options.difficulties is not None:
        dataset = with_difficulties(dataset, options.difficulties)
    told = (*dataset.assumptions, *dataset.problems[:MAX_PROBLEMS])
    for line in told:
        sys.stderr.write(f"foreseg-train: {line}\n")
    if (more := len(dataset.problems) - MAX_PROBLEMS) > 0:
        sys.stderr.write(f"foreseg-train: and {more} more of such problems with {dataset.root}\n")
    return dataset


def _make_folder(out: Path) -> None:
    """A run's folder, before anything slow is done for it.

    Raises:
        InputError: it cannot be made or written into.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        msg = f"--out wants a folder that can be written, got {out}: {error.strerror}"
        raise InputError(msg) from error


def _train(options: argparse.Namespace) -> None:
    from foreseg_training.runs.run_card import DataSource
    from foreseg_training.vlm.recipe import read_recipe

    changes = _changes(options.set)
    if getattr(options, "ray", ""):
        changes["tracker_ray"] = json.dumps(options.ray)
    recipe = read_recipe(options.recipe, changes)
    if recipe.stage != options.command:
        msg = f"the recipe {options.recipe} is of the stage {recipe.stage}, not {options.command}"
        raise ConfigError(msg)
    if not options.model.is_dir():
        msg = f"--model wants a folder on this machine, got {options.model}"
        raise InputError(msg)
    dataset = _read(options)
    _make_folder(options.out)
    try:
        import datasets
        import trl
    except ImportError as error:
        package, extra = str(error.name), "train"
        raise MissingExtraError(package, extra, "training language models") from error
    del datasets, trl
    train = _stage_of(recipe)
    is_first = int(os.environ.get("RANK", "0")) == 0
    if is_first:
        sys.stdout.write(recipe.to_yaml())
    folder = train(
        recipe,
        options.model,
        dataset.episodes,
        options.out,
        resume=options.resume,
        device=options.device,
        source=DataSource(root=options.dataset, form=options.form, split=options.split),
    )
    if is_first:
        sys.stdout.write(f"{folder}\n")


def _stage_of(recipe: Recipe) -> Callable[..., Path]:
    """What trains a recipe: by its stage, and by how its method's answers are decoded."""
    if recipe.method in SEG_METHODS:
        from foreseg_training.vlm.seg_grpo import train_seg_grpo
        from foreseg_training.vlm.seg_sft import train_seg_sft

        return train_seg_sft if recipe.stage == "sft" else train_seg_grpo
    from foreseg_training.vlm.grpo import train_grpo
    from foreseg_training.vlm.sft import train_sft

    return train_sft if recipe.stage == "sft" else train_grpo


def _show(options: argparse.Namespace) -> None:
    from foreseg_training.vlm.recipe import read_recipe
    from foreseg_training.vlm.showing import shown_rewards

    if options.count < 1:
        msg = f"--count wants at least 1, got {options.count}"
        raise InputError(msg)
    recipe = read_recipe(options.recipe, _changes(options.set))
    if recipe.method in SEG_METHODS:
        msg = f"rewards of {recipe.method} are over decoded masks, which text does not have"
        raise ConfigError(msg)
    if recipe.trains != "answer":
        msg = f"what a sampler says has no rewards: trains wants answer, got {recipe.trains}"
        raise ConfigError(msg)
    dataset = _read(options)
    said = None
    if options.completions is not None:
        try:
            said = options.completions.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            msg = f"--completions wants a text file, one a line; {options.completions}: {error}"
            raise InputError(msg) from error
    for line in shown_rewards(recipe, dataset.episodes, said, options.count):
        sys.stdout.write(line + "\n")


def _changes(texts: Sequence[str]) -> dict[str, str]:
    changes = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            msg = f"--set wants NAME=VALUE, got {text!r}"
            raise InputError(msg)
        changes[name] = value
    return changes


if __name__ == "__main__":
    main()
