# SPDX-License-Identifier: Apache-2.0
"""`foreseg replay BAG`: a recording through the whole loop again, on a simulated clock.

The same bag, questions and durations give the same answers and masks, byte for byte; `digest` is how
two replays are held against each other.
"""

from __future__ import annotations

import argparse
import hashlib
import math
from pathlib import Path

from foreseg.commands.options import RunOptions, config_from_words
from foreseg.commands.run import run_source
from foreseg.dialogue import Query, QueryId
from foreseg.driving.player import Latencies
from foreseg.errors import InputError
from foreseg.media.bags import AskedThen, BagSource, RecordedAnswer, questions_of

NS = 1_000_000_000
MAX_ANSWERS_SHOWN = 20
MAX_DURATION_S = 3600.0
BLOCK_BYTES = 1 << 20


def replay_bag(arguments: argparse.Namespace) -> int:
    """Play it, write the files of `foreseg run`, and say what was answered then and now.

    Raises:
        ForesegError: an operator's mistake.
    """
    path = Path(arguments.trace).expanduser()
    latencies = Latencies(
        tracker_ns=_duration_ns("--tracker-ms", arguments.tracker_ms, 1000.0),
        reasoner_ns=_duration_ns("--reasoner-s", arguments.reasoner_s, 1.0),
    )
    if arguments.max_frames is not None and arguments.max_frames < 1:
        msg = f"--max-frames wants at least 1, got {arguments.max_frames}"
        raise InputError(msg)
    words = [f"tracker.bundle={arguments.bundle}", f"reasoner.kind={arguments.reasoner}"]
    with BagSource(path, topic=arguments.topic) as source:
        recorded = source.answers()
        asked = _questions(arguments, recorded, source.origin_ns)
        if not asked:
            msg = f"{path} has no answers that tell what was asked: give --query TEXT"
            raise InputError(msg)
        options = RunOptions(
            source=source.name,
            queries=tuple(one.query for one in asked),
            prompts=(),
            config=config_from_words([*words, *arguments.set]),
            out=Path(arguments.out).expanduser(),
            has_video=not arguments.no_video,
            max_frames=arguments.max_frames,
            is_live=False,
            has_rationale=any(one.query.want_rationale for one in asked),
            latencies=latencies,
            asked_ns={one.query.id: one.at_ns for one in asked},
        )
        code = run_source(options, source)
        _print_recorded(recorded, source.origin_ns)
    print(f"digest of answers, tracks and masks: {digest(options.out)}")
    return code


def digest(out: Path) -> str:
    """SHA-256 over what a run found: its answers, its tracks, and every mask, by name."""
    whole = hashlib.sha256()
    for path in (out / "answers.jsonl", out / "tracks.jsonl", *sorted((out / "masks").iterdir())):
        whole.update(f"{path.name} {path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(BLOCK_BYTES):
                whole.update(block)
    return whole.hexdigest()


def _questions(
    arguments: argparse.Namespace, recorded: list[RecordedAnswer], origin_ns: int
) -> tuple[AskedThen, ...]:
    if not arguments.query:
        return questions_of(recorded, origin_ns)
    return tuple(
        AskedThen(
            query=Query(id=QueryId(f"query-{i}"), text=text, period_s=arguments.period), at_ns=0
        )
        for i, text in enumerate(arguments.query, start=1)
    )


def _duration_ns(name: str, value: float, per_s: float) -> int:
    seconds = value / per_s
    if not (math.isfinite(seconds) and 0 < seconds <= MAX_DURATION_S):
        msg = f"{name} wants a number above 0 and at most {MAX_DURATION_S * per_s:g}, got {value}"
        raise InputError(msg)
    return max(1, round(seconds * NS))


def _print_recorded(recorded: list[RecordedAnswer], origin_ns: int) -> None:
    """What was answered while the bag was recorded, to be read beside what is answered now."""
    if recorded:
        print(f"answered while it was recorded: {len(recorded)}")
    for answer in recorded[:MAX_ANSWERS_SHOWN]:
        asked_s = (answer.asked_ns - origin_ns) / NS
        words = f"{answer.query_text!r} -> {answer.words!r}"
        print(f"  {answer.status.name}  {words} (asked at {asked_s:.1f} s)")
    if len(recorded) > MAX_ANSWERS_SHOWN:
        print(f"  and {len(recorded) - MAX_ANSWERS_SHOWN} more")
