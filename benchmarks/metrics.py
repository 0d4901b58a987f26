# SPDX-License-Identifier: Apache-2.0
"""J + F of ours against the formula written out over full frames, on the same masks, in one run.

    python benchmarks/metrics.py [--masks FOLDER] [--json FILE]

The reference is what the official evaluators compute, and how: boundary maps by shifts, one
dilation by scikit-image's disk, sums in numpy. Truth: outlines with lobes at 854x480, or the
masks of a folder (PNG, nonzero on objects, resized to 854x480). Answer: the truth grown, shifted
and cut. One thread; each side takes the best of `--rounds` per pair, in turn. The bar is five
times as fast over all pairs, with no difference above 1e-9.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import disk
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "evaluation"))

from foreseg_evaluation.metrics import boundary_f, region_similarity

SIZE_WH = (854, 480)
BAR = 5.0
TOLERANCE = 1e-9
AREAS = {"small": 0.01, "medium": 0.06, "large": 0.2}  # of the frame, roughly

BoolArray = NDArray[np.bool_]
U8Array = NDArray[np.uint8]
Pair = tuple[BoolArray, BoolArray]
Scores = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    masks: str
    pairs: int
    reference_ms_p50: float  # J + F of one pair
    reference_ms_p99: float
    ours_ms_p50: float
    ours_ms_p99: float
    speed_up: float  # of the sums over all pairs
    largest_difference: float  # of J or F

    @property
    def passes(self) -> bool:
        """Whether the values are equal; the speed is judged over all pairs."""
        return self.largest_difference <= TOLERANCE


def reference(truth: BoolArray, prediction: BoolArray) -> Scores:
    union = np.sum(truth | prediction)
    j = np.sum(truth & prediction) / union if union else 1.0
    element = disk(int(np.ceil(0.008 * np.linalg.norm(truth.shape)))).astype(np.uint8)
    true_edge, own_edge = _reference_boundary(truth), _reference_boundary(prediction)
    near_true = cv2.dilate(true_edge.astype(np.uint8), element)
    near_own = cv2.dilate(own_edge.astype(np.uint8), element)
    num_true, num_own = np.sum(true_edge), np.sum(own_edge)
    if not num_true or not num_own:
        return float(j), float(num_true == num_own)
    precision = np.sum(own_edge * near_true) / num_own
    recall = np.sum(true_edge * near_own) / num_true
    total = precision + recall
    return float(j), float(2 * precision * recall / total) if total else 0.0


def _reference_boundary(mask: BoolArray) -> BoolArray:
    east, south, across = np.zeros((3, *mask.shape), dtype=bool)
    east[:, :-1] = mask[:, 1:]
    south[:-1] = mask[1:]
    across[:-1, :-1] = mask[1:, 1:]
    edge = (mask ^ east) | (mask ^ south) | (mask ^ across)
    edge[-1] = mask[-1] ^ east[-1]
    edge[:, -1] = mask[:, -1] ^ south[:, -1]
    edge[-1, -1] = False
    return edge


def ours(truth: BoolArray, prediction: BoolArray) -> Scores:
    return region_similarity(truth, prediction), boundary_f(truth, prediction)


def made_pairs(count: int, seed: int) -> dict[str, list[Pair]]:
    """Draw lobed outlines of three sizes, some of them cut by the frame's border."""
    rng = np.random.default_rng(seed)
    return {
        name: [_with_answer(_lobed(rng, area), rng) for _ in range(count)]
        for name, area in AREAS.items()
    }


def _lobed(rng: np.random.Generator, area: float) -> U8Array:
    width, height = SIZE_WH
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    radii = np.full(angles.shape, np.sqrt(area * width * height / np.pi))
    for lobes in (2, 3, 5, 9):
        radii = radii * (1 + rng.uniform(0, 0.25) * np.cos(lobes * angles + rng.uniform(0, 6.28)))
    centre = rng.uniform((0.1 * width, 0.1 * height), (0.9 * width, 0.9 * height))
    points = centre + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    mask = np.zeros((height, width), dtype=np.uint8)
    return cv2.fillPoly(mask, [points.astype(np.int32)], 1)


def _with_answer(truth: U8Array, rng: np.random.Generator) -> Pair:
    width, height = SIZE_WH
    shift = np.array([[1, 0, rng.integers(-6, 7)], [0, 1, rng.integers(-6, 7)]], dtype=np.float64)
    answer = cv2.warpAffine(truth, shift, SIZE_WH, flags=cv2.INTER_NEAREST)
    answer = cv2.dilate(answer, np.ones((int(rng.integers(1, 6)), 3), dtype=np.uint8))
    x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
    answer[y : y + 30, x : x + 60] = 0
    return truth.astype(bool), answer.astype(bool)


def read_pairs(folder: Path, count: int, seed: int) -> dict[str, list[Pair]]:
    """Read up to `count` masks of a folder, evenly spread."""
    files = sorted(path for path in folder.glob("*.png") if path.name[0] != ".")
    if not files:
        msg = f"{folder}: no PNG files, expected a folder of masks"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    pairs = []
    for file in files[:: max(1, len(files) // count)][:count]:
        mask = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if mask is None:
            msg = f"{file}: not a readable PNG"
            raise ValueError(msg)
        mask = cv2.resize(mask, SIZE_WH, interpolation=cv2.INTER_NEAREST)
        pairs.append(_with_answer((mask > 0).astype(np.uint8), rng))
    return {folder.name: pairs}


def measure(name: str, pairs: list[Pair], rounds: int) -> tuple[Row, float, float]:
    sides: tuple[Callable[[BoolArray, BoolArray], Scores], ...] = (reference, ours)
    best = np.full((len(sides), len(pairs)), np.inf)
    difference = 0.0
    for i, pair in enumerate(tqdm(pairs, desc=name, unit="pair", leave=False, disable=None)):
        values = np.array([side(*pair) for side in sides])
        difference = max(difference, float(np.abs(values[0] - values[1]).max()))
        for _ in range(rounds):
            for number, side in enumerate(sides):
                start = time.perf_counter_ns()
                side(*pair)
                best[number, i] = min(best[number, i], (time.perf_counter_ns() - start) / 1e6)
    p50, p99 = np.quantile(best, [0.5, 0.99], axis=1)
    theirs, own = map(float, best.sum(axis=1))
    row = Row(
        masks=name,
        pairs=len(pairs),
        reference_ms_p50=float(p50[0]),
        reference_ms_p99=float(p99[0]),
        ours_ms_p50=float(p50[1]),
        ours_ms_p99=float(p99[1]),
        speed_up=theirs / own,
        largest_difference=difference,
    )
    return row, theirs, own


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--masks", type=Path, help="a folder of PNG masks, instead of made ones")
    parser.add_argument("--pairs", type=int, default=20, help="of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="the best counts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    args = parser.parse_args()
    if min(args.pairs, args.rounds) < 1:
        parser.error("--pairs and --rounds must be at least 1")
    cv2.setNumThreads(1)
    try:
        sets = (
            read_pairs(args.masks, args.pairs, args.seed)
            if args.masks
            else made_pairs(args.pairs, args.seed)
        )
    except ValueError as error:
        parser.error(str(error))
    measured = [measure(name, pairs, args.rounds) for name, pairs in sets.items()]
    rows = [row for row, _, _ in measured]
    speed_up = sum(theirs for _, theirs, _ in measured) / sum(own for *_, own in measured)
    print(
        f"J + F per pair of masks, {SIZE_WH[0]}x{SIZE_WH[1]}; {platform.machine()}, 1 thread,"
        f" numpy {np.__version__}, OpenCV {cv2.__version__}, best of {args.rounds} after a warm-up"
    )
    print(
        f"{'masks':>24} {'pairs':>6} {'reference ms p50':>17} {'p99':>7} {'ours ms p50':>12}"
        f" {'p99':>7} {'speed-up':>9} {'difference':>11}"
    )
    for row in rows:
        print(
            f"{row.masks:>24} {row.pairs:>6} {row.reference_ms_p50:>17.3f}"
            f" {row.reference_ms_p99:>7.3f} {row.ours_ms_p50:>12.3f} {row.ours_ms_p99:>7.3f}"
            f" {row.speed_up:>9.1f} {row.largest_difference:>11.1e}"
        )
    passes = speed_up >= BAR and all(row.passes for row in rows)
    print(f"all: {speed_up:.1f} times as fast, bar {BAR:.0f}: {'ok' if passes else 'MISSED'}")
    if args.json:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    return 0 if passes else 1


if __name__ == "__main__":
    sys.exit(main())
