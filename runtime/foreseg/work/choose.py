# SPDX-License-Identifier: Apache-2.0
"""Which executor a command line asks for: `--workers N`, or `--ray ADDRESS`."""

from __future__ import annotations

import argparse

from foreseg.errors import InputError
from foreseg.work.base import Executor, SerialExecutor
from foreseg.work.processes import ProcessExecutor
from foreseg.work.ray_cluster import RayExecutor


def add_workers(parser: argparse.ArgumentParser, *, default: int) -> None:
    """Declare the two options, of which one may be given."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=int, default=default, metavar="N", help=f"processes (default {default})"
    )
    where.add_argument(
        "--ray",
        default="",
        metavar="ADDRESS",
        help="work on a Ray cluster instead: `auto`, HOST:PORT, or `local` for one on this machine",
    )


def executor_from(*, workers: int, ray: str) -> Executor:
    """What the options ask for.

    Raises:
        InputError: no worker.
    """
    if ray:
        return RayExecutor(ray)
    if workers < 1:
        msg = f"--workers wants at least 1, got {workers}"
        raise InputError(msg)
    return SerialExecutor() if workers == 1 else ProcessExecutor(workers)
