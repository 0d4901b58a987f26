# SPDX-License-Identifier: Apache-2.0
"""What a command line of our programs means to ROS, and what of it would be ignored without a word.

ROS passes over arguments that are not its own, and over a parameter file whose sections name other
nodes. Does not know: what the parameters are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import yaml
from rclpy.exceptions import ParameterException
from rclpy.utilities import remove_ros_args

from foreseg.errors import ForesegError

HELP: Final = frozenset({"-h", "--help"})
# What the start of a node raises for a wrong argument; rcl's own errors are RuntimeErrors.
WRONG_ARGUMENTS: Final = (ForesegError, ParameterException, RuntimeError)
_PARAMETERS: Final = "ros__parameters"
_PARTS: Final = {"**": r"(/[^/]+)*", "*": r"/[^/]+"}


def usage(program: str, more: str) -> str:
    """How the program is started, in lines; `more` ends them."""
    return (
        f"{program} takes ROS's arguments alone:\n"
        f"  ros2 run foreseg {program} --ros-args -p NAME:=VALUE -r NAME:=TOPIC --params-file FILE\n"
        f"{more}"
    )


def program_arguments(arguments: Sequence[str] | None) -> list[str]:
    """The words behind the program's name, which are all of `arguments` where these are given."""
    return sys.argv[1:] if arguments is None else list(arguments)


def stray_words(arguments: Sequence[str]) -> list[str]:
    """What of the words, all of them behind the program's name, ROS would pass over.

    Raises:
        RuntimeError: rcl cannot read them.
    """
    return list(remove_ros_args(["program", *arguments])[1:])


def stray_text(program: str, words: Sequence[str]) -> str:
    """What to say of them."""
    told = " ".join(map(repr, words))
    return (
        f"{program} takes ROS's arguments alone, behind --ros-args (--help tells more), got {told}"
    )


def unread_files(arguments: Sequence[str], node_name: str) -> list[str]:
    """A line for each parameter file that has no section for a node.

    Args:
        arguments: of the program; rcl has read them, and their files, without an error.
        node_name: with its namespace, as /robot/foreseg.
    """
    told = []
    for option, file in pairwise(arguments):
        if option != "--params-file":
            continue
        # as rcl reads it: no value is made of the texts
        try:
            tree = yaml.compose(Path(file).read_bytes(), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, OSError) as error:  # rcl has taken it, so the node starts
            reason = " ".join(str(error).split())
            told.append(f"parameter file {file} was not looked at for other nodes: {reason}")
            continue
        sections = list(_sections(tree, ""))
        if not any(_is_for(section, node_name) for section in sections):
            has = f"it names {', '.join(sections)}" if sections else "it is empty"
            told.append(
                f"parameter file {file} has no section {node_name} or /**, so nothing in it counts"
                f" here: {has}"
            )
    return told


def _sections(tree: yaml.Node | None, prefix: str) -> Iterator[str]:
    """Names of nodes, or patterns of them, whose parameters a file has."""
    if not isinstance(tree, yaml.MappingNode):
        return
    for key, value in tree.value:
        if key.value == _PARAMETERS:
            yield prefix
        else:
            yield from _sections(value, f"{prefix}/{str(key.value).strip('/')}")


def _is_for(section: str, node_name: str) -> bool:
    parts = section.strip("/").split("/")
    pattern = "".join(_PARTS.get(part, f"/{re.escape(part)}") for part in parts)
    return re.fullmatch(pattern, node_name) is not None
