# SPDX-License-Identifier: Apache-2.0
"""What `foreseg replay` may be told of a bag. Light: it is declared with every command line."""

from __future__ import annotations

import argparse

from foreseg.commands.default_reasoner import HELP, default_kind


def add_bag_options(parser: argparse.ArgumentParser) -> None:
    """Declare what is only of bags."""
    group = parser.add_argument_group("of a bag")
    add = group.add_argument
    add("--topic", default="", help="the camera's images, where the bag has several")
    add(
        "--query",
        action="append",
        default=[],
        metavar="TEXT",
        help="what to ask; may be repeated. Without it, what was asked while the bag was recorded,"
        " each question at its time",
    )
    add(
        "--period", type=float, default=0.0, metavar="S", help="ask again every S seconds; 0: once"
    )
    add("--bundle", default="nano", help="engine bundle: a folder, or `nano`")
    add("--reasoner", default=default_kind(), metavar="KIND", help=HELP)
    add("--out", default="foreseg_out", metavar="DIR", help="where the files go")
    add("--no-video", action="store_true", help="no overlay.mp4")
    add("--max-frames", type=int, metavar="N", help="stop after N frames")
    add(
        "--reasoner-s",
        type=float,
        default=1.0,
        metavar="S",
        help="how long an answer takes on the simulated clock (1)",
    )
    add(
        "--tracker-ms",
        type=float,
        default=1.0,
        metavar="MS",
        help="how long a step of the tracker takes there (1: every frame gets masks)",
    )
    add(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a parameter such as tracker.threads=2; may be repeated",
    )
