# SPDX-License-Identifier: Apache-2.0
"""Evaluates a dataset episode by episode: resumable, over processes or a cluster, and over shards.

Each episode's result is one file. Running again goes on with those that are missing or failed; the
folders of several machines' shards merge by copying. A crash in an episode is a failed episode with
its error, and so is the death of the process that ran it. Does not know: reports.
"""

from __future__ import annotations

import json
import logging
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from enum import Enum
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from urllib.parse import quote

from foreseg.driving.trace import read_steps
from foreseg.errors import ConfigError, InputError
from foreseg.work.base import Executor, SerialExecutor

from .datasets import read_dataset
from .devices import device_profile
from .episode import Dataset, Episode
from .first_prompts import check_first_prompts
from .offline import predict_offline
from .prediction_files import PredictionFiles
from .problems import DatasetError
from .results import (
    EpisodeResult,
    blank_result,
    read_result,
    result_path,
    result_paths,
    write_result,
)
from .scoring import said_over_time, score_episode, stream_scores
from .streaming import (
    StreamRecord,
    play_episode,
    prediction_by_frame,
    prediction_on_screen,
    record_from_steps,
)
from .system import System, SystemConfig

_log = logging.getLogger(__name__)

_FIRST_SEEN_FORMS = {"sa_v"}
_DIED = "its process died: killed, out of memory, or crashed in native code"


class Protocol(Enum):
    """How masks are asked for."""

    OFFLINE = "offline"
    STREAMING = "streaming"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What is evaluated and how; exactly one of system, predictions, traces.

    Attributes:
        dataset, form, split, rate_hz: as `read_dataset` takes them.
        protocol: how.
        system: what answers.
        predictions: or masks made elsewhere (`prediction_files`); offline only.
        traces: or a folder of `<episode id, percent-encoded>.jsonl`.
        device: whose latencies are assumed; "" = those of the system.
        strict: the first thing wrong with the dataset stops the run.
        shard: (number, of): this run's part of the episodes.
        max_episodes: evenly picked from all; 0 = every one.
        min_seconds: shorter episodes are left out.
    """

    dataset: Path
    form: str
    split: str = ""
    rate_hz: float | None = None
    protocol: Protocol = Protocol.OFFLINE
    system: SystemConfig | None = None
    predictions: Path | None = None
    traces: Path | None = None
    device: str = ""
    strict: bool = False
    shard: tuple[int, int] = (0, 1)
    max_episodes: int = 0
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        given = [x for x in (self.system, self.predictions, self.traces) if x is not None]
        if len(given) != 1:
            msg = "a run wants one of --system, --predictions and --traces"
            raise ConfigError(msg)
        if self.predictions is not None and self.protocol is Protocol.STREAMING:
            msg = (
                "predictions in files have no times: --protocol streaming wants a system or traces"
            )
            raise ConfigError(msg)
        if self.device:
            device_profile(self.device)
            if self.protocol is not Protocol.STREAMING or self.system is None:
                msg = "--device wants --protocol streaming and a system"
                raise ConfigError(msg)

    def record(self) -> dict[str, object]:
        """What must be equal for two runs to be one: all but shard and strictness."""
        source = self.system.name if self.system is not None else self.predictions or self.traces
        return {
            "title": f"{source} on {self.dataset.name} ({self.form}), {self.protocol.value}"
            + (f", latencies of {self.device}" if self.device else ""),
            "dataset": str(self.dataset.resolve()),
            "form": self.form,
            "split": self.split,
            "rate_hz": self.rate_hz,
            "protocol": self.protocol.value,
            "system": None if self.system is None else self.system.name,
            "system_config": None if self.system is None else asdict(self.system),
            "predictions": None if self.predictions is None else str(self.predictions.resolve()),
            "traces": None if self.traces is None else str(self.traces.resolve()),
            "device": self.device,
            "max_episodes": self.max_episodes,
            "min_seconds": self.min_seconds,
        }


class Evaluator:
    """Predicts and scores one episode after the other."""

    def __init__(self, spec: RunSpec, dataset: Dataset) -> None:
        self._spec = spec
        self._system = None if spec.system is None else System(spec.system, dataset)
        self._files = None if spec.predictions is None else PredictionFiles(spec.predictions)

    def evaluate(self, episode: Episode) -> EpisodeResult:
        """Score an episode.

        Raises:
            Exception: whatever the episode's files, system or masks bring up.
        """
        began = time.perf_counter()
        spec = self._spec
        from_first_seen = spec.form in _FIRST_SEEN_FORMS
        if spec.traces is None and spec.protocol is Protocol.OFFLINE:
            if self._files is not None:
                prediction = self._files.predict(episode)
            else:
                assert self._system is not None  # noqa: S101 (RunSpec wants one of them)
                prediction = predict_offline(self._system, episode)
            result = score_episode(episode, prediction, from_first_seen=from_first_seen)
        else:
            record = self._stream(episode)
            is_live = spec.protocol is Protocol.STREAMING
            choose = prediction_on_screen if is_live else prediction_by_frame
            result = score_episode(
                episode, choose(record, episode), from_first_seen=from_first_seen
            )
            if is_live:
                scores = {**result.scores, **stream_scores(episode, record)}
                answered = {**result.answered, "over_time": said_over_time(record)}
                result = replace(result, scores=scores, answered=answered)
        return replace(result, seconds=time.perf_counter() - began)

    def close(self) -> None:
        """Close the engines."""
        if self._system is not None:
            self._system.close()

    def _stream(self, episode: Episode) -> StreamRecord:
        if self._spec.traces is not None:
            path = _trace_path(self._spec.traces, episode)
            return record_from_steps(read_steps(path), episode)
        assert self._system is not None  # noqa: S101 (RunSpec wants one of them)
        device = self._spec.device
        latencies = device_profile(device).latencies if device else None
        return play_episode(self._system, episode, latencies)


def run(
    spec: RunSpec,
    out: Path,
    *,
    executor: Executor | None = None,
    begin: Callable[[int], None] = lambda _total: None,
    progress: Callable[[int], object] = lambda _count: None,
) -> Dataset:
    """Evaluate what is not done yet; results land in `out`.

    Args:
        spec: what and how.
        out: a new folder, or that of the same run.
        executor: what the episodes are spread over; None or serial: this process does them.
        begin: called with the number of episodes.
        progress: called with how many more are done.

    Returns:
        The dataset, as read.

    Raises:
        ConfigError: `out` holds another run, parts that cannot be built, or a system that cannot
            do what the dataset wants.
        DatasetError: an unreadable dataset; with `strict`, the first problem.
    """
    dataset = _dataset(spec)
    episodes = chosen(spec, dataset)
    if episodes and not any(episode.scored for episode in episodes):
        split = f"split {dataset.split!r}" if dataset.split else "this part"
        msg = f"{spec.dataset}: {split} comes without truth: nothing can be scored"
        raise ConfigError(msg)
    if spec.system is not None and any(episode.question is None for episode in episodes):
        check_first_prompts(spec.system.reasoner)
    if spec.traces is not None:
        _check_traces(spec.traces, episodes)
    evaluator = Evaluator(spec, dataset)  # finds what cannot work before anything is written
    try:
        begin_run(spec, out, dataset)
        todo = [episode for episode in episodes if not _is_done(out, episode)]
        for episode in todo:  # what failed before is tried again, and must not pass for done
            result_path(out, episode.id).unlink(missing_ok=True)
        begin(len(episodes))
        progress(len(episodes) - len(todo))
        if executor is None or isinstance(executor, SerialExecutor):
            for episode in todo:
                write_result(out, attempt(evaluator, episode, strict=spec.strict))
                progress(1)
            return dataset
    finally:
        evaluator.close()
    _evaluate_elsewhere(spec, out, todo, executor, progress)
    return dataset


def _trace_path(folder: Path, episode: Episode) -> Path:
    return folder / f"{quote(episode.id, safe='')}.jsonl"


def _check_traces(folder: Path, episodes: Sequence[Episode]) -> None:
    """Refuse a folder that has no trace at all; that some are missing, their episodes say.

    Raises:
        ConfigError: with the name of one that was sought.
    """
    wanted = [_trace_path(folder, episode) for episode in episodes]
    if wanted and not any(path.is_file() for path in wanted):
        msg = f"{folder} has none of the {len(wanted)} traces, such as {wanted[0].name}"
        raise ConfigError(msg)


def _dataset(spec: RunSpec) -> Dataset:
    return read_dataset(
        spec.dataset,
        spec.form,
        split=spec.split,
        strict=spec.strict,
        rate_hz=spec.rate_hz,
        wants_frames=spec.system is not None,
    )


def chosen(spec: RunSpec, dataset: Dataset) -> list[Episode]:
    """The episodes of this shard.

    Offline, those whose truth changes are left out: one answer over the whole cannot follow it.
    """
    is_live = spec.protocol is Protocol.STREAMING
    episodes = [
        episode
        for episode in dataset.episodes
        if episode.duration_s >= spec.min_seconds and (is_live or len(episode.spans) <= 1)
    ]
    if spec.max_episodes and spec.max_episodes < len(episodes):
        step = len(episodes) / spec.max_episodes
        episodes = [episodes[int(i * step)] for i in range(spec.max_episodes)]
    number, of = spec.shard
    return list(episodes[number::of])


def attempt(evaluator: Evaluator, episode: Episode, *, strict: bool) -> EpisodeResult:
    """Evaluate an episode; what goes wrong becomes a failed result with the error.

    Raises:
        DatasetError: if strict.
    """
    try:
        return evaluator.evaluate(episode)
    except DatasetError as error:
        if strict:
            raise
        return failed_result(episode, str(error))
    except Exception as error:  # noqa: BLE001 (an episode must not take the others with it)
        _log.warning("episode %s failed\n%s", episode.id, traceback.format_exc())
        return failed_result(episode, f"{type(error).__name__}: {error}")


def failed_result(episode: Episode, error: str) -> EpisodeResult:
    """Make the record of an episode without a score."""
    return replace(blank_result(episode), status="failed", error=error)


def begin_run(spec: RunSpec, out: Path, dataset: Dataset) -> None:
    """Write `run.json`, or check that the one there is of the same run.

    Raises:
        ConfigError: it is of another one; says what differs.
    """
    path = out / "run.json"
    record = json.loads(json.dumps(spec.record()))
    if path.is_file():
        before = read_run(out)
        differing = [k for k in record if before.get(k) != record[k]]
        if differing:
            what = "; ".join(f"{k} was {before.get(k)!r}, is {record[k]!r}" for k in differing)
            msg = f"{out} holds another run ({what}): choose another --out"
            raise ConfigError(msg)
        return
    out.mkdir(parents=True, exist_ok=True)
    about = {
        **record,
        "created": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "versions": _versions(),
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "assumptions": list(dataset.assumptions),
        "problems": [str(problem) for problem in dataset.problems],
    }
    if spec.device:
        about["note"] = device_profile(spec.device).note
    path.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def read_run(folder: Path) -> dict[str, object]:
    """Read `run.json`.

    Raises:
        InputError: the folder holds no run.
    """
    try:
        record = json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError) as error:
        msg = f"{folder} holds no run of foreseg-eval ({error})"
        raise InputError(msg) from error
    if not isinstance(record, dict):
        msg = f"{folder}/run.json is no run of foreseg-eval"
        raise InputError(msg)
    return record


def merge_runs(folders: Sequence[Path], out: Path) -> None:
    """Copy the results of shards into one folder; a scored episode wins over a failed one.

    Raises:
        ConfigError: runs that differ in more than place and time.
        InputError: a folder that holds no run.
    """
    ignored = {"title", "created", "versions", "machine", "dataset", "predictions", "traces"}
    first = read_run(folders[0])
    for folder in folders[1:]:
        other = read_run(folder)
        differing = [k for k in first if k not in ignored and first[k] != other.get(k)]
        if differing:
            msg = f"{folders[0]} and {folder} are different runs: {', '.join(differing)} differ"
            raise ConfigError(msg)
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").write_text(json.dumps(first, indent=1) + "\n", encoding="utf-8")
    for folder in folders:
        for path in result_paths(folder):
            target = out / "episodes" / path.name
            if not target.is_file() or not read_result(target).is_scored:
                target.parent.mkdir(exist_ok=True)
                if path.resolve() != target.resolve():
                    shutil.copyfile(path, target)


def _is_done(out: Path, episode: Episode) -> bool:
    path = result_path(out, episode.id)
    try:
        return path.is_file() and read_result(path).is_scored
    except DatasetError:
        return False  # cut off while it was written by something else: made anew


def _versions() -> dict[str, str]:
    found = {}
    for name in ("foreseg", "numpy", "opencv-python-headless", "onnxruntime"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


# ---- elsewhere ----

_known: tuple[RunSpec, Evaluator, dict[str, Episode]] | None = None


def _evaluate_elsewhere(
    spec: RunSpec,
    out: Path,
    todo: Sequence[Episode],
    executor: Executor,
    progress: Callable[[int], object],
) -> None:
    """Only this process writes: others need the dataset, and not the run's folder."""
    whole = replace(
        spec,
        dataset=spec.dataset.resolve(),
        predictions=None if spec.predictions is None else spec.predictions.resolve(),
        traces=None if spec.traces is None else spec.traces.resolve(),
    )
    outcomes = executor.run(partial(_evaluated, spec=whole), [episode.id for episode in todo])
    with closing(outcomes):
        for outcome in outcomes:
            dead = failed_result(todo[outcome.index], _DIED)
            write_result(out, outcome.values[0] if outcome.values else dead)
            progress(1)


def _evaluated(episode_id: str, spec: RunSpec) -> EpisodeResult:
    """The result of an episode; the dataset and the engines stay for the next one."""
    global _known  # noqa: PLW0603 (what a worker keeps between episodes)
    if _known is None or _known[0] != spec:
        import cv2

        cv2.setNumThreads(1)
        if _known is not None:
            _known[1].close()
            _known = None
        dataset = _dataset(spec)
        evaluator = Evaluator(spec, dataset)
        _known = spec, evaluator, {episode.id: episode for episode in dataset.episodes}
    _, evaluator, episodes = _known
    return attempt(evaluator, episodes[episode_id], strict=spec.strict)
