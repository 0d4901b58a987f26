# SPDX-License-Identifier: Apache-2.0
"""`foreseg replay`: a trace's events again, without any engine; or a bag's images (`bag_replay`)."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from foreseg.commands.replay_options import add_bag_options

if TYPE_CHECKING:
    from foreseg.dialogue import Answer
    from foreseg.pipeline.events import Command

MAX_ANSWERS_SHOWN = 20


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "replay",
        help="feed a trace to the pipeline again and compare its commands; or play a bag",
        description="Replays a trace.jsonl without engines; exit code 1 if a command differs. Plays a"
        " bag's images through tracker and reasoner, on a simulated clock: twice the same.",
    )
    parser.add_argument(
        "trace",
        metavar="TRACE|BAG",
        help="a trace.jsonl written by foreseg; or a bag, of `foreseg record` or any other recorder",
    )
    add_bag_options(parser)
    parser.set_defaults(handler=replay)


def replay(arguments: argparse.Namespace) -> int:
    """Replay what it is."""
    from foreseg.media.bags import is_bag

    if is_bag(Path(arguments.trace).expanduser()):
        from foreseg.commands.bag_replay import replay_bag

        return replay_bag(arguments)
    return replay_trace(arguments)


def replay_trace(arguments: argparse.Namespace) -> int:
    """Replay and report."""
    from foreseg.driving.trace import replay as replayed
    from foreseg.pipeline.events import PublishAnswer

    path = Path(arguments.trace)
    answers: list[Answer] = []  # the first ones
    num_answers = 0

    def take(command: Command) -> None:
        nonlocal num_answers
        if isinstance(command, PublishAnswer):
            num_answers += 1
            if len(answers) < MAX_ANSWERS_SHOWN:
                answers.append(command.answer)

    report = replayed(path, take)
    is_same = not report.first_difference
    print(f"{path}: {report.num_events} events, {report.num_commands} commands")
    if report.cut_line:
        print(f"line {report.cut_line}, the last, is cut and left out: as a crash leaves it")
    print("commands: identical" if is_same else f"commands DIFFER, {report.first_difference}")
    if report.gap:
        print(f"the trace ends before its run did: {report.gap}")
    counters = report.state.counters
    if counters:
        width = max(map(len, counters))
        print("counters:")
        for name, value in sorted(counters.items()):
            print(f"  {name.ljust(width)}  {value}")
    print(f"answers: {num_answers}")
    for answer in answers:
        keyframe = "-" if answer.keyframe_index is None else str(answer.keyframe_index)
        words = answer.text or answer.reason
        print(f"  {answer.status.name}  {answer.query_text!r} -> {words!r} (keyframe {keyframe})")
    if num_answers > len(answers):
        print(f"  and {num_answers - len(answers)} more")
    return 0 if is_same else 1
