# SPDX-License-Identifier: Apache-2.0
"""The command that trains the nano tracker: its words, and what they start.

`foreseg-train tracker` and `python -m foreseg_training.tracker` are one. Imports torch only when it
trains. Does not know: networks, losses, clips.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from foreseg.errors import InputError, MissingExtraError

from .precision import add_precision_argument, is_bf16

ABOUT = "training of the nano tracker on drawn clips, and on photographs with masks"


def add_tracker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's words to a parser."""
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--minutes", type=float, default=60.0, help="minutes of one core")
    parser.add_argument(
        "--photos",
        type=Path,
        help="folder of photographs with masks (see foreseg_training.tracker.photos)",
    )
    parser.add_argument(
        "--weight",
        action="append",
        default=[],
        metavar="SOURCE=W",
        help="how often to draw a source of photographs against the others, which have 1",
    )
    parser.add_argument("--start", type=Path, help="a trained tracker's weights to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--image-size", type=int, default=224, help="model pixels a side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--score-every-s", type=float, default=240.0)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    add_precision_argument(parser)
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pt")


def train_tracker(options: argparse.Namespace) -> None:
    """Train as the words say.

    Raises:
        InputError: a word, a file or a photograph that cannot be; says which.
        MissingExtraError: torch is not installed.
    """
    if not 0 < options.minutes < math.inf:
        msg = f"--minutes wants a finite number above 0, got {options.minutes}"
        raise InputError(msg)
    for name, value, least in (("threads", options.threads, 1), ("seed", options.seed, 0)):
        if value < least:
            msg = f"--{name} wants at least {least}, got {value}"
            raise InputError(msg)
    if options.resume and not (options.out / "state.pt").is_file():
        msg = f"nothing to resume from: {options.out} has no state.pt"
        raise InputError(msg)
    weights = _weights(options.weight)
    try:
        _train(options, weights)
    except ImportError as error:
        package, extra = str(error.name), "train"
        raise MissingExtraError(package, extra, "training the tracker") from error
    except ValueError as error:  # of the tracker's own parts, in a sentence
        raise InputError(str(error)) from error


def _train(options: argparse.Namespace, weights: Mapping[str, float]) -> None:
    import cv2
    import torch

    from foreseg_torch.tracker.nano_tracker import NanoTrackerConfig, read_nano_tracker_config

    from .tracker.loop import TrainingConfig, train
    from .tracker.photos import read_photos

    tracker = NanoTrackerConfig(image_size=options.image_size)
    if options.start is not None:
        trained = read_nano_tracker_config(options.start)
        tracker = dataclasses.replace(trained, image_size=options.image_size)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(0)
    photos = None if options.photos is None else read_photos(options.photos, weights)
    config = TrainingConfig(
        photos=photos,
        start=options.start,
        out=options.out,
        minutes=options.minutes,
        seed=options.seed,
        peak_rate=options.rate,
        score_every_s=options.score_every_s,
        bfloat16=is_bf16(options.precision),
        resume=options.resume,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    train(config, tracker)


def _weights(texts: Sequence[str]) -> dict[str, float]:
    weights = {}
    for text in texts:
        source, _, weight = text.partition("=")
        try:
            weights[source] = float(weight)
        except ValueError as error:
            msg = f"--weight wants SOURCE=NUMBER, got {text!r}"
            raise InputError(msg) from error
    return weights
