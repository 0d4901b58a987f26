# SPDX-License-Identifier: Apache-2.0
"""`foreseg-eval`: scores a system, a folder of predictions, or traces, and writes the report."""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from foreseg.cli import BAD_INPUT, DONE, FAILED, INTERRUPTED, Parser
from foreseg.errors import ConfigError, ForesegError, InputError
from foreseg.reasoner.calibration import write_calibration
from foreseg.work.choose import add_workers, executor_from

from .calibration import answers_of, fit_calibration, reliability
from .datasets import FORMS, read_dataset
from .devices import DEVICES
from .episode import Dataset, Episode
from .report import (
    OfficialTable,
    Summary,
    bounds_in_words,
    episode_score,
    number_in_words,
    official_table,
    record_from_official,
    record_from_summary,
    summarise,
    write_report,
)
from .results import EpisodeResult, read_results
from .run import Protocol, RunSpec, merge_runs, read_run, run
from .system import read_system, shipped_systems

_SHOWN = 8  # problems, failures

_EXAMPLES = """examples:
  foreseg-sim generate --world shapes --clips 20 --seed 1 --split val --out worlds
  foreseg-eval --dataset worlds --form fevos --system kinematic --out runs/kinematic
  foreseg-eval --dataset worlds --form fevos --system nano --protocol streaming --out runs/live
  foreseg-eval --dataset DAVIS --form davis2017 --system first-frame-mask --out runs/davis
  foreseg-eval --dataset ReVOS --form revos --predictions my_pngs --out runs/mine
  foreseg-eval --merge machine_a machine_b --out runs/all
  foreseg-eval --out runs/kinematic --compare runs/mine      (the report anew, beside another run)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, evaluate, write, print; exit 2 for wrong input."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        sys.exit(_run(options))
    except (ForesegError, ValueError, OSError) as error:
        sys.stderr.write(f"foreseg-eval: {error}\n")
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.stderr.write("\nforeseg-eval: stopped; the same command goes on from here\n")
        sys.exit(INTERRUPTED)


def make_parser() -> Parser:
    """The command line."""
    parser = Parser(
        prog="foreseg-eval",
        description=__doc__,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--dataset", type=Path, help="its root folder")
    parser.add_argument("--form", help=f"one of {', '.join(FORMS)}")
    parser.add_argument("--split", default="", help="the form's own default, if left out")
    parser.add_argument("--rate-hz", type=float, help="frames per second, if not as declared")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--system", help=f"a YAML file, or one of {', '.join(shipped_systems())}")
    what.add_argument("--predictions", type=Path, help="masks made elsewhere: PNGs or JSON")
    what.add_argument("--traces", type=Path, help="a folder with a trace for each episode")
    what.add_argument("--merge", type=Path, nargs="+", metavar="RUN", help="shards' --out folders")
    protocols = [protocol.value for protocol in Protocol]
    parser.add_argument("--protocol", choices=protocols, default="offline")
    parser.add_argument(
        "--device", default="", help=f"predict streaming on one of {', '.join(DEVICES)}"
    )
    parser.add_argument("--out", type=Path, required=True, help="the run's folder; resumable")
    parser.add_argument("--compare", type=Path, metavar="RUN", help="beside it in the report")
    parser.add_argument(
        "--fit-calibration",
        type=Path,
        metavar="FILE",
        help="also fit the confidences of this run; for the parameter reasoner.calibration",
    )
    add_workers(parser, default=1)
    parser.add_argument("--shard", default="0/1", metavar="I/N", help="part I of N, from 0")
    parser.add_argument(
        "--max-episodes", type=int, default=0, help="evenly picked; 0 = every episode"
    )
    parser.add_argument(
        "--min-seconds", type=float, default=0.0, help="leave shorter episodes out"
    )
    parser.add_argument("--strict", action="store_true", help="stop at the first thing wrong")
    return parser


def _run(options: argparse.Namespace) -> int:
    for name, least in (("max_episodes", 0), ("min_seconds", 0)):
        if not getattr(options, name) >= least:
            msg = (
                f"--{name.replace('_', '-')} wants at least {least}, got {getattr(options, name)}"
            )
            raise InputError(msg)
    if options.merge:
        merge_runs(options.merge, options.out)
    elif options.dataset is not None:
        _evaluate(options)
    elif options.system or options.predictions or options.traces:
        msg = "--system, --predictions and --traces want --dataset and --form"
        raise ConfigError(msg)
    code = finish(options.out, options.compare)
    if options.fit_calibration is not None:
        _fit_calibration(options.out, options.fit_calibration)
    return code


def _fit_calibration(run_folder: Path, path: Path) -> None:
    fitted = fit_calibration(answers_of(read_results(run_folder)), str(run_folder))
    write_calibration(path, fitted)
    sys.stdout.write(
        f"{path}: fitted on {fitted.answers} answers; expected calibration error"
        f" {100 * fitted.ece_before:.1f} % before, {100 * fitted.ece_after:.1f} % on answers left out\n"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    if options.form not in FORMS:
        msg = f"--form wants one of {', '.join(FORMS)}; got {options.form!r}"
        raise ConfigError(msg)
    spec = RunSpec(
        dataset=options.dataset,
        form=options.form,
        split=options.split,
        rate_hz=options.rate_hz,
        protocol=Protocol(options.protocol),
        system=None if options.system is None else read_system(options.system),
        predictions=options.predictions,
        traces=options.traces,
        device=options.device,
        strict=options.strict,
        shard=_shard(options.shard),
        max_episodes=options.max_episodes,
        min_seconds=options.min_seconds,
    )
    executor = executor_from(workers=options.workers, ray=options.ray)
    with tqdm(unit="episode", desc=options.system or "episodes", disable=None) as bar:

        def begin(total: int) -> None:
            bar.reset(total=total)

        dataset = run(spec, options.out, executor=executor, begin=begin, progress=bar.update)
    _tell_problems(dataset)


def _shard(text: str) -> tuple[int, int]:
    number, slash, of = text.partition("/")
    if not (slash and number.isdigit() and of.isdigit() and int(number) < int(of)):
        msg = f"--shard wants I/N with 0 <= I < N, as 0/4; got {text!r}"
        raise InputError(msg)
    return int(number), int(of)


def _tell_problems(dataset: Dataset) -> None:
    for assumption in dataset.assumptions:
        sys.stderr.write(f"assumed: {assumption}\n")
    for problem in dataset.problems[:_SHOWN]:
        sys.stderr.write(f"left out: {problem}\n")
    if len(dataset.problems) > _SHOWN:
        sys.stderr.write(f"left out: {len(dataset.problems) - _SHOWN} more, see run.json\n")


def finish(out: Path, compare: Path | None = None) -> int:
    """Write `results.json`, `results.csv` and `report.html` of a run's folder, and print.

    Returns:
        1 if there are results, and every episode failed; else 0.

    Raises:
        InputError: no run, or one without results.
    """
    about = read_run(out)
    results = read_results(out)
    if not results:
        msg = f"{out} has no result: the dataset has no episode for this run"
        raise InputError(msg)
    if compare is not None:
        read_run(compare)
    summary = summarise(results)
    trust = reliability(answers_of(results))
    episodes = _episodes(about)
    table = _official_table(str(about.get("form", "")), results, episodes)
    official = {} if table is None else {"official": record_from_official(table)}
    honest = {"calibration": asdict(trust)} if trust.answers else {}
    record = {**record_from_summary(summary), **official, **honest, "run": about}
    (out / "results.json").write_text(
        json.dumps(_without_nan(record), indent=1) + "\n", encoding="utf-8"
    )
    _write_csv(out / "results.csv", results)
    page = write_report(out, compare=compare, episodes=episodes, official=table)
    sys.stdout.write(f"{about.get('title', out)}\n")
    _print(summary, table, results, page)
    if trust.answers:
        sys.stdout.write(
            f"confidence: expected calibration error {100 * trust.ece:.1f} % over"
            f" {trust.answers} answers\n"
        )
    return FAILED if summary.total.num_scored == 0 else DONE


def _official_table(
    form: str, results: Sequence[EpisodeResult], episodes: Mapping[str, Episode] | None
) -> OfficialTable | None:
    if form == "ref_davis_classic" and episodes is not None:
        from .unsupervised import unsupervised_table

        return unsupervised_table(results, episodes)
    return official_table(form, results)


def _episodes(about: Mapping[str, object]) -> Mapping[str, Episode] | None:
    """The episodes' frames for the report; None where the dataset is not at hand."""
    root = Path(str(about.get("dataset", "")))
    if not root.exists():
        return None
    rate_hz = about.get("rate_hz")
    dataset = read_dataset(
        root,
        str(about.get("form", "")),
        split=str(about.get("split", "")),
        rate_hz=rate_hz if isinstance(rate_hz, float) else None,
        wants_frames=False,
    )
    return {episode.id: episode for episode in dataset.episodes}


def _write_csv(path: Path, results: Sequence[EpisodeResult]) -> None:
    names = sorted({name for result in results for name in result.scores})
    facts = ["id", "video", "expression_id", "kind", "skill", "difficulty", "status", "error"]
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        said = ["question", "answer", "said", "answered"]
        writer.writerow([*facts, *said, "j_and_f", "j", "f", *names])
        for result in results:
            own = episode_score(result)
            numbers = [own.j_and_f, own.j, own.f, *(result.scores.get(n, math.nan) for n in names)]
            writer.writerow(
                [
                    *(getattr(result, fact) for fact in facts),
                    result.question,
                    result.answer,
                    result.answered.get("status", ""),
                    result.answered.get("answer", ""),
                    *("" if math.isnan(n) else f"{n:.6g}" for n in numbers),
                ]
            )
    partial.replace(path)


def _without_nan(value: object) -> object:
    """NaN is no JSON: null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return value


def _print(
    summary: Summary,
    official: OfficialTable | None,
    results: Sequence[EpisodeResult],
    page: Path,
) -> None:
    total = summary.total
    spread = total.j_and_f
    bounds = "" if math.isnan(spread.low) else f" (95 % of resamples: {bounds_in_words(spread)})"
    headline = (
        f"J&F {number_in_words(spread.mean)}{bounds}, J {number_in_words(total.j.mean)},"
        f" F {number_in_words(total.f.mean)}; {total.num_scored} episodes scored"
        + (f", {total.num_failed} failed" if total.num_failed else "")
    )
    groups = (*summary.kinds, *summary.difficulties)
    lines = [headline]
    lines += [
        f"  {g.name}: J&F {number_in_words(g.j_and_f.mean)} ({g.num_scored})" for g in groups
    ]
    for name, values in () if official is None else official.rows:
        pairs = zip(official.columns, values, strict=True) if official is not None else ()
        lines.append(f"  {name}: " + ", ".join(f"{c} {number_in_words(v)}" for c, v in pairs))
    abstained = summary.scores.get("abstained")
    if abstained is not None and abstained.mean > 0:
        lines.append(
            f"  abstained: {100 * abstained.mean:.1f} % of the answers said that the question cannot"
            " be answered; that is never right, not even where nothing fits"
        )
    failed = [result for result in results if not result.is_scored]
    lines += [f"  failed: {result.id}: {result.error}" for result in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        lines.append(f"  failed: {len(failed) - _SHOWN} more, see the report")
    sys.stdout.write("\n".join([*lines, str(page)]) + "\n")


if __name__ == "__main__":
    main()
