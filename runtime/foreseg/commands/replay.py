# SPDX-License-Identifier: Apache-2.0
"""`foreseg replay TRACE`: the recorded events again, without any engine."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foreseg.dialogue import Answer

MAX_ANSWERS_SHOWN = 20


def add_command(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare it."""
    parser = subparsers.add_parser(
        "replay",
        help="feed a trace to the pipeline again and compare its commands",
        description="Replays a trace.jsonl without engines; exit code 1 if a command differs.",
    )
    parser.add_argument("trace", metavar="TRACE", help="a trace.jsonl written by foreseg")
    parser.set_defaults(handler=replay_trace)


def replay_trace(arguments: argparse.Namespace) -> int:
    """Replay and report."""
    from foreseg.driving.trace import replay

    path = Path(arguments.trace)
    report = replay(path)
    is_same = not report.first_difference
    print(f"{path}: {report.num_events} events, {report.num_commands} commands")
    print("commands: identical" if is_same else f"commands DIFFER, {report.first_difference}")
    if report.gap:
        print(f"the trace ends before its run did: {report.gap}")
    counters = report.state.counters
    if counters:
        width = max(map(len, counters))
        print("counters:")
        for name, value in sorted(counters.items()):
            print(f"  {name.ljust(width)}  {value}")
    answers = list(_answers(path))
    print(f"answers: {len(answers)}")
    for answer in answers[:MAX_ANSWERS_SHOWN]:
        keyframe = "-" if answer.keyframe_index is None else str(answer.keyframe_index)
        words = answer.text or answer.reason
        print(f"  {answer.status.name}  {answer.query_text!r} -> {words!r} (keyframe {keyframe})")
    if len(answers) > MAX_ANSWERS_SHOWN:
        print(f"  and {len(answers) - MAX_ANSWERS_SHOWN} more")
    return 0 if is_same else 1


def _answers(path: Path) -> Iterator[Answer]:
    """The answers that a valid trace published."""
    from foreseg.driving.trace import decode
    from foreseg.pipeline.events import PublishAnswer

    with path.open(encoding="utf-8") as file:
        for line in file:
            if '"PublishAnswer"' in line:
                for command in json.loads(line)["commands"]:
                    if command["type"] == PublishAnswer.__name__:
                        published = decode(PublishAnswer, command)
                        assert isinstance(published, PublishAnswer)  # noqa: S101 (decoded as one)
                        yield published.answer
