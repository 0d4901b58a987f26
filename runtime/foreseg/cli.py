# SPDX-License-Identifier: Apache-2.0
"""`foreseg`: the command line of the core; other packages add subcommands by entry point.

An operator's mistake is one sentence on stderr and exit code 2. Each command is a module of
`foreseg.commands`, and what it needs is imported when it runs.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import entry_points
from typing import NoReturn

from foreseg import __version__
from foreseg.errors import ForesegError

COMMAND_GROUP = "foreseg.commands"
DONE = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130  # as shells have it: 128 + SIGINT

Handler = Callable[[argparse.Namespace], int]
Subparsers = argparse._SubParsersAction  # noqa: SLF001 (argparse has no public name for it)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Leave with `BAD_INPUT`."""
        sys.stderr.write(f"{self.prog}: {message} (see {self.prog} --help)\n")
        sys.exit(BAD_INPUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = make_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as leaving:  # --help, --version, or a mistake that was named
        return leaving.code if isinstance(leaving.code, int) else BAD_INPUT
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.ERROR,
        format="%(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    if not arguments.verbose:
        os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")  # its warnings are not for operators
    handler: Handler | None = getattr(arguments, "handler", None)
    if handler is None:
        parser.print_help()
        return BAD_INPUT
    with ended_as_by_ctrl_c():
        return _run(handler, arguments)


@contextmanager
def ended_as_by_ctrl_c() -> Iterator[None]:
    """SIGTERM, and SIGHUP of a terminal that closes, end a command with its files whole.

    What is ignored, as under nohup, stays ignored. Without effect outside of the main thread.
    """

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    taken = []
    with suppress(ValueError):  # it is not the main thread
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, interrupt)
                taken.append(number)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def _run(handler: Handler, arguments: argparse.Namespace) -> int:
    try:
        code = handler(arguments)
        sys.stdout.flush()
    except ForesegError as error:
        _say(f"foreseg: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("\nforeseg: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # somebody reads only the first lines
        _forget_output()
        return DONE
    except OSError as error:  # a disk that is full, a terminal that has closed
        logging.getLogger(__name__).info("it came from here:", exc_info=True)
        place = f"{error.filename}: " if error.filename else ""
        _say(f"foreseg: {place}{error.strerror or error}")
        _forget_output()
        return FAILED
    return code


def _say(text: str) -> None:
    with suppress(OSError):  # nobody is there any more
        sys.stderr.write(text + "\n")


def _forget_output() -> None:
    """What is still to be printed would only fail again as the interpreter ends."""
    with suppress(OSError):  # it is none of the system's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def make_parser() -> Parser:
    """The command line with all its commands."""
    parser = Parser(
        prog="foreseg",
        description="Foresight queries over a camera or video, answered with masks that track.",
    )
    parser.add_argument("--version", action="version", version=f"foreseg {__version__}")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="log what the parts say of themselves"
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", parser_class=Parser)
    _add_own(commands)
    for entry in sorted(entry_points(group=COMMAND_GROUP), key=lambda entry: entry.name):
        entry.load()(commands)
    return parser


def _add_own(commands: Subparsers[Parser]) -> None:
    from foreseg.commands import bundle, doctor, replay, run

    for module in (run, replay, doctor, bundle):
        module.add_command(commands)


if __name__ == "__main__":
    sys.exit(main())
