# SPDX-License-Identifier: Apache-2.0
"""The signs of the papers' ablations, in small: the nano reasoner with one thing changed at a time.

    foreseg-sim generate --preset val-v1 --out val_v1
    .venv/bin/python benchmarks/ablations.py --dataset val_v1 --out runs --bundle FOLDER [--plot ablations.svg]

Each row is a pair of systems that differ in one thing, asked the same questions of clips, offline; the
difference in J&F is taken question by question, what cannot be read counts 0, and intervals are 95 %
of bootstrap resamples over questions. A row whose bundle is not given is left out and named. Which
keyframe, form of prompt and span are worth what is told by oracles: `benchmarks/oracles.py`. Each run stays
in its folder; a stopped command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from foreseg.errors import ForesegError
from foreseg.work.choose import executor_from
from foreseg_evaluation.bootstrap import MeanInterval, mean_interval
from foreseg_evaluation.report.summary import bounds_in_words, episode_score
from foreseg_evaluation.results import EpisodeResult, read_results
from foreseg_evaluation.run import Protocol, RunSpec, run
from foreseg_evaluation.system import SystemConfig

WORLDS = ("shapes", "tabletop")
FORESIGHT = "foresight"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """The nano reasoner with some options; `bundle` is the option of this script that gives its weights."""

    bundle: str = "bundle"
    options: Mapping[str, str | int | bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What is taken away or exchanged, and what the papers found when they did."""

    claim: str
    with_it: str
    without: str
    papers: str


ARMS = {
    "full": Arm(),
    "no thought": Arm(options={"form": "answer-only"}),
    "answer first": Arm(options={"form": "answer-first"}),
    "4 frames": Arm(options={"num_frames": 4}),
    "1 frame": Arm(options={"num_frames": 1}),
    "untrained": Arm(bundle="untrained"),
    "plain thoughts": Arm(bundle="plain"),
    "grpo": Arm(bundle="grpo"),
}
ABLATIONS = (
    Ablation(
        claim="SFT over no training",
        with_it="full",
        without="untrained",
        papers="Veason-R1: its base model 20.9 / 19.5 (J / F)",
    ),
    Ablation(
        claim="GRPO over SFT alone",
        with_it="grpo",
        without="full",
        papers="Veason-R1: SFT alone falls behind",
    ),
    Ablation(
        claim="thoughts over none",
        with_it="full",
        without="no thought",
        papers="Veason-R1: -12.8 / -8.5 without",
    ),
    Ablation(
        claim="thoughts first over answer first",
        with_it="full",
        without="answer first",
        papers="not measured by the papers",
    ),
    Ablation(
        claim="places in the thoughts over none",
        with_it="full",
        without="plain thoughts",
        papers="Veason-R1: its thoughts ground objects in space and time",
    ),
    Ablation(
        claim="12 frames over 4", with_it="full", without="4 frames", papers="VISA: more T_r helps"
    ),
    Ablation(
        claim="12 frames over 1", with_it="full", without="1 frame", papers="VISA: more T_r helps"
    ),
)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", type=Path, required=True, help="in FeVOS's form")
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True, help="of a trained nano reasoner")
    parser.add_argument("--untrained", type=Path, help="a bundle before its training")
    parser.add_argument("--plain", type=Path, help="one whose thoughts say no places")
    parser.add_argument("--grpo", type=Path, help="one after GRPO")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--max-episodes", type=int, default=0)
    parser.add_argument("--plot", type=Path, help="the differences as a picture")
    options = parser.parse_args()
    results = {}
    for name, arm in ARMS.items():
        bundle = getattr(options, arm.bundle)
        if bundle is None:
            print(f"left out: {name} (wants --{arm.bundle})", file=sys.stderr)
            continue
        try:
            results[name] = evaluate(options, name, arm, bundle)
        except ForesegError as error:
            parser.exit(2, f"{parser.prog}: {error}\n")
    for line in table(results):
        print(line)
    if options.plot is not None:
        draw(results, options.plot)


def evaluate(
    options: argparse.Namespace, name: str, arm: Arm, bundle: Path
) -> list[EpisodeResult]:
    """Run one arm over every question."""
    slug = name.replace(" ", "_")
    options.out.mkdir(parents=True, exist_ok=True)
    settings = options.out / f"{slug}.json"
    values = {"bundle": str(bundle.resolve()), "only_familiar": False, **arm.options}
    settings.write_text(json.dumps(values) + "\n")
    spec = RunSpec(
        dataset=options.dataset,
        form="fevos",
        split=options.split,
        protocol=Protocol.OFFLINE,
        system=SystemConfig(name=slug, reasoner=f"nano:{settings}"),
        device="",
        max_episodes=options.max_episodes,
    )
    out = options.out / slug
    with tqdm(desc=name, unit="episode", file=sys.stderr) as bar:

        def begin(total: int) -> None:
            bar.reset(total=total)

        executor = executor_from(workers=options.workers, ray="")
        run(spec, out, executor=executor, begin=begin, progress=bar.update)
    return read_results(out)


def scores(results: Sequence[EpisodeResult]) -> dict[str, float]:
    """J&F of each question, percent; a failed one is 0."""
    return {r.id: episode_score(r).j_and_f if r.is_scored else 0.0 for r in results}


def difference(
    own: Sequence[EpisodeResult], other: Sequence[EpisodeResult], world: str = "", kind: str = ""
) -> MeanInterval:
    """Of J&F, question by question, over those of a world and a kind."""
    first, second = scores(own), scores(other)
    chosen = [r.id for r in own if r.video.startswith(world) and r.kind in (kind, kind or r.kind)]
    return mean_interval([first[id_] - second[id_] for id_ in chosen if id_ in second])


def verdict(interval: MeanInterval) -> str:
    """What the interval says of the sign."""
    if interval.low > 0:
        return "yes"
    return "no" if interval.high < 0 else "not told apart"


def table(results: Mapping[str, Sequence[EpisodeResult]]) -> list[str]:
    """Format the arms, then the pairs."""
    lines = ["| arm | J&F | 95 % |", "|---|---|---|"]
    for name, found in results.items():
        interval = mean_interval(list(scores(found).values()))
        lines.append(f"| {name} | {interval.mean:.1f} | {bounds_in_words(interval)} |")
    worlds = " | ".join(WORLDS)
    lines += [
        "",
        f"| ablation | difference in J&F | 95 % | {FORESIGHT} | {worlds} | sign | papers |",
    ]
    lines.append("|---" * (6 + len(WORLDS)) + "|")
    for ablation in ABLATIONS:
        if ablation.with_it not in results or ablation.without not in results:
            continue
        pair = results[ablation.with_it], results[ablation.without]
        total = difference(*pair)
        parts = [difference(*pair, kind=FORESIGHT), *(difference(*pair, world=w) for w in WORLDS)]
        cells = [f"{part.mean:+.1f}" for part in parts]
        row = [ablation.claim, f"{total.mean:+.1f}", bounds_in_words(total), *cells]
        lines.append("| " + " | ".join([*row, verdict(total), ablation.papers]) + " |")
    return lines


def draw(results: Mapping[str, Sequence[EpisodeResult]], path: Path) -> None:
    """The differences with their intervals, one under the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [a for a in ABLATIONS if a.with_it in results and a.without in results]
    found = [difference(results[a.with_it], results[a.without]) for a in rows]
    figure, axes = plt.subplots(figsize=(7, 0.5 + 0.5 * len(rows)), layout="constrained")
    means = [interval.mean for interval in found]
    errors = [[i.mean - i.low for i in found], [i.high - i.mean for i in found]]
    axes.errorbar(means, range(len(rows)), xerr=errors, fmt="o", capsize=3)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(rows)), [a.claim for a in rows])
    axes.invert_yaxis()
    axes.set_xlabel("difference in J&F, percentage points")
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    main()
