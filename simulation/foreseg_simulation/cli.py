# SPDX-License-Identifier: Apache-2.0
"""`foreseg-sim`: generate datasets of simulated worlds, look at them, list their scenes.

An operator's mistake is one sentence on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from foreseg.cli import BAD_INPUT, DONE, INTERRUPTED, Parser
from foreseg.errors import ForesegError
from foreseg.work.base import Executor
from foreseg.work.choose import add_workers, executor_from

from .drawings import DrawingsCommand, generate_drawings
from .generation import SPLITS, Command, generate
from .worlds import World, scenes_of

PRESETS = {
    "val-v1": Command(
        worlds=(World.SHAPES, World.TABLETOP), clips=100, streams=12, seed=20260501, split="val"
    ),
    "val-v2": Command(
        worlds=(World.SHAPES,), clips=0, streams=0, longs=60, seed=20261129, split="val"
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as leaving:  # --help, or a mistake that was named
        return leaving.code if isinstance(leaving.code, int) else BAD_INPUT
    if arguments.handler is None:
        parser.print_help()
        return BAD_INPUT
    try:
        arguments.handler(arguments)
    except (ForesegError, OSError) as error:
        sys.stderr.write(f"foreseg-sim: {error}\n")
        return BAD_INPUT
    except KeyboardInterrupt:
        sys.stderr.write("\nforeseg-sim: interrupted; the same command goes on from here\n")
        return INTERRUPTED
    return DONE


def _parser() -> Parser:
    parser = Parser(prog="foreseg-sim", description=__doc__.partition("\n\n")[0])
    parser.set_defaults(handler=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    _add_generate(commands.add_parser("generate", help="write a dataset"))
    _add_preview(commands.add_parser("preview", help="draw scenes with masks and questions"))
    listing = commands.add_parser("scenes", help="list the scenes of every world")
    listing.set_defaults(handler=_scenes)
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(handler=_generate)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="the dataset's folder")
    add("--preset", choices=sorted(PRESETS), help="a fixed set; sets all but --world and --out")
    add("--world", action="append", type=_world, help="repeatable; default: shapes")
    add("--clips", type=int, help="short clips of each world (default 0)")
    add("--streams", type=int, help="stream episodes of each world (default 0)")
    add("--long", type=int, help="long clips of the shapes world's stories (default 0)")
    add("--drawings", type=int, help="stories as small raw arrays to train from; nothing else")
    add("--max-mb", type=int, default=2000, metavar="MB", help="of drawings (default 2000)")
    add("--seed", type=int, help="of everything (default 0)")
    add("--split", choices=SPLITS, help="default: train")
    add(
        "--size",
        type=_size,
        metavar="WxH",
        help="of the frames (default 320x240, drawings 112x84)",
    )
    add_workers(parser, default=2)


def _generate(arguments: argparse.Namespace) -> None:
    executor = executor_from(workers=arguments.workers, ray=arguments.ray)
    own = ("clips", "streams", "long", "seed", "split", "size")
    given = {name: value for name in own if (value := getattr(arguments, name)) is not None}
    worlds = tuple(arguments.world or ())
    if arguments.drawings is not None:
        _draw(arguments, given, executor)
        return
    if arguments.preset is None:
        command = Command(
            worlds=worlds or (World.SHAPES,),
            clips=given.get("clips", 0),
            streams=given.get("streams", 0),
            longs=given.get("long", 0),
            seed=given.get("seed", 0),
            split=given.get("split", "train"),
            size_wh=given.get("size", (320, 240)),
        )
    elif given or worlds:
        named = ", ".join(f"--{name}" for name in [*given, *(["world"] if worlds else [])])
        msg = f"--preset {arguments.preset} is fixed; leave out {named}"
        raise _UsageError(msg)
    else:
        command = PRESETS[arguments.preset]
    summary = generate(command, arguments.out, executor=executor)
    counts = summary["counts"]
    print(f"{arguments.out}: {counts['videos']} videos, {counts['frames']} frames")
    for what in ("types", "skills", "scenes"):
        print(f"{what}: " + ", ".join(f"{name} {n}" for name, n in counts[what].items()))
    for kind, share in summary["share_hard"].items():
        print(f"hard among the foresight questions of {kind}s: {share:.0%}")


def _draw(arguments: argparse.Namespace, given: dict[str, Any], executor: Executor) -> None:
    """Draw stories for training: no dataset of pictures, so clips and presets have no place."""
    others: list[str] = [name for name in ("clips", "streams", "long") if name in given]
    others += [name for name in ("preset", "world") if getattr(arguments, name)]
    if others:
        named = ", ".join(f"--{name}" for name in others)
        msg = f"--drawings makes a folder of drawings alone; leave out {named}"
        raise _UsageError(msg)
    command = DrawingsCommand(
        stories=arguments.drawings,
        seed=given.get("seed", 0),
        split=given.get("split", "train"),
        size_wh=given.get("size", (112, 84)),
        max_bytes=arguments.max_mb * 1_000_000,
    )
    counts = generate_drawings(command, arguments.out, executor=executor)["counts"]
    print(f"{arguments.out}: {counts['drawings']} drawings, {counts['samples']} samples")
    print(f"{counts['bytes'] / 1e6:.0f} MB; --form drawings reads it")


def _add_preview(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(handler=_preview)
    add = parser.add_argument
    add("--world", type=_world, default=World.SHAPES, help="default: shapes")
    add("--scene", help="only this one")
    add("--stories", type=int, metavar="N", help="long clips of stories instead, a row each")
    add("--split", choices=SPLITS, default="val", help="of the stories (default val)")
    add("--seed", type=int, default=0, help="of the clips (default 0)")
    add("--out", type=Path, required=True, metavar="FILE", help="a .png or .mp4")


def _preview(arguments: argparse.Namespace) -> None:
    from .preview import write_preview, write_stories_preview

    if arguments.stories is not None:
        write_stories_preview(arguments.seed, arguments.split, arguments.stories, arguments.out)
        print(arguments.out)
        return
    write_preview(arguments.world, arguments.scene, arguments.seed, arguments.out)
    print(arguments.out)


def _scenes(_arguments: argparse.Namespace) -> None:
    for world in World:
        for name in scenes_of(world):
            print(f"{world.value} {name}")


class _UsageError(ForesegError):
    """Options that do not go together."""


def _world(text: str) -> World:
    try:
        return World(text)
    except ValueError as error:
        known = ", ".join(world.value for world in World)
        msg = f"no world is called {text!r}; expected one of {known}"
        raise argparse.ArgumentTypeError(msg) from error


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    if found is None:
        msg = f"{text!r} is no size; expected width x height as in 320x240"
        raise argparse.ArgumentTypeError(msg)
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    sys.exit(main())
