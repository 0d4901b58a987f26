# SPDX-License-Identifier: Apache-2.0
"""The command that makes the nano reasoner from nothing: its words, and what they start.

Imports torch only when it trains. Does not know: models, scenes, questions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from shutil import which

from foreseg.errors import InputError, MissingExtraError

from .precision import add_precision_argument, is_bf16

ABOUT = "the nano reasoner from nothing: draw worlds, teach the tower, then the language model"
WORLDS = ("shapes", "tabletop")
_START_SHARE = 0.5  # of the weights that a run goes on from, in its average
_DENSE_RATE = 2e-3
_DENSE_RATE_ON = 8e-4  # of a tower that has learnt before
_COMPILE_MINUTES = 5.0  # of training, at least, before a minute of compiling pays


def add_nano_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's words to a parser."""
    parser.add_argument("--out", type=Path, required=True, help="folder for all that comes of it")
    parser.add_argument(
        "--world", action="append", default=[], choices=WORLDS, help="repeatable; default: both"
    )
    parser.add_argument("--recordings", type=int, default=608, help="scenes and stories to draw")
    parser.add_argument(
        "--story-share",
        type=float,
        help="of the recordings: stories, long clips; default: 0.3, and 0 with --start, which keeps its words, or without shapes",
    )
    parser.add_argument(
        "--told", type=int, default=1200, help="further scenes, asked about in words alone"
    )
    parser.add_argument(
        "--stills", type=int, default=2000, help="further scenes, of which a few frames are seen"
    )
    parser.add_argument(
        "--clips", type=int, default=12, help="clips of each, with 1 to 4 questions"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="a trained nano reasoner to go on from, in scenes of another --seed",
    )
    parser.add_argument(
        "--dense-minutes",
        type=float,
        help="of one core: the tower; default: 40, and 0 with --start, which keeps its own",
    )
    parser.add_argument(
        "--minutes", type=float, default=100.0, help="of one core: the language model"
    )
    parser.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate")
    parser.add_argument(
        "--threads", type=int, default=1, help="of arithmetic; as many processes draw"
    )
    add_precision_argument(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="keep what is drawn, go on from the last checkpoint, also with more minutes",
    )


def train_nano(options: argparse.Namespace) -> None:
    """Make it.

    Raises:
        InputError: a number that cannot be, or a folder that holds something.
        MissingExtraError: a package is absent.
    """
    for name, least in (
        ("recordings", 2), ("clips", 1), ("told", 1), ("stills", 1), ("threads", 1), ("seed", 0),
    ):  # fmt: skip
        if getattr(options, name) < least:
            msg = (
                f"--{name.replace('_', '-')} wants at least {least}, got {getattr(options, name)}"
            )
            raise InputError(msg)
    if options.dense_minutes is None:
        options.dense_minutes = 40.0 if options.start is None else 0.0
    for name, most in (("minutes", 1e5), ("rate", 1.0)):
        if not 0 < getattr(options, name) <= most:
            msg = f"--{name.replace('_', '-')} wants a number above 0 and at most {most:g}, got {getattr(options, name)}"
            raise InputError(msg)
    if not 0 <= options.dense_minutes <= 1e5 or not (options.dense_minutes or options.start):
        msg = (
            "--dense-minutes wants a number above 0 and at most 100000, or 0 with --start, got"
            f" {options.dense_minutes:g}"
        )
        raise InputError(msg)
    if options.story_share is None:
        has_shapes = not options.world or "shapes" in options.world
        options.story_share = 0.3 if options.start is None and has_shapes else 0.0
    if not 0 <= options.story_share < 1:
        msg = f"--story-share wants 0 to less than 1, got {options.story_share:g}"
        raise InputError(msg)
    if options.start is not None and not (options.start / "method.json").is_file():
        msg = f"--start wants the folder of a nano reasoner, as OUT/model is; {options.start} is none"
        raise InputError(msg)
    is_prepared = (options.out / "held_out.jsonl").is_file()
    if is_prepared and not options.resume:
        msg = f"{options.out} holds a run: --resume goes on with it, another --out begins anew"
        raise InputError(msg)
    try:
        _make(options, is_prepared=is_prepared)
    except ImportError as error:
        package, extra = str(error.name), "train"
        raise MissingExtraError(package, extra, "training the nano reasoner") from error


def _make(options: argparse.Namespace, *, is_prepared: bool) -> None:
    import cv2
    import torch

    from foreseg.work.choose import executor_from
    from foreseg_simulation.worlds import World, require_world

    from .nano.dense import DenseConfig
    from .nano.preparing import Preparation, is_of_today, prepare
    from .nano.training import NanoTraining, train_language

    if is_prepared and not is_of_today(options.out):
        msg = f"{options.out} was prepared by another foreseg: begin anew with another --out"
        raise InputError(msg)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    worlds = tuple(World(name) for name in options.world or WORLDS)
    for world in worlds:
        require_world(world)
    bf16 = is_bf16(options.precision)
    if not is_prepared:
        preparation = Preparation(
            worlds=worlds,
            num_recordings=options.recordings,
            story_share=options.story_share,
            num_held_out=max(1, options.recordings // 32),
            num_told=options.told,
            num_stills=options.stills,
            num_clips=options.clips,
            dense=DenseConfig(
                minutes=options.dense_minutes,
                peak_rate=_DENSE_RATE if options.start is None else _DENSE_RATE_ON,
                bf16=bf16,
                is_compiled=options.dense_minutes > _COMPILE_MINUTES and which("g++") is not None,
            ),
            trained=options.start,
            seed=options.seed,
        )
        prepare(preparation, options.out, executor_from(workers=options.threads, ray=""))
    basics = NanoTraining().stage_shares if options.start is None else (0.0, 0.0, 0.0)
    training = NanoTraining(
        stage_shares=basics,
        minutes=options.minutes,
        learning_rate=options.rate,
        start_share=0.0 if options.start is None or options.dense_minutes else _START_SHARE,
        bf16=bf16,
        seed=options.seed,
    )
    best = train_language(training, options.out, resume=options.resume)
    print(f"the better one on held-out questions: {best}")
