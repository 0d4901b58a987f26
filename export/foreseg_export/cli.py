# SPDX-License-Identifier: Apache-2.0
"""`foreseg-export COMMAND`: the command line of this package. Each command is a module of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from foreseg.cli import BAD_INPUT, FAILED, INTERRUPTED, Parser
from foreseg.errors import EngineError, ForesegError
from foreseg_export import (
    build_command,
    reasoner_command,
    sam2_command,
    seg_command,
    vlm_command,
)

COMMANDS = (sam2_command, build_command, vlm_command, seg_command, reasoner_command)


def make_parser() -> Parser:
    """The command line with all its commands."""
    parser = Parser(prog="foreseg-export", description="Make engine bundles of checkpoints.")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_command(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code.

    0; 1 after one line that says what was not good enough to keep; 2 after one line that says
    which input is wrong.
    """
    arguments = make_parser().parse_args(argv)
    try:
        return int(arguments.handler(arguments))
    except (ForesegError, OSError) as error:
        print(f"foreseg-export: {error}", file=sys.stderr)
        return FAILED if isinstance(error, EngineError) else BAD_INPUT
    except KeyboardInterrupt:
        print("\nforeseg-export: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
