# SPDX-License-Identifier: Apache-2.0
"""Every shipped system beside the others, offline and streaming, on one dataset: one table.

    foreseg-sim generate --preset val-v1 --out val_v1
    .venv/bin/python benchmarks/baselines.py --dataset val_v1 --out runs [--workers 2]

Streaming runs assume the latencies of `--device` (default: one CPU core, measured), so that the table
repeats on any machine. Each run stays in its folder with its report; a stopped command goes on where
it was. Intervals are 95 % of bootstrap resamples over episodes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from foreseg.errors import ForesegError
from foreseg.work.choose import executor_from
from foreseg_evaluation.cli import finish
from foreseg_evaluation.report import Summary, bounds_in_words, number_in_words, summarise
from foreseg_evaluation.results import EpisodeResult, read_results
from foreseg_evaluation.run import Protocol, RunSpec, run
from foreseg_evaluation.system import read_system, shipped_systems

STREAM_SECONDS = 20.0  # the streaming rows are of episodes at least this long
STREAM_SCORES = {
    "J&F 1 s after answer": ("j_and_f_after_answer_1s", 100),
    "first mask, s": ("time_to_first_mask_s", 1),
    "no answer, %": ("no_answer_share", 100),
    "wrong target, %": ("wrong_target_share", 100),
}
ARMS = {"oracle-best-box", "oracle-best-points", "oracle-random-span"}  # `benchmarks/oracles.py`


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="in FeVOS's form")
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--systems", nargs="+", default=None, metavar="NAME")
    parser.add_argument("--device", default="cpu-core", help="latencies of the streaming runs")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-episodes", type=int, default=0)
    parser.add_argument("--json", type=Path, help="the figures, for machines")
    options = parser.parse_args()
    names = options.systems or [name for name in shipped_systems() if name not in ARMS]
    rows = []
    try:
        for protocol in Protocol:
            for name in names:
                began = time.monotonic()
                results = evaluate(options, name, protocol)
                rows.append((name, protocol, results, time.monotonic() - began))
    except ForesegError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    for line in table(rows):
        print(line)
    if options.json is not None:
        figures = {f"{n} {p.value}": summarise(r).total.j_and_f.mean for n, p, r, _ in rows}
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def evaluate(options: argparse.Namespace, name: str, protocol: Protocol) -> list[EpisodeResult]:
    """Run one system under one protocol."""
    spec = RunSpec(
        dataset=options.dataset,
        form="fevos",
        split=options.split,
        protocol=protocol,
        system=read_system(name),
        device=options.device if protocol is Protocol.STREAMING else "",
        max_episodes=options.max_episodes,
        min_seconds=STREAM_SECONDS if protocol is Protocol.STREAMING else 0.0,
    )
    out = options.out / f"{protocol.value}_{name}"
    with tqdm(desc=f"{protocol.value} {name}", unit="episode", file=sys.stderr) as bar:

        def begin(total: int) -> None:
            bar.reset(total=total)

        executor = executor_from(workers=options.workers, ray="")
        run(spec, out, executor=executor, begin=begin, progress=bar.update)
    if not (out / "report.html").is_file():
        finish(out)
    return read_results(out)


def table(
    rows: Sequence[tuple[str, Protocol, list[EpisodeResult], float]],
) -> list[str]:
    """Format both protocols, foresight questions by difficulty beside the total."""
    lines = []
    for protocol in Protocol:
        own = [row for row in rows if row[1] is protocol]
        streams = list(STREAM_SCORES) if protocol is Protocol.STREAMING else []
        head = ["system", "J&F", "95 %", "J", "F", "foresight easy", "foresight hard"]
        head += ["descriptive", "no target", "right target, %", "ans, %", *streams, "failed"]
        lines += ["", f"{protocol.value}:", "", "| " + " | ".join(head) + " |"]
        lines.append("|---" * len(head) + "|")
        for name, _, results, _ in own:
            lines.append("| " + " | ".join(cells(name, results, streams)) + " |")
    return lines


def cells(name: str, results: list[EpisodeResult], streams: list[str]) -> list[str]:
    """One row."""
    summary = summarise(results)
    total = summary.total
    row = [
        name,
        number_in_words(total.j_and_f.mean),
        bounds_in_words(total.j_and_f),
        number_in_words(total.j.mean),
        number_in_words(total.f.mean),
    ]
    for kind, difficulty in (("foresight", "easy"), ("foresight", "hard")):
        part = [r for r in results if r.kind == kind and r.difficulty == difficulty]
        row.append(mean_cell(summarise(part)))
    by_kind = ([r for r in results if r.kind == kind] for kind in ("descriptive", "no_target"))
    row += [mean_cell(summarise(part)) for part in by_kind]
    row += [score_cell(summary, name, 100) for name in ("right_target", "answer_accuracy")]
    row += [score_cell(summary, *STREAM_SCORES[title]) for title in streams]
    return [*row, str(total.num_failed)]


def mean_cell(summary: Summary) -> str:
    """J&F and how many episodes it is of."""
    total = summary.total
    return f"{total.j_and_f.mean:.1f} ({total.num_scored})" if total.num_scored else "-"


def score_cell(summary: Summary, name: str, factor: float) -> str:
    """A further score, if any episode has it."""
    interval = summary.scores.get(name)
    return "-" if interval is None or not interval.count else f"{factor * interval.mean:.1f}"


if __name__ == "__main__":
    main()
