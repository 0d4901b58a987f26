# SPDX-License-Identifier: Apache-2.0
"""What a box leaves open and points settle, told without a tracker: GrabCut on one frame.

    foreseg-sim generate --preset val-v2 --out val_v2
    .venv/bin/python benchmarks/prompts.py --dataset val_v2

Each target is cut out of the frame that shows most of it, from its true box, and from the box, a point on it
and one beside it, by OpenCV's GrabCut (Rother et al., SIGGRAPH 2004), which knows colours alone, and heeds
points. Intervals are 95 % of bootstrap resamples over targets.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from foreseg.errors import ForesegError
from foreseg.frames import U8Array
from foreseg.masks import Mask
from foreseg.prompts import SpatialPrompt
from foreseg_evaluation.bootstrap import mean_interval
from foreseg_evaluation.datasets import read_dataset
from foreseg_evaluation.episode import Episode
from foreseg_evaluation.metrics import region_similarity
from foreseg_evaluation.prompt_forms import PromptForm, prompt_of

FORMS = {"box": PromptForm.BOX, "box and points": PromptForm.BOX_POINTS}
_AROUND_PX = 20  # of background that GrabCut sees
_POINT_PX = 2
_ROUNDS = 3
_LEAST_PX = 30


def main() -> None:
    """Cut out every target in both ways, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", type=Path, required=True, help="in FeVOS's form")
    parser.add_argument("--split", default="val")
    options = parser.parse_args()
    try:
        dataset = read_dataset(options.dataset, "fevos", split=options.split)
    except ForesegError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    rows = np.array([row for episode in dataset.episodes for row in scores(episode)])
    print(f"{len(rows)} targets\n\n| prompt | J | 95 % |\n|---|---|---|")
    values = {**dict(zip(FORMS, rows.T, strict=True)), "difference": rows[:, 1] - rows[:, 0]}
    for name, own in values.items():
        interval = mean_interval(own).scaled(100)
        print(f"| {name} | {interval.mean:.1f} | {interval.low:.1f} to {interval.high:.1f} |")


def scores(episode: Episode) -> Iterator[list[float]]:
    """J of every target on its best frame, by form of prompt."""
    for object_id in episode.spans[0].object_ids:
        masks = ((p, episode.media.mask(object_id, p)) for p in episode.annotated)
        shown = [(int(np.count_nonzero(m)), -p, m) for p, m in masks if m is not None]
        area, place, truth = max(shown, key=lambda item: item[:2])
        if area >= _LEAST_PX:
            image = episode.image(-place)
            prompts = [prompt_of(form, truth) for form in FORMS.values()]
            yield [region_similarity(truth, cut_out(image, prompt)) for prompt in prompts]


def cut_out(image: U8Array, prompt: SpatialPrompt) -> Mask:
    """GrabCut (H, W) from a prompt with a box; seeded."""
    assert prompt.box is not None  # noqa: S101 (both forms have one)
    x0, y0, x1, y1 = (round(c) for c in prompt.box)
    labels = np.full(image.shape[:2], cv2.GC_BGD, dtype=np.uint8)
    labels[y0:y1, x0:x1] = cv2.GC_PR_FGD
    for point in prompt.points:
        label = cv2.GC_FGD if int(point.label) == 1 else cv2.GC_BGD
        cv2.circle(labels, (int(point.x), int(point.y)), _POINT_PX, label, -1)
    rows = slice(max(0, y0 - _AROUND_PX), y1 + _AROUND_PX)
    columns = slice(max(0, x0 - _AROUND_PX), x1 + _AROUND_PX)
    seen = np.ascontiguousarray(image[rows, columns])
    found = np.ascontiguousarray(labels[rows, columns])
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(seen, found, None, *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    mask: Mask = np.zeros(image.shape[:2], dtype=np.bool_)
    mask[rows, columns] = (found == cv2.GC_FGD) | (found == cv2.GC_PR_FGD)
    return mask


if __name__ == "__main__":
    main()
