# SPDX-License-Identifier: Apache-2.0
"""What choosing a keyframe, a form of prompt and a span is worth, told by oracles: one table.

    foreseg-sim generate --long 30 --seed 20261129 --split val --out long    # the first of val-v2
    .venv/bin/python benchmarks/oracles.py --dataset long --questions 40

All arms know the true targets and have the same tracker; they differ in where they point, and how. Masks
are tracked offline over the frames from the first that shows a target to the last, and an eighth as many
on either side; there J&F is taken of every frame. Questions without a target are left out: there is nothing
to point at. Intervals are 95 % of bootstrap resamples over questions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from foreseg.errors import ForesegError
from foreseg.frames import U8Array
from foreseg.masks import Mask, mask_from_rle
from foreseg_evaluation.bootstrap import mean_interval
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.episode import Episode, Media
from foreseg_evaluation.metrics import boundary_f, region_similarity
from foreseg_evaluation.offline import predict_offline
from foreseg_evaluation.reasoners import random_span
from foreseg_evaluation.results import TARGET
from foreseg_evaluation.system import System, SystemConfig

MOST_FRAMES = 90  # tracked for one question; longer ones are left out
ARMS = {
    "a box on the first frame that shows a target": "oracle_box",
    "a box on the frame that shows most of the targets": "oracle_best_box",
    "there, with a point on the target and one beside it": "oracle_best_points",
    "a box on the best frame of a random span, as long as the true one": "oracle_random_span",
}
FIRST, BEST, POINTS, RANDOM = ARMS.values()
PAIRS = {
    "best frame - first frame": (BEST, FIRST),
    "box and points - box": (POINTS, BEST),
    "true span - random span": (BEST, RANDOM),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cropped:
    """The media of some frames of a video."""

    inner: Media
    first: int

    def image(self, position: int) -> U8Array:
        """Read a frame, (H, W, 3) RGB."""
        return self.inner.image(position + self.first)

    def mask(self, object_id: str, position: int) -> Mask | None:
        """Read an object's mask (H, W)."""
        return self.inner.mask(object_id, position + self.first)

    def void(self, position: int) -> Mask | None:
        """Read the pixels (H, W) that are not judged."""
        return self.inner.void(position + self.first)

    def foreground(self, position: int) -> Mask | None:
        """Read the union (H, W) of all that is annotated."""
        return self.inner.foreground(position + self.first)


def main() -> None:
    """Run every arm over every question, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="in FeVOS's form")
    parser.add_argument("--split", default="val")
    parser.add_argument("--tracker", default="nano", help="a bundle's name or folder")
    parser.add_argument("--questions", type=int, default=40, help="at most")
    parser.add_argument("--json", type=Path, help="what each question scored, for machines")
    options = parser.parse_args()
    try:
        dataset = read_dataset(options.dataset, "fevos", split=options.split)
    except ForesegError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    tasks = [task for task in map(task_of, dataset.episodes) if task is not None]
    step = max(1.0, len(tasks) / options.questions)
    tasks = [tasks[int(k * step)] for k in range(min(len(tasks), options.questions))]
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in ARMS.values()}
    systems = {
        arm: System(SystemConfig(name=arm, reasoner=_kind(arm), tracker=options.tracker), dataset)
        for arm in found
    }
    for episode, overlap in tqdm(tasks, file=sys.stderr):
        for arm, system in systems.items():
            shown = replace(episode, annotated=overlap) if arm == RANDOM else episode
            found[arm].append(score(system, shown, episode))
    if options.json is not None:
        options.json.write_text(json.dumps({"ids": [e.id for e, _ in tasks], **found}) + "\n")
    for line in table(found):
        print(line)


def _kind(arm: str) -> str:
    """The random span is chosen over the whole video, before it is cropped."""
    return BEST if arm == RANDOM else arm


def task_of(episode: Episode) -> tuple[Episode, tuple[int, ...]] | None:
    """A question with targets, cropped, and the positions there that a random span shows."""
    if not episode.spans[0].object_ids:
        return None
    shown = [p for p in episode.annotated if episode.truth(p).any()]
    length = shown[-1] - shown[0] + 1
    around = -(-length // 8)
    first = max(0, shown[0] - around)
    end = min(episode.num_frames, shown[-1] + 1 + around)
    if end - first > MOST_FRAMES:
        return None
    span = random_span(episode.id, episode.num_frames, length)
    overlap = tuple(p - first for p in shown if p in span)
    everywhere = tuple(range(end - first))
    cropped = replace(
        episode,
        frame_names=episode.frame_names[first:end],
        annotated=everywhere,
        scored=everywhere,
        spans=(replace(episode.spans[0], end=end - first),),
        media=Cropped(inner=episode.media, first=first),
    )
    return cropped, overlap


def score(system: System, shown: Episode, episode: Episode) -> tuple[float, float]:
    """J&F in percent over all frames, and over those that show a target."""
    masks = predict_offline(system, shown).masks[TARGET]
    values, seen = [], []
    for position in episode.annotated:
        truth = episode.truth(position)
        found = masks.get(position)
        mask = np.zeros_like(truth) if found is None else mask_from_rle(found)
        values.append(50 * (region_similarity(truth, mask) + boundary_f(truth, mask)))
        if truth.any():
            seen.append(values[-1])
    return float(np.mean(values)), float(np.mean(seen))


def table(found: Mapping[str, Sequence[tuple[float, float]]]) -> list[str]:
    """One line an arm, then one a difference."""
    count = len(next(iter(found.values())))
    head = "J&F | 95 % | J&F where a target shows | 95 %"
    lines = [f"{count} questions with a target", "", f"| where, and how | {head} |"]
    lines.append("|---|---|---|---|---|")
    for about, arm in ARMS.items():
        lines.append(f"| {about} | {cells(np.array(found[arm]), '.1f')} |")
    lines += ["", f"| difference, by pairs | {head} |", "|---|---|---|---|---|"]
    for about, (one, other) in PAIRS.items():
        differences = np.array(found[one]) - np.array(found[other])
        lines.append(f"| {about} | {cells(differences, '+.1f')} |")
    return lines


def cells(values: np.ndarray, form: str) -> str:
    """Means and bounds of both columns."""
    intervals = [mean_interval(values[:, k]) for k in (0, 1)]
    return " | ".join(f"{i.mean:{form}} | {i.low:{form}} to {i.high:{form}}" for i in intervals)


if __name__ == "__main__":
    main()
