# SPDX-License-Identifier: Apache-2.0
"""Train the nano tracker: `python -m foreseg_training.tracker --out DIR --minutes 110`."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

from foreseg_torch.tracker.nano_tracker import NanoTrackerConfig, read_nano_tracker_config

from .loop import TrainingConfig, train
from .photos import read_photos


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
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
    parser.add_argument("--float32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--resume", action="store_true", help="go on from DIR/state.pt")
    arguments = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        _train(arguments)
    except (ValueError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _train(arguments: argparse.Namespace) -> None:
    if not 0 < arguments.minutes < float("inf"):
        msg = f"--minutes wants a finite number above 0, got {arguments.minutes}"
        raise ValueError(msg)
    for name, value, least in (("threads", arguments.threads, 1), ("seed", arguments.seed, 0)):
        if value < least:
            msg = f"--{name} wants at least {least}, got {value}"
            raise ValueError(msg)
    tracker = NanoTrackerConfig(image_size=arguments.image_size)
    if arguments.start is not None:
        trained = read_nano_tracker_config(arguments.start)
        tracker = dataclasses.replace(trained, image_size=arguments.image_size)
    if arguments.resume and not (arguments.out / "state.pt").is_file():
        msg = f"nothing to resume from: {arguments.out} has no state.pt"
        raise ValueError(msg)
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(0)
    photos = None
    if arguments.photos is not None:
        photos = read_photos(arguments.photos, dict(map(_weight, arguments.weight)))
    config = TrainingConfig(
        photos=photos,
        start=arguments.start,
        out=arguments.out,
        minutes=arguments.minutes,
        seed=arguments.seed,
        peak_rate=arguments.rate,
        score_every_s=arguments.score_every_s,
        bfloat16=not arguments.float32,
        resume=arguments.resume,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    train(config, tracker)


def _weight(text: str) -> tuple[str, float]:
    source, _, weight = text.partition("=")
    try:
        return source, float(weight)
    except ValueError as error:
        msg = f"--weight wants SOURCE=NUMBER, got {text!r}"
        raise ValueError(msg) from error


if __name__ == "__main__":
    main()
