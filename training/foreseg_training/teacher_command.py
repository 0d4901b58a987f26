# SPDX-License-Identifier: Apache-2.0
"""`foreseg-train make-cot` and `make-difficulty`: what a teacher adds to a dataset."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from foreseg.errors import ConfigError

if TYPE_CHECKING:
    from foreseg.language.openai_server import ServerSettings
    from foreseg_evaluation.episode import Dataset
    from foreseg_training.samples import Filtered
    from foreseg_training.teacher.asking import AskOptions
    from foreseg_training.teacher.run import Prices, Tally, Teacher

CHAINS_ABOUT = "chains of thought from a teacher, checked against the truth"
RATINGS_ABOUT = "how difficult each question is, by a teacher or from the simulation's scenes"


def add_chain_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `make-cot` takes besides a dataset."""
    _add_teacher(parser, is_required=True)
    parser.set_defaults(run=make_cot)


def add_rating_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `make-difficulty` takes besides a dataset."""
    _add_teacher(parser, is_required=False)
    parser.add_argument(
        "--from-scene", action="store_true", help="compute it: the simulation's datasets only"
    )
    parser.set_defaults(run=make_difficulty)


def _add_teacher(parser: argparse.ArgumentParser, *, is_required: bool) -> None:
    add = parser.add_argument
    add(
        "--teacher", type=Path, required=is_required, metavar="FILE", help="JSON as of openai:FILE"
    )
    add("--out", type=Path, required=True, metavar="DIR", help="a new folder, or that to go on in")
    add("--num-frames", type=int, default=8, help="shown at most; default: 8")
    add("--image-side-px", type=int, default=768, help="longest side as sent; default: 768")
    add("--max-tokens", type=int, default=800, help="of a reply; default: 800")
    add("--temperature", type=float, default=0.7, help="default: 0.7")
    add("--seed", type=int, default=0)
    add("--max-samples", type=int, default=0, help="evenly picked; 0, the default: all")
    add("--tries", type=int, default=3, help="of each sample, where a reply will not do")
    add("--price-in", type=float, metavar="P", help="of a million tokens that are read")
    add("--price-out", type=float, metavar="P", help="of a million tokens that are said")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--workers", type=int, default=4, metavar="N", help="requests at once")
    where.add_argument(
        "--ray", default="", metavar="ADDRESS", help="ask from a Ray cluster instead"
    )


def make_cot(options: argparse.Namespace) -> None:
    """Ask for chains of thought."""
    from foreseg_training.teacher.make_chains import CHAINS, make_chains

    prices, asked = _prices(options), _ask_options(options)
    settings = _settings(options.teacher)
    dataset = _dataset(options)
    with _shown(options, settings, prices) as teacher:
        tally, filtered = make_chains(dataset, options.out, asked, teacher)
    _tell(tally, filtered, prices, options.out / CHAINS)


def make_difficulty(options: argparse.Namespace) -> None:
    """Ask for ratings, or compute them."""
    from foreseg_training.teacher.make_ratings import (
        DIFFICULTIES,
        rate_by_scene,
        rate_by_teacher,
    )

    if options.from_scene == (options.teacher is not None):
        msg = "make-difficulty wants one of --teacher FILE and --from-scene"
        raise ConfigError(msg)
    if options.from_scene:
        count, filtered = rate_by_scene(_dataset(options), options.out)
        sys.stdout.write(f"{count} rated; left out: {str(filtered) or 'none'}\n")
        sys.stdout.write(f"{options.out / DIFFICULTIES}\n")
        return
    prices, asked = _prices(options), _ask_options(options)
    settings = _settings(options.teacher)
    dataset = _dataset(options)
    with _shown(options, settings, prices) as teacher:
        tally, filtered = rate_by_teacher(dataset, options.out, asked, teacher)
    _tell(tally, filtered, prices, options.out / DIFFICULTIES)


def _dataset(options: argparse.Namespace) -> Dataset:
    from foreseg_evaluation.datasets import read_dataset

    dataset = read_dataset(options.dataset, options.form, split=options.split)
    for problem in dataset.problems:
        sys.stderr.write(f"foreseg-train: {problem}\n")
    return dataset


def _ask_options(options: argparse.Namespace) -> AskOptions:
    from foreseg_training.teacher.asking import AskOptions

    return AskOptions(**{field.name: getattr(options, field.name) for field in fields(AskOptions)})


def _prices(options: argparse.Namespace) -> Prices:
    from foreseg_training.teacher.run import Prices

    return Prices(tokens_in=options.price_in, tokens_out=options.price_out)


def _settings(path: Path) -> ServerSettings:
    from foreseg.reasoner.openai_options import OpenAiOptions, server_settings
    from foreseg.reasoner.options import options_from_values, values_from_file

    values = values_from_file(str(path), "openai")
    return server_settings(options_from_values(values, OpenAiOptions(), "openai"))


@contextmanager
def _shown(
    options: argparse.Namespace, settings: ServerSettings, prices: Prices
) -> Iterator[Teacher]:
    """A teacher whose replies move a bar."""
    from tqdm import tqdm

    from foreseg.work.ray_cluster import RayExecutor
    from foreseg.work.threads import ThreadExecutor
    from foreseg_training.teacher.errands import Reply
    from foreseg_training.teacher.run import Tally, Teacher, line_of

    tally = Tally()  # of this time
    with tqdm(unit="sample", desc=settings.model, disable=None) as bar:

        def progress(reply: Reply) -> None:
            tally.add(line_of(reply))
            bar.set_postfix_str(
                f"{tally.statuses['accepted']} accepted,"
                f" {prices.words(tally.tokens_in, tally.tokens_out).partition(':')[0]}",
                refresh=False,
            )
            bar.update()

        yield Teacher(
            settings=settings,
            executor=RayExecutor(options.ray) if options.ray else ThreadExecutor(options.workers),
            tries=options.tries,
            begin=lambda total: bar.reset(total=total),
            progress=progress,
        )


def _tell(tally: Tally, filtered: Filtered, prices: Prices, path: Path) -> None:
    for line in (*tally.lines(prices), f"this time {filtered.told()}", str(path)):
        sys.stdout.write(line + "\n")
