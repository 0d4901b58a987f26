# SPDX-License-Identifier: Apache-2.0
"""What an installation puts on the path: each program's own `main`, or what it lacks, in a sentence.

A program's modules import what it cannot do without at their top; without this, an installation that lacks
a package would answer with a traceback. Does not know: what the programs do.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

BAD_INPUT = 2


def node() -> int:
    """`foreseg_node`."""
    return _run("foreseg_node", "foreseg_ros.node", _ROS)


def view() -> int:
    """`foreseg_view`."""
    return _run("foreseg_view", "foreseg_ros.view.node", _ROS)


def export() -> int:
    """`foreseg-export`."""
    return _run("foreseg-export", "foreseg_export.cli", _extra("export"))


def simulate() -> int:
    """`foreseg-sim`."""
    return _run("foreseg-sim", "foreseg_simulation.cli", _extra("simulation"))


def evaluate() -> int:
    """`foreseg-eval`."""
    return _run("foreseg-eval", "foreseg_evaluation.cli", _extra("evaluation"))


def train() -> int:
    """`foreseg-train`."""
    return _run("foreseg-train", "foreseg_training.cli", _extra("train"))


_ROS = "is ROS 2 sourced, and a workspace with foreseg_msgs? `source /opt/ros/jazzy/setup.bash`, then the workspace's own"


def _extra(name: str) -> str:
    return f"install it with `pip install 'foreseg[{name}]'`"


def _run(program: str, module: str, advice: str) -> int:
    try:
        with _silent_interrupt():
            main = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        package = str(error.name)
        if package.startswith("foreseg") and package != "foreseg_msgs":
            raise  # a part of ours that is not there is a fault, not an extra
        sys.stderr.write(f"{program} needs the package {package!r}: {advice}\n")
        return BAD_INPUT
    ended: int | None = main()
    return ended or 0


@contextmanager
def _silent_interrupt() -> Iterator[None]:
    """Until a program can end in order, ^C ends it as it ends any other: without a traceback."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, or somebody else's
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is signal.default_int_handler:
            signal.signal(signal.SIGINT, before)
